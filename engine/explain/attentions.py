"""``Attentions``: the attention weights of a text, as arrays, JSON, an npz file or a page."""

from __future__ import annotations

import dataclasses
import html
import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import OptionError, StorageError
from ..text.inputs import Item
from ..text.outputs import Floats
from .words import WordEffect, words

_FRAME = 760  # pixels of a notebook's cell
_PAGE, _LONG_PAGE = 2_000_000, 6_000_000  # bytes
_LONG = 128  # tokens
_SAME = 1e-3  # of a weight: more than rounding


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Attentions:
    """The attention weights of a text or pair, and its prediction.

    Attributes:
        text: The text.
        text_pair: The second text of a pair.
        tokens: As the tokenizer names them, including special ones.
        readable: The same without the tokenizer's letters for spaces and bytes.
        offsets: First character of each token in its text, and the one after its last; ``(0, 0)`` if special.
        segments: 0 for the first text, 1 for the second, None for special tokens.
        weights: Float32 ``[layers, heads, tokens, tokens]``: share of each key (last axis) in a query's average; rows sum to 1.
        queries: Float32 ``[layers, heads, tokens, d]``.
        keys: Float32 ``[layers, heads, tokens, d]``.
        prediction: ``{"label", "score"}``, as the classifier returns it.
        probabilities: Score of each label; of a regression, its value.
        problem_type: ``regression``, ``single_label_classification`` or ``multi_label_classification``.
        truncated: Whether the text had more tokens than the model takes.
        effects: Effect of each word; None if not measured.
        function: From logits to scores; ``none`` if scores are the logits.
    """

    text: str
    text_pair: str | None
    tokens: tuple[str, ...]
    readable: tuple[str, ...]
    offsets: tuple[tuple[int, int], ...]
    segments: tuple[int | None, ...]
    weights: Floats
    queries: Floats
    keys: Floats
    prediction: Mapping[str, Any]
    probabilities: Mapping[str, float]
    problem_type: str
    truncated: bool
    effects: tuple[WordEffect, ...] | None = None
    function: str | None = None

    @property
    def texts(self) -> list[str]:
        """The text, or the two texts of a pair."""
        return [self.text] if self.text_pair is None else [self.text, self.text_pair]

    def read_spans(self) -> list[tuple[int, int]]:
        """Return the span of each text that the model read, in characters."""
        spans = []
        for segment, text in enumerate(self.texts):
            read = [offset for offset, owner in zip(self.offsets, self.segments, strict=True) if owner == segment]
            cut = self.truncated and read
            spans.append((min(start for start, _ in read), max(end for _, end in read)) if cut else (0, len(text)))
        return spans

    def scores(self, layer: int, head: int) -> Floats:
        """Return a head's scores q.k, before the division by sqrt(d): float32 ``[query, key]``."""
        return np.asarray(self.queries[layer, head] @ self.keys[layer, head].T)

    def rollout(self) -> Floats:
        """Follow the attention through the layers (attention rollout, Abnar and Zuidema 2020).

        Each layer passes on half of a token by the residual connection, and half by the mean of its heads.

        Returns:
            Float32 ``[tokens, tokens]``: share of each input token (last axis) in each token's last state; rows sum to 1.
        """
        n = len(self.tokens)
        shares = np.eye(n)
        for layer in self.weights.astype(np.float64):
            shares = (0.5 * layer.mean(axis=0) + 0.5 * np.eye(n)) @ shares  # [tokens, tokens]
        return shares.astype(np.float32)

    def to_dict(self) -> dict[str, Any]:
        """Return everything except queries and keys for JSON; weights with six decimals."""
        return {
            "text": self.text,
            "text_pair": self.text_pair,
            "prediction": dict(self.prediction),
            "probabilities": dict(self.probabilities),
            "truncated": self.truncated,
            "tokens": list(self.tokens),
            "offsets": [list(offset) for offset in self.offsets],
            "segments": list(self.segments),
            "effects": None if self.effects is None else [dataclasses.asdict(effect) for effect in self.effects],
            "weights": np.round(self.weights.astype(np.float64), 6).tolist(),
        }

    def to_json(self) -> str:
        """Return ``to_dict`` as one JSON document."""
        return json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False)

    def save_npz(self, path: str | os.PathLike[str]) -> None:
        """Write ``weights``, ``queries``, ``keys``, ``tokens``, ``offsets`` and ``segments`` (-1: special) for ``numpy.load``.

        Raises:
            StorageError: The file cannot be written.
        """
        target = Path(path)
        try:
            with target.open("wb") as file:
                np.savez_compressed(
                    file,
                    weights=self.weights,
                    queries=self.queries,
                    keys=self.keys,
                    tokens=np.array(self.tokens, dtype=np.str_),
                    offsets=np.array(self.offsets, dtype=np.int64),
                    segments=np.array([-1 if segment is None else segment for segment in self.segments], dtype=np.int8),
                )
        except OSError as error:
            raise StorageError(f"{target} cannot be written: {error.strerror or error}") from None

    def to_html(self, *, max_bytes: int | None = None) -> str:
        """Return a page that shows all of it: one file, which loads nothing.

        Args:
            max_bytes: Its size at most; None for 2 MB, or 6 MB beyond 128 tokens. If not all weights fit, it keeps the largest
                of each token, and says so.

        Raises:
            OptionError: ``max_bytes`` has no room for the page itself.
        """
        from .page import first_query, pieces, render  # not needed by the other methods

        if max_bytes is None:
            max_bytes = _PAGE if len(self.tokens) <= _LONG else _LONG_PAGE
        elif isinstance(max_bytes, bool) or not isinstance(max_bytes, int):
            raise OptionError(f"max_bytes is {max_bytes!r}: give a number of bytes")
        effects = self.effects or ()
        facts = {
            "tokens": self.readable,
            "names": self.tokens,
            "segments": self.segments,
            "layers": self.weights.shape[0],
            "heads": self.weights.shape[1],
            "size": self.queries.shape[-1],
            "labels": list(self.probabilities.items()),
            "best": list(self.probabilities).index(self.prediction["label"]),
            "regression": self.problem_type == "regression" or self.function == "none",  # values, not shares of 1
            "texts": [
                list(pieces(text, [effect for effect in effects if effect.segment == segment], span[1]))
                for segment, (text, span) in enumerate(zip(self.texts, self.read_spans(), strict=True))
            ],
            "together": any(len(words(effect.word)) > 1 for effect in effects),
            "query": first_query(self.segments, self.offsets, effects),
        }
        unseen = self.weights == 0
        scores = self._divided_scores()
        powers = np.where(unseen, 0, np.exp(scores - scores.max(axis=-1, keepdims=True)))
        weights = powers / powers.sum(axis=-1, keepdims=True)
        # In DeBERTa positions are a part of the scores. Then these follow from the weights, but for one number for each query.
        facts["relative"] = relative = float(np.abs(weights - self.weights).max()) > _SAME
        if relative:
            scores = np.log(np.where(unseen, 1, self.weights))
        hidden = unseen if unseen.any() else None
        return render(facts, scores, hidden, truncated=self.truncated, max_bytes=max_bytes)

    def _divided_scores(self) -> Floats:
        """``q.k / sqrt(d)``: ``[layers, heads, query, key]``."""
        return np.asarray(self.queries @ self.keys.swapaxes(-1, -2) / np.float32(np.sqrt(self.queries.shape[-1])))

    def _repr_html_(self) -> str:
        """Show the page in a notebook, in a sandboxed frame."""
        page = html.escape(self.to_html(), quote=True)
        return f'<iframe sandbox="allow-scripts" style="width:100%;height:{_FRAME}px;border:0" srcdoc="{page}"></iframe>'

    def __repr__(self) -> str:
        layers, heads, n, _ = self.weights.shape
        return f"Attentions({self.text[:40]!r}, {layers} layers x {heads} heads, {n} tokens, {self.prediction})"


MOST_RUNS = 128  # of a text; beyond, neighbouring words are left out together


def occlude(shown: Attentions, predict: Callable[[list[Item]], Floats]) -> Attentions:
    """Return attentions with the effect of each word; ``predict`` gives scores ``[n, labels]`` of texts and pairs."""
    spans = shown.read_spans()
    units = _units(shown, spans)
    texts = [_without(shown, spans, None), *(_without(shown, spans, unit) for unit in units)]
    scores = predict(texts)  # [1 + units, labels]
    label = list(shown.probabilities).index(shown.prediction["label"])
    changes = scores[0, label] - scores[1:, label]  # [units]
    effects = tuple(
        WordEffect(word=shown.texts[segment][start:end], start=start, end=end, segment=segment, change=change)
        for (segment, start, end), change in zip(units, changes.tolist(), strict=True)
    )
    return dataclasses.replace(shown, effects=effects)


def _units(shown: Attentions, spans: list[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """Return the words to leave out (of a long text, runs of words) as segment, start and end."""
    by_text = []
    for segment, (text, (first, last)) in enumerate(zip(shown.texts, spans, strict=True)):
        by_text.append([(segment, first + start, first + end) for start, end in words(text[first:last])])
    together = math.ceil(sum(map(len, by_text)) / MOST_RUNS)
    runs = [each[i : i + together] for each in by_text for i in range(0, len(each), max(together, 1))]
    return [(run[0][0], run[0][1], run[-1][2]) for run in runs]


def _without(shown: Attentions, spans: list[tuple[int, int]], unit: tuple[int, int, int] | None) -> Item:
    """Return the text or pair without one unit; spaces around it become one."""
    parts = []
    for segment, (text, (first, last)) in enumerate(zip(shown.texts, spans, strict=True)):
        if unit is None or unit[0] != segment:
            parts.append(text[first:last])
            continue
        before, after = text[first : unit[1]], text[unit[2] : last]
        doubled = after[:1].isspace() and (not before or before[-1:].isspace())
        parts.append(before + (after[1:] if doubled else after))
    return parts[0] if len(parts) == 1 else (parts[0], parts[1])
