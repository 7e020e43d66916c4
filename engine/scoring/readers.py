"""Inputs by their format."""

from __future__ import annotations

from pathlib import Path

from .csv_source import CsvSource
from .files import Form, Kind, open_input
from .json_source import JsonSource
from .parquet_source import ParquetSource
from .windows import Source


def open_source(name: str, form: Form, window_rows: int, *, quotes: bool = True) -> Source:
    """Open an input and read its columns.

    Args:
        name: Path, or ``-`` for stdin.
        form: Format and compression.
        window_rows: Rows of a window at most.
        quotes: Whether ``"`` opens a quoted cell of a csv or tsv.

    Raises:
        InputError: It is no such file, or its columns are not clear.
        StorageError: It cannot be read.
        MissingDependencyError: Its format needs pyarrow.
    """
    if form.kind is Kind.PARQUET:
        return ParquetSource(name, window_rows)
    stream, below = open_input(name, form.packing)
    size = Path(name).stat().st_size if below is not None else 0
    if form.kind is Kind.JSONL:
        return JsonSource(name, stream, below, size, window_rows)
    return CsvSource(name, stream, below, size, window_rows, "\t" if form.kind is Kind.TSV else ",", quotes)
