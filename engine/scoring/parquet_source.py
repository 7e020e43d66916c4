"""parquet to windows, in memory that does not grow with the file or its row groups' number."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from ..errors import InputError
from .columns import check_names
from .files import check_input, pyarrow, reading
from .rows import ArrowRows
from .windows import WINDOW_SIZE, Fault, Raw, Source, found_in


class ParquetSource(Source):
    """A parquet file, read a window at a time."""

    def __init__(self, name: str, window_rows: int) -> None:
        parquet = pyarrow("read parquet", "pyarrow.parquet")
        check_input(name)
        with reading(name):
            try:
                self._file = parquet.ParquetFile(name, pre_buffer=False)
            except ValueError as error:  # ArrowInvalid is one
                detail = " ".join(str(error).split())[:160]
                raise InputError(f"{name} cannot be read as parquet ({detail}): copy it again") from None
        self._name = name
        self.schema = self._file.schema_arrow
        self.columns = tuple(self.schema.names)
        check_names(self.columns, name)
        meta = self._file.metadata
        self._total = int(meta.num_rows)
        size = sum(meta.row_group(i).total_byte_size for i in range(meta.num_row_groups)) / max(1, self._total)
        self._row_size = max(1, int(size))
        self._limit = max(1, min(window_rows, WINDOW_SIZE // self._row_size))

    def windows(self, text: str, pair: str | None, added: Iterable[str] = ()) -> Iterator[Raw]:
        """Yield the windows."""
        arrow = pyarrow("read parquet")
        for name in filter(None, (text, pair)):
            found = self.schema.field(name).type
            inner = found.value_type if arrow.types.is_dictionary(found) else found
            kinds = (arrow.types.is_string, arrow.types.is_large_string, arrow.types.is_string_view, arrow.types.is_null)
            if not any(kind(inner) for kind in kinds):
                raise InputError(f"{self._name}: the column {name!r} is of type {found}, expected strings")
        first = 0
        for table in self._tables(arrow):
            faults: dict[int, Fault] = {}
            texts = found_in(table.column(text).to_pylist(), text, faults)
            pairs = None if pair is None else found_in(table.column(pair).to_pylist(), pair, faults)
            done = (first + table.num_rows) / max(1, self._total)
            size = self._row_size * table.num_rows
            yield Raw(first=first, rows=ArrowRows(table), texts=texts, pairs=pairs, faults=faults, size=size, done=done)
            first += table.num_rows

    def _tables(self, arrow: Any) -> Iterator[Any]:
        """Yield tables of the same number of rows, whatever the row groups are."""
        waiting = self.schema.empty_table()
        with reading(self._name):
            try:
                for batch in self._file.iter_batches(batch_size=self._limit):
                    waiting = arrow.concat_tables([waiting, arrow.Table.from_batches([batch], self.schema)])
                    while waiting.num_rows >= self._limit:
                        yield waiting.slice(0, self._limit)
                        waiting = waiting.slice(self._limit)
            except (ValueError, UnicodeDecodeError) as error:
                detail = " ".join(str(error).split())[:160]
                raise InputError(f"{self._name} is damaged ({detail}): copy it again") from None
        if waiting.num_rows:
            yield waiting

    def close(self) -> None:
        """Close the file."""
        self._file.close()
