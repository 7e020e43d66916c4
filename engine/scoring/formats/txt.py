"""txt: a text a line, blank ones too; only a newline at the end begins no other. Line ends are those of Python's ``open``."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from .base import ReadOptions, Record, RowData, RowError, Texts, TextSource
from .csv import CsvData, plain_cells
from .files import Compression, reading
from .header import check_text
from .input import InputFile
from .values import replace, valid

_COLUMN = "text"


class TxtSource(TextSource):
    """Lines, as a column of texts."""

    def __init__(self, file: InputFile, compression: Compression, chunk_rows: int, options: ReadOptions) -> None:
        super().__init__(file, compression, chunk_rows, options, newline=None)
        self.columns = (_COLUMN,)
        with reading(file.name):
            self._first = self._text.readline()
        if options.header:
            check_text(self._first, self._shown)
        self._plain = options.plain

    def _records(self, added: frozenset[str]) -> Iterator[Record]:
        for line in itertools.chain([self._first] if self._first else [], self._text):
            text, error = line.removesuffix("\n"), None
            if not valid(text):
                error = self.undecodable(text)
                text = text if self._decoded.utf8 else replace(text)
            yield Record(value=[text], size=len(line), error=error)

    def texts_of(
        self, values: list[Any], first: int, text: str, pair: str | None, errors: dict[int, RowError]
    ) -> tuple[RowData, Texts, Texts | None]:
        """Return the lines as texts, without second ones."""
        cells = plain_cells(values, errors) if self._plain else values
        return CsvData(self.columns, cells), [line for (line,) in values], None
