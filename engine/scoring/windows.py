"""Windows: the rows that are read, tokenized, run and written together, and what is wrong with some of them.

Where a window ends depends on the rows alone (their number and their size), never on time or on memory, so that a second
run, or a resumed one, computes the same batches and writes the same bytes.
"""

from __future__ import annotations

import abc
import dataclasses
import io
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, TypeAlias

from .files import STDIN, reading
from .rows import Rows, valid

# A window closes early where its rows are this big together, so that memory is bounded for long texts too.
WINDOW_SIZE = 8 << 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fault:
    """Why a row cannot be scored, and what it was."""

    reason: str
    raw: Any = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Raw:
    """A window as it was read.

    Attributes:
        first: Number of its first row, from 0.
        rows: The input's columns.
        texts: The text of each row, None where there is none.
        pairs: The second text of each row, or None where the rows are no pairs.
        faults: What is wrong with a row, by its place in the window.
        size: Characters or bytes of its rows.
        done: Share of the input that is read, or None where its size is not known.
    """

    first: int
    rows: Rows
    texts: list[str | None]
    pairs: list[str | None] | None
    faults: dict[int, Fault]
    size: int
    done: float | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """One row of a text format."""

    value: Any
    size: int
    fault: Fault | None = None


Texts: TypeAlias = "list[str | None]"


class Source(abc.ABC):
    """An input that is open: its columns, and its windows, once.

    Attributes:
        columns: Names of the input's columns; of a jsonl, the keys of its first rows.
        schema: The ``pyarrow.Schema`` of a parquet input, else None.
    """

    columns: tuple[str, ...]
    schema: Any = None

    @abc.abstractmethod
    def windows(self, text: str, pair: str | None, added: Iterable[str] = ()) -> Iterator[Raw]:
        """Yield the windows.

        Args:
            text: Column of the texts.
            pair: Column of the second texts, or None.
            added: Names that a later row must not use.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Close the file."""


class TextSource(Source):
    """What csv and jsonl share: records that are cut into windows."""

    def __init__(self, name: str, stream: BinaryIO, below: io.RawIOBase | None, size: int, window_rows: int) -> None:
        self._name, self._stream, self._below, self._size, self._limit = name, stream, below, size, window_rows
        self._shown = "stdin" if name == STDIN else name

    def windows(self, text: str, pair: str | None, added: Iterable[str] = ()) -> Iterator[Raw]:
        """Yield the windows."""
        first = 0
        with reading(self._name):
            for records in cut(self._records(frozenset(added)), self._limit):
                yield self._window(records, first, text, pair)
                first += len(records)

    def close(self) -> None:
        """Close the file; stdin stays open."""
        if self._below is not None:
            self._stream.close()
            self._below.close()

    def _done(self) -> float | None:
        return None if self._below is None or not self._size else min(1.0, self._below.tell() / self._size)

    @abc.abstractmethod
    def _records(self, added: frozenset[str]) -> Iterator[Record]:
        """Yield the records, of whatever form ``_window`` takes; no later one may use a name of ``added``."""

    @abc.abstractmethod
    def _window(self, records: list[Record], first: int, text: str, pair: str | None) -> Raw:
        """Make a window of records, the first of which is row ``first`` of the input."""


def cut(records: Iterable[Record], rows: int) -> Iterator[list[Record]]:
    """Cut records into windows by their number and their size."""
    window: list[Record] = []
    size = 0
    for record in records:
        window.append(record)
        size += record.size
        if len(window) >= rows or size >= WINDOW_SIZE:
            yield window
            window, size = [], 0
    if window:
        yield window


def found_in(texts: list[Any], name: str, faults: dict[int, Fault]) -> Texts:
    """Note which texts are null, or no Unicode text."""
    for index, text in enumerate(texts):
        if text is None:
            faults.setdefault(index, Fault(reason=f"{name!r} is null"))
        elif not valid(text):
            faults.setdefault(index, Fault(reason=f"{name!r} has a lone surrogate, which is no Unicode text"))
    return texts
