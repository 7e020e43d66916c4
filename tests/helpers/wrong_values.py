"""Documents with one value replaced by a wrong one."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

WRONG: tuple[Any, ...] = (None, True, -1, 10**12, 1e300, 0.5, "", "a" * 5000, "a\nb", [], ["x"], {"x": 1}, [[]])


def changes(document: Any) -> Iterator[tuple[tuple[Any, ...], Any, Any]]:
    """Yield (way to a value, wrong value, changed document) for every value of a document and every wrong one."""
    for at in _places(document):
        for value in WRONG:
            yield at, value, _replaced(document, at, value)


def _places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield at
    if isinstance(value, (dict, list)):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from _places(value[key], (*at, key))


def _replaced(document: Any, at: tuple[Any, ...], value: Any) -> Any:
    if not at:
        return value
    changed = copy.deepcopy(document)
    inner = changed
    for key in at[:-1]:
        inner = inner[key]
    inner[at[-1]] = value
    return changed
