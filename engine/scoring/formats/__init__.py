"""The formats of rows, and the choice among them by suffix."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from ...errors import OptionError
from .base import AddedColumns, Source, Writer
from .csv import CsvSource, CsvWriter
from .files import STDIN, Compression, shown
from .jsonl import JsonlSource, JsonlWriter
from .parquet import ParquetSource, ParquetWriter

FORMATS = ("csv", "tsv", "jsonl", "parquet")
_DELIMITERS = {"csv": ",", "tsv": "\t"}
_ALIASES = {"ndjson": "jsonl", "pq": "parquet"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class FileFormat:
    """Format and compression of a file."""

    kind: str  # a key of FORMATS
    compression: Compression = Compression.NONE

    @classmethod
    def of(cls, name: str, kind: str | None = None) -> FileFormat:
        """Read format and compression from a file's suffixes; ``kind`` if they do not name it; OptionError if unsupported.

        Example:
            >>> FileFormat.of("reviews.csv.gz")
            FileFormat(kind='csv', compression=<Compression.GZIP: '.gz'>)
        """
        suffixes = [suffix.lower() for suffix in Path(name).suffixes]
        compressed = suffixes and suffixes[-1] in (Compression.GZIP, Compression.ZSTD)
        compression = Compression(suffixes.pop()) if compressed else Compression.NONE
        kind = kind or (suffixes[-1].removeprefix(".") if suffixes else "")
        kind = _ALIASES.get(kind, kind)
        if kind not in FORMATS:
            way_out = f"name it {', '.join('.' + each for each in FORMATS)}, text formats also with .gz or .zst"
            raise OptionError(f"the format of {shown(name)} is not known: {way_out}; or, for an input, give --input-format")
        if kind == "parquet" and (compression or name == STDIN):
            why = "is read from its end, and cannot come from stdin" if name == STDIN else "compresses its own columns"
            raise OptionError(f"{name}: parquet {why}: give a plain .parquet file")
        return cls(kind=kind, compression=compression)

    def __str__(self) -> str:
        return f"{self.kind}{self.compression}"


def open_source(name: str, form: FileFormat, chunk_rows: int, *, quotes: bool = True) -> Source:
    """Open an input and read its columns; with ``quotes``, ``"`` opens a quoted cell of a csv or tsv.

    Raises:
        FusedBertError: It cannot be read, is not such a file, or needs pyarrow.
    """
    if form.kind == "parquet":
        return ParquetSource(name, chunk_rows)
    if form.kind == "jsonl":
        return JsonlSource(name, form.compression, chunk_rows)
    return CsvSource(name, form.compression, chunk_rows, delimiter=_DELIMITERS[form.kind], quotes=quotes)


def open_writer(
    form: FileFormat, source: Source, added: AddedColumns, texts: Sequence[str | None], *, quotes: bool = True
) -> Writer:
    """Return the writer of an output; ``texts`` are the input's columns of texts. Without ``quotes`` a tsv is not quoted.

    Raises:
        FusedBertError: It needs pyarrow, or a jsonl's values do not fit a table.
    """
    if form.kind == "parquet":
        return ParquetWriter(schema=source.schema(texts), added=added)
    if form.kind == "jsonl":
        return JsonlWriter(added=added, compression=form.compression)
    delimiter = _DELIMITERS[form.kind]
    plain = form.kind == "tsv" and not quotes
    return CsvWriter(added=added, compression=form.compression, columns=source.columns, delimiter=delimiter, plain=plain)
