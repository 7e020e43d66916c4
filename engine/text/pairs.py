"""Pairs that share texts, such as a query and its documents: each text is tokenized once, and the rows are put together.

The rows are those of whole pairs. The layout, such as ``[CLS] first [SEP] second [SEP]``, is read off one of them.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from ..errors import without_panic
from .encode import LONG
from .inputs import Text

if TYPE_CHECKING:
    from .tokenizer import Row, TextTokenizer

_KEPT = 512  # texts whose tokens are kept for later calls
_KEPT_LENGTH = 2048  # characters of such a text
_SAVES = 0.75  # the share of texts left to tokenize above which whole pairs are as fast

_Key = tuple[bool, str]  # whether special tokens are read as text, and the text


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class _Layout:
    """The special tokens around the texts of a pair, and the segments of all tokens."""

    ids: tuple[list[int], list[int], list[int]]  # before the first text, between the two, behind the second
    types: tuple[list[int], list[int], list[int]]
    segments: tuple[int, int]  # of the first text's tokens, and of the second's

    @property
    def specials(self) -> int:
        return sum(map(len, self.ids))

    def join(self, first: list[int], second: list[int]) -> tuple[list[int], list[int]]:
        """Return the ids and segments of a row."""
        (start, between, end), (before, middle, behind) = self.ids, self.types
        one, other = self.segments
        types = [*before, *[one] * len(first), *middle, *[other] * len(second), *behind]
        return [*start, *first, *between, *second, *end], types


class PairTokenizer:
    """Makes rows of pairs from texts that are tokenized once."""

    def __init__(self) -> None:
        self._layout: _Layout | None = None
        self._plain = True  # until a pair shows another layout than two texts with special tokens around them
        self._kept: Mapping[_Key, list[int]] = {}  # never changed in place, so that reading needs no lock

    def keep(self, tokenizer: TextTokenizer, texts: Iterable[str]) -> None:
        """Keep the tokens of texts for later pairs; the last 512 that are not long are kept."""
        split = tokenizer.raw.encode_special_tokens
        wanted = dict.fromkeys((split, text) for text in texts if len(text) <= _KEPT_LENGTH)
        missing = [key for key in wanted if key not in self._kept]
        if not missing:
            return
        encoded = _encode(tokenizer, [text for _, text in missing])
        if encoded is not None:
            kept = {key: tokens for key, tokens in self._kept.items() if key not in wanted}
            kept |= {key: self._kept[key] for key in wanted if key in self._kept} | dict(zip(missing, encoded, strict=True))
            self._kept = dict(list(kept.items())[-_KEPT:])

    def rows(self, tokenizer: TextTokenizer, texts: Sequence[Text], *, truncate: bool) -> list[Row] | None:
        """Return the rows of texts; None if they are not pairs, or share too little for this to be faster.

        Raises:
            InputError: As ``TextTokenizer.encode``.
        """
        parts = self._parts(tokenizer, texts)
        layout = None if parts is None else self._layout or self._learn(tokenizer, texts, parts)
        if parts is None or layout is None:
            return None
        rows = []
        for text in texts:
            first, second = parts.get(text.text), parts.get(text.pair or "")
            if first is None or second is None:  # long: in its turn, so that the first text at fault is named
                rows += tokenizer.encode_whole([text], truncate=truncate)
            else:
                rows.append(_row(tokenizer, layout, text, first, second, truncate))
        return rows

    def _parts(self, tokenizer: TextTokenizer, texts: Sequence[Text]) -> dict[str, list[int]] | None:
        """Return the tokens of each text of the pairs that are not long; None if whole pairs are as good."""
        if not self._plain or not all(text.pair is not None for text in texts):
            return None
        most, split = LONG * tokenizer.max_length, tokenizer.raw.encode_special_tokens
        short = [text for text in texts if len(text.text) + len(text.pair or "") <= most]
        distinct = dict.fromkeys(text.text for text in short) | dict.fromkeys(text.pair or "" for text in short)
        parts = {part: kept for part in distinct if (kept := self._kept.get((split, part))) is not None} if self._kept else {}
        missing = [part for part in distinct if part not in parts]
        if len(missing) > _SAVES * 2 * len(short) or not short:
            return None
        encoded = _encode(tokenizer, missing)
        return None if encoded is None else parts | dict(zip(missing, encoded, strict=True))

    def _learn(self, tokenizer: TextTokenizer, texts: Sequence[Text], parts: Mapping[str, list[int]]) -> _Layout | None:
        """Read the layout off the first pair of two texts that have tokens."""
        for text in texts:
            first, second = parts.get(text.text), parts.get(text.pair or "")
            if first and second:
                (encoding,) = tokenizer.encode_fast([text.plain()])
                self._layout = _read(encoding.ids, encoding.type_ids, encoding.sequence_ids, first, second)
                self._plain = self._layout is not None
                break
        return self._layout


def _row(tokenizer: TextTokenizer, layout: _Layout, text: Text, first: list[int], second: list[int], truncate: bool) -> Row:
    count = len(first) + len(second) + layout.specials
    if count <= tokenizer.max_length:
        return tokenizer.row(*layout.join(first, second), text)
    tokenizer.check_cut(text, count, truncate=truncate)
    one, other = tokenizer.share(len(first), len(second), layout.specials, text)
    if tokenizer.cut_left:
        first, second = first[len(first) - one :], second[len(second) - other :]
    else:
        first, second = first[:one], second[:other]
    return tokenizer.row(*layout.join(first, second), text, truncated=True)


def _read(ids: list[int], types: list[int], owners: list[int | None], first: list[int], second: list[int]) -> _Layout | None:
    """Return the layout of a whole pair, None if it is not the special tokens around the tokens of the two texts."""
    if 0 not in owners or 1 not in owners:
        return None
    start, place = owners.index(0), owners.index(1)
    end, stop = start + len(first), place + len(second)
    one, other = types[start], types[place]
    layout = _Layout(
        ids=(ids[:start], ids[end:place], ids[stop:]),
        types=(types[:start], types[end:place], types[stop:]),
        segments=(one, other),
    )
    plain = owners.count(0) == len(first) and owners.count(1) == len(second)
    return layout if plain and layout.join(first, second) == (ids, types) else None


def _encode(tokenizer: TextTokenizer, texts: Sequence[str]) -> list[list[int]] | None:
    """Return the tokens of texts without special ones; None if the tokenizer fails on one, which whole pairs will name."""
    with contextlib.suppress(Exception), without_panic():
        return [encoding.ids for encoding in tokenizer.encode_fast(list(texts), special=False)]
    return None
