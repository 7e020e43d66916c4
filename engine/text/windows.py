"""Long texts, read whole: windows of ``max_length`` tokens that overlap, and one row of logits made of theirs.

A text that fits is one row, as ever; one that does not is several. ``Tokens`` keeps which rows are whose.
"""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding

from ..errors import InputError, OptionError
from ..options import Aggregate, LongText, Window
from .inputs import Text
from .outputs import Floats
from .tokenizer import Row, TextTokenizer

_SHARE = 4  # of a window is its overlap with the next one, where nothing was asked for


@dataclasses.dataclass(frozen=True, kw_only=True)
class WindowScore:
    """What the model says of one window of a text.

    Attributes:
        start: First character of the window, in the text that was read in windows.
        end: The character after its last.
        segment: 0 where that text is the first, 1 where it is the second of a pair.
        logits: One a label.
        scores: The score of each label, by its name.
    """

    start: int
    end: int
    segment: int
    logits: tuple[float, ...]
    scores: Mapping[str, float]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Tokens:
    """Texts as rows of tokens.

    Attributes:
        rows: What the graph runs; the rows of a text are neighbours.
        starts: The first row of each text, or None where each text is one row.
    """

    rows: list[Row]
    starts: list[int] | None = None

    def owner(self, row: int) -> int:
        """Return the text that a row is of."""
        return row if self.starts is None else bisect.bisect_right(self.starts, row) - 1

    def truncated(self) -> list[bool]:
        """Tell of each text whether tokens of it were dropped."""
        starts = range(len(self.rows)) if self.starts is None else self.starts
        return [self.rows[start].truncated for start in starts]

    def windows(self) -> tuple[int, int]:
        """Count the texts that are more than one row, and their rows."""
        if self.starts is None:
            return 0, 0
        counts = np.diff([*self.starts, len(self.rows)])  # [texts]
        return int((counts > 1).sum()), int(counts[counts > 1].sum())

    def gather(self, logits: Floats, aggregate: str) -> Floats:
        """Make the rows' logits ``[rows, labels]`` those of the texts, ``[texts, labels]``."""
        if self.starts is None:
            return logits
        if aggregate == Aggregate.MAX:
            return np.maximum.reduceat(logits, self.starts, axis=0)
        counts = np.diff([*self.starts, len(self.rows)])  # [texts]
        sums = np.add.reduceat(logits, self.starts, axis=0, dtype=np.float64)  # [texts, labels]
        return np.asarray(sums / counts[:, None], dtype=np.float32)


def tokenize(tokenizer: TextTokenizer, texts: Sequence[Text], long_text: LongText, window: Window) -> Tokens:
    """Turn texts into rows, and do with long ones what was asked for.

    Raises:
        TextTooLongError: A text is too long, and ``long_text`` is ``error``.
        InputError: A pair leaves no room between its separators.
    """
    if long_text is not LongText.WINDOW:
        return Tokens(rows=tokenizer.encode(texts, truncate=long_text is LongText.TRUNCATE))
    encodings = tokenizer.raw.encode_batch_fast([text.plain() for text in texts])
    rows: list[Row] = []
    starts = []
    for encoding, text in zip(encodings, texts, strict=True):
        starts.append(len(rows))
        rows += _rows(tokenizer, text, encoding, cut(tokenizer, encoding, text, window))
    return Tokens(rows=rows, starts=None if len(rows) == len(texts) else starts)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Cut:
    """A text that is read in windows.

    Attributes:
        segment: Which of a pair's texts is.
        kept: For each window the positions of the encoding that are its tokens.
        spans: For each window the first of the text's own positions, and the last.
        truncated: Whether tokens of the pair's other text are in no window.
    """

    segment: int
    kept: list[NDArray[np.intp]]
    spans: list[tuple[int, int]]
    truncated: bool


def cut(tokenizer: TextTokenizer, encoding: Encoding, text: Text, window: Window) -> Cut | None:
    """Cut an encoded text into windows; None where it fits into one."""
    if len(encoding) <= tokenizer.max_length:
        return None
    owners = np.array([-1 if owner is None else owner for owner in encoding.sequence_ids])  # [tokens]
    parts = [np.flatnonzero(owners == segment) for segment in (0, 1)]
    long, short = (0, 1) if len(parts[0]) >= len(parts[1]) else (1, 0)
    room = tokenizer.max_length - (len(owners) - len(parts[0]) - len(parts[1]))
    if room < 1 + (text.pair is not None):
        raise InputError(f"text {text.index} is a pair, and max_length {tokenizer.max_length} has no room for its separators")
    other = parts[short]
    half = room // 2
    if truncated := len(other) > half:
        other = other[len(other) - half :] if tokenizer.cut_left else other[:half]
    width = room - len(other)
    stride = width // _SHARE if window.stride is None else window.stride
    if text.pair is not None:
        stride = min(stride, width // 2)
    around = np.concatenate([np.flatnonzero(owners < 0), other])
    own = [parts[long][start:stop] for start, stop in spans(len(parts[long]), width, stride)]
    return Cut(
        segment=long,
        kept=[np.sort(np.concatenate([around, each])) for each in own],
        spans=[(int(each[0]), int(each[-1])) for each in own],
        truncated=truncated,
    )


def spans(count: int, width: int, stride: int) -> list[tuple[int, int]]:
    """Lay windows over ``count`` tokens.

    Args:
        count: Tokens of the text.
        width: Tokens of a window.
        stride: Tokens that neighbours share, fewer than ``width``.

    Returns:
        First token of each window, and the one after its last.

    Example:
        >>> spans(10, 6, 2), spans(6, 6, 2)
        ([(0, 6), (4, 10)], [(0, 6)])
    """
    starts = range(0, max(count - stride, 1), width - stride)
    return [(start, min(start + width, count)) for start in starts]


def check_stride(window: Window, tokenizer: TextTokenizer) -> None:
    """Refuse an overlap that leaves no way forward.

    Raises:
        OptionError: It is as long as a window, or longer.
    """
    width = tokenizer.max_length - tokenizer.raw.num_special_tokens_to_add(False)
    if window.stride is not None and window.stride >= width:
        raise OptionError(f"stride is {window.stride}: a window has {width} tokens of text, give fewer than that")


def trace(tokenizer: TextTokenizer, text: Text, window: Window) -> tuple[Tokens, int, list[tuple[int, int]]]:
    """Cut one text, and tell which characters each window has.

    Returns:
        Its rows; the text of a pair that they are windows of; first character of each, and the one after its last.
    """
    encoding = tokenizer.raw.encode_batch([text.plain()])[0]
    found = cut(tokenizer, encoding, text, window)
    rows = _rows(tokenizer, text, encoding, found)
    if found is None:
        return Tokens(rows=rows), 0, [(0, len(text.text))]
    offsets = encoding.offsets
    places = [(offsets[first][0], offsets[last][1]) for first, last in found.spans]
    return Tokens(rows=rows, starts=[0]), found.segment, places


def _rows(tokenizer: TextTokenizer, text: Text, encoding: Encoding, found: Cut | None) -> list[Row]:
    if found is None:
        return [tokenizer.row(encoding.ids, encoding.type_ids, text)]
    ids, types = np.array(encoding.ids), np.array(encoding.type_ids)  # [tokens]
    return [tokenizer.row(ids[kept].tolist(), types[kept].tolist(), text, truncated=found.truncated) for kept in found.kept]
