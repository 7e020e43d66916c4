"""The input's columns as they were, in whichever format they came, given out in whichever format they go.

A window's rows stay in the form in which they were read: lists of strings from csv, lines from jsonl, a table from
parquet. They are converted only where the output is of another kind, and so csv to csv, jsonl to jsonl and parquet to
parquet change nothing: ``007`` stays ``007``, ``1.50`` stays ``1.50``, a dictionary-encoded column stays one.
"""

from __future__ import annotations

import base64
import datetime
import json
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np

from ..errors import InputError
from .files import pyarrow

Object: TypeAlias = "dict[str, Any]"
_SURROGATES = re.compile("[\ud800-\udfff]")


class Rows(Protocol):
    """Some rows of the input, without the columns that are added."""

    def __len__(self) -> int:
        """Return the number of rows."""
        ...

    def take(self, keep: Sequence[int]) -> Rows:
        """Return some of the rows."""
        ...

    def cells(self) -> Iterator[list[str]]:
        """Yield each row as the strings of a csv."""
        ...

    def members(self) -> Iterator[str]:
        """Yield each row as the inside of a JSON object, without the braces."""
        ...

    def table(self, schema: Any) -> Any:
        """Return them as a ``pyarrow.Table`` of this schema."""
        ...


class TextRows:
    """Rows of a csv or tsv: every cell a string. Bytes that are not UTF-8 are kept as lone surrogates."""

    def __init__(self, columns: Sequence[str], records: list[list[str]]) -> None:
        self._columns = columns
        self._records = records

    def __len__(self) -> int:
        return len(self._records)

    def take(self, keep: Sequence[int]) -> TextRows:
        """Return some of the rows."""
        return TextRows(self._columns, [self._records[i] for i in keep])

    def cells(self) -> Iterator[list[str]]:
        """Yield each row as it was."""
        return iter(self._records)

    def members(self) -> Iterator[str]:
        """Yield each row as JSON strings by column."""
        heads = [f"{dump(name)}: " for name in self._columns]
        for record in self._records:
            yield ", ".join(head + dump(replace(cell)) for head, cell in zip(heads, record, strict=True))

    def table(self, schema: Any) -> Any:
        """Return a table of strings."""
        columns = zip(*self._records, strict=True) if self._records else [()] * len(self._columns)
        arrays = [[replace(cell) for cell in column] for column in columns]
        return pyarrow("write parquet").table(arrays, schema=schema)


class JsonRows:
    """Rows of a jsonl: the line as it was, and what it says."""

    def __init__(
        self, columns: Sequence[str], records: list[tuple[str, Object]], first: int, texts: Sequence[str | None] = ()
    ) -> None:
        self._columns = columns
        self._records = records
        self._first = first
        self._texts = texts

    def __len__(self) -> int:
        return len(self._records)

    def take(self, keep: Sequence[int]) -> JsonRows:
        """Return some of the rows."""
        return JsonRows(self._columns, [self._records[i] for i in keep], self._first, self._texts)

    def cells(self) -> Iterator[list[str]]:
        """Yield each row as strings by column: null is an empty string, lists and objects are JSON."""
        for _, record in self._checked():
            yield [cell(record.get(name)) for name in self._columns]

    def members(self) -> Iterator[str]:
        """Yield the inside of each line as it was."""
        for line, _ in self._records:
            yield replace(line.strip()[1:-1].strip())

    def table(self, schema: Any) -> Any:
        """Return a table of the types that the first rows had.

        Raises:
            InputError: A later row has another type, or a column of its own.
        """
        arrow = pyarrow("write parquet")
        records = [record for _, record in self._checked()]
        arrays = []
        for field in schema:
            values = [clean(record.get(field.name)) for record in records]
            if field.name in self._texts:  # what is no text cannot be scored, and stands in the side file
                values = [value if isinstance(value, str) else None for value in values]
            try:
                arrays.append(arrow.array(values, type=field.type))
            except (arrow.ArrowException, TypeError, ValueError, OverflowError) as error:
                raise InputError(
                    f"the key {field.name!r} was {field.type} in the first rows, and is not in those from row "
                    f"{self._first + 1} on ({_line(error)}): write .jsonl, which keeps each row as it is"
                ) from None
        return arrow.table(arrays, schema=schema)

    def _checked(self) -> Iterator[tuple[str, Object]]:
        known = set(self._columns)
        for offset, (line, record) in enumerate(self._records):
            if not known.issuperset(record):
                extra = ", ".join(repr(key) for key in record if key not in known)
                raise InputError(
                    f"a row at or after row {self._first + offset + 1} has the key {extra}, which the first rows have not, and "
                    "a table's columns are fixed by then: write .jsonl, which keeps each row as it is"
                )
            yield line, record


class ArrowRows:
    """Rows of a parquet file: a ``pyarrow.Table``."""

    def __init__(self, table: Any) -> None:
        self._table = table

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def take(self, keep: Sequence[int]) -> ArrowRows:
        """Return some of the rows."""
        return ArrowRows(self._table.take(list(keep)))

    def cells(self) -> Iterator[list[str]]:
        """Yield each row as strings: null is an empty string, times are ISO 8601, lists and structs are JSON."""
        columns = [_values(column) for column in self._table.columns]
        for index in range(len(self)):
            yield [cell(column[index]) for column in columns]

    def members(self) -> Iterator[str]:
        """Yield each row as JSON by column."""
        heads = [f"{dump(name)}: " for name in self._table.column_names]
        columns = [_values(column) for column in self._table.columns]
        for index in range(len(self)):
            yield ", ".join(head + dump(plain(column[index])) for head, column in zip(heads, columns, strict=True))

    def table(self, schema: Any) -> Any:
        """Return the table as it is."""
        return self._table


def _values(column: Any) -> list[Any]:
    """Return a column's values; float32 as the shortest number that means it, 0.1 and not 0.10000000149011612."""
    values: list[Any] = column.to_pylist()
    if str(column.type) in ("float", "halffloat"):
        kind = np.float32 if str(column.type) == "float" else np.float16
        return [None if value is None else float(str(kind(value))) for value in values]
    return values


def cell(value: Any) -> str:
    """Write a value as a cell of a csv."""
    if isinstance(value, str):
        return replace(value)
    if value is None:
        return ""
    value = plain(value, finite=False)
    return value if isinstance(value, str) else str(value) if isinstance(value, float) else dump(value)


def plain(value: Any, *, finite: bool = True) -> Any:
    """Turn a value of a table into what JSON has: times into ISO 8601, decimals into strings, bytes into base64.

    Args:
        value: The value.
        finite: Whether NaN and infinity, which JSON has not, become null.
    """
    if isinstance(value, float):
        return value if math.isfinite(value) or not finite else None
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, str):
        return replace(value)
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, (bytes, bytearray)):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    return str(value)  # decimals and durations


def clean(value: Any) -> Any:
    """Make the strings of a JSON value valid Unicode, as a table needs them."""
    if isinstance(value, str):
        return replace(value)
    if isinstance(value, dict):
        return {replace(key): clean(each) for key, each in value.items()}
    return [clean(each) for each in value] if isinstance(value, list) else value


def replace(text: str) -> str:
    """Put U+FFFD in place of what is no Unicode text; only rows that cannot be scored have any."""
    return text if valid(text) else _SURROGATES.sub("\N{REPLACEMENT CHARACTER}", text)


def valid(text: str) -> bool:
    """Tell whether a string has no lone surrogates."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def dump(value: Any) -> str:
    """Write a value as JSON, letters as they are."""
    return json.dumps(value, ensure_ascii=False)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
