"""Sentences of a text by a plain rule, and windows of whole sentences.

A sentence ends after a run of ``. ! ? …`` (or ``؟ ۔ । ॥ ．``) that white space or the end follows, after a run of ``。！？｡``,
and at a line break; closing quotes and brackets right behind a run belong to it. So "Dr. Who" is cut in two, which a window
of several sentences puts together again; "3.14" and "example.org" are not.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterable, Sequence

import numpy as np

Spans = list[tuple[int, int]]  # of characters or of tokens: the first, and the one after the last

_CLOSING = "[\"'”’»›)\\]}」』）］｝】〉》〕]*+"
_ENDS, _CJK, _BREAKS = ".!?…؟۔।॥．", "。！？｡", "\n\r\v\f\x85\u2028\u2029"
# A run is tried once, at its start, and never given back: the search is linear in any text.
_END = re.compile(
    f"(?<![{_ENDS}{_CJK}])(?:[{_ENDS}]++{_CLOSING}(?=\\s|\\Z)|[{_ENDS}]*+[{_CJK}][{_ENDS}{_CJK}]*+{_CLOSING})|[{_BREAKS}]++"
)


def find_sentences(text: str) -> Spans:
    """Return the characters of each sentence, without white space around it; none of a text of white space.

    Example:
        >>> text = "It was fine (3.14 of 4). Was it? 很好。是的"
        >>> [text[start:end] for start, end in find_sentences(text)]
        ['It was fine (3.14 of 4).', 'Was it?', '很好。', '是的']
    """
    found, start = [], 0
    for end in (*(match.end() for match in _END.finditer(text)), len(text)):
        part = text[start:end]
        first, last = end - len(part.lstrip()), start + len(part.rstrip())
        if first < last:
            found.append((first, last))
        start = end
    return found


def sentence_starts(sentences: Spans, offsets: Sequence[tuple[int, int]]) -> tuple[list[int], list[int]]:
    """Return the first token of each sentence that has one, and the sentences that have.

    A token belongs to the sentence of its last character; ``offsets`` has each token's characters.
    """
    last = np.array([end for _, end in offsets]) - 1  # [tokens]
    owner = np.searchsorted([first for first, _ in sentences], last, side="right") - 1
    owner = np.maximum.accumulate(np.maximum(owner, 0))
    firsts = np.flatnonzero(np.diff(owner, prepend=-1))
    return firsts.tolist(), owner[firsts].tolist()


def pack(counts: Iterable[int], width: int, stride: int, most: int | None = None) -> Spans:
    """Return windows over sentences of so many tokens each: as many sentences as fit into ``width``, ``most`` at most.

    A longer sentence is cut into windows that share ``stride`` tokens; what follows may join the last one.

    Example:
        >>> pack([3, 3, 3, 9, 1], 6, 2)
        [(0, 6), (6, 9), (9, 15), (13, 19)]
    """
    windows = []
    start = end = held = 0
    for count in counts:
        if held and (held == most or end + count - start > width):
            windows.append((start, end))
            start, held = end, 0
        end, held = end + count, held + 1
        while end - start > width:
            windows.append((start, start + width))
            start += width - stride
    return [*windows, (start, end)]


def characters(windows: Spans, firsts: Sequence[int], sentences: Spans, offsets: Sequence[tuple[int, int]], text: str) -> Spans:
    """Return the characters of each window, which leave out nothing of the text but white space.

    ``firsts`` has the first token of each of the ``sentences``.
    """
    found = []
    for first, end in windows:
        place, after = bisect.bisect_right(firsts, first) - 1, bisect.bisect_left(firsts, end)
        closed = end == (firsts[after] if after < len(firsts) else len(offsets))
        start = sentences[place][0] if firsts[place] == first else offsets[first][0]
        stop = sentences[after - 1][1] if closed else 0
        found.append((start, stop if stop > start else offsets[end - 1][1]))  # the latter also of white space at the end
    # Characters without a token, such as those that the normalizer removes, go to the window before them.
    nexts = [*(start for start, _ in found[1:]), len(text)]
    found = [(start, end + len(text[end:after].rstrip())) for (start, end), after in zip(found, nexts, strict=True)]
    return [(min(found[0][0], len(text) - len(text.lstrip())), found[0][1]), *found[1:]]
