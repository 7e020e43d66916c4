"""Batches of token ids: of a wanted shape with random tokens, or from texts, the same way for every engine.

Random tokens are new in every iteration, so that no cache of answers or of branches helps. The work of a BERT encoder depends
on the number of tokens and not on their ids; int8 graphs with dynamic scales read the values too, so the tokens are drawn
from the model's own vocabulary.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from fusedbert.engine.errors import ArtifactError, OptionError
from fusedbert.engine.text.tokenizer import Row
from fusedbert.engine.text.tokenizer import pad as pad_rows

DEFAULT_SHAPES = "1x16,1x128,8x128,16x32,1x512"
SHORTEST = 3  # [CLS], one word piece, [SEP]
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
Logits = NDArray[np.float32]  # [batch, labels]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shape:
    """The size of a batch, written BATCHxTOKENS as in ``8x128``."""

    batch: int  # sequences
    tokens: int  # of each sequence, [CLS] and [SEP] included; no padding

    def __str__(self) -> str:
        return f"{self.batch}x{self.tokens}"


def parse_shapes(text: str) -> tuple[Shape, ...]:
    """Parse a comma-separated list of shapes; repetitions are dropped.

    Raises:
        OptionError: A part is not BATCHxTOKENS; the message names it.

    Example:
        >>> [str(shape) for shape in parse_shapes("1x16, 8x128")]
        ['1x16', '8x128']
    """
    shapes: list[Shape] = []
    for part in map(str.strip, text.split(",")):
        match = re.fullmatch(r"([0-9]{1,6})[xX]([0-9]{1,6})", part)
        if match is None:
            raise OptionError(f"shape {part!r} is not BATCHxTOKENS: write it like 8x128, and several with commas between")
        shape = Shape(batch=int(match[1]), tokens=int(match[2]))
        if shape.batch < 1:
            raise OptionError(f"shape {part} has no sequence: give a batch of 1 or more")
        if shape.tokens < SHORTEST:
            raise OptionError(
                f"shape {part} has {shape.tokens} tokens, expected {SHORTEST} or more: [CLS], a word piece, [SEP]"
            )
        shapes.append(shape)
    return tuple(dict.fromkeys(shapes))


def refuse_longer(shapes: Sequence[Shape], max_length: int) -> None:
    """Raise an ``OptionError`` that names the first shape with more than ``max_length`` tokens."""
    for shape in shapes:
        if shape.tokens > max_length:
            raise OptionError(f"shape {shape} has {shape.tokens} tokens, the model takes at most {max_length}: leave it out")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Batch:
    """The inputs of an engine, [batch, tokens] each; the mask is 0 for padding."""

    input_ids: NDArray[np.int64]
    attention_mask: NDArray[np.int64]
    token_type_ids: NDArray[np.int64]

    def arrays(self, names: Iterable[str] = INPUTS) -> dict[str, NDArray[np.int64]]:
        """Return the inputs of these names, [batch, tokens] each."""
        return {name: getattr(self, name) for name in names}


def accepted_inputs(function: Callable[..., object]) -> tuple[str, ...]:
    """Name the inputs that a function takes; DistilBERT, for example, has no token types."""
    accepted = inspect.signature(function).parameters
    return tuple(name for name in INPUTS if name in accepted)


def pad(ids: Sequence[list[int]], types: Sequence[list[int]], pad_id: int) -> Batch:
    """Lay out rows of token ids and token types as one batch, padded on the right to the longest row."""
    rows = [Row(ids=row, types=of_row) for row, of_row in zip(ids, types, strict=True)]
    return Batch(**pad_rows(rows, pad_id))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """The tokens of random texts."""

    first: int  # at the beginning of every sequence: [CLS]
    last: int  # at its end: [SEP]
    ordinary: NDArray[np.int64]  # [n], all that are not special, ascending


def read_vocabulary(folder: Path) -> Vocabulary:
    """Read the vocabulary of an artifact or checkpoint folder from its ``tokenizer.json``.

    Raises:
        ArtifactError: The file cannot be read, or an empty text does not become two special tokens.
    """
    tokenizer = _read_tokenizer(folder)
    tokenizer.no_truncation()
    frame = tokenizer.encode("").ids
    special = [index for index, token in tokenizer.get_added_tokens_decoder().items() if token.special]
    everything = np.array(sorted(tokenizer.get_vocab(with_added_tokens=False).values()), dtype=np.int64)  # [n]
    ordinary = everything[~np.isin(everything, [*special, *frame])]  # [n - specials]
    if len(frame) != 2 or not len(ordinary):
        raise ArtifactError(
            f"{folder}/tokenizer.json encodes the empty text as {frame}, expected two special tokens: not a BERT tokenizer"
        )
    return Vocabulary(first=frame[0], last=frame[1], ordinary=ordinary)


def random_batch(shape: Shape, vocabulary: Vocabulary, random: np.random.Generator) -> Batch:
    """Draw a batch without padding: ``[CLS]``, ordinary tokens, ``[SEP]`` in every sequence."""
    ids = random.choice(vocabulary.ordinary, size=(shape.batch, shape.tokens))  # [batch, tokens]
    ids[:, 0] = vocabulary.first
    ids[:, -1] = vocabulary.last
    return Batch(input_ids=ids, attention_mask=np.ones_like(ids), token_type_ids=np.zeros_like(ids))


def _read_tokenizer(folder: Path) -> Tokenizer:
    path = folder / "tokenizer.json"
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises no narrower class
        raise ArtifactError(f"{path} cannot be read as a tokenizer ({error}): export the checkpoint again") from None
    tokenizer.no_padding()  # some files set padding to a fixed length
    return tokenizer


class TextBatches:
    """A tokenizer without padding, and the padding of its texts into batches."""

    def __init__(self, tokenizer: Tokenizer, *, pad_id: int) -> None:
        self._tokenizer, self.pad_id = tokenizer, pad_id
        self._max_length: int | None = None  # that the tokenizer cuts at; None before the first texts
        self._changing = threading.Lock()

    @classmethod
    def read(cls, folder: Path) -> TextBatches:
        """Read ``tokenizer.json`` and the padding id of ``config.json``.

        Raises:
            ArtifactError: One of the files cannot be read.
        """
        path = folder / "config.json"
        try:
            pad_id = json.loads(path.read_bytes()).get("pad_token_id")
        except (OSError, ValueError) as error:
            raise ArtifactError(f"{path} cannot be read ({error}): export the checkpoint again") from None
        return cls(_read_tokenizer(folder), pad_id=pad_id if isinstance(pad_id, int) else 0)

    def encode(self, texts: Sequence[str] | Sequence[tuple[str, str]], *, max_length: int) -> list[Encoding]:
        """Tokenize texts or pairs, each cut at ``max_length`` tokens."""
        # Only if it changes: the tokenizer refuses to be changed while another thread uses it.
        with self._changing:
            if max_length != self._max_length:
                self._tokenizer.enable_truncation(max_length)
                self._max_length = max_length
        return self._tokenizer.encode_batch(list(texts))

    def pad(self, rows: Sequence[Encoding]) -> Batch:
        """Lay out tokenized texts as one batch, padded on the right to the longest."""
        return pad([row.ids for row in rows], [row.type_ids for row in rows], self.pad_id)
