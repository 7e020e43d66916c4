"""csv and tsv to windows, malformed or not.

The decisions:

* There is a header. A cell may hold anything if it is quoted; quotes that do not fit are an error at once, because what
  follows would be misread.
* A blank line is no row, except in a file of one column, where it is an empty text.
* A row with too many or too few cells, or with bytes that are not UTF-8, is a fault of its row, and ``--on-error`` decides.
"""

from __future__ import annotations

import contextlib
import csv
import io
import sys
from collections.abc import Iterator
from typing import BinaryIO

from ..errors import InputError
from .columns import check_names
from .files import reading
from .rows import TextRows, valid
from .windows import Fault, Raw, Record, TextSource


class CsvSource(TextSource):
    """A csv or tsv with a header line."""

    def __init__(
        self,
        name: str,
        stream: BinaryIO,
        below: io.RawIOBase | None,
        size: int,
        window_rows: int,
        delimiter: str,
        quotes: bool,
    ) -> None:
        super().__init__(name, stream, below, size, window_rows)
        csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # the module's own limit is 131,072 characters a cell
        lines = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
        self._text = lines
        self._reader = (
            csv.reader(lines, delimiter=delimiter, strict=True)
            if quotes
            else csv.reader(lines, delimiter=delimiter, strict=True, quoting=csv.QUOTE_NONE)
        )
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
                    f"{self._shown}, line {self._reader.line_num}: {error}: a cell with a quote must be quoted whole and the "
                    'quote doubled, "as ""here"""; where quotes are plain characters, give --no-quotes'
                ) from None

    def _records(self, added: frozenset[str]) -> Iterator[Record]:
        width = len(self.columns)
        for cells in self._lines():
            if not cells:
                if width > 1:
                    continue
                cells = [""]
            size = sum(map(len, cells))
            if not valid("".join(cells)):
                yield Record(value=fit(cells, width), size=size, fault=Fault(reason="not UTF-8", raw=cells))
            elif len(cells) != width:
                reason = f"{len(cells)} cells, where the header has {width}"
                yield Record(value=fit(cells, width), size=size, fault=Fault(reason=reason, raw=cells))
            else:
                yield Record(value=cells, size=size)

    def _window(self, records: list[Record], first: int, text: str, pair: str | None) -> Raw:
        values = [record.value for record in records]
        at, other = self.columns.index(text), None if pair is None else self.columns.index(pair)
        return Raw(
            first=first,
            rows=TextRows(self.columns, values),
            texts=[value[at] for value in values],
            pairs=None if other is None else [value[other] for value in values],
            faults={i: record.fault for i, record in enumerate(records) if record.fault},
            size=sum(record.size for record in records),
            done=self._done(),
        )


def fit(cells: list[str], width: int) -> list[str]:
    """Give a row as many cells as the header has; what does not fit stands in the side file."""
    return (cells + [""] * width)[:width]
