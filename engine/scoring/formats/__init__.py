"""The formats of rows, and the choice among them by suffix."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from ...errors import OptionError
from .base import AddedColumns, ReadOptions, Source, Writer
from .csv import CsvSource, CsvWriter
from .files import STDIN, Compression, shown, zip_member
from .header import parse_delimiter
from .input import InputFile
from .jsonl import JsonlSource, JsonlWriter, JsonWriter
from .parquet import ParquetSource, ParquetWriter
from .txt import TxtSource
from .values import replace

FORMATS = ("csv", "tsv", "txt", "jsonl", "json", "parquet")
_DELIMITERS = {"csv": ",", "tsv": "\t"}
_ALIASES = {"ndjson": "jsonl", "pq": "parquet"}
_COMPRESSIONS = tuple(filter(None, Compression))


@dataclasses.dataclass(frozen=True, kw_only=True)
class FileFormat:
    """Format and compression of a file."""

    kind: str  # a member of FORMATS
    compression: Compression = Compression.NONE
    member: str = dataclasses.field(default="", repr=False, compare=False)  # name of the file in a zip to write

    @classmethod
    def of(cls, name: str, kind: str | None = None, *, output: bool = False) -> FileFormat:
        """Read format and compression from a file's suffixes; of an input's zip also from the name of the file in it.

        Args:
            name: The file, or ``-``.
            kind: The format, whatever the suffix.
            output: Whether it is to be written.

        Raises:
            OptionError: They are not known, or cannot be combined.
            InputError: A zip cannot be read.

        Example:
            >>> FileFormat.of("reviews.csv.gz")
            FileFormat(kind='csv', compression=<Compression.GZIP: '.gz'>)
        """
        path = Path(name)
        compression = Compression(path.suffix.lower()) if path.suffix.lower() in _COMPRESSIONS else Compression.NONE
        stem = path.name.removesuffix(path.suffix) if compression else path.name
        found, where = _kind(stem if kind is None else f".{kind}"), shown(name)
        if compression is Compression.ZIP and not output and found not in FORMATS:
            inner = zip_member(name)
            found, where = _kind(inner), f"{inner!r} in {name}"
        if found not in FORMATS:
            known = [each for each in FORMATS if not (output and each == "txt")]
            if kind is not None:
                raise OptionError(f"the format is {kind!r}: give one of {', '.join(known)}")
            names = f"name it .{', .'.join(known)}, text formats also with {', '.join(_COMPRESSIONS)}"
            option = "give --output-format" if output else "for an input, give --input-format"
            raise OptionError(f"the format of {where} is not known: {names}, or {option}")
        kind = found
        if output and kind == "txt":
            raise OptionError(f"{name}: a txt has one column, and the output more: write .csv or .jsonl")
        if kind == "parquet" and (compression or (name == STDIN and not output)):
            why = "compresses its own columns" if compression else "is read from its end, and cannot come from stdin"
            raise OptionError(f"{name}: parquet {why}: give a plain .parquet file")
        member = stem if _kind(stem) in FORMATS else f"{stem}.{kind}"
        return cls(kind=kind, compression=compression, member=replace(member))

    def __str__(self) -> str:
        return f"{self.kind}{self.compression}"


def bare_name(name: str) -> str:
    """Return a file's name without the suffixes of its compression and its format.

    Example:
        >>> bare_name("parts/2024.05.csv.gz")
        '2024.05'
    """
    bare = Path(name)
    for known in (_COMPRESSIONS, [f".{kind}" for kind in (*FORMATS, *_ALIASES)]):
        if bare.suffix.lower() in known:
            bare = bare.with_suffix("")
    return bare.name


def _kind(name: str) -> str:
    suffix = name.rpartition(".")[2].lower()
    return _ALIASES.get(suffix, suffix)


def open_source(file: InputFile, form: FileFormat, chunk_rows: int, options: ReadOptions) -> Source:
    """Read the columns of an input.

    Raises:
        FusedBertError: It cannot be read, is not such a file, or needs pyarrow.
        OptionError: An option is not valid, or does not apply to the format.
    """
    _check(form, options)
    if form.kind == "parquet":
        return ParquetSource(file, chunk_rows, options)
    if form.kind == "txt":
        return TxtSource(file, form.compression, chunk_rows, options)
    if form.kind in ("jsonl", "json"):
        return JsonlSource(file, form.compression, chunk_rows, options, kind=form.kind)
    delimiter = _DELIMITERS[form.kind] if options.delimiter is None else parse_delimiter(options.delimiter)
    return CsvSource(file, form.compression, chunk_rows, options, delimiter=delimiter)


def _check(form: FileFormat, options: ReadOptions) -> None:
    if options.delimiter is not None and form.kind not in _DELIMITERS:
        raise OptionError(f"delimiter is {options.delimiter!r}, and {form.kind} has none: leave it out")
    if not options.header and form.kind not in (*_DELIMITERS, "txt"):
        raise OptionError(f"{form.kind} names its own columns: leave --no-header out")
    if options.encoding is not None and form.kind == "parquet":
        raise OptionError(f"encoding is {options.encoding!r}, and parquet is always UTF-8: leave it out")


def open_writer(
    form: FileFormat, source: Source, added: AddedColumns, texts: Sequence[str | None], *, quotes: bool = True
) -> Writer:
    """Return the writer of an output; ``texts`` are the input's columns of texts. Without ``quotes`` a tsv is not quoted.

    Raises:
        FusedBertError: It needs pyarrow, or a jsonl's values do not fit a table.
    """
    if form.kind == "parquet":
        return ParquetWriter(schema=source.schema(texts), added=added)
    if form.kind in ("jsonl", "json"):
        json = JsonlWriter if form.kind == "jsonl" else JsonWriter
        return json(added=added, compression=form.compression, member=form.member)
    return CsvWriter(
        added=added,
        compression=form.compression,
        member=form.member,
        columns=source.columns,
        delimiter=_DELIMITERS[form.kind],
        plain=form.kind == "tsv" and not quotes,
    )
