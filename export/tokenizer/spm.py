"""Sentencepiece's model file (Kudo and Richardson 2018), as far as a Unigram tokenizer needs it.

It is a message in protobuf's wire format: fields, each a number, a type and a value, as in ``sentencepiece_model.proto``.
"""

from __future__ import annotations

import base64
import dataclasses
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenizers import AddedToken

from fusedbert.engine.artifact import LARGE, read_regular
from fusedbert.engine.errors import CheckpointError

Spec = dict[str, Any]
_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5  # wire types; 3 and 4, groups, are not in use
_SIZES = {_EIGHT: 8, _FOUR: 4}
_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3  # fields of the model
_TEXT, _SCORE, _KIND = 1, 2, 3  # of a piece
_CONTROL, _OWN = 3, 4  # kinds of pieces: such as [CLS], and the user's, which are not cut
_ALGORITHM, _UNKNOWN = 3, 40  # of the trainer
_ALGORITHMS = {1: "Unigram", 2: "BPE", 3: "words", 4: "characters"}
_TABLE = 2  # of the normalizer


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pieces:
    """The content of a model file."""

    vocab: list[tuple[str, float]]  # pieces and their log probabilities, by id
    unknown: int  # id of the piece for unknown characters
    added: tuple[AddedToken, ...]  # pieces that are not cut
    table: bytes  # the table of characters by which texts are normalized; empty without one

    def spec(self) -> Spec:
        """Return the parts of a tokenizer.json that hold the same."""
        table = {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(self.table).decode()}
        return {
            "model": {"type": "Unigram", "unk_id": self.unknown, "vocab": [list(piece) for piece in self.vocab]},
            "normalizer": table if self.table else None,
        }


def read_pieces(path: Path) -> Pieces:
    """Read a model file; raise ``CheckpointError`` if it is damaged, or not a Unigram."""
    try:
        fields = [(number, value) for number, value in _fields(read_regular(path, LARGE)) if isinstance(value, bytes)]
        pieces = [dict(_fields(value)) for number, value in fields if number == _PIECES]
        # a message that comes twice is merged
        trainer = dict(_fields(b"".join(value for number, value in fields if number == _TRAINER)))
        normalizer = dict(_fields(b"".join(value for number, value in fields if number == _NORMALIZER)))
        vocab = [(_bytes(piece[_TEXT]).decode("utf-8"), *struct.unpack("<f", piece.get(_SCORE, bytes(4)))) for piece in pieces]
        kinds = [int(piece.get(_KIND, 1)) for piece in pieces]
        unknown, algorithm = _signed(trainer.get(_UNKNOWN, 0)), int(trainer.get(_ALGORITHM, 1))
        table = _bytes(normalizer.get(_TABLE, b""))
    except (OSError, ValueError, TypeError, KeyError, struct.error) as error:
        raise CheckpointError(f"{path} cannot be read as a sentencepiece model ({error}): save the tokenizer again") from None
    if not vocab:
        raise CheckpointError(f"{path} holds no pieces, expected a sentencepiece model: save the tokenizer again")
    if algorithm != 1:
        raise CheckpointError(
            f"{path} was made for {_ALGORITHMS.get(algorithm, algorithm)}, and the tokenizer's class for Unigram: save a "
            "tokenizer.json that does the same"
        )
    added = [(text, kind == _CONTROL) for (text, _), kind in zip(vocab, kinds, strict=True) if kind in (_CONTROL, _OWN)]
    tokens = tuple(AddedToken(text, normalized=False, special=special) for text, special in added)
    return Pieces(vocab=vocab, unknown=unknown, added=tokens, table=table)


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Yield the number and the value of each field; of a number that comes twice the last one counts."""
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            value, place = _varint(message, place)
            yield number, value
            continue
        if kind == _BYTES:
            size, place = _varint(message, place)
        elif kind in _SIZES:
            size = _SIZES[kind]
        else:
            raise ValueError(f"wire type {kind} at byte {place}")
        if place + size > len(message):
            raise ValueError(f"it ends within a field of {size} bytes")
        yield number, message[place : place + size]
        place += size


def _varint(message: bytes, place: int) -> tuple[int, int]:
    """Return the number at a place, seven bits a byte with the lowest first, and the place after it."""
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(message):
            break
        byte = message[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value & (1 << 64) - 1, place
    raise ValueError("it ends within a number, or has one of more than 64 bits")


def _bytes(value: Any) -> bytes:
    if not isinstance(value, bytes):
        raise TypeError(f"the number {value} in place of a string")
    return value


def _signed(value: int) -> int:
    """Return an int32 of a varint, which has 64 bits if it is negative."""
    return value - (1 << 64) if value >> 63 else value
