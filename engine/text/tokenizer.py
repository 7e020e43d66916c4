"""Token ids, from the checkpoint's tokenizer.json.

The file's padding and truncation are cleared: a well-known base model pads every text to 128 tokens. Texts are cut on the
encoding, so that threads can share a tokenizer, and like transformers' ``truncation=True``: at the end, and of a pair the
longer text first. The parity check of the export uses this module too, so it sees the runtime's ids.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from ..errors import ArtifactError, InputError, TextTooLongError
from .inputs import Aggregate, Text

# Of a text with more than this many characters per token of max_length only the start is tokenized, if that is safe.
_LONG = 32
# Steps that look at one word at a time, so that the tokens before a space do not depend on the text after it.
_LOCAL_PRE_TOKENIZERS = frozenset({"BertPreTokenizer", "Whitespace", "WhitespaceSplit", "ByteLevel"})
_LOCAL_NORMALIZERS = frozenset({"BertNormalizer", "Lowercase", "StripAccents", "NFC", "NFD", "NFKC", "NFKD"})


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

    def gather(self, logits: NDArray[np.float32], aggregate: str) -> NDArray[np.float32]:
        """Combine the logits of rows, ``[rows, labels]``, into those of texts, ``[texts, labels]``."""
        if self.starts is None:
            return logits
        if aggregate == Aggregate.MAX:
            return np.maximum.reduceat(logits, self.starts, axis=0)
        sums = np.add.reduceat(logits, self.starts, axis=0, dtype=np.float64)  # [texts, labels]
        counts = np.diff([*self.starts, len(self.rows)])  # [texts]
        return np.asarray(sums / counts[:, None], dtype=np.float32)


def pad(rows: Sequence[Row], pad_id: int) -> dict[str, NDArray[np.int64]]:
    """Pad rows on the right: ``input_ids``, ``attention_mask`` and ``token_type_ids``, int64 ``[batch, longest]``."""
    shape = (len(rows), max(len(row.ids) for row in rows))
    ids = np.full(shape, pad_id, dtype=np.int64)
    mask, types = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    for line, row in enumerate(rows):
        length = len(row.ids)
        ids[line, :length], mask[line, :length], types[line, :length] = row.ids, 1, row.types
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextTokenizer:
    """A tokenizer and its maximum length."""

    raw: Tokenizer  # without padding and truncation
    max_length: int  # tokens of a row, special tokens included
    pad_id: int
    cut_left: bool  # whether a text is cut at its start
    prefix_safe: bool  # whether tokens before a space do not depend on the text after it
    segments: bool = True  # whether the second text of a pair is segment 1, or 0 like the first
    vocab_size: int | None = None  # rows of the model's embedding table, if the tokenizer has tokens beyond it

    @classmethod
    def load(cls, folder: Path, max_length: int) -> TextTokenizer:
        """Load an artifact's tokenizer.json, tokenizer_config.json and config.json.

        Raises:
            ArtifactError: tokenizer.json is missing or damaged.
        """
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise ArtifactError(f"{path} is missing: export the checkpoint again")
        try:
            raw = Tokenizer.from_file(str(path))
        except Exception as error:  # tokenizers raises bare Exceptions
            raise ArtifactError(f"{path} cannot be read as a tokenizer ({error}): export the checkpoint again") from None
        return cls.of(raw, read_json(folder / "tokenizer_config.json"), read_json(folder / "config.json"), max_length)

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
        beyond = isinstance(rows, int) and (raw.get_vocab_size() > rows or max(added, default=0) >= rows)
        return cls(
            raw=raw,
            max_length=max_length,
            pad_id=_pad_id(raw, settings, config, padding),
            cut_left=str(side).lower() == "left",
            prefix_safe=_prefix_safe(raw, [token.content for token in added.values()]),
            segments="token_type_ids" in settings.get("model_input_names", ["token_type_ids"]),
            vocab_size=rows if beyond else None,
        )

    def encode(self, texts: Sequence[Text], *, truncate: bool = True) -> list[Row]:
        """Tokenize checked texts into rows of at most ``max_length`` tokens.

        Raises:
            TextTooLongError: A text has more tokens than ``max_length`` and ``truncate`` is false.
        """
        prefixes = [self._prefix(text) for text in texts]
        encodings = self.raw.encode_batch_fast([prefix.plain() for prefix in prefixes])
        return [
            self._row(encoding, text, prefix is not text, truncate)
            for encoding, text, prefix in zip(encodings, texts, prefixes, strict=True)
        ]

    def trace(self, text: Text, *, truncate: bool = True) -> tuple[Encoding, list[int]]:
        """Return a text's encoding with offsets, and the positions in it that ``encode`` would keep.

        Raises:
            TextTooLongError: As ``encode``.
        """
        prefix = self._prefix(text)
        encoding = self.raw.encode_batch([prefix.plain()])[0]
        if not self._row(encoding, text, prefix is not text, truncate).truncated:
            return encoding, list(range(len(encoding)))
        return encoding, self._kept(encoding.sequence_ids, text)

    def _row(self, encoding: Encoding, text: Text, shortened: bool, truncate: bool) -> Row:
        ids, types = encoding.ids, encoding.type_ids
        if len(ids) <= self.max_length and not shortened:
            return self.row(ids, types, text)
        if not truncate:
            more = "more than " if shortened else ""
            raise TextTooLongError(
                f"text {text.index} has {more}{len(ids)} tokens, max_length is {self.max_length}: "
                "shorten it, or allow truncation"
            )
        kept = self._kept(encoding.sequence_ids, text)
        return self.row([ids[i] for i in kept], [types[i] for i in kept], text, truncated=True)

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
        room = self.max_length - (len(owners) - len(first) - len(second))
        if room < 0:
            raise InputError(f"text {text.index} is a pair, and max_length {self.max_length} has no room for its separators")
        dropped: set[int] = set()
        for part, count in zip((first, second), share_room(len(first), len(second), room), strict=True):
            dropped.update(part[: len(part) - count] if self.cut_left else part[count:])
        return [i for i in range(len(owners)) if i not in dropped]

    def _prefix(self, text: Text) -> Text:
        """Return a prefix of a very long text with all tokens to keep, or the text itself.

        It ends before a space, with more tokens than ``max_length`` and than the pair's other text, because the longer text is
        cut first. A pair of two very long texts is not shortened.
        """
        least = _LONG * self.max_length
        first, second = text.text, text.pair or ""
        cut_first = len(first) > least
        if cut_first == (len(second) > least) or not self.prefix_safe or self.cut_left:
            return text
        long, short = (first, second) if cut_first else (second, first)
        enough = max(self.max_length, self._count(short) if short else 0)
        end = _space_after(long, least)
        while end > 0 and self._count(long[:end]) <= enough:
            end = _space_after(long, 4 * end)
        if end < 0:
            return text
        return dataclasses.replace(text, text=long[:end]) if cut_first else dataclasses.replace(text, pair=long[:end])

    def _count(self, text: str) -> int:
        """Count the tokens of a text, without special ones."""
        return len(self.raw.encode_batch_fast([text], add_special_tokens=False)[0])


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


def _space_after(text: str, start: int) -> int:
    """Return the first position from ``start`` on of an ASCII space after a non-space character, or -1."""
    position = text.find(" ", start)
    while position > 0 and text[position - 1].isspace():
        position = text.find(" ", position + 1)
    return position


def _prefix_safe(raw: Tokenizer, added: Sequence[str]) -> bool:
    """Return whether a cut before a space leaves the tokens before it unchanged."""

    def steps(part: Any, inner: str) -> list[dict[str, Any]]:
        # A step pickles to its JSON, which is small; parsing the whole file again would take a vocabulary of megabytes.
        spec = {} if part is None else json.loads(part.__getstate__())
        return spec.get(inner, [spec]) if spec else []

    pre_tokenizers = steps(raw.pre_tokenizer, "pretokenizers")
    return (
        bool(pre_tokenizers)
        and all(step["type"] in _LOCAL_PRE_TOKENIZERS and step.get("use_regex", True) for step in pre_tokenizers)
        and all(step["type"] in _LOCAL_NORMALIZERS for step in steps(raw.normalizer, "normalizers"))
        and not any(" " in content for content in added)
    )


def read_json(path: Path) -> dict[str, Any]:
    """Read an artifact's JSON object; empty if the file is missing.

    Raises:
        ArtifactError: It cannot be read as JSON.
    """
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise ArtifactError(f"{path} cannot be read as JSON ({error}): export the checkpoint again") from None
    return document if isinstance(document, dict) else {}


def _pad_id(raw: Tokenizer, settings: Mapping[str, Any], config: Mapping[str, Any], padding: Mapping[str, Any]) -> int:
    """Return the padding id: the tokenizer's pad token, else the model's, else the tokenizer file's, else 0."""
    token = settings.get("pad_token")
    token = token.get("content") if isinstance(token, dict) else token
    named = raw.token_to_id(token) if isinstance(token, str) else None
    candidates = (named, config.get("pad_token_id"), padding.get("pad_id"))
    return next((each for each in candidates if isinstance(each, int)), 0)
