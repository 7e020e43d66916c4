"""jsonl: one JSON object a line. Blank lines are not rows.

A line that is not an object or not UTF-8, and a text that is null or not a string, is an error of its row.
"""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

from ...errors import InputError
from .base import (
    Record,
    RowData,
    RowError,
    Texts,
    TextSource,
    TextWriter,
    Values,
    check_texts,
    dump,
    json_value,
    one_line,
    replace,
)
from .files import Compression, pyarrow, reading

_BOM = b"\xef\xbb\xbf"
Object: TypeAlias = "dict[str, Any]"
Line: TypeAlias = "tuple[str, Object]"  # as it was read, and parsed


class JsonlData(RowData):
    """Columns of a jsonl: each line as it was read, and parsed."""

    def __init__(self, columns: Sequence[str], records: list[Line], first: int, texts: Sequence[str | None] = ()) -> None:
        self.columns, self._records, self._first, self._texts = columns, records, first, texts

    def take(self, keep: Sequence[int]) -> JsonlData:
        """Return some of the rows."""
        return JsonlData(self.columns, [self._records[i] for i in keep], self._first, self._texts)

    def rows(self) -> Iterator[list[Any]]:
        """Yield each row's values."""
        for record in self._checked():
            yield [record.get(name) for name in self.columns]

    def members(self) -> Iterator[str]:
        """Yield each line as it was, without its braces."""
        for line, _ in self._records:
            yield replace(line.strip()[1:-1].strip())

    def table(self, schema: Any) -> Any:
        """Return a table; InputError for a type or key that the first rows did not have."""
        arrow = pyarrow("write parquet")
        records = list(self._checked())
        arrays = []
        for field in schema:
            values = [_clean(record.get(field.name)) for record in records]
            if field.name in self._texts:  # a value that is not a string cannot be scored, and is in the error file
                values = [value if isinstance(value, str) else None for value in values]
            try:
                arrays.append(arrow.array(values, type=field.type))
            except (arrow.ArrowException, TypeError, ValueError, OverflowError) as error:
                raise InputError(
                    f"the key {field.name!r} was {field.type} in the first rows, and is not in those from row "
                    f"{self._first + 1} on ({one_line(error)}): write .jsonl, which keeps each row as it is"
                ) from None
        return arrow.table(arrays, schema=schema)

    def _checked(self) -> Iterator[Object]:
        known = set(self.columns)
        for offset, (_, record) in enumerate(self._records):
            if not known.issuperset(record):
                extra = ", ".join(repr(key) for key in record if key not in known)
                raise InputError(
                    f"a row at or after row {self._first + offset + 1} has the key {extra}, which the first rows do not have, "
                    "and a table's columns are fixed by then: write .jsonl, which keeps each row as it is"
                )
            yield record


class JsonlSource(TextSource):
    """A jsonl; its columns are the keys of the first rows."""

    def __init__(self, name: str, compression: Compression, chunk_rows: int) -> None:
        super().__init__(name, compression, chunk_rows)
        with reading(name):
            self._head = list(itertools.islice(self._parsed(), chunk_rows))
        self.columns = tuple(dict.fromkeys(key for record in self._head for key in record.value[1]))

    def schema(self, texts: Sequence[str | None]) -> Any:
        """Infer a ``pyarrow.Schema`` from the first rows; nulls are taken for text, and mixed types are an InputError."""
        arrow = pyarrow("write parquet")
        fields = []
        for name in self.columns:
            if name in texts:  # whatever some rows have there
                fields.append((name, arrow.string()))
                continue
            try:
                inferred = arrow.array([_clean(record.value[1].get(name)) for record in self._head]).type
            except (arrow.ArrowException, OverflowError) as error:
                raise InputError(
                    f"{self._shown}: key {name!r} has values of different types ({one_line(error)}): write .jsonl"
                ) from None
            fields.append((name, arrow.string() if inferred == arrow.null() else inferred))
        return arrow.schema(fields)

    def _parsed(self) -> Iterator[Record]:
        for number, line in enumerate(self._stream):
            line = line.removeprefix(_BOM) if number == 0 else line
            if not line.isspace():
                yield _parse(line)

    def _records(self, added: frozenset[str]) -> Iterator[Record]:
        for number, record in enumerate(itertools.chain(self._head, self._parsed()), 1):
            if not added.isdisjoint(record.value[1]):
                clash = ", ".join(repr(key) for key in record.value[1] if key in added)
                raise InputError(
                    f"{self._shown}, row {number} has a key {clash} already: give --prefix, for names like 'model_label'"
                )
            yield record

    def texts_of(
        self, values: list[Line], first: int, text: str, pair: str | None, errors: dict[int, RowError]
    ) -> tuple[RowData, Texts, Texts | None]:
        """Look up the keys in each line."""
        texts = check_texts((record.get(text) for _, record in values), text, errors)
        pairs = None if pair is None else check_texts((record.get(pair) for _, record in values), pair, errors)
        return JsonlData(self.columns, values, first, (text, pair)), texts, pairs


class JsonlWriter(TextWriter):
    """One JSON object a line; a line of jsonl keeps its text, and the added members follow."""

    def chunk(self, data: RowData, values: Values) -> bytes:
        """Render a chunk."""
        added = [
            [f"{dump(name)}: {json_value(value, exact=self.added.exact)}" for value in column]
            for name, column in zip(self.added.names, values, strict=True)
        ]
        rows = zip(data.members(), zip(*added, strict=True), strict=True)
        lines = [f"{{{', '.join([members, *extra] if members else extra)}}}\n" for members, extra in rows]
        return "".join(lines).encode()


def _parse(line: bytes) -> Record:
    """Parse a line; one that is not an object becomes an empty one with an error."""
    value = reason = None
    try:
        text = line.decode()
    except UnicodeDecodeError:
        text, reason = line.decode("utf-8", "replace"), "not UTF-8"
    with contextlib.suppress(ValueError, RecursionError):
        value = json.loads(text)
    parsed: Line = (text, value) if isinstance(value, dict) else ("{}", {})
    if not isinstance(value, dict):
        reason = reason or "no JSON object"
    error = RowError(reason=reason, content=text.strip()) if reason else None
    return Record(value=parsed, size=len(line), error=error)


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return replace(value)
    if isinstance(value, dict):
        return {replace(key): _clean(each) for key, each in value.items()}
    return [_clean(each) for each in value] if isinstance(value, list) else value
