"""parquet, through pyarrow, in memory that does not grow with the file or its row groups."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from ...errors import InputError
from .arrow import values
from .base import CHUNK_BYTES, AddedColumns, ReadOptions, RowData, RowError, Rows, Source, Values, check_names, check_texts
from .convert import text_data
from .files import pyarrow, reading
from .input import InputFile
from .values import one_line

# Row groups of an output: as large as readers like, and small enough to be joined in little memory.
_GROUP_ROWS = 1 << 17
_GROUP_BYTES = 64 << 20


class ParquetData(RowData):
    """Columns for a parquet file: a ``pyarrow.Table``."""

    def __init__(self, table: Any) -> None:
        self.columns, self._table = table.column_names, table

    def take(self, keep: Sequence[int]) -> ParquetData:
        """Return some of the rows."""
        return ParquetData(self._table.take(list(keep)) if self.columns else self._table)

    def table(self, schema: Any) -> Any:
        """Return the table, its columns cast if another file fixed the schema; InputError for one that cannot be."""
        if self._table.schema.equals(schema):
            return self._table
        arrow = pyarrow("write parquet")
        extra = [name for name in self.columns if schema.get_field_index(name) < 0]
        if extra:
            raise InputError(f"{extra[0]!r} is a column that the first file does not have: score the files one by one")
        return arrow.table([self._cast(arrow, field) for field in schema], schema=schema)

    def _cast(self, arrow: Any, field: Any) -> Any:
        if field.name not in self.columns:
            return arrow.nulls(self._table.num_rows, field.type)
        column = self._table.column(field.name)
        try:
            return column.cast(field.type)
        except (arrow.ArrowException, ValueError) as error:
            raise InputError(
                f"the column {field.name!r} is of type {column.type}, and {field.type} in the first file ({one_line(error)}): "
                "score the files one by one"
            ) from None


class ParquetSource(Source):
    """A parquet file, read chunk by chunk."""

    def __init__(self, file: InputFile, chunk_rows: int, options: ReadOptions) -> None:
        arrow, parquet = pyarrow("read parquet"), pyarrow("read parquet", "pyarrow.parquet")
        name = file.name
        if not file.raw.seekable():
            raise InputError(f"{name} is a stream, and parquet is read from its end: save it to a file first")
        with reading(name):
            try:
                self._parquet = parquet.ParquetFile(file.raw, pre_buffer=False, page_checksum_verification=True)
                self._schema = self._parquet.schema_arrow
                self.columns = tuple(self._schema.names)
                meta = self._parquet.metadata
                sizes = [meta.row_group(i).total_byte_size for i in range(meta.num_row_groups)]
            except (arrow.ArrowException, ValueError) as error:
                raise InputError(f"{name} cannot be read as parquet ({one_line(error, 160)}): copy it again") from None
        if not self.columns:
            raise InputError(f"{name} has no columns, expected one of texts")
        self.file, self._options = file, options
        check_names(self.columns, name)
        self._total = max(1, int(meta.num_rows))
        self._row_size = max(1, sum(sizes) // self._total)  # bytes
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
                raise InputError(f"{self.file.name}: the column {name!r} is of type {kind}, expected strings")
        first = 0
        for table in self._tables(arrow):
            errors: dict[int, RowError] = {}
            texts = check_texts(values(table.column(text), text, errors), text, errors)
            pairs = None
            if pair is not None:
                pairs = check_texts(values(table.column(pair), pair, errors), pair, errors, optional=True)
            data = self._data(table, errors)
            size, done = self._row_size * table.num_rows, (first + table.num_rows) / self._total
            yield Rows(first=first, data=data, texts=texts, pairs=pairs, errors=errors, size=size, done=done)
            first += table.num_rows

    def close(self) -> None:
        """Close the file."""
        self._parquet.close()
        super().close()

    def _data(self, table: Any, errors: dict[int, RowError]) -> RowData:
        """Return the rows for the output's format."""
        if self._options.target in (None, "parquet"):
            return ParquetData(table)
        columns = [values(column, name, errors) for name, column in zip(self.columns, table.columns, strict=True)]
        return text_data(self.columns, columns, table.num_rows, self._options, errors)

    def _tables(self, arrow: Any) -> Iterator[Any]:
        """Yield tables of the same number of rows, independent of row groups."""
        waiting = self._schema.empty_table()
        with reading(self.file.name):
            try:
                for batch in self._parquet.iter_batches(batch_size=self._limit):
                    waiting = arrow.concat_tables([waiting, arrow.Table.from_batches([batch], self._schema)])
                    while waiting.num_rows >= self._limit:
                        yield waiting.slice(0, self._limit)
                        waiting = waiting.slice(self._limit)
            except (arrow.ArrowException, ValueError) as error:
                raise InputError(f"{self.file.name} is damaged ({one_line(error, 160)}): copy it again") from None
        if waiting.num_rows:
            yield waiting


class ParquetWriter:
    """parquet with the input's schema and metadata; label is a string, score float32, truncated bool."""

    def __init__(self, schema: Any, added: AddedColumns) -> None:
        arrow = pyarrow("write parquet")
        types = {"str": arrow.string(), "float": arrow.float32(), "bool": arrow.bool_()}
        span = [("score", types["float"]), ("word", types["str"]), ("start", arrow.int64()), ("end", arrow.int64())]
        items = {
            "str": types["str"],
            "float": types["float"],
            "entity": arrow.struct([("entity_group", types["str"]), *span]),
            "token": arrow.struct([("entity", types["str"]), span[0], ("index", arrow.int64()), *span[1:]]),
        }
        types |= {f"list[{name}]": arrow.list_(item) for name, item in items.items()}
        self._fields = [arrow.field(name, types[kind]) for name, kind in zip(added.names, added.types, strict=True)]
        self._input, self._output = schema, arrow.schema([*schema, *self._fields], metadata=schema.metadata)
        self._write(io.BytesIO(), [])  # raises for a type that parquet does not have before the work

    def chunk(self, data: RowData, values: Values) -> Any:
        """Render a chunk."""
        arrow = pyarrow("write parquet")
        added = [arrow.array(column, type=field.type) for field, column in zip(self._fields, values, strict=True)]
        return arrow.Table.from_arrays([*data.table(self._input).columns, *added], schema=self._output)

    def part(self, chunks: Sequence[Any], file: BinaryIO) -> None:
        """Write the chunks as a file with one row group."""
        self._write(file, [pyarrow("write parquet").concat_tables([self._output.empty_table(), *chunks])])

    def join(self, parts: Sequence[Path], output: BinaryIO) -> None:
        """Write the parts as one file, several to a row group."""
        self._write(output, self._groups(parts))

    def stream(self, chunks: Iterable[Any], output: BinaryIO) -> None:
        """Write each chunk as a row group as it comes, then the end."""
        self._write(output, chunks)

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
                    file.flush()
        except (arrow.ArrowInvalid, NotImplementedError) as error:
            raise InputError(f"a column's type cannot be written as parquet ({one_line(error)}): write .jsonl") from None
