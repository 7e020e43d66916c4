"""Texts to token ids, by the checkpoint's own tokenizer.json.

What the file says about padding and truncation is cleared: a well-known base model pads every text to 128 tokens. Texts are
cut here, on the encoded result, and not by a state of the tokenizer, so that any number of threads can share one. The
cut is that of transformers' ``truncation=True``: the end of a text goes, and of a pair the longer text's first.

The export encodes its check texts by this module too, so that an artifact was checked on the ids that it will be fed.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Encoding, Tokenizer

from ..errors import ArtifactError, InputError, TextTooLongError
from .inputs import Text

# A text longer than this many characters a token is tokenized from its start only, where that gives the same tokens.
_LONG = 32
# Steps of these kinds look at one word at a time, so that what stands before a space does not depend on what follows it.
_LOCAL_PRE_TOKENIZERS = frozenset({"BertPreTokenizer", "Whitespace", "WhitespaceSplit", "ByteLevel"})
_LOCAL_NORMALIZERS = frozenset({"BertNormalizer", "Lowercase", "StripAccents", "NFC", "NFD", "NFKC", "NFKD"})


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One line of a batch: token ids and their segments, not padded.

    Attributes:
        ids: Token ids, special tokens included.
        types: 0 for the first text, 1 for the second.
        truncated: Whether tokens were cut off.
    """

    ids: list[int]
    types: list[int]
    truncated: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextTokenizer:
    """A tokenizer and the length that it cuts at.

    Attributes:
        raw: The tokenizer of the ``tokenizers`` package, without padding and truncation.
        max_length: Tokens of a row at most, special tokens included.
        pad_id: The id that fills a batch's shorter rows.
        cut_left: Whether the start of a text is cut off and not its end.
        prefix_safe: Whether a text can be tokenized up to a space and give the same tokens up to there.
        segments: Whether the second text of a pair is told apart from the first; where not, all tokens are of segment 0.
        vocab_size: Rows of the model's word table, where the tokenizer has tokens beyond it; None where it has none.
    """

    raw: Tokenizer
    max_length: int
    pad_id: int
    cut_left: bool
    prefix_safe: bool
    segments: bool = True
    vocab_size: int | None = None

    @classmethod
    def load(cls, folder: Path, max_length: int) -> TextTokenizer:
        """Load an artifact's tokenizer.json, with what tokenizer_config.json and config.json say beside it.

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
        return cls.of(raw, settings(folder / "tokenizer_config.json"), settings(folder / "config.json"), max_length)

    @classmethod
    def of(cls, raw: Tokenizer, said: Mapping[str, Any], config: Mapping[str, Any], max_length: int) -> TextTokenizer:
        """Take a tokenizer as its configuration wants it used.

        Args:
            raw: What tokenizer.json holds; its padding and truncation are cleared.
            said: tokenizer_config.json.
            config: config.json.
            max_length: Tokens of a row at most.
        """
        padding, truncation = raw.padding or {}, raw.truncation or {}
        raw.no_padding()
        raw.no_truncation()
        raw.encode_special_tokens = said.get("split_special_tokens") is True
        side = said.get("truncation_side") or truncation.get("direction", "right")
        added = raw.get_added_tokens_decoder()
        rows = config.get("vocab_size")
        beyond = isinstance(rows, int) and (raw.get_vocab_size() > rows or max(added, default=0) >= rows)
        return cls(
            raw=raw,
            max_length=max_length,
            pad_id=_pad_id(raw, said, config, padding),
            cut_left=str(side).lower() == "left",
            prefix_safe=_prefix_safe(raw, [token.content for token in added.values()]),
            segments="token_type_ids" in said.get("model_input_names", ["token_type_ids"]),
            vocab_size=rows if beyond else None,
        )

    def encode(self, texts: Sequence[Text], *, truncate: bool = True) -> list[Row]:
        """Turn texts into rows of at most ``max_length`` tokens.

        Args:
            texts: Checked texts and pairs.
            truncate: Whether to cut long ones; they are errors where not.

        Raises:
            TextTooLongError: A text has more tokens than ``max_length`` and ``truncate`` is false.
        """
        prefixed = [self._prefix(text) for text in texts]
        encodings = self.raw.encode_batch_fast([text.plain() for text, _ in prefixed])
        return [
            self._row(encoding, text, was_cut, truncate)
            for encoding, text, (_, was_cut) in zip(encodings, texts, prefixed, strict=True)
        ]

    def trace(self, text: Text, *, truncate: bool = True) -> tuple[Encoding, list[int]]:
        """Encode one text with what ``encode`` leaves out: its tokens, their character offsets, and which text each is of.

        Args:
            text: A checked text or pair.
            truncate: As in ``encode``.

        Returns:
            The encoding, and the positions in it that ``encode`` keeps.

        Raises:
            TextTooLongError: As ``encode``.
        """
        start, was_cut = self._prefix(text)
        encoding = self.raw.encode_batch([start.plain()])[0]
        if not self._row(encoding, text, was_cut, truncate).truncated:
            return encoding, list(range(len(encoding)))
        return encoding, self._kept(encoding.sequence_ids, text)

    def _row(self, encoding: Encoding, text: Text, was_cut: bool, truncate: bool) -> Row:
        ids, types = encoding.ids, encoding.type_ids
        if len(ids) <= self.max_length and not was_cut:
            return self.row(ids, types, text)
        if not truncate:
            more = "more than " if was_cut else ""
            raise TextTooLongError(
                f"text {text.index} has {more}{len(ids)} tokens, max_length is {self.max_length}: "
                "shorten it, or allow truncation"
            )
        kept = self._kept(encoding.sequence_ids, text)
        return self.row([ids[i] for i in kept], [types[i] for i in kept], text, truncated=True)

    def row(self, ids: list[int], types: list[int], text: Text, *, truncated: bool = False) -> Row:
        """Make a row of what is fed of a text.

        Raises:
            InputError: It has no tokens, or one that the model has no vector for.
        """
        if not ids:
            raise InputError(
                f"text {text.index} has no tokens: it is empty for this tokenizer, which adds none of its own such as [CLS]; "
                "leave it out, or export the checkpoint with a tokenizer that adds them"
            )
        if self.vocab_size is not None and (top := max(ids)) >= self.vocab_size:
            raise InputError(
                f"text {text.index} holds the token {self.raw.id_to_token(top)!r} of id {top}, and the model has vectors for "
                f"ids below {self.vocab_size}: the token was added and the model never resized; take it out of the text"
            )
        return Row(ids=ids, types=types if self.segments else [0] * len(types), truncated=truncated)

    def _kept(self, owners: list[int | None], text: Text) -> list[int]:
        """Return the positions that stay: all special tokens, and of each text as many tokens as it has room for."""
        counts = (owners.count(0), owners.count(1))
        room = self.max_length - (len(owners) - sum(counts))
        if room < 0:
            raise InputError(f"text {text.index} is a pair, and max_length {self.max_length} has no room for its separators")
        keep = share_room(*counts, room)
        seen = [0, 0]
        kept = []
        for position, owner in enumerate(owners):
            if owner is not None:
                rank = counts[owner] - 1 - seen[owner] if self.cut_left else seen[owner]
                seen[owner] += 1
                if rank >= keep[owner]:
                    continue
            kept.append(position)
        return kept

    def _prefix(self, text: Text) -> tuple[Text, bool]:
        """Return a start of a very long text that has all the tokens which stay, and whether it is shorter than the text.

        The start ends before a space, and has more than ``max_length`` tokens of its own, so that what follows it cannot
        change the first ones. Of a pair it has more tokens than the other text, too: which of them is longer decides
        what is cut. A pair of two very long texts is left whole for the same reason.
        """
        least = _LONG * self.max_length
        sizes = (len(text.text), len(text.pair or ""))
        if max(sizes) <= least or min(sizes) > least or not self.prefix_safe or self.cut_left:
            return text, False
        whole, other = (text.text, text.pair) if sizes[0] > least else (text.pair or "", text.text)
        enough = max(self.max_length, self._count(other) if other else 0)
        size = least
        while (end := _space_after(whole, size)) > 0:
            start = whole[:end]
            if self._count(start) > enough:
                if sizes[0] > least:
                    return dataclasses.replace(text, text=start), True
                return dataclasses.replace(text, pair=start), True
            size = 4 * end
        return text, False

    def _count(self, text: str) -> int:
        """Count the tokens of a text by itself, without special ones."""
        return len(self.raw.encode_batch_fast([text], add_special_tokens=False)[0])


def share_room(first: int, second: int, room: int) -> tuple[int, int]:
    """Share the room for tokens between the two texts of a pair, the longer one giving way first.

    The rule of transformers' ``longest_first``: where both are longer than half, each gets half, and an odd token goes to
    the longer one (to the second of two equal ones).

    Example:
        >>> share_room(3, 100, 20), share_room(50, 100, 21)
        ((3, 17), (10, 11))
    """
    if first + second <= room:
        return first, second
    short, long = sorted((first, second))
    if short * 2 > room:
        short, long = room // 2, room - room // 2
    else:
        long = room - short
    return (long, short) if first > second else (short, long)


def _space_after(text: str, start: int) -> int:
    """Return the position of the first ASCII space from ``start`` on that follows a visible character, or -1."""
    position = text.find(" ", start)
    while position > 0 and text[position - 1].isspace():
        position = text.find(" ", position + 1)
    return position


def _prefix_safe(raw: Tokenizer, added: Sequence[str]) -> bool:
    """Tell from a tokenizer's steps and added tokens whether a cut before a space leaves the tokens before it as they are."""

    def steps(part: Any, inner: str) -> list[dict[str, Any]]:
        # A step pickles to its JSON, which is small; the whole file, with a vocabulary of megabytes, is not read twice.
        spec = {} if part is None else json.loads(part.__getstate__())
        return spec.get(inner, [spec]) if spec else []

    pre_tokenizers = steps(raw.pre_tokenizer, "pretokenizers")
    return (
        bool(pre_tokenizers)
        and all(step["type"] in _LOCAL_PRE_TOKENIZERS and step.get("use_regex", True) for step in pre_tokenizers)
        and all(step["type"] in _LOCAL_NORMALIZERS for step in steps(raw.normalizer, "normalizers"))
        and not any(" " in content for content in added)
    )


def settings(path: Path) -> dict[str, Any]:
    """Read a JSON object beside the tokenizer; the artifact may do without it.

    Raises:
        ArtifactError: It cannot be read, or is no JSON.
    """
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise ArtifactError(f"{path} cannot be read as JSON ({error}): export the checkpoint again") from None
    return document if isinstance(document, dict) else {}


def _pad_id(raw: Tokenizer, said: Mapping[str, Any], config: Mapping[str, Any], padding: Mapping[str, Any]) -> int:
    """Find the padding id: the tokenizer's pad token, else the model's, else what the file's padding said, else 0."""
    token = said.get("pad_token")
    token = token.get("content") if isinstance(token, dict) else token
    found = raw.token_to_id(token) if isinstance(token, str) else None
    for candidate in (found, config.get("pad_token_id"), padding.get("pad_id")):
        if isinstance(candidate, int):
            return candidate
    return 0
