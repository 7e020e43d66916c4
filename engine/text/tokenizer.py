"""Token ids, from the checkpoint's tokenizer.json.

The file's padding and truncation are cleared: a well-known base model pads every text to 128 tokens. Texts are cut on the
encoding, so that threads can share a tokenizer, and like transformers' ``truncation=True``: at the end, and of a pair the
longer text first. The parity check of the export uses this module too, so it sees the runtime's ids.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import itertools
import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer, WhitespaceSplit

from ..errors import ArtifactError, InputError, TextTooLongError, shown
from .encode import LONG, encode_each, encode_texts
from .files import AGAIN, named_id, pad_id, read_config, read_tokenizer
from .inputs import AS_LOADED, Cut, Side, Text, Truncation, Words

if TYPE_CHECKING:
    from .pairs import PairTokenizer
    from .prefix import Shortener


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One row of a batch, without padding."""

    ids: list[int]  # special tokens included
    types: list[int]  # 0 for the first text, 1 for the second
    truncated: bool = False  # whether tokens were cut off


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Tokens:
    """Texts as rows of tokens."""

    rows: list[Row]  # those of one text are adjacent
    starts: list[int] | None = None  # the first row of each text; None if each text is one row

    def owners(self, texts: Sequence[Text]) -> Sequence[Text]:
        """Return the text of each row."""
        if self.starts is None:
            return texts
        return [text for text, rows in zip(texts, self.by_text(), strict=True) for _ in rows]

    def by_text(self) -> list[list[Row]]:
        """Return the rows of each text."""
        if self.starts is None:
            return [[row] for row in self.rows]
        return [self.rows[start:end] for start, end in itertools.pairwise([*self.starts, len(self.rows)])]

    def truncated(self) -> list[bool]:
        """Return for each text whether it lost tokens."""
        firsts = self.rows if self.starts is None else [self.rows[start] for start in self.starts]
        return [row.truncated for row in firsts]

    def windows(self) -> tuple[int, int]:
        """Count the texts of more than one row, and their rows."""
        if self.starts is None:
            return 0, 0
        counts = [len(rows) for rows in self.by_text() if len(rows) > 1]
        return len(counts), sum(counts)


def pad(rows: Sequence[Row], pad_id: int) -> dict[str, NDArray[np.int64]]:
    """Pad rows on the right: ``input_ids``, ``attention_mask`` and ``token_type_ids``, int64 ``[batch, longest]``."""
    shape = (len(rows), max(len(row.ids) for row in rows))
    ids = np.full(shape, pad_id, dtype=np.int64)
    mask, types = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    for line, row in enumerate(rows):
        length = len(row.ids)
        ids[line, :length], mask[line, :length], types[line, :length] = row.ids, 1, row.types
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}


Plain = str | tuple[str, str]
_MOST_ADDED = 64  # added tokens: each is looked for in each text
_BREAKS = str.maketrans("\t\n\r", "   ")  # other control characters are dropped or not, by the tokenizer's settings


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class AsciiWords:
    """Splits ASCII as BERT does, by lower case and spaces around punctuation, before the library sees it.

    The library follows each character through both, which takes two thirds of its time; WordPiece gets the same words.
    https://github.com/google-research/bert/blob/master/tokenization.py (BasicTokenizer)
    """

    raw: Tokenizer  # with the same model and special tokens, which splits at spaces
    lower: bool
    added: tuple[str, ...]  # tokens that are looked for before a text is split

    @classmethod
    def of(cls, whole: Tokenizer) -> AsciiWords | None:
        """Return that of a tokenizer; None if it is not BERT's, or has very many added tokens."""
        normalizer, added = whole.normalizer, whole.get_added_tokens_decoder().values()
        kinds = (BertNormalizer, BertPreTokenizer, WordPiece)
        if not all(map(isinstance, (normalizer, whole.pre_tokenizer, whole.model), kinds)) or len(added) > _MOST_ADDED:
            return None
        raw, lower = Tokenizer(whole.model), bool(normalizer.lowercase)
        raw.pre_tokenizer, raw.post_processor = WhitespaceSplit(), whole.post_processor
        as_they_are = {token.content.lower() if lower else token.content for token in added}
        normalized = {normalizer.normalize_str(token.content) for token in added if token.normalized}
        return cls(raw=raw, lower=lower, added=tuple(as_they_are | normalized))

    def split(self, text: Plain) -> Plain | None:
        """Put spaces between the words of a text or pair; None if it is not all ASCII, or holds an added token."""
        if isinstance(text, str):
            return self._split(text)
        first, second = map(self._split, text)
        return None if first is None or second is None else (first, second)

    def _split(self, text: str) -> str | None:
        text = str.__str__(text)  # a subclass may change replace(): MarkupSafe's escapes its arguments
        if not text.isascii():
            return None
        text = text.lower() if self.lower else text
        line = text if text.isprintable() else text.translate(_BREAKS)
        if not line.isprintable() or any(token in form for form in {text, line} for token in self.added):
            return None
        for mark in string.punctuation:
            if mark in line:
                line = line.replace(mark, f" {mark} ")
        return line


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextTokenizer:
    """A tokenizer and its maximum length."""

    raw: Tokenizer  # without padding and truncation
    max_length: int  # tokens of a row, special tokens included
    pad_id: int
    cut_left: bool  # whether a text is cut at its start
    strategy: Truncation = Truncation.LONGEST_FIRST  # which text of a pair is cut
    segments: bool = True  # whether the second text of a pair is segment 1, or 0 like the first
    vocab_size: int | None = None  # rows of the model's embedding table, if the tokenizer has tokens beyond it
    unknown: int | None = None  # the id of the token for unknown words that the settings name
    loaded: TextTokenizer | None = None  # the one that this one with the settings of a call comes from

    @classmethod
    def load(cls, folder: Path, max_length: int) -> TextTokenizer:
        """Load an artifact's tokenizer.json, tokenizer_config.json and config.json.

        Raises:
            ArtifactError: tokenizer.json is missing or damaged.
        """
        settings, config = read_config(folder / "tokenizer_config.json"), read_config(folder / "config.json")
        names = settings.get("model_input_names", [])
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            place = folder / "tokenizer_config.json"
            raise ArtifactError(f"{place} has model_input_names = {shown(names)}, expected a list of names: {AGAIN}")
        return cls.of(read_tokenizer(folder / "tokenizer.json"), settings, config, max_length)

    @classmethod
    def of(cls, raw: Tokenizer, settings: Mapping[str, Any], config: Mapping[str, Any], max_length: int) -> TextTokenizer:
        """Wrap a tokenizer with the settings of tokenizer_config.json and config.json."""
        padding, truncation = raw.padding or {}, raw.truncation or {}
        raw.no_padding()
        raw.no_truncation()
        raw.encode_special_tokens = settings.get("split_special_tokens") is True
        side = settings.get("truncation_side") or truncation.get("direction", "right")
        added = raw.get_added_tokens_decoder()
        rows = config.get("vocab_size")
        beyond = type(rows) is int and rows > 0 and (raw.get_vocab_size() > rows or max(added, default=0) >= rows)
        return cls(
            raw=raw,
            max_length=max_length,
            pad_id=pad_id(raw, settings, config, padding),
            cut_left=str(side).lower() == "left",
            segments="token_type_ids" in settings.get("model_input_names", ["token_type_ids"]),
            vocab_size=rows if beyond else None,
            unknown=named_id(raw, settings.get("unk_token")),
        )

    def for_call(self, cut: Cut) -> TextTokenizer:
        """Return the tokenizer with the settings of a call."""
        if cut is AS_LOADED:
            return self
        split = cut.split_special_tokens
        return dataclasses.replace(
            self,
            raw=self.raw if split in (None, self.raw.encode_special_tokens) else self._other_raw,
            max_length=cut.max_length or self.max_length,
            cut_left=self.cut_left if cut.side is None else cut.side is Side.LEFT,
            strategy=cut.strategy,
            loaded=self,
        )

    @functools.cached_property
    def _shortener(self) -> Shortener:
        """Cuts very long texts before they are tokenized."""
        from .prefix import Shortener  # which the first answer does not need

        return Shortener(self.raw)

    @property
    def pairs(self) -> PairTokenizer:
        """Makes rows of pairs that share texts."""
        return (self.loaded or self)._pairs

    @functools.cached_property
    def _pairs(self) -> PairTokenizer:
        from .pairs import PairTokenizer

        return PairTokenizer()

    @functools.cached_property
    def _other_raw(self) -> Tokenizer:
        """The same tokenizer with special tokens in texts as text, if this one reads them as tokens, or the reverse."""
        other = copy.deepcopy(self.raw)
        other.model = self.raw.model  # a copy goes through JSON, whose scores are not read exactly
        other.encode_special_tokens = not self.raw.encode_special_tokens  # a copy has the default
        return other

    def encode(self, texts: Sequence[Text], *, truncate: bool = True) -> list[Row]:
        """Tokenize checked texts into rows of at most ``max_length`` tokens.

        Raises:
            TextTooLongError: A text has more tokens than ``max_length``, and ``truncate`` is false or ``strategy`` cannot cut
                enough of it.
        """
        rows = self.pairs.rows(self, texts, truncate=truncate) if texts and texts[0].pair is not None else None
        return self.encode_whole(texts, truncate=truncate) if rows is None else rows

    def encode_whole(self, texts: Sequence[Text], *, truncate: bool = True) -> list[Row]:
        """Tokenize as ``encode``, each pair as a whole."""
        shorts = [self._short(text) for text in texts]
        plain = [short.plain() for short, _ in shorts]
        try:
            encodings = self.encode_fast(plain)
        except BaseException as error:  # tokenizers raises bare Exceptions, and PanicException
            encodings = encode_each(self.raw, [short for short, _ in shorts], error)
        return [
            self._row(encoding, text, cut, truncate) for encoding, text, (_, cut) in zip(encodings, texts, shorts, strict=True)
        ]

    def encode_fast(self, texts: Sequence[Plain], *, special: bool = True) -> list[Encoding]:
        """Tokenize texts and pairs, with ``special`` tokens or without, and without offsets. Raises what tokenizers does."""
        words = (self.loaded or self)._ascii_words
        if words is None:
            return self.raw.encode_batch_fast(texts, add_special_tokens=special)
        split = list(map(words.split, texts))
        if None not in split:
            return words.raw.encode_batch_fast(split, add_special_tokens=special)
        others = [text for text, found in zip(texts, split, strict=True) if found is None]
        made = words.raw.encode_batch_fast([found for found in split if found is not None], add_special_tokens=special)
        encodings = iter(made), iter(self.raw.encode_batch_fast(others, add_special_tokens=special))
        return [next(encodings[found is None]) for found in split]

    @functools.cached_property
    def _ascii_words(self) -> AsciiWords | None:
        return AsciiWords.of(self.raw)

    def trace(self, text: Text, *, truncate: bool = True) -> tuple[Encoding, list[int]]:
        """Return a text's encoding with offsets, and the positions in it that ``encode`` would keep.

        Raises:
            TextTooLongError: As ``encode``.
        """
        encoding, kept, _ = self.traces([text], truncate=truncate)[0]
        return encoding, kept

    def traces(self, texts: Sequence[Text], *, truncate: bool = True) -> list[tuple[Encoding, list[int], Row]]:
        """Return for each text what ``trace`` does, and its row.

        Raises:
            TextTooLongError: As ``encode``.
        """
        shorts = [(text, False) if isinstance(text, Words) else self._short(text, offsets=True) for text in texts]
        encodings = encode_texts(self.raw, [short for short, _ in shorts], offsets=True)
        found = []
        for encoding, text, (_, cut) in zip(encodings, texts, shorts, strict=True):
            row = self._row(encoding, text, cut, truncate)
            kept = self._kept(encoding.sequence_ids, text) if row.truncated else list(range(len(encoding)))
            found.append((encoding, kept, row))
        return found

    def _row(self, encoding: Encoding, text: Text, shortened: bool, truncate: bool) -> Row:
        ids, types = encoding.ids, encoding.type_ids
        if len(ids) <= self.max_length and not shortened:
            return self.row(ids, types, text)
        self.check_cut(text, f"more than {self.max_length}" if shortened else len(ids), truncate=truncate)
        kept = self._kept(encoding.sequence_ids, text)
        return self.row([ids[i] for i in kept], [types[i] for i in kept], text, truncated=True)

    def check_cut(self, text: Text, count: int | str, *, truncate: bool) -> None:
        """Raise ``TextTooLongError`` for a text of ``count`` tokens that may not be cut."""
        if not truncate:
            raise TextTooLongError(
                f"text {text.index} has {count} tokens, max_length is {self.max_length}: shorten it, or allow truncation"
            )

    def row(self, ids: list[int], types: list[int], text: Text, *, truncated: bool = False) -> Row:
        """Return the row of a text's ids and segments.

        Raises:
            InputError: It has no tokens, or one without a vector in the model.
        """
        if not ids:
            raise InputError(
                f"text {text.index} has no tokens: it is empty for this tokenizer, which adds none such as [CLS]; "
                "leave it out, or export the checkpoint with a tokenizer that adds them"
            )
        if self.vocab_size is not None and (top := max(ids)) >= self.vocab_size:
            raise InputError(
                f"text {text.index} holds the token {self.raw.id_to_token(top)!r} of id {top}, and the model has vectors for "
                f"ids below {self.vocab_size}: the token was added and the model never resized; take it out of the text"
            )
        return Row(ids=ids, types=types if self.segments else [0] * len(types), truncated=truncated)

    def _kept(self, owners: list[int | None], text: Text) -> list[int]:
        """Return the positions of the special tokens and of each text's tokens that fit."""
        first, second = ([i for i, owner in enumerate(owners) if owner == segment] for segment in (0, 1))
        dropped: set[int] = set()
        specials = len(owners) - len(first) - len(second)
        for part, count in zip((first, second), self.share(len(first), len(second), specials, text), strict=True):
            dropped.update(part[: len(part) - count] if self.cut_left else part[count:])
        return [i for i in range(len(owners)) if i not in dropped]

    def share(self, first: int, second: int, specials: int, text: Text) -> tuple[int, int]:
        """Return how many tokens are kept of a text's ``first`` and of its pair's ``second``, next to the special ones.

        Raises:
            InputError: The special ones leave no room.
            TextTooLongError: As ``encode``.
        """
        room = self.max_length - specials
        if room < 0:
            raise InputError(f"text {text.index} is a pair, and max_length {self.max_length} has no room for its separators")
        if self.strategy is Truncation.LONGEST_FIRST:
            return share_room(first, second, room)
        only_first = self.strategy is Truncation.ONLY_FIRST
        left = room - (second if only_first else first)
        if left < 1:  # as in tokenizers, at least one token must stay
            raise TextTooLongError(
                f"text {text.index} has more tokens than max_length, {self.max_length}, and truncation='{self.strategy}' "
                f"cannot cut enough {'from its first' if only_first else 'from its second'} text: use truncation=True"
            )
        return (left, second) if only_first else (first, left)

    def _short(self, text: Text, *, offsets: bool = False) -> tuple[Text, bool]:
        """Return a shorter text of the same tokens to keep for a very long one, or the text itself; and whether it was cut."""
        if len(text.text) + len(text.pair or "") <= LONG * self.max_length:
            return text, False
        longest_first = self.strategy is Truncation.LONGEST_FIRST
        return (self.loaded or self)._shortener.shorten(
            self.raw, text, self.max_length, left=self.cut_left, longest_first=longest_first, offsets=offsets
        )


def share_room(first: int, second: int, room: int) -> tuple[int, int]:
    """Split ``room`` tokens between the two texts of a pair, like transformers' ``longest_first``.

    Two texts longer than half get half each; an odd token goes to the longer one, or to the second of two equal ones.

    Example:
        >>> share_room(3, 100, 20), share_room(50, 100, 21)
        ((3, 17), (10, 11))
    """
    if first + second <= room:
        return first, second
    short = min(first, second, room // 2)
    return (room - short, short) if first > second else (short, room - short)
