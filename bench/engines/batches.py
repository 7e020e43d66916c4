"""Batches of random tokens, new ones for every iteration, so that no cache of answers or of branches helps.

The work of a BERT encoder depends on the number of tokens and not on which they are; int8 graphs with dynamic scales
read the values too, so the tokens are drawn from the model's own vocabulary and go through its own embeddings.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from fusedbert.engine.errors import ArtifactError

from .shapes import Shape


@dataclasses.dataclass(frozen=True, kw_only=True)
class Batch:
    """Token ids as an engine takes them; without padding, so that every engine computes the same tokens.

    Attributes:
        input_ids: int64 [batch, tokens]
        attention_mask: int64 [batch, tokens], all ones
        token_type_ids: int64 [batch, tokens], all zeros
    """

    input_ids: NDArray[np.int64]
    attention_mask: NDArray[np.int64]
    token_type_ids: NDArray[np.int64]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """What a random text is drawn from.

    Attributes:
        first: Id that every sequence begins with (``[CLS]``).
        last: Id that every sequence ends with (``[SEP]``).
        ordinary: int64 [n], the ids of all tokens that are not special, ascending.
    """

    first: int
    last: int
    ordinary: NDArray[np.int64]


def read_vocabulary(folder: Path) -> Vocabulary:
    """Read the vocabulary of an artifact or checkpoint folder from its ``tokenizer.json``.

    Raises:
        ArtifactError: The file cannot be read, or an empty text does not become two special tokens.
    """
    path = folder / "tokenizer.json"
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises no narrower class
        raise ArtifactError(f"{path} cannot be read as a tokenizer ({error}): export the checkpoint again") from None
    tokenizer.no_padding()
    tokenizer.no_truncation()
    frame = tokenizer.encode("").ids
    special = [index for index, token in tokenizer.get_added_tokens_decoder().items() if token.special]
    everything = np.array(sorted(tokenizer.get_vocab(with_added_tokens=False).values()), dtype=np.int64)  # [n]
    ordinary = everything[~np.isin(everything, [*special, *frame])]  # [n - specials]
    if len(frame) != 2 or not len(ordinary):
        raise ArtifactError(f"{path} encodes the empty text as {frame}, expected two special tokens: not a BERT tokenizer")
    return Vocabulary(first=frame[0], last=frame[1], ordinary=ordinary)


def random_batch(shape: Shape, vocabulary: Vocabulary, random: np.random.Generator) -> Batch:
    """Draw a batch: ``[CLS]``, ordinary tokens, ``[SEP]`` in every sequence."""
    ids = random.choice(vocabulary.ordinary, size=(shape.batch, shape.tokens))  # [batch, tokens]
    ids[:, 0] = vocabulary.first
    ids[:, -1] = vocabulary.last
    return Batch(input_ids=ids, attention_mask=np.ones_like(ids), token_type_ids=np.zeros_like(ids))
