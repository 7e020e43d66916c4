"""Shapes to measure: BATCHxTOKENS, as in ``8x128``, eight sequences of 128 tokens each."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

from fusedbert.engine.errors import OptionError

DEFAULT_SHAPES = "1x16,1x128,8x128,16x32,1x512"
SHORTEST = 3  # [CLS], one word piece, [SEP]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shape:
    """The size of a batch.

    Attributes:
        batch: Number of sequences.
        tokens: Tokens of each sequence, ``[CLS]`` and ``[SEP]`` included; no padding.
    """

    batch: int
    tokens: int

    def __str__(self) -> str:
        return f"{self.batch}x{self.tokens}"


def parse_shapes(text: str) -> tuple[Shape, ...]:
    """Read a comma-separated list of shapes; one that is named twice counts once.

    Raises:
        OptionError: A part is not BATCHxTOKENS; the message names it.

    Example:
        >>> [str(shape) for shape in parse_shapes("1x16, 8x128")]
        ['1x16', '8x128']
    """
    return tuple(dict.fromkeys(_parse_shape(part.strip()) for part in text.split(",")))


def _parse_shape(part: str) -> Shape:
    match = re.fullmatch(r"([0-9]{1,6})[xX]([0-9]{1,6})", part)
    if match is None:
        raise OptionError(f"shape {part!r} is not BATCHxTOKENS: write it like 8x128, and several with commas between")
    shape = Shape(batch=int(match[1]), tokens=int(match[2]))
    if shape.batch < 1:
        raise OptionError(f"shape {part} has no sequence: give a batch of 1 or more")
    if shape.tokens < SHORTEST:
        raise OptionError(f"shape {part} has {shape.tokens} tokens, expected {SHORTEST} or more: [CLS], a word piece, [SEP]")
    return shape


def refuse_longer(shapes: Sequence[Shape], max_length: int) -> None:
    """Check that the model takes every shape.

    Raises:
        OptionError: A shape has more than ``max_length`` tokens; the message names it.
    """
    for shape in shapes:
        if shape.tokens > max_length:
            raise OptionError(f"shape {shape} has {shape.tokens} tokens, the model takes at most {max_length}: leave it out")
