"""Interfaces of the formats, and the base of those that are text.

A chunk is the rows that run together. Its end depends only on the number and size of rows, so that a resumed run writes the
same bytes. Columns are converted only for another format: from csv to csv, ``1.50`` stays ``1.50``.
"""

from __future__ import annotations

import abc
import base64
import dataclasses
import datetime
import json
import math
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeAlias

import numpy as np

from ...errors import InputError
from .files import Compression, compress, open_input, pyarrow, reading, shown

_SURROGATES = re.compile("[\ud800-\udfff]")


def one_line(error: BaseException, length: int = 200) -> str:
    """Return the beginning of an exception's message, as one line."""
    return " ".join(str(error).split())[:length]


def valid(text: str) -> bool:
    """Return whether a string is free of lone surrogates."""
    return text.isascii() or not _SURROGATES.search(text)


def replace(text: str) -> str:
    """Replace lone surrogates by U+FFFD."""
    return text if valid(text) else _SURROGATES.sub("\N{REPLACEMENT CHARACTER}", text)


def dump(value: Any) -> str:
    """Write a value as JSON, with letters unescaped."""
    return json.dumps(value, ensure_ascii=False)


def cell(value: Any) -> str:
    """Write a value as a cell of a csv: null is empty, times are ISO 8601, lists and objects are JSON."""
    if isinstance(value, str):
        return replace(value)
    if value is None:
        return ""
    value = plain(value, finite=False)
    return value if isinstance(value, str) else str(value) if isinstance(value, float) else dump(value)


def plain(value: Any, *, finite: bool = True) -> Any:
    """Convert a value to JSON's types: decimals to strings, bytes to base64; NaN and infinity to null if ``finite``."""
    if isinstance(value, float):
        return value if math.isfinite(value) or not finite else None
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, str):
        return replace(value)
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, (bytes, bytearray)):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    return str(value)  # decimals and durations


def json_value(value: object, *, exact: bool = False) -> str:
    """Write an added value as JSON; numbers with 6 decimals, or all digits of a float32 if ``exact``.

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
    """Write the digits that identify a float32, with an exponent instead of many zeros."""
    number = np.float32(value)
    return np.format_float_positional(number, trim="0") if value == 0.0 or 1e-4 <= abs(value) < 1e15 else str(number)


def check_names(names: Sequence[str], source: str) -> None:
    """Raise InputError if columns share a name."""
    twice = [repr(name) for name, count in Counter(names).items() if count > 1]
    if twice:
        raise InputError(f"{source} has more than one column named {', '.join(twice)}: rename them; {listed(names)}")


def listed(names: Sequence[str]) -> str:
    """List an input's columns for a message."""
    first = ", ".join(map(repr, names[:40]))
    return f"its columns are {first}{', ...' if len(names) > 40 else ''}" if names else "it has no columns"


CHUNK_BYTES = 8 << 20  # a chunk of this size ends early, which bounds the memory of long texts
_COPY_BYTES = 1 << 20

Texts: TypeAlias = "list[str | None]"
Values: TypeAlias = Sequence[Sequence[object]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RowError:
    """Why a row cannot be scored, and its content."""

    reason: str
    content: Any = None


class RowData(abc.ABC):
    """The input's columns of some rows, as they were read."""

    columns: Sequence[str]

    @abc.abstractmethod
    def take(self, keep: Sequence[int]) -> RowData:
        """Return some of the rows."""

    @abc.abstractmethod
    def rows(self) -> Iterator[Sequence[Any]]:
        """Yield each row as its values."""

    @abc.abstractmethod
    def table(self, schema: Any) -> Any:
        """Return the rows as a ``pyarrow.Table`` of this schema."""

    def cells(self) -> Iterator[list[str]]:
        """Yield each row as cells of a csv."""
        for row in self.rows():
            yield [cell(value) for value in row]

    def members(self) -> Iterator[str]:
        """Yield each row as a JSON object without its braces."""
        keys = [f"{dump(name)}: " for name in self.columns]
        for row in self.rows():
            yield ", ".join(key + dump(plain(value)) for key, value in zip(keys, row, strict=True))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rows:
    """A chunk of rows."""

    first: int  # number of the first row, from 0
    data: RowData
    texts: Texts  # None where one is missing
    pairs: Texts | None  # second texts; None if the rows are single texts
    errors: dict[int, RowError]  # by index in the chunk
    size: int  # characters or bytes of the rows
    done: float | None  # share of the input that has been read, if its size is known


class Source(abc.ABC):
    """An open input, whose chunks can be read once."""

    columns: tuple[str, ...]  # names; of a jsonl, the keys of its first rows

    @abc.abstractmethod
    def chunks(self, text: str, pair: str | None, added: Iterable[str] = ()) -> Iterator[Rows]:
        """Yield the chunks with the texts of one or two columns; no row may use a name in ``added``."""

    def schema(self, texts: Sequence[str | None]) -> Any:
        """Return the ``pyarrow.Schema`` of the columns, of which ``texts`` hold texts."""
        arrow = pyarrow("write parquet")  # if it is missing, an error before the work
        return arrow.schema([(name, arrow.string()) for name in self.columns])

    @abc.abstractmethod
    def close(self) -> None:
        """Close the file."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class AddedColumns:
    """The added columns."""

    names: tuple[str, ...]
    types: tuple[str, ...]  # str, float, bool, list[str] or list[float]
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """One parsed row of a text format."""

    value: Any
    size: int
    error: RowError | None = None


class TextSource(Source):
    """Base of the text formats, which yield single records."""

    def __init__(self, name: str, compression: Compression, chunk_rows: int) -> None:
        self._name, self._limit, self._shown = name, chunk_rows, shown(name)
        self._stream, self._raw = open_input(name, compression)
        self._size = Path(name).stat().st_size if self._raw is not None else 0

    def chunks(self, text: str, pair: str | None, added: Iterable[str] = ()) -> Iterator[Rows]:
        """Cut the records into chunks."""
        first = 0
        with reading(self._name):
            for records in cut(self._records(frozenset(added)), self._limit):
                errors = {i: record.error for i, record in enumerate(records) if record.error}
                values, size = [record.value for record in records], sum(record.size for record in records)
                data, texts, pairs = self.texts_of(values, first, text, pair, errors)
                done = min(1.0, self._raw.tell() / self._size) if self._raw is not None and self._size else None
                yield Rows(first=first, data=data, texts=texts, pairs=pairs, errors=errors, size=size, done=done)
                first += len(records)

    def close(self) -> None:
        """Close the file; stdin stays open."""
        if self._raw is not None:
            self._stream.close()
            self._raw.close()

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
    """Base of the text formats, whose parts are joined by copying."""

    added: AddedColumns
    compression: Compression = Compression.NONE

    def __post_init__(self) -> None:
        compress(b"", self.compression)  # raises for a missing package before the work

    def part(self, chunks: Sequence[bytes], file: BinaryIO) -> None:
        """Write the chunks of a part."""
        file.write(compress(b"".join(chunks), self.compression))

    def join(self, parts: Sequence[Path], output: BinaryIO) -> None:
        """Write the header and copy the parts."""
        output.write(compress(self.header(), self.compression))
        for path in parts:
            with path.open("rb") as part:
                shutil.copyfileobj(part, output, _COPY_BYTES)

    def header(self) -> bytes:
        """Return the first line."""
        return b""


def check_texts(values: Iterable[Any], name: str, errors: dict[int, RowError]) -> Texts:
    """Return a column's texts; note nulls and values that are not text as errors."""
    texts: Texts = []
    for index, value in enumerate(values):
        if value is None:
            errors.setdefault(index, RowError(reason=f"{name!r} is null"))
        elif not isinstance(value, str):
            reason = f"{name!r} is of type {type(value).__name__}, expected a string"
            errors.setdefault(index, RowError(reason=reason, content=value))
        elif not valid(value):
            errors.setdefault(index, RowError(reason=f"{name!r} has a lone surrogate, which is no Unicode text"))
        texts.append(value if isinstance(value, str) else None)
    return texts
