"""Rows and their scores to csv, tsv, jsonl and parquet: a window to a chunk, chunks to a part, parts to the output.

A writer says nothing that depends on when or in how many goes it is called, so that parts which were written before and
after a kill join to the same bytes. All writers can be pickled, for Ray's actors.
"""

from __future__ import annotations

import dataclasses
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np

from ..errors import InputError
from .columns import Head
from .files import Form, Kind, Packing, pack, pyarrow
from .json_source import JsonSource
from .rows import Rows, dump
from .windows import Source

_BLOCK = 1 << 20
# A parquet output's row groups: as big as readers like them, and small enough to be joined in little memory.
_GROUP_ROWS = 1 << 17
_GROUP_BYTES = 64 << 20

Values = Sequence[Sequence[object]]


class Writer(Protocol):
    """One output format."""

    def chunk(self, rows: Rows, values: Values) -> Any:
        """Render a window: the input's columns and the added ones."""
        ...

    def part(self, chunks: Sequence[Any], file: BinaryIO) -> None:
        """Write the chunks of a part."""
        ...

    def join(self, parts: Sequence[Path], output: BinaryIO) -> None:
        """Write the whole output from its parts."""
        ...


def open_writer(form: Form, source: Source, head: Head, texts: Sequence[str | None], *, quotes: bool = True) -> Writer:
    """Return the writer of an output.

    Args:
        form: Format and compression of the output.
        source: The input, for its columns.
        head: The columns that are added.
        texts: The input's columns that hold texts.
        quotes: Whether a tsv's cells may be quoted; where not, it is written as it was read.

    Raises:
        MissingDependencyError: The format needs pyarrow.
        InputError: A jsonl's values do not fit a table.
    """
    if form.kind is Kind.JSONL:
        pack(b"", form.packing)  # a missing package is found before the work
        return JsonlWriter(head=head, packing=form.packing)
    if form.kind is not Kind.PARQUET:
        pack(b"", form.packing)
        delimiter = "\t" if form.kind is Kind.TSV else ","
        plain = not quotes and form.kind is Kind.TSV
        return CsvWriter(columns=source.columns, head=head, delimiter=delimiter, plain=plain, packing=form.packing)
    arrow = pyarrow("write parquet")
    schema = source.schema
    if isinstance(source, JsonSource):
        schema = source.schema_of(source.columns, texts)
    elif schema is None:
        schema = arrow.schema([(name, arrow.string()) for name in source.columns])
    return ParquetWriter(schema=schema, head=head)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _TextWriter:
    """What csv and jsonl share: chunks are bytes, parts may be compressed, joining is copying."""

    head: Head
    packing: Packing

    def part(self, chunks: Sequence[bytes], file: BinaryIO) -> None:
        """Write the chunks of a part as one member of a compressed file, or as they are."""
        file.write(pack(b"".join(chunks), self.packing))

    def join(self, parts: Sequence[Path], output: BinaryIO) -> None:
        """Copy the parts one behind the other."""
        output.write(pack(self._top(), self.packing))
        for path in parts:
            with path.open("rb") as part:
                shutil.copyfileobj(part, output, _BLOCK)

    def _top(self) -> bytes:
        return b""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CsvWriter(_TextWriter):
    """csv as RFC 4180 has it, and tsv, with lines that end in a newline; cells are quoted where they have to be."""

    columns: tuple[str, ...]
    delimiter: str
    plain: bool = False

    def chunk(self, rows: Rows, values: Values) -> bytes:
        """Render a window."""
        exact = self.head.unbounded
        added = [[csv_value(value, exact=exact) for value in column] for column in values]
        lines = [self._line([*cells, *extra]) for cells, extra in zip(rows.cells(), zip(*added, strict=True), strict=True)]
        # Bytes that are not UTF-8 leave as they came.
        return "".join(lines).encode("utf-8", "surrogateescape")

    def _top(self) -> bytes:
        return self._line([*self.columns, *self.head.names]).encode()

    def _line(self, cells: list[str]) -> str:
        # Python's own writer leaves a lone carriage return unquoted, which every reader takes for the end of a line.
        special = _SPECIAL[self.delimiter]
        line = self.delimiter.join(cells)
        if self.plain:
            if "\n" in line or "\r" in line or line.count(self.delimiter) != len(cells) - 1:
                raise InputError(f"a cell of {line[:60]!r} has a tab or a newline, which a tsv without quotes cannot hold")
        elif "\n" in line or "\r" in line or '"' in line or line.count(self.delimiter) != len(cells) - 1:
            line = self.delimiter.join([f'"{cell.replace(chr(34), chr(34) * 2)}"' if special(cell) else cell for cell in cells])
        return line + "\n"


_SPECIAL = {"\t": re.compile('[\t"\r\n]').search, ",": re.compile('[,"\r\n]').search}


@dataclasses.dataclass(frozen=True, kw_only=True)
class JsonlWriter(_TextWriter):
    """One JSON object a line; a line that came from jsonl keeps its text, and gets the added members at its end."""

    def chunk(self, rows: Rows, values: Values) -> bytes:
        """Render a window."""
        added = [
            [f"{dump(name)}: {json_value(value, exact=self.head.unbounded)}" for value in column]
            for name, column in zip(self.head.names, values, strict=True)
        ]
        return "".join(self._lines(rows, added)).encode()

    def _lines(self, rows: Rows, added: list[list[str]]) -> Iterator[str]:
        for members, extra in zip(rows.members(), zip(*added, strict=True), strict=True):
            yield f"{{{', '.join([members, *extra] if members else extra)}}}\n"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ParquetWriter:
    """parquet, the input's schema and metadata kept; label string, score float32, truncated bool."""

    schema: Any
    head: Head

    def chunk(self, rows: Rows, values: Values) -> Any:
        """Render a window."""
        arrow = pyarrow("write parquet")
        table = rows.table(self.schema)
        for field, column in zip(self._added(), values, strict=True):
            table = table.append_column(field, arrow.array(column, type=field.type))
        return table.cast(self._whole())

    def part(self, chunks: Sequence[Any], file: BinaryIO) -> None:
        """Write the chunks of a part as a parquet file with one row group."""
        self._write(file, [pyarrow("write parquet").concat_tables([self._whole().empty_table(), *chunks])])

    def join(self, parts: Sequence[Path], output: BinaryIO) -> None:
        """Read the parts and write them as one file, some parts to a row group."""
        self._write(output, self._groups(parts))

    def _groups(self, parts: Sequence[Path]) -> Iterator[Any]:
        arrow, parquet = pyarrow("write parquet"), pyarrow("write parquet", "pyarrow.parquet")
        waiting: list[Any] = []
        for path in parts:
            waiting.append(parquet.ParquetFile(path).read().cast(self._whole()))
            rows, size = sum(table.num_rows for table in waiting), sum(table.nbytes for table in waiting)
            if rows >= _GROUP_ROWS or size >= _GROUP_BYTES:
                yield arrow.concat_tables(waiting)
                waiting = []
        if waiting:
            yield arrow.concat_tables(waiting)

    def _write(self, file: BinaryIO, tables: Any) -> None:
        arrow, parquet = pyarrow("write parquet"), pyarrow("write parquet", "pyarrow.parquet")
        try:
            with parquet.ParquetWriter(file, self._whole()) as writer:
                for table in tables:
                    writer.write_table(table, row_group_size=max(1, table.num_rows))
        except (arrow.ArrowInvalid, NotImplementedError) as error:
            detail = " ".join(str(error).split())[:200]
            raise InputError(f"a column's type cannot be written as parquet ({detail}): write .jsonl") from None

    def _whole(self) -> Any:
        return pyarrow("write parquet").schema([*self.schema, *self._added()], metadata=self.schema.metadata)

    def _added(self) -> list[Any]:
        arrow = pyarrow("write parquet")
        plain = {str: arrow.string(), float: arrow.float32(), bool: arrow.bool_()}
        types = [plain.get(kind) for kind in self.head.types]
        if self.head.lists:  # label and score, or score alone
            lists = [arrow.list_(arrow.string()), arrow.list_(arrow.float32())][-self.head.types.count(list) :]
            types[: len(lists)] = lists
        return list(map(arrow.field, self.head.names, types))


def csv_value(value: object, *, exact: bool = False) -> str:
    """Write an added value as a cell: null is empty, a list is JSON, and numbers are as in ``json_value``.

    Example:
        >>> csv_value(0.5), csv_value(True), csv_value(["a"])
        ('0.500000', 'true', '["a"]')
    """
    return "" if value is None else value if isinstance(value, str) else json_value(value, exact=exact)


def json_value(value: object, *, exact: bool = False) -> str:
    """Write an added value as JSON; a number with 6 decimals, or where that is ``exact`` with all digits of its float32.

    Example:
        >>> json_value(1e-3), json_value(1.0 / 3000, exact=True), json_value([19.7329, 2e6], exact=True)
        ('0.001000', '0.00033333333', '[19.7329, 2000000.0]')
    """
    if isinstance(value, float):
        return _all_digits(value) if exact else f"{value:.6f}"
    if isinstance(value, list):
        return f"[{', '.join(json_value(each, exact=exact) for each in value)}]"
    return dump(value)


def _all_digits(value: float) -> str:
    """Write a float32 with as many digits as tell it from the next one, and with an exponent where zeros would fill it up."""
    number = np.float32(value)
    return np.format_float_positional(number, trim="0") if value == 0.0 or 1e-4 <= abs(value) < 1e15 else str(number)
