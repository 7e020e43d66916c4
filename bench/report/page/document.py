"""Reading a benchmark's document, forgiving: a contender that failed, a figure that is missing, a field from another version.

Only what was measured is drawn; what was found wrong never is, whatever figures stand beside it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from .palette import FAMILIES, colour_of
from .scale import finite, number

SHOWN = ("measured", "interrupted")  # statuses whose figures hold
OURS = FAMILIES[0]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """A contender of the document, with how it looks in every plot.

    Attributes:
        name: What it is called in the plots; two of one name are told apart by a number.
        family: Its engine, which gives the colour.
        kind: Its marker's number among the contenders of the family.
        colour: Class of the colour.
        status: ``measured``, ``wrong``, ``missing``, ``failed`` or ``interrupted``.
        results: Its figures, where they may be shown.
        fields: All that the document says of it.
    """

    name: str
    family: str
    kind: int
    colour: str
    status: str
    results: tuple[Mapping[str, Any], ...]
    fields: Mapping[str, Any]

    @property
    def ours(self) -> bool:
        """Whether it is fusedbert in one of its precisions."""
        return self.family == OURS


def entries(document: Mapping[str, Any]) -> tuple[Entry, ...]:
    """Return the document's contenders in its order."""
    found: list[Entry] = []
    named: dict[str, int] = {}
    families: dict[str, int] = {}
    for fields in mappings(document.get("contenders")):
        plain = str(fields.get("name") or "unnamed")
        family = plain.split("-")[0].lower()
        family = family if family in FAMILIES else str(fields.get("engine") or family)
        named[plain] = named.get(plain, 0) + 1
        colour = colour_of(family)
        kind = families[colour] = families.get(colour, -1) + 1
        status = str(fields.get("status") or "measured")
        found.append(
            Entry(
                name=plain if named[plain] == 1 else f"{plain} ({named[plain]})",
                family=family,
                kind=kind,
                colour=colour,
                status=status,
                results=tuple(mappings(fields.get("results"))) if status in SHOWN else (),
                fields=fields,
            )
        )
    return tuple(found)


def measured(contenders: Iterable[Entry]) -> tuple[Entry, ...]:
    """Return those that have figures to show."""
    return tuple(entry for entry in contenders if entry.results)


def mappings(values: object) -> Iterator[Mapping[str, Any]]:
    """Yield the mappings of a list; nothing where it is none."""
    if isinstance(values, Sequence) and not isinstance(values, str):
        yield from (value for value in values if isinstance(value, Mapping))


def mapping(value: object) -> Mapping[str, Any]:
    """Return a mapping as it is, and an empty one for all else."""
    return value if isinstance(value, Mapping) else {}


def values_of(contenders: Iterable[Entry], field: str) -> list[str]:
    """Return the values that a field has in the results, once each, in the order in which they appear."""
    return list(dict.fromkeys(str(result[field]) for entry in contenders for result in entry.results if field in result))


def result_of(entry: Entry, field: str, value: str) -> Mapping[str, Any]:
    """Return the first result whose field has the value; an empty one where it has none."""
    return next((result for result in entry.results if str(result.get(field)) == value), {})


def sizes(result: Mapping[str, Any]) -> tuple[float, float] | None:
    """Return a latency result's batch and tokens, where both are there."""
    batch, tokens = positive(result.get("batch")), positive(result.get("tokens"))
    return None if batch is None or tokens is None else (batch, tokens)


def positive(value: object) -> float | None:
    """Return a finite number above 0, else None."""
    found = number(value)
    return found if found is not None and found > 0 else None


def shape_title(shape: str) -> str:
    """Say a shape in words.

    Example:
        >>> shape_title("8x128"), shape_title("1x16")
        ('8 texts of 128 tokens', '1 text of 16 tokens')
    """
    batch, _, tokens = shape.partition("x")
    if not (batch.isdigit() and tokens.isdigit()):
        return shape
    return f"{batch} {'text' if batch == '1' else 'texts'} of {tokens} tokens"


def throughput(result: Mapping[str, Any]) -> float | None:
    """Return a latency result's sequences per second: as written, else by its median."""
    given = positive(result.get("sequences_per_second"))
    if given is not None:
        return given
    both, median = sizes(result), positive(result.get("p50_ms"))
    return None if both is None or median is None else 1e3 * both[0] / median


def lowest(pairs: Iterable[tuple[str, object]]) -> tuple[str, float] | None:
    """Return the name with the lowest finite value."""
    found = [(name, value) for name, each in pairs if (value := number(each)) is not None]
    return min(found, key=lambda pair: pair[1], default=None)


def rounds_range(values: object) -> tuple[float, float] | None:
    """Return the least and the most of the rounds, where they are plain numbers."""
    found = finite(values) if isinstance(values, Sequence) and not isinstance(values, str) else []
    return (min(found), max(found)) if found else None


def storable(value: object) -> object:
    """Return the document as plain JSON values; what JSON cannot say, NaN and the infinities, becomes null."""
    if isinstance(value, Mapping):
        return {str(key): storable(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [storable(each) for each in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    return str(value)
