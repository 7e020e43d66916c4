"""Columns of values for a format of text: cells of a csv, or members of a JSON object."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from .base import ReadOptions, RowData, RowError
from .csv import CsvData, plain_cells
from .values import UnconvertibleError, cell, dump, member, one_line

TABLES = ("csv", "tsv")


class JsonData(RowData):
    """Rows as the members of JSON objects, without their braces."""

    def __init__(self, columns: Sequence[str], rows: Sequence[str]) -> None:
        self.columns, self._rows = columns, rows

    def take(self, keep: Sequence[int]) -> JsonData:
        """Return some of the rows."""
        return JsonData(self.columns, [self._rows[i] for i in keep])

    def members(self) -> Iterator[str]:
        """Yield each row."""
        return iter(self._rows)


def text_data(
    names: Sequence[str], columns: Sequence[Sequence[Any]], count: int, options: ReadOptions, errors: dict[int, RowError]
) -> RowData:
    """Convert the columns of ``count`` rows for ``options.target``; a value that cannot be is an error of its row."""
    table = options.target in TABLES
    render, empty = (cell, "") if table else (member, "null")
    rendered = [_render(name, column, render, empty, errors) for name, column in zip(names, columns, strict=True)]
    rows: list[Sequence[str]] = list(zip(*rendered, strict=True)) if rendered else [()] * count
    if table:
        return CsvData(names, plain_cells(rows, errors) if options.plain else rows)
    keys = [f"{dump(name)}: " for name in names]
    return JsonData(names, [", ".join(map("".join, zip(keys, row, strict=True))) for row in rows])


def note(errors: dict[int, RowError], index: int, name: str, error: Exception, content: Any) -> None:
    """Note that a value cannot be converted."""
    what = str(error) if isinstance(error, UnconvertibleError) else f"a value that cannot be converted ({one_line(error)})"
    errors.setdefault(index, RowError(reason=f"{name!r} is {what}", content=content))


def _render(
    name: str, values: Sequence[Any], render: Callable[[Any], str], empty: str, errors: dict[int, RowError]
) -> list[str]:
    try:
        return [render(value) for value in values]
    except (ValueError, OverflowError, TypeError):  # rare: then one by one
        pass
    result = []
    for index, value in enumerate(values):
        try:
            result.append(render(value))
        except (ValueError, OverflowError, TypeError) as error:
            note(errors, index, name, error, value)
            result.append(empty)
    return result
