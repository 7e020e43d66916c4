"""jsonl: one JSON object a line. Blank lines are not rows. json: an array of objects; each is read as a line would be.

A row that is not an object, and a text that is null or not a string, is an error of its row.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

from ...errors import InputError
from .base import MISSING, ReadOptions, Record, RowData, RowError, Texts, TextSource, TextWriter, Values, check_texts
from .convert import TABLES, JsonData, note, text_data
from .files import Compression, pyarrow, reading
from .input import InputFile
from .json import Elements, blank, is_array, parse
from .parquet import ParquetData
from .values import UnconvertibleError, dump, json_value, nested, one_line, replace, valid

# A file nested deeper is written, but not read again.
_PARQUET_LEVELS = 40
_OTHER, _DEEP = "no JSON object", "nested too deep"
Object: TypeAlias = "dict[str, Any]"
Line: TypeAlias = "tuple[str, Object]"  # as it was read, and parsed


class JsonlSource(TextSource):
    """A jsonl, or an array; its columns are the keys of the first rows."""

    def __init__(self, file: InputFile, compression: Compression, chunk_rows: int, options: ReadOptions, *, kind: str) -> None:
        super().__init__(file, compression, chunk_rows, options, newline="\n")
        self._options, self._schema = options, None
        with reading(file.name):
            array, read = is_array(self._text, kind, self._shown)
            self._rest = self._elements(read) if array else self._lines(read)
            self._head = list(itertools.islice(self._rest, chunk_rows))
        keys = dict.fromkeys(key for record in self._head for key in record.value[1])
        self.columns = tuple(filter(valid, keys))

    def schema(self, texts: Sequence[str | None]) -> Any:
        """Infer a ``pyarrow.Schema`` from the first rows; nulls are taken for text, and mixed types are an InputError."""
        arrow = pyarrow("write parquet")
        string = arrow.string()
        fields = []
        for name in self.columns:
            kind = string if name in texts else self._type(arrow, name)
            fields.append((name, string if kind == arrow.null() else kind))
        return arrow.schema(fields)

    def _type(self, arrow: Any, name: str) -> Any:
        """Return the type of a key's first values, without those that do not have one."""
        values = [record.value[1].get(name) for record in self._head]
        try:
            return arrow.array([_clean(value) for value in values]).type
        except (arrow.ArrowException, ValueError, OverflowError, TypeError):
            pass
        try:
            return arrow.array([value for value in map(_alone, values) if value is not None]).type
        except (arrow.ArrowException, ValueError, OverflowError, TypeError) as error:
            raise InputError(
                f"{self._shown}: key {name!r} has values of different types ({one_line(error)}): write .jsonl"
            ) from None

    def _lines(self, read: list[str]) -> Iterator[Record]:
        whole = itertools.chain(_joined(read, self._text), self._text)
        return (self._record(line) for line in whole if not blank(line))

    def _elements(self, read: list[str]) -> Iterator[Record]:
        for text, value in Elements(self._text, read, self._shown):
            yield self._checked(text, value, _DEEP if value is None and text.startswith("{") else _OTHER)

    def _record(self, line: str) -> Record:
        try:
            return self._checked(line, parse(line))
        except ValueError as error:
            deep = not isinstance(error, json.JSONDecodeError) and line.lstrip().startswith("{")
            return self._checked(line, None, _DEEP if deep else _OTHER)

    def _checked(self, text: str, value: Any, reason: str = _OTHER) -> Record:
        """Return a row; one that is not an object becomes an empty one with an error."""
        error = None
        if not valid(text):
            error = self.undecodable(text.strip())
        elif not isinstance(value, dict):
            error = RowError(reason=reason, content=text.strip())
        parsed: Line = (text, value) if isinstance(value, dict) else ("{}", {})
        return Record(value=parsed, size=len(text), error=error)

    def _records(self, added: frozenset[str]) -> Iterator[Record]:
        for number, record in enumerate(itertools.chain(self._head, self._rest), 1):
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
        objects = [record for _, record in values]
        texts = check_texts((record.get(text, MISSING) for record in objects), text, errors)
        pairs = None
        if pair is not None:
            pairs = check_texts((record.get(pair) for record in objects), pair, errors, optional=True)
        return self._data(values, (text, pair), errors), texts, pairs

    def _data(self, lines: list[Line], texts: Sequence[str | None], errors: dict[int, RowError]) -> RowData:
        """Return the rows for the output's format."""
        target, objects = self._options.target, [record for _, record in lines]
        if target not in (*TABLES, "parquet"):
            return JsonData(self.columns, [replace(line.strip()[1:-1].strip()) for line, _ in lines])
        self._check_keys(objects, errors)
        if target in TABLES:
            columns = [[record.get(name) for record in objects] for name in self.columns]
            return text_data(self.columns, columns, len(lines), self._options, errors)
        arrow = pyarrow("write parquet")
        schema = self._schema = self._schema or self.schema(texts)
        arrays = [self._array(arrow, field, objects, field.name in texts, errors) for field in schema]
        return ParquetData(arrow.table(arrays, schema=schema))

    def _check_keys(self, objects: list[Object], errors: dict[int, RowError]) -> None:
        """Note rows with a key that the first rows do not have, since a table's columns are fixed by then."""
        known = set(self.columns)
        for index, record in enumerate(objects):
            if not known.issuperset(record):
                extra = {key: value for key, value in record.items() if key not in known}
                first = next(iter(extra))
                why = (
                    "the first rows do not have, and a table's columns are fixed by then"
                    if valid(first)
                    else "is not Unicode text"
                )
                reason = f"it has the key {first!r}, which {why}: write .jsonl, which keeps each row as it is"
                errors.setdefault(index, RowError(reason=reason, content=extra))

    def _array(self, arrow: Any, field: Any, objects: list[Object], text: bool, errors: dict[int, RowError]) -> Any:
        """Return a column; a value of another type than in the first rows is an error of its row."""
        values = [record.get(field.name) for record in objects]
        if text:  # a value that is not a string cannot be scored, and is an error already
            values = [value if isinstance(value, str) else None for value in values]
        try:
            return arrow.array([_clean(value) for value in values], type=field.type)
        except (arrow.ArrowException, ValueError, OverflowError, TypeError):  # then one by one
            pass
        kept = []
        for index, value in enumerate(values):
            try:
                kept.append(arrow.array([_clean(value)], type=field.type))
            except UnconvertibleError as error:
                note(errors, index, field.name, error, value)
                kept.append(arrow.nulls(1, field.type))
            except (arrow.ArrowException, ValueError, OverflowError, TypeError) as error:
                reason = (
                    f"the key {field.name!r} was {field.type} in the first rows, and is not here ({one_line(error)}): "
                    "write .jsonl, which keeps each row as it is"
                )
                errors.setdefault(index, RowError(reason=reason, content=value))
                kept.append(arrow.nulls(1, field.type))
        return arrow.concat_arrays(kept)


class JsonlWriter(TextWriter):
    """One JSON object a line; a line of jsonl keeps its text, and the added members follow."""

    def chunk(self, data: RowData, values: Values) -> bytes:
        """Render a chunk."""
        return "".join(f"{row}\n" for row in self._rows(data, values)).encode()

    def _rows(self, data: RowData, values: Values) -> Iterator[str]:
        added = [
            [f"{dump(name)}: {json_value(value, exact=self.added.exact)}" for value in column]
            for name, column in zip(self.added.names, values, strict=True)
        ]
        for members, extra in zip(data.members(), zip(*added, strict=True), strict=True):
            yield f"{{{', '.join([members, *extra] if members else extra)}}}"


class JsonWriter(JsonlWriter):
    """An array with an object a line."""

    separator, end = b",\n", b"\n]\n"

    def header(self) -> bytes:
        """Return the bracket before the rows."""
        return b"[\n"

    def chunk(self, data: RowData, values: Values) -> bytes:
        """Render a chunk."""
        return self.separator.join(row.encode() for row in self._rows(data, values))


def _joined(read: list[str], text: Any) -> Iterator[str]:
    """Yield the lines that were read before, the last one completed."""
    for number, line in enumerate(read):
        if line.endswith("\n") or number < len(read) - 1:
            yield line
        else:
            yield line + text.readline()


def _alone(value: Any) -> Any:
    """Return a value, or None if no type has it."""
    try:
        value = _clean(value)
        pyarrow("write parquet").array([value])
    except (ValueError, OverflowError, TypeError, NotImplementedError):
        return None
    return value


def _clean(value: Any, levels: int = _PARQUET_LEVELS) -> Any:
    """Return a value without lone surrogates; UnconvertibleError if parquet cannot hold its nesting."""
    if isinstance(value, str):
        return replace(value)
    if isinstance(value, (dict, list)):
        return nested(value, lambda each: _clean(each, levels - 1), levels)
    return value
