"""jsonl to windows: one JSON object a line, blank lines are no rows.

A line that is no object, or not UTF-8, and a text that is null or no string, is a fault of its row. The columns, where the
output needs some, are the keys of the first rows.
"""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

from ..errors import InputError
from .files import pyarrow, reading
from .rows import JsonRows, Object, clean
from .windows import Fault, Raw, Record, Texts, TextSource, found_in

_BOM = b"\xef\xbb\xbf"


class JsonSource(TextSource):
    """One JSON object a line; blank lines are no rows."""

    def __init__(self, name: str, stream: BinaryIO, below: io.RawIOBase | None, size: int, window_rows: int) -> None:
        super().__init__(name, stream, below, size, window_rows)
        with reading(name):
            self._ahead = list(itertools.islice(self._parsed(), window_rows))  # their keys are the columns
        self.columns = tuple(dict.fromkeys(key for record in self._ahead for key in record.value[1]))

    def schema_of(self, columns: Iterable[str], texts: Iterable[str | None]) -> Any:
        """Infer a ``pyarrow.Schema`` from the first rows; a column that is null in all of them is taken for text.

        Args:
            columns: The columns.
            texts: Those that hold texts, whatever some rows have.

        Raises:
            InputError: A key has values of more than one type.
        """
        arrow = pyarrow("write parquet")
        fields = []
        for name in columns:
            if name in texts:
                fields.append((name, arrow.string()))
                continue
            try:
                found = arrow.array([clean(record.value[1].get(name)) for record in self._ahead]).type
            except (arrow.ArrowException, OverflowError) as error:
                detail = " ".join(str(error).split())[:200]
                raise InputError(f"{self._shown}: the key {name!r} has no one type ({detail}): write .jsonl") from None
            fields.append((name, arrow.string() if found == arrow.null() else found))
        return arrow.schema(fields)

    def _parsed(self) -> Iterator[Record]:
        first = True
        for line in self._stream:
            line = line.removeprefix(_BOM) if first else line
            first = False
            if not line.isspace():
                yield parse(line)

    def _records(self, added: frozenset[str]) -> Iterator[Record]:
        for number, record in enumerate(itertools.chain(self._ahead, self._parsed()), 1):
            if not added.isdisjoint(record.value[1]):
                clash = ", ".join(repr(key) for key in record.value[1] if key in added)
                raise InputError(
                    f"{self._shown}, row {number} has a key {clash} already: give --prefix, for names like 'model_label'"
                )
            yield record

    def _window(self, records: list[Record], first: int, text: str, pair: str | None) -> Raw:
        values = [record.value for record in records]
        faults = {i: record.fault for i, record in enumerate(records) if record.fault}
        texts = take(values, text, faults)
        return Raw(
            first=first,
            rows=JsonRows(self.columns, values, first, (text, pair)),
            texts=texts,
            pairs=None if pair is None else take(values, pair, faults),
            faults=faults,
            size=sum(record.size for record in records),
            done=self._done(),
        )


def parse(line: bytes) -> Record:
    """Parse a line of a jsonl; what is no object becomes an empty one with a fault."""
    size = len(line)
    try:
        text = line.decode()
    except UnicodeDecodeError:
        text = line.decode("utf-8", "replace")
        return Record(value=_object(text) or ("{}", {}), size=size, fault=Fault(reason="not UTF-8", raw=text.strip()))
    found = _object(text)
    if found is None:
        return Record(value=("{}", {}), size=size, fault=Fault(reason="no JSON object", raw=text.strip()))
    return Record(value=found, size=size)


def _object(text: str) -> tuple[str, Object] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return (text, value) if isinstance(value, dict) else None


def take(values: list[tuple[str, Object]], name: str, faults: dict[int, Fault]) -> Texts:
    """Take a column out of JSON objects, noting what is no text."""
    texts: Texts = []
    for index, (_, record) in enumerate(values):
        value = record.get(name)
        if value is not None and not isinstance(value, str):
            kind = type(value).__name__
            faults.setdefault(index, Fault(reason=f"{name!r} is of type {kind}, expected a string", raw=value))
            value = None
        texts.append(value)
    return found_in(texts, name, faults)
