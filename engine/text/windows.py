"""Windows: a text of more than ``max_length`` tokens, or of several sentences, as several rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding

from ..errors import InputError, OptionError, shown
from .encode import encode_texts
from .inputs import Aggregate, By, Text, Window
from .outputs import Floats, Function, distinct
from .sentences import Spans, characters, find_sentences, pack, sentence_starts
from .tokenizer import Row, TextTokenizer, Tokens

_SHARE = 4  # a window's width divided by the default stride


@dataclasses.dataclass(frozen=True, kw_only=True)
class WindowScore:
    """The scores of one window of a text.

    Attributes:
        start: First character of the window in its text.
        end: The character after its last one.
        segment: 0 for the first text, 1 for the second text of a pair.
        logits: The logit of each label.
        scores: The score of each label, by its name.
    """

    start: int
    end: int
    segment: int
    logits: tuple[float, ...]
    scores: Mapping[str, float]


def tokenize_windows(tokenizer: TextTokenizer, texts: Sequence[Text], window: Window) -> Tokens:
    """Tokenize texts, long ones in windows.

    Raises:
        InputError: A pair leaves no room between its separators.
    """
    encodings = encode_texts(tokenizer.raw, texts, offsets=window.by == By.SENTENCE)
    rows: list[Row] = []
    starts = []
    for encoding, text in zip(encodings, texts, strict=True):
        starts.append(len(rows))
        rows += _cut(tokenizer, encoding, text, window)[0]
    return Tokens(rows=rows, starts=None if len(rows) == len(texts) else starts)


def trace(tokenizer: TextTokenizer, text: Text, window: Window) -> tuple[list[Row], int, Spans]:
    """Return the rows of a text's windows, the segment (0 or 1) that was cut, and the character span of each window."""
    encoding = encode_texts(tokenizer.raw, [text], offsets=True)[0]
    rows, parts = _cut(tokenizer, encoding, text, window)
    if parts is None:
        return rows, 0, [(0, len(text.text))]
    return rows, parts.segment, parts.characters(text)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Parts:
    """The windows of a text."""

    encoding: Encoding
    segment: int  # of the text that was cut
    own: NDArray[np.intp]  # the places of its tokens in the encoding
    windows: Spans  # of these tokens
    firsts: list[int] | None = None  # the first token of each of its sentences
    sentences: Spans = dataclasses.field(default_factory=list)  # the characters of these sentences

    def characters(self, text: Text) -> Spans:
        offsets = self.encoding.offsets
        if self.firsts is None:
            return [(offsets[self.own[first]][0], offsets[self.own[end - 1]][1]) for first, end in self.windows]
        own = [offsets[i] for i in self.own]
        return characters(self.windows, self.firsts, self.sentences, own, _part(text, self.segment))


def _part(text: Text, segment: int) -> str:
    return text.pair if segment and text.pair is not None else text.text


def _cut(tokenizer: TextTokenizer, encoding: Encoding, text: Text, window: Window) -> tuple[list[Row], _Parts | None]:
    """Return the rows of a text, and where it was cut; None if it fits in one row."""
    fits = len(encoding) <= tokenizer.max_length
    if fits and window.sentences is None:
        return [tokenizer.row(encoding.ids, encoding.type_ids, text)], None
    owners = np.array([-1 if owner is None else owner for owner in encoding.sequence_ids])  # [tokens]
    parts = [np.flatnonzero(owners == segment) for segment in (0, 1)]
    long, short = (0, 1) if len(parts[0]) >= len(parts[1]) else (1, 0)
    room = tokenizer.max_length - (len(owners) - len(parts[0]) - len(parts[1]))
    if not fits and room < 1 + (text.pair is not None):
        raise InputError(f"text {text.index} is a pair, and max_length {tokenizer.max_length} has no room for its separators")
    other = parts[short]
    half = room // 2
    if truncated := len(other) > half:
        other = other[len(other) - half :] if tokenizer.cut_left else other[:half]
    ids, types = np.array(encoding.ids), np.array(encoding.type_ids)  # [tokens]
    found = _windows(tokenizer, encoding, text, window, parts[long], long, room - len(other))
    if fits and len(found.windows) == 1:
        return [tokenizer.row(encoding.ids, encoding.type_ids, text)], None
    around = np.concatenate([np.flatnonzero(owners < 0), other])  # the special tokens and the other text
    rows = []
    for start, end in found.windows:
        kept = np.sort(np.concatenate([around, parts[long][start:end]]))
        rows.append(tokenizer.row(ids[kept].tolist(), types[kept].tolist(), text, truncated=truncated))
    return rows, found


def _windows(
    tokenizer: TextTokenizer,
    encoding: Encoding,
    text: Text,
    window: Window,
    own: NDArray[np.intp],
    segment: int,
    width: int,
) -> _Parts:
    """Lay windows of ``width`` tokens over a text's ``own`` tokens."""
    stride = stride_of(window, width)
    if text.pair is not None:
        stride = min(stride, width // 2)
    if window.by != By.SENTENCE:
        return _Parts(encoding=encoding, segment=segment, own=own, windows=spans(len(own), width, stride))
    sentences = find_sentences(_part(text, segment)) or [(0, len(_part(text, segment)))]
    offsets, ids, mark = encoding.offsets, encoding.ids, tokenizer.raw.token_to_id("▁")
    firsts, owned = sentence_starts(sentences, [offsets[i] for i in own])
    for i in range(1, len(firsts)):  # a mark before a word belongs to the word
        while firsts[i] - 1 > firsts[i - 1] and ids[own[firsts[i] - 1]] == mark:
            firsts[i] -= 1
    windows = pack(np.diff([*firsts, len(own)]).tolist(), width, stride, window.sentences)
    held = [sentences[i] for i in owned]
    return _Parts(encoding=encoding, segment=segment, own=own, windows=windows, firsts=firsts, sentences=held)


def stride_of(window: Window, width: int) -> int:
    """Return the tokens that neighbouring windows of ``width`` tokens share."""
    return width // _SHARE if window.stride is None else window.stride


def spans(count: int, width: int, stride: int) -> Spans:
    """Return the windows of ``width`` tokens over ``count`` tokens, as (first, end); neighbours share ``stride`` tokens.

    Example:
        >>> spans(10, 6, 2), spans(6, 6, 2)
        ([(0, 6), (4, 10)], [(0, 6)])
    """
    starts = range(0, max(count - stride, 1), width - stride)
    return [(start, min(start + width, count)) for start in starts]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Combination:
    """A combination of the logits of a text's windows, for a model's labels."""

    aggregate: str
    label: int | None = None  # with max: the label whose likeliest window gives all logits
    softmax: bool = True  # whether a label is likely by all logits, or by its own

    @classmethod
    def of(cls, window: Window, labels: Sequence[str], function: Function) -> Combination:
        """Find the label of a ``window`` among the model's; raise ``OptionError`` if it is not there."""
        names = distinct(labels)
        if window.label is not None and window.label not in names:
            raise OptionError(f"label is {shown(window.label)}, which the model lacks: its labels are {shown(list(names))}")
        label = None if window.label is None else names.index(window.label)
        return cls(aggregate=window.aggregate, label=label, softmax=function is Function.SOFTMAX)

    def __call__(self, tokens: Tokens, logits: Floats) -> Floats:
        """Combine the logits of rows, ``[rows, labels]``, into those of texts, ``[texts, labels]``."""
        starts = tokens.starts
        if starts is None:
            return logits
        if self.label is not None:
            wide = logits.astype(np.float64)
            own = wide[:, self.label]
            likely = own - np.logaddexp.reduce(wide, axis=1) if self.softmax else own  # [rows]
            ends = [*starts[1:], len(likely)]
            return logits[[start + int(likely[start:end].argmax()) for start, end in zip(starts, ends, strict=True)]]
        if self.aggregate == Aggregate.MAX:
            return np.maximum.reduceat(logits, starts, axis=0)
        sums = np.add.reduceat(logits, starts, axis=0, dtype=np.float64)  # [texts, labels]
        counts = np.diff([*starts, len(tokens.rows)])  # [texts]
        return np.asarray(sums / counts[:, None], dtype=np.float32)


def check_stride(window: Window, tokenizer: TextTokenizer) -> None:
    """Check that the overlap of two windows is shorter than a window.

    Raises:
        OptionError: They do not.
    """
    width = tokenizer.max_length - tokenizer.raw.num_special_tokens_to_add(False)
    if window.stride is not None and window.stride >= width:
        raise OptionError(f"stride is {shown(window.stride)}: a window has {width} tokens of text, give fewer than that")
