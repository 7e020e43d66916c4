"""Sliding windows: a text of more than ``max_length`` tokens as several overlapping rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from tokenizers import Encoding

from ..errors import InputError, OptionError, shown
from .encode import encode_texts
from .inputs import Text, Window
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
    encodings = encode_texts(tokenizer.raw, texts)
    rows: list[Row] = []
    starts = []
    for encoding, text in zip(encodings, texts, strict=True):
        starts.append(len(rows))
        rows += _cut(tokenizer, encoding, text, window)[0]
    return Tokens(rows=rows, starts=None if len(rows) == len(texts) else starts)


def trace(tokenizer: TextTokenizer, text: Text, window: Window) -> tuple[list[Row], int, list[tuple[int, int]]]:
    """Return the rows of a text's windows, the segment (0 or 1) that was cut, and the character span of each window."""
    encoding = encode_texts(tokenizer.raw, [text], offsets=True)[0]
    rows, segment, positions = _cut(tokenizer, encoding, text, window)
    offsets = encoding.offsets
    return rows, segment, [(offsets[first][0], offsets[last][1]) for first, last in positions] or [(0, len(text.text))]


def _cut(
    tokenizer: TextTokenizer, encoding: Encoding, text: Text, window: Window
) -> tuple[list[Row], int, list[tuple[int, int]]]:
    """Return rows, the segment that was cut, and each window's first and last token; no tokens if the text fits in one row."""
    if len(encoding) <= tokenizer.max_length:
        return [tokenizer.row(encoding.ids, encoding.type_ids, text)], 0, []
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
    around = np.concatenate([np.flatnonzero(owners < 0), other])  # the special tokens and the other text
    ids, types = np.array(encoding.ids), np.array(encoding.type_ids)  # [tokens]
    rows, positions = [], []
    for start, end in spans(len(parts[long]), width, stride):
        own = parts[long][start:end]
        kept = np.sort(np.concatenate([around, own]))
        rows.append(tokenizer.row(ids[kept].tolist(), types[kept].tolist(), text, truncated=truncated))
        positions.append((int(own[0]), int(own[-1])))
    return rows, long, positions


def spans(count: int, width: int, stride: int) -> list[tuple[int, int]]:
    """Return the windows of ``width`` tokens over ``count`` tokens, as (first, end); neighbours share ``stride`` tokens.

    Example:
        >>> spans(10, 6, 2), spans(6, 6, 2)
        ([(0, 6), (4, 10)], [(0, 6)])
    """
    starts = range(0, max(count - stride, 1), width - stride)
    return [(start, min(start + width, count)) for start in starts]


def check_stride(window: Window, tokenizer: TextTokenizer) -> None:
    """Check that the overlap of two windows is shorter than a window.

    Raises:
        OptionError: They do not.
    """
    width = tokenizer.max_length - tokenizer.raw.num_special_tokens_to_add(False)
    if window.stride is not None and window.stride >= width:
        raise OptionError(f"stride is {shown(window.stride)}: a window has {width} tokens of text, give fewer than that")
