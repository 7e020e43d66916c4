"""Interfaces of the formats, and the base of those that are text.

A chunk is the rows that run together. Its end depends only on the number and size of rows, so that a resumed run writes the
same bytes. Columns are converted only for another format, as they are read, so that a value that cannot be converted is an
error of its row: from csv to csv, ``1.50`` stays ``1.50``.
"""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeAlias

from ...errors import InputError
from .encoding import Text
from .files import Compression, archive, compress, decompressed, pyarrow, reading, shown
from .input import InputFile
from .values import valid


def check_names(names: Sequence[str], source: str, hint: str = "") -> None:
    """Raise InputError if columns share a name; the message ends with ``hint``."""
    twice = [repr(name) for name, count in Counter(names).items() if count > 1]
    if twice:
        raise InputError(
            f"{source} has more than one column named {', '.join(twice)}: rename them; {listed(names)}{hint and f'; {hint}'}"
        )


def listed(names: Sequence[str]) -> str:
    """List an input's columns for a message."""
    first = ", ".join(map(repr, names[:40]))
    return f"its columns are {first}{', ...' if len(names) > 40 else ''}" if names else "it has no columns"


# Usual names of the column of texts.
GUESSES = frozenset(
    {
        "text",
        "texts",
        "sentence",
        "sentences",
        "review",
        "reviews",
        "content",
        "body",
        "comment",
        "comments",
        "message",
        "messages",
        "document",
        "documents",
        "tweet",
        "question",
        "query",
        "utterance",
    }
)

CHUNK_BYTES = 8 << 20  # a chunk of this size ends early, which bounds the memory of long texts
_COPY_BYTES = 1 << 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """Options of reading an input, as ``score_file`` describes them. Picklable."""

    quotes: bool = True  # whether " opens a quoted cell of a csv or tsv
    delimiter: str | None = None  # of a csv; None for that of its format
    encoding: str | None = None  # of a text format; None for UTF-8, or that of a byte order mark
    header: bool = True  # whether the first line of a csv names the columns; without, they are 1, 2, ...
    named: bool = False  # whether the caller named the column of the texts, so that an unusual header is meant
    target: str | None = None  # the output's format, which values are converted for; None for the input's own

    @property
    def plain(self) -> bool:
        """True if the output is a tsv without quotes."""
        return self.target == "tsv" and not self.quotes


Texts: TypeAlias = "list[str | None]"
Values: TypeAlias = Sequence[Sequence[object]]


MISSING = object()  # the value of a key that a row does not have


@dataclasses.dataclass(frozen=True, kw_only=True)
class RowError:
    """Why a row cannot be scored, and its content."""

    reason: str
    content: Any = None
    hint: str = ""  # the way out, if there is another than --on-error


class RowData(abc.ABC):
    """The input's columns of some rows, ready for the output's format."""

    columns: Sequence[str]

    @abc.abstractmethod
    def take(self, keep: Sequence[int]) -> RowData:
        """Return some of the rows."""

    def cells(self) -> Iterator[Sequence[str]]:
        """Yield each row as cells of a csv."""
        raise TypeError(f"{type(self).__name__} was not read for a csv")

    def members(self) -> Iterator[str]:
        """Yield each row as a JSON object without its braces."""
        raise TypeError(f"{type(self).__name__} was not read for JSON")

    def table(self, schema: Any) -> Any:
        """Return the rows as a ``pyarrow.Table`` of this schema."""
        raise TypeError(f"{type(self).__name__} was not read for parquet")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rows:
    """A chunk of rows."""

    first: int  # number of the first row, from 0
    data: RowData
    texts: Texts  # None where one is missing
    pairs: Texts | None  # second texts, None where a row is a single text; None if all are
    errors: dict[int, RowError]  # by index in the chunk
    size: int  # characters or bytes of the rows
    done: float | None  # share of the input that has been read, if its size is known
    file: str | None = None  # the rows' file, if the input has several
    file_first: int = 0  # number of the first row in it, from 0


class Source(abc.ABC):
    """An open input, whose chunks can be read once."""

    file: InputFile
    columns: tuple[str, ...]  # names; of a jsonl, the keys of its first rows

    @abc.abstractmethod
    def chunks(self, text: str, pair: str | None, added: Iterable[str] = ()) -> Iterator[Rows]:
        """Yield the chunks with the texts of one or two columns; no row may use a name in ``added``."""

    def schema(self, texts: Sequence[str | None]) -> Any:
        """Return the ``pyarrow.Schema`` of the columns, of which ``texts`` hold texts."""
        arrow = pyarrow("write parquet")  # if it is missing, an error before the work
        return arrow.schema([(name, arrow.string()) for name in self.columns])

    def close(self) -> None:
        """Close the file; stdin stays open."""
        self.file.close()


@dataclasses.dataclass(frozen=True, kw_only=True)
class AddedColumns:
    """The added columns."""

    names: tuple[str, ...]
    types: tuple[str, ...]  # str, float, bool, or a list of str, float, entity or token (those with the strategy none)
    exact: bool = False  # numbers with all digits of a float32, instead of 6 decimals


class Writer(Protocol):
    """An output format. Picklable. Its bytes do not depend on where chunks end."""

    def chunk(self, data: RowData, values: Values) -> Any:
        """Render the input's columns and the added ones of a chunk."""
        ...

    def part(self, chunks: Sequence[Any], file: BinaryIO) -> None:
        """Write the rendered chunks of a part."""
        ...

    def join(self, parts: Sequence[Path], output: BinaryIO) -> None:
        """Write the complete output from its parts."""
        ...

    def stream(self, chunks: Iterable[Any], output: BinaryIO) -> None:
        """Write the complete output from rendered chunks, each as it comes."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """One parsed row of a text format."""

    value: Any
    size: int
    error: RowError | None = None


class TextSource(Source):
    """Base of the text formats, which yield single records."""

    def __init__(
        self, file: InputFile, compression: Compression, chunk_rows: int, options: ReadOptions, *, newline: str | None
    ) -> None:
        """Decode the file; ``newline`` is that of ``open``."""
        self.file, self._limit, self._shown = file, chunk_rows, shown(file.name)
        with reading(file.name):
            self._decoded = Text(decompressed(file.raw, compression, file.name), options.encoding, newline, file.name)
        self._text = self._decoded.stream

    def undecodable(self, content: Any) -> RowError:
        """Return the error of a row with bytes that do not fit the encoding."""
        hint = "if it has another encoding, give --encoding, such as latin-1 or cp1252"
        return RowError(reason=self._decoded.reason, content=content, hint=hint)

    def chunks(self, text: str, pair: str | None, added: Iterable[str] = ()) -> Iterator[Rows]:
        """Cut the records into chunks."""
        first = 0
        with reading(self.file.name):
            for records in cut(self._records(frozenset(added)), self._limit):
                errors = {i: record.error for i, record in enumerate(records) if record.error}
                values, size = [record.value for record in records], sum(record.size for record in records)
                data, texts, pairs = self.texts_of(values, first, text, pair, errors)
                done = min(1.0, self.file.raw.tell() / self.file.size) if self.file.size else None
                yield Rows(first=first, data=data, texts=texts, pairs=pairs, errors=errors, size=size, done=done)
                first += len(records)

    def close(self) -> None:
        """Close the file; stdin stays open."""
        with contextlib.suppress(OSError, ValueError):  # of a damaged file
            self._text.close()
        super().close()

    @abc.abstractmethod
    def _records(self, added: frozenset[str]) -> Iterator[Record]:
        """Yield the records."""

    @abc.abstractmethod
    def texts_of(
        self, values: list[Any], first: int, text: str, pair: str | None, errors: dict[int, RowError]
    ) -> tuple[RowData, Texts, Texts | None]:
        """Return the columns, texts and second texts of records that begin at row ``first``."""


def cut(records: Iterable[Record], rows: int) -> Iterator[list[Record]]:
    """Cut records into chunks by their number and their size."""
    chunk: list[Record] = []
    size = 0
    for record in records:
        chunk.append(record)
        size += record.size
        if len(chunk) >= rows or size >= CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextWriter:
    """Base of the text formats: a header, rows, and an end, each compressed by itself; only a zip is packed at the join."""

    added: AddedColumns
    compression: Compression = Compression.NONE
    member: str = ""  # name of the file in a zip

    separator = b""  # between the rows of two chunks
    end = b""

    def __post_init__(self) -> None:
        compress(b"", self.compression)  # raises for a missing package before the work

    def part(self, chunks: Sequence[bytes], file: BinaryIO) -> None:
        """Write the chunks of a part; a part without rows is empty."""
        content = self.separator.join(filter(None, chunks))
        file.write(compress(content, self.compression) if content else b"")

    def join(self, parts: Sequence[Path], output: BinaryIO) -> None:
        """Write the header, copy the parts, and write the end."""
        with archive(output, self.compression, self.member) as packed:
            self._write(packed, self.header())
            filled = [path for path in parts if path.stat().st_size]
            for number, path in enumerate(filled):
                self._write(packed, self.separator if number else b"")
                with path.open("rb") as part:
                    shutil.copyfileobj(part, packed, _COPY_BYTES)
            self._write(packed, self.end)

    def stream(self, chunks: Iterable[bytes], output: BinaryIO) -> None:
        """Write the header, each chunk as it comes, and the end."""
        with archive(output, self.compression, self.member) as packed:
            self._write(packed, self.header())
            output.flush()
            before = b""
            for chunk in filter(None, chunks):
                self._write(packed, before + chunk)
                output.flush()
                before = self.separator
            self._write(packed, self.end)
        output.flush()

    def header(self) -> bytes:
        """Return the first line."""
        return b""

    def _write(self, file: BinaryIO, content: bytes) -> None:
        if content:
            file.write(compress(content, self.compression))


def check_texts(values: Iterable[Any], name: str, errors: dict[int, RowError], *, optional: bool = False) -> Texts:
    """Return a column's texts; note values that are not text as errors, and nulls if the column is not ``optional``."""
    texts: Texts = []
    for index, value in enumerate(values):
        if value is None or value is MISSING:
            if not optional:
                errors.setdefault(index, RowError(reason=f"{name!r} is {'null' if value is None else 'missing'}"))
        elif not isinstance(value, str):
            reason = f"{name!r} is of type {type(value).__name__}, expected a string"
            errors.setdefault(index, RowError(reason=reason, content=value))
        elif not valid(value):
            errors.setdefault(index, RowError(reason=f"{name!r} has a lone surrogate, which is not Unicode text"))
        texts.append(value if isinstance(value, str) else None)
    return texts
