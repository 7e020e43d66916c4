"""parquet, through pyarrow, in memory that does not grow with the file or its row groups."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ...errors import InputError
from .base import CHUNK_BYTES, AddedColumns, RowData, RowError, Rows, Source, Values, check_names, check_texts, one_line
from .files import check_input, pyarrow, reading

# Row groups of an output: as large as readers like, and small enough to be joined in little memory.
_GROUP_ROWS = 1 << 17
_GROUP_BYTES = 64 << 20


class ParquetData(RowData):
    """Columns of a parquet file: a ``pyarrow.Table``."""

    def __init__(self, table: Any) -> None:
        self.columns, self._table = table.column_names, table

    def take(self, keep: Sequence[int]) -> ParquetData:
        """Return some of the rows."""
        return ParquetData(self._table.take(list(keep)))

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """Yield each row as Python values."""
        return zip(*map(_values, self._table.columns), strict=True)

    def table(self, schema: Any) -> Any:
        """Return the table as it is."""
        return self._table


def _values(column: Any) -> list[Any]:
    """Return a column's values; a float32 as the shortest number, 0.1 instead of 0.10000000149011612."""
    values: list[Any] = column.to_pylist()
    if str(column.type) in ("float", "halffloat"):
        kind = np.float32 if str(column.type) == "float" else np.float16
        return [None if value is None else float(str(kind(value))) for value in values]
    return values


class ParquetSource(Source):
    """A parquet file, read chunk by chunk."""

    def __init__(self, name: str, chunk_rows: int) -> None:
        parquet = pyarrow("read parquet", "pyarrow.parquet")
        check_input(name)
        with reading(name):
            try:
                self._file = parquet.ParquetFile(name, pre_buffer=False)
            except ValueError as error:  # ArrowInvalid is one
                raise InputError(f"{name} cannot be read as parquet ({one_line(error, 160)}): copy it again") from None
        self._name = name
        self._schema = self._file.schema_arrow
        self.columns = tuple(self._schema.names)
        check_names(self.columns, name)
        meta = self._file.metadata
        self._total = max(1, int(meta.num_rows))
        size = sum(meta.row_group(i).total_byte_size for i in range(meta.num_row_groups)) / self._total
        self._row_size = max(1, int(size))  # bytes
        self._limit = max(1, min(chunk_rows, CHUNK_BYTES // self._row_size))

    def schema(self, texts: Sequence[str | None]) -> Any:
        """Return the file's schema."""
        return self._schema

    def chunks(self, text: str, pair: str | None, added: Iterable[str] = ()) -> Iterator[Rows]:
        """Yield the chunks."""
        arrow = pyarrow("read parquet")
        for name in filter(None, (text, pair)):
            kind = self._schema.field(name).type
            inner = kind.value_type if arrow.types.is_dictionary(kind) else kind
            allowed = (arrow.types.is_string, arrow.types.is_large_string, arrow.types.is_string_view, arrow.types.is_null)
            if not any(check(inner) for check in allowed):
                raise InputError(f"{self._name}: the column {name!r} is of type {kind}, expected strings")
        first = 0
        for table in self._tables(arrow):
            errors: dict[int, RowError] = {}
            texts = check_texts(table.column(text).to_pylist(), text, errors)
            pairs = None if pair is None else check_texts(table.column(pair).to_pylist(), pair, errors)
            data, size, done = ParquetData(table), self._row_size * table.num_rows, (first + table.num_rows) / self._total
            yield Rows(first=first, data=data, texts=texts, pairs=pairs, errors=errors, size=size, done=done)
            first += table.num_rows

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _tables(self, arrow: Any) -> Iterator[Any]:
        """Yield tables of the same number of rows, independent of row groups."""
        waiting = self._schema.empty_table()
        with reading(self._name):
            try:
                for batch in self._file.iter_batches(batch_size=self._limit):
                    waiting = arrow.concat_tables([waiting, arrow.Table.from_batches([batch], self._schema)])
                    while waiting.num_rows >= self._limit:
                        yield waiting.slice(0, self._limit)
                        waiting = waiting.slice(self._limit)
            except ValueError as error:  # UnicodeDecodeError is one
                raise InputError(f"{self._name} is damaged ({one_line(error, 160)}): copy it again") from None
        if waiting.num_rows:
            yield waiting


class ParquetWriter:
    """parquet with the input's schema and metadata; label is a string, score float32, truncated bool."""

    def __init__(self, schema: Any, added: AddedColumns) -> None:
        arrow = pyarrow("write parquet")
        types = {"str": arrow.string(), "float": arrow.float32(), "bool": arrow.bool_()}
        types |= {f"list[{item}]": arrow.list_(types[item]) for item in ("str", "float")}
        self._fields = [arrow.field(name, types[kind]) for name, kind in zip(added.names, added.types, strict=True)]
        self._input, self._output = schema, arrow.schema([*schema, *self._fields], metadata=schema.metadata)

    def chunk(self, data: RowData, values: Values) -> Any:
        """Render a chunk."""
        arrow = pyarrow("write parquet")
        table = data.table(self._input)
        for field, column in zip(self._fields, values, strict=True):
            table = table.append_column(field, arrow.array(column, type=field.type))
        return table.cast(self._output)

    def part(self, chunks: Sequence[Any], file: BinaryIO) -> None:
        """Write the chunks as a file with one row group."""
        self._write(file, [pyarrow("write parquet").concat_tables([self._output.empty_table(), *chunks])])

    def join(self, parts: Sequence[Path], output: BinaryIO) -> None:
        """Write the parts as one file, several to a row group."""
        self._write(output, self._groups(parts))

    def _groups(self, parts: Sequence[Path]) -> Iterator[Any]:
        arrow, parquet = pyarrow("write parquet"), pyarrow("write parquet", "pyarrow.parquet")
        waiting: list[Any] = []
        for path in parts:
            waiting.append(parquet.ParquetFile(path).read().cast(self._output))
            rows, size = sum(table.num_rows for table in waiting), sum(table.nbytes for table in waiting)
            if rows >= _GROUP_ROWS or size >= _GROUP_BYTES:
                yield arrow.concat_tables(waiting)
                waiting = []
        if waiting:
            yield arrow.concat_tables(waiting)

    def _write(self, file: BinaryIO, tables: Iterable[Any]) -> None:
        arrow, parquet = pyarrow("write parquet"), pyarrow("write parquet", "pyarrow.parquet")
        try:
            with parquet.ParquetWriter(file, self._output) as writer:
                for table in tables:
                    writer.write_table(table, row_group_size=max(1, table.num_rows))
        except (arrow.ArrowInvalid, NotImplementedError) as error:
            raise InputError(f"a column's type cannot be written as parquet ({one_line(error)}): write .jsonl") from None
