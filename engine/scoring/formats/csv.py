"""csv and tsv, with a header.

Misplaced quotes end the run, because the rest would be misread. A wrong number of cells, and bytes that are not UTF-8, are
errors of their row. A blank line is not a row, except in a file of one column.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from ...errors import InputError
from .base import Record, RowData, RowError, Texts, TextSource, TextWriter, Values, check_names, json_value, replace, valid
from .files import Compression, pyarrow, reading

_SPECIAL = {"\t": re.compile('[\t"\r\n]').search, ",": re.compile('[,"\r\n]').search}


class CsvData(RowData):
    """Columns of a csv or tsv: strings, with lone surrogates for bytes that are not UTF-8."""

    def __init__(self, columns: Sequence[str], records: list[list[str]]) -> None:
        self.columns, self._records = columns, records

    def take(self, keep: Sequence[int]) -> CsvData:
        """Return some of the rows."""
        return CsvData(self.columns, [self._records[i] for i in keep])

    def rows(self) -> Iterator[list[str]]:
        """Yield each row as it was read."""
        return iter(self._records)

    cells = rows

    def table(self, schema: Any) -> Any:
        """Return a table of strings."""
        columns = zip(*self._records, strict=True) if self._records else [()] * len(self.columns)
        arrays = [[replace(cell) for cell in column] for column in columns]
        return pyarrow("write parquet").table(arrays, schema=schema)


class CsvSource(TextSource):
    """A csv or tsv with a header line."""

    def __init__(self, name: str, compression: Compression, chunk_rows: int, *, delimiter: str, quotes: bool) -> None:
        super().__init__(name, compression, chunk_rows)
        csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # the module's own limit is 131,072 characters a cell
        self._text = io.TextIOWrapper(self._stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
        quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE
        self._reader = csv.reader(self._text, delimiter=delimiter, strict=True, quoting=quoting)
        with reading(name):
            header = next(self._lines(), None)
        if header is None or not any(header):
            raise InputError(f"{self._shown} has no header: its first line must name the columns")
        if not all(map(valid, header)):
            raise InputError(f"{self._shown} has a header that is not UTF-8: convert it first, with iconv -t UTF-8 for example")
        check_names(header, self._shown)
        self.columns = tuple(header)

    def close(self) -> None:
        """Close the file; stdin stays open."""
        with contextlib.suppress(ValueError):
            self._text.detach()
        super().close()

    def _lines(self) -> Iterator[list[str]]:
        while True:
            try:
                yield next(self._reader)
            except StopIteration:
                return
            except csv.Error as error:
                raise InputError(
                    f"{self._shown}, line {self._reader.line_num}: {error}: a cell that contains a quote must be quoted, "
                    'and the quote doubled, "as ""here"""; if quotes are plain characters, give --no-quotes'
                ) from None

    def _records(self, added: frozenset[str]) -> Iterator[Record]:
        width = len(self.columns)
        for cells in self._lines():
            if not cells:
                if width > 1:
                    continue
                cells = [""]
            reason = None
            if not valid("".join(cells)):
                reason = "not UTF-8"
            elif len(cells) != width:
                reason = f"{len(cells)} cells, where the header has {width}"
            error = None if reason is None else RowError(reason=reason, content=cells)
            # Surplus cells of a broken row are dropped; the error file has them.
            value = cells if error is None else (cells + [""] * width)[:width]
            yield Record(value=value, size=sum(map(len, cells)), error=error)

    def texts_of(
        self, values: list[list[str]], first: int, text: str, pair: str | None, errors: dict[int, RowError]
    ) -> tuple[RowData, Texts, Texts | None]:
        """Turn rows of cells into columns."""
        index, other = self.columns.index(text), None if pair is None else self.columns.index(pair)
        pairs: Texts | None = None if other is None else [value[other] for value in values]
        return CsvData(self.columns, values), [value[index] for value in values], pairs


@dataclasses.dataclass(frozen=True, kw_only=True)
class CsvWriter(TextWriter):
    """csv as in RFC 4180, and tsv, with newlines at line ends and quotes where needed."""

    columns: tuple[str, ...]  # the input's
    delimiter: str
    plain: bool = False  # whether quotes are plain characters

    def chunk(self, data: RowData, values: Values) -> bytes:
        """Render a chunk."""
        exact = self.added.exact
        added = [[csv_value(value, exact=exact) for value in column] for column in values]
        lines = [self._line([*cells, *extra]) for cells, extra in zip(data.cells(), zip(*added, strict=True), strict=True)]
        return "".join(lines).encode("utf-8", "surrogateescape")  # bytes that are not UTF-8 are written as they were read

    def header(self) -> bytes:
        """Return the header line."""
        return self._line([*self.columns, *self.added.names]).encode()

    def _line(self, cells: list[str]) -> str:
        # Python's own writer leaves a lone carriage return unquoted, which readers take for the end of a line.
        special = _SPECIAL[self.delimiter]
        line = self.delimiter.join(cells)
        broken = "\n" in line or "\r" in line or line.count(self.delimiter) != len(cells) - 1
        if broken and self.plain:
            raise InputError(f"a cell of {line[:60]!r} has a tab or a newline, which a tsv without quotes cannot hold")
        if not self.plain and (broken or '"' in line):
            line = self.delimiter.join([f'"{cell.replace(chr(34), chr(34) * 2)}"' if special(cell) else cell for cell in cells])
        return line + "\n"


def csv_value(value: object, *, exact: bool = False) -> str:
    """Write an added value as a cell: null is empty, other values are as in ``json_value``.

    Example:
        >>> csv_value(0.5), csv_value(True), csv_value(["a"])
        ('0.500000', 'true', '["a"]')
    """
    return "" if value is None else value if isinstance(value, str) else json_value(value, exact=exact)
