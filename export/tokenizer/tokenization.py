"""A checkpoint's tokenizer beside its model: how long a text may be, and the ids that the model is fed."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from pathlib import Path

from fusedbert.engine.errors import CheckpointError, InputError
from fusedbert.engine.text.inputs import Text
from fusedbert.engine.text.tokenizer import TextTokenizer

from ..checkpoint.architecture import Shape
from ..parity.reference import Encoded
from .files import CONFIG, TOKENIZER
from .reading import Reading, read_tokenizer

LEAST = 3  # tokens of the shortest limit that counts
TextOrPair = str | tuple[str, str]


class Tokenization:
    """A checkpoint's tokenizer, checked against its model.

    Attributes:
        max_length: Longest text in tokens: the tokenizer's own limit where it is sane, never above the position table's.
        notes: What whoever exports should know of it, a line each.
        runtime: The tokenizer as the engine uses it: the export encodes by the engine's own code.
        segmented: Whether the model tells the texts of a pair apart.
    """

    def __init__(self, folder: Path, architecture: Shape) -> None:
        self._reading = read_tokenizer(folder, architecture.family, segmented=architecture.token_types > 1)
        limit = self._reading.limit
        sane = isinstance(limit, int | float) and LEAST <= limit <= architecture.max_tokens
        self.max_length = int(limit) if sane and limit is not None else architecture.max_tokens
        config = {"vocab_size": architecture.vocab_size}
        self.runtime = TextTokenizer.of(self._reading.tokenizer, self._reading.config, config, self.max_length)
        self._token_types = architecture.token_types
        self.segmented = architecture.token_types > 1
        self.notes = (*self._reading.notes, *_faults(folder, self._reading, architecture))
        number = isinstance(limit, int | float) and not isinstance(limit, bool)
        if limit is not None and not (number and limit >= LEAST):
            self.notes += (
                f"{CONFIG} gives {limit!r} as the longest text in tokens, expected {LEAST} or more: {self.max_length} is used",
            )

    @property
    def added(self) -> tuple[str, ...]:
        """The added tokens, special ones too, that the model has a vector for."""
        rows = self.runtime.vocab_size
        tokens = sorted(self._reading.tokenizer.get_added_tokens_decoder().items())
        return tuple(token.content for i, token in tokens if rows is None or i < rows)

    def encode(self, text: str, text_pair: str | None = None) -> Encoded:
        """Tokenize one text, cut at ``max_length``; segments that the model does not know become segment 0.

        Raises:
            InputError: It has no tokens, or one that the model has no vector for, or a pair no room.
        """
        (row,) = self.runtime.encode([Text(text=text, pair=text_pair, index=0)])
        last = max(self._token_types - 1, 0)
        return Encoded(tuple(row.ids), tuple(min(kind, last) for kind in row.types))

    def encode_all(self, texts: Iterable[TextOrPair]) -> list[Encoded]:
        """Tokenize texts and pairs; leave out those that this model cannot be fed, such as an empty one without [CLS]."""
        rows = []
        for text in texts:
            with contextlib.suppress(InputError):
                rows.append(self.encode(*parts(text)))
        return rows

    def takes(self, text: TextOrPair) -> bool:
        """Tell whether the model can be fed a text or a pair."""
        try:
            self.encode(*parts(text))
        except InputError:
            return False
        return True

    def repeat(self, words: str, tokens: int) -> Encoded:
        """Make a text of exactly ``tokens`` tokens out of ``words``, special tokens included where there is room."""
        raw = self._reading.tokenizer
        whole, body = raw.encode(words), raw.encode(words, add_special_tokens=False).ids
        owners = whole.sequence_ids
        before = [i for i, owner in zip(whole.ids, owners, strict=True) if owner is None]
        first, last = (before[:1], before[-1:]) if before else ([], [])
        inner = (body or whole.ids) * (tokens // max(len(body), 1) + 1)
        ids = [*first, *inner[: max(tokens - len(first) - len(last), 0)], *last][:tokens]
        return Encoded(tuple(ids), (0,) * len(ids))

    def save(self, folder: Path) -> None:
        """Write ``tokenizer.json`` and ``tokenizer_config.json``."""
        (folder / TOKENIZER).write_bytes(self._reading.stored)
        config = {"model_max_length": self.max_length, **self._reading.config}
        (folder / CONFIG).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def parts(text: TextOrPair) -> tuple[str, str | None]:
    """Return a text and its second text, None where it has none."""
    return (text, None) if isinstance(text, str) else text


def _faults(folder: Path, reading: Reading, architecture: Shape) -> list[str]:
    """Compare a tokenizer with its model's word table: refuse a tokenizer of another model, and return notes on the rest.

    Raises:
        CheckpointError: The table has no row for a token of the vocabulary, or for one that every text has.
    """
    tokenizer, rows, notes = reading.tokenizer, architecture.vocab_size, []
    vocab = tokenizer.get_vocab(with_added_tokens=True)
    beyond = {token: i for token, i in vocab.items() if i >= rows}
    needed = {*tokenizer.encode("a").ids, _unknown(tokenizer, vocab)}
    always = [token for token, i in beyond.items() if i in needed]
    added = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    if always:
        raise CheckpointError(
            f"the vocabulary in {folder} lacks {', '.join(always[:5])}, or has it beyond the {rows} rows of the model's table: "
            "not the vocabulary of this model's tokenizer"
        )
    if not beyond.keys() <= added:
        raise CheckpointError(
            f"the tokenizer of {folder} has ids up to {max(beyond.values())}, the model's vocab_size is {rows}: "
            "they do not belong together"
        )
    if beyond:
        names = ", ".join(map(repr, sorted(beyond, key=beyond.__getitem__)[:5]))
        notes.append(
            f"the model has no vectors for the added tokens {names} (its table has {rows} rows): a text with one is an error"
        )
    if not tokenizer.num_special_tokens_to_add(False):
        notes.append(
            f"{TOKENIZER} adds no special tokens such as [CLS], for want of a post-processor: the model reads a text's first "
            "token in its place, as in transformers, and a text without tokens is an error"
        )
    return notes


def _unknown(tokenizer: object, vocab: dict[str, int]) -> int | None:
    """Return the id of the token for what the vocabulary does not hold."""
    model = getattr(tokenizer, "model", None)
    return vocab.get(str(getattr(model, "unk_token", None)))
