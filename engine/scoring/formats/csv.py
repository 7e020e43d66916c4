"""csv and tsv, with or without a header.

Misplaced quotes end the run, because the rest would be misread. A wrong number of cells, and bytes that do not fit the
encoding, are errors of their row. A blank line is not a row, except in a file of one column.
"""

from __future__ import annotations

import csv
import dataclasses
import itertools
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from ...errors import InputError
from .base import ReadOptions, Record, RowData, RowError, Texts, TextSource, TextWriter, Values, check_names
from .files import Compression, pyarrow, reading
from .header import announced, check_header, header_hint, shown_delimiter
from .input import InputFile
from .values import dump, json_value, replace, valid

_BREAKS = re.compile("[\t\r\n]")
_SPECIAL = {"\t": re.compile('[\t"\r\n]').search, ",": re.compile('[,"\r\n]').search}


class CsvData(RowData):
    """Columns of strings, with lone surrogates for bytes that are not UTF-8."""

    def __init__(self, columns: Sequence[str], records: Sequence[Sequence[str]]) -> None:
        self.columns, self._records = columns, records

    def take(self, keep: Sequence[int]) -> CsvData:
        """Return some of the rows."""
        return CsvData(self.columns, [self._records[i] for i in keep])

    def cells(self) -> Iterator[Sequence[str]]:
        """Yield each row as it was read."""
        return iter(self._records)

    def members(self) -> Iterator[str]:
        """Yield each row as an object of strings, without its braces."""
        keys = [f"{dump(name)}: " for name in self.columns]
        for row in self._records:
            yield ", ".join(key + dump(replace(value)) for key, value in zip(keys, row, strict=True))

    def table(self, schema: Any) -> Any:
        """Return a table of strings."""
        columns = zip(*self._records, strict=True) if self._records else [()] * len(self.columns)
        arrays = [[replace(cell) for cell in column] for column in columns]
        return pyarrow("write parquet").table(arrays, schema=schema)


class CsvSource(TextSource):
    """A csv or tsv."""

    def __init__(
        self, file: InputFile, compression: Compression, chunk_rows: int, options: ReadOptions, *, delimiter: str
    ) -> None:
        super().__init__(file, compression, chunk_rows, options, newline="")
        csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # the module's own limit is 131,072 characters a cell
        with reading(file.name):
            first = self._first_line(delimiter)
            quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if options.quotes else csv.QUOTE_NONE
            lines = itertools.chain([first] if first else [], self._text)
            self._reader = csv.reader(lines, delimiter=delimiter, strict=True, quoting=quoting)
            self._before: list[list[str]] = []  # rows that were read to count the columns
            self.columns = self._header(first, delimiter, options.named) if options.header else self._numbers()
        self._plain = options.plain
        self._counted = "the header" if options.header else "the first row"

    def _first_line(self, delimiter: str) -> str:
        """Return the first line, without one that only names the delimiter."""
        line = self._text.readline()
        found = announced(line)
        if found is None:
            return line
        if found != delimiter:
            raise InputError(f"{self._shown} begins with {f'sep={found}'!r}: give --delimiter {shown_delimiter(found)}")
        return self._text.readline()

    def _header(self, first: str, delimiter: str, named: bool) -> tuple[str, ...]:
        try:
            header = next(self._lines(), None)
        except InputError as error:
            hint = header_hint([first], delimiter)
            raise InputError(f"{error}{hint and f'; {hint}'}") from None
        if header is None or not any(header):
            raise InputError(f"{self._shown} has no header: its first line must name the columns")
        check_header(header, delimiter, self._shown, named=named)
        if not all(map(valid, header)):
            raise InputError(
                f"{self._shown} has a header that is {self._decoded.reason}: give --encoding, such as latin-1 or cp1252"
            )
        check_names(header, self._shown, header_hint(header, delimiter))
        return tuple(header)

    def _numbers(self) -> tuple[str, ...]:
        """Return the columns' numbers; there are as many as cells in the first row."""
        for cells in self._lines():
            self._before.append(cells)
            if cells:
                return tuple(str(number) for number in range(1, len(cells) + 1))
        return ("1",) if self._before else ()

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
        for cells in itertools.chain(self._before, self._lines()):
            if not cells:
                if width > 1:
                    continue
                cells = [""]
            error = None
            if not valid("".join(cells)):
                error = self.undecodable(cells)
                cells = cells if self._decoded.utf8 else [replace(cell) for cell in cells]
            elif len(cells) != width:
                error = RowError(reason=f"{len(cells)} cells, where {self._counted} has {width}", content=cells)
            # Surplus cells of a broken row are dropped; the error file has them.
            value = cells if error is None else (cells + [""] * width)[:width]
            yield Record(value=value, size=sum(map(len, cells)), error=error)

    def texts_of(
        self, values: list[list[str]], first: int, text: str, pair: str | None, errors: dict[int, RowError]
    ) -> tuple[RowData, Texts, Texts | None]:
        """Turn rows of cells into columns."""
        index, other = self.columns.index(text), None if pair is None else self.columns.index(pair)
        pairs: Texts | None = None if other is None else [value[other] for value in values]
        cells = plain_cells(values, errors) if self._plain else values
        return CsvData(self.columns, cells), [value[index] for value in values], pairs


def plain_cells(rows: Sequence[Sequence[str]], errors: dict[int, RowError]) -> list[Sequence[str]]:
    """Return rows for a tsv without quotes; a row with a tab or a newline in a cell is an error, and has spaces there."""
    result = []
    for index, cells in enumerate(rows):
        if _BREAKS.search("".join(cells)):
            reason = "a cell has a tab or a newline, which a tsv without quotes cannot hold"
            errors.setdefault(index, RowError(reason=reason, content=cells))
            cells = [_BREAKS.sub(" ", cell) for cell in cells]
        result.append(cells)
    return result


@dataclasses.dataclass(frozen=True, kw_only=True)
class CsvWriter(TextWriter):
    """csv as in RFC 4180, and tsv, with newlines at line ends and quotes where needed."""

    columns: tuple[str, ...]  # the input's
    delimiter: str
    plain: bool = False  # whether quotes are plain characters

    def __post_init__(self) -> None:
        """Check the options before the work."""
        super().__post_init__()
        self.header()

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
