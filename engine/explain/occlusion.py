"""Which words the answer hangs on: each left out in turn, and the change of the predicted probability.

This asks the model itself, where attention weights only show what was averaged (Zeiler and Fergus 2014 did it to images;
Li, Monroe and Jurafsky 2016, to words). What is left out is the word's characters, so that the rest is tokenized as any text.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

from ..text.inputs import Item
from ..text.outputs import Floats
from .attentions import Attentions, WordEffect
from .words import words

MOST_RUNS = 128  # of a text; beyond, neighbouring words are left out together


def occlude(shown: Attentions, predict: Callable[[list[Item]], Floats]) -> Attentions:
    """Measure the effect of each word, in one call.

    Args:
        shown: A text with its prediction.
        predict: Gives the scores ``[n, labels]`` of texts and pairs; the classifier's ``predict_proba``.

    Returns:
        The same with its ``effects``.
    """
    spans = read_spans(shown)
    units = _units(shown, spans)
    texts = [_without(shown, spans, None), *(_without(shown, spans, unit) for unit in units)]
    scores = predict(texts)  # [1 + units, labels]
    label = list(shown.probabilities).index(shown.prediction["label"])
    changes = scores[0, label] - scores[1:, label]  # [units]
    effects = []
    for (segment, start, end), change in zip(units, changes.tolist(), strict=True):
        word = _texts(shown)[segment][start:end]
        effects.append(WordEffect(word=word, start=start, end=end, segment=segment, change=change))
    return dataclasses.replace(shown, effects=tuple(effects))


def read_spans(shown: Attentions) -> list[tuple[int, int]]:
    """Return for each text the part that the model read: of one that was cut, what the tokens cover."""
    spans = []
    for segment, text in enumerate(_texts(shown)):
        read = [offset for offset, owner in zip(shown.offsets, shown.segments, strict=True) if owner == segment]
        cut = shown.truncated and read
        spans.append((min(start for start, _ in read), max(end for _, end in read)) if cut else (0, len(text)))
    return spans


def _texts(shown: Attentions) -> list[str]:
    return [shown.text] if shown.text_pair is None else [shown.text, shown.text_pair]


def _units(shown: Attentions, spans: list[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """List what is left out, as segment, start and end: words, or runs of words where there are many."""
    found = []
    for segment, (text, (first, last)) in enumerate(zip(_texts(shown), spans, strict=True)):
        found.append([(segment, first + start, first + end) for start, end in words(text[first:last])])
    together = math.ceil(sum(map(len, found)) / MOST_RUNS)
    runs = [each[i : i + together] for each in found for i in range(0, len(each), max(together, 1))]
    return [(run[0][0], run[0][1], run[-1][2]) for run in runs]


def _without(shown: Attentions, spans: list[tuple[int, int]], unit: tuple[int, int, int] | None) -> Item:
    """Return the text or pair without one unit; a space that stood on each side of it becomes one."""
    parts = []
    for segment, (text, (first, last)) in enumerate(zip(_texts(shown), spans, strict=True)):
        if unit is None or unit[0] != segment:
            parts.append(text[first:last])
            continue
        before, after = text[first : unit[1]], text[unit[2] : last]
        doubled = after[:1].isspace() and (not before or before[-1:].isspace())
        parts.append(before + (after[1:] if doubled else after))
    return parts[0] if len(parts) == 1 else (parts[0], parts[1])
