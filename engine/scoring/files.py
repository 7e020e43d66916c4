"""Files by their suffix: which format, which compression, how they are opened, and what their errors mean.

Compressed output is a sequence of gzip members or zstd frames, one for each part, which every reader takes for one file; so
parts can be compressed apart and joined as bytes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import gzip
import importlib
import io
import os
import stat
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from ..errors import InputError, MissingDependencyError, ModelNotFoundError, OptionError, StorageError

STDIN = "-"
_BUFFER = 1 << 18  # bytes


class Kind(enum.StrEnum):
    """A format of rows."""

    CSV = "csv"
    TSV = "tsv"
    JSONL = "jsonl"
    PARQUET = "parquet"


class Packing(enum.StrEnum):
    """A compression around a text format."""

    NONE = ""
    GZIP = ".gz"
    ZSTD = ".zst"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Form:
    """Format and compression of a file."""

    kind: Kind
    packing: Packing = Packing.NONE

    @classmethod
    def of(cls, name: str, given: str | None = None) -> Form:
        """Read format and compression from a file's suffixes.

        Args:
            name: The file's name, ``-`` for stdin.
            given: The format, where the suffix does not tell it.

        Raises:
            OptionError: They are none of ours.

        Example:
            >>> Form.of("reviews.csv.gz")
            Form(kind=<Kind.CSV: 'csv'>, packing=<Packing.GZIP: '.gz'>)
        """
        suffixes = [suffix.lower() for suffix in Path(name).suffixes]
        packing = Packing(suffixes.pop()) if suffixes and suffixes[-1] in (Packing.GZIP, Packing.ZSTD) else Packing.NONE
        found = given or (suffixes[-1].removeprefix(".") if suffixes else "")
        found = {"ndjson": "jsonl", "pq": "parquet"}.get(found, found)
        if found not in tuple(Kind):
            shown = "stdin" if name == STDIN else name
            way_out = f"name it {', '.join('.' + kind for kind in Kind)}, text formats also with .gz or .zst"
            raise OptionError(f"the format of {shown} is not known: {way_out}; or, for an input, give --input-format")
        if found == Kind.PARQUET and (packing or name == STDIN):
            what = "a parquet file is read from its end, and cannot come from stdin" if name == STDIN else "parquet compresses"
            raise OptionError(f"{name}: {what}: give a plain .parquet file")
        return cls(kind=Kind(found), packing=packing)


def open_input(name: str, packing: Packing) -> tuple[BinaryIO, io.RawIOBase | None]:
    """Open a text format for reading.

    Returns:
        The stream of decompressed bytes, and the raw file below it, whose position tells how much was read; None for stdin.

    Raises:
        InputError: It is no file.
        StorageError: It cannot be opened.
    """
    if name == STDIN:
        # Not sys.stdin.buffer: a thread that waits for it would hold its lock while the process ends.
        return cast(BinaryIO, unpack(io.BufferedReader(io.FileIO(0, closefd=False), _BUFFER), packing)), None
    check_input(name)
    try:
        raw = io.FileIO(name)
    except OSError as error:
        raise StorageError(f"{name} cannot be read: {error.strerror or error}") from None
    return cast(BinaryIO, unpack(io.BufferedReader(raw, _BUFFER), packing)), raw


def check_input(name: str) -> None:
    """Refuse an input that is not there, or is a folder.

    Raises:
        StorageError: It is not there.
        InputError: It is a folder.
    """
    if name == STDIN:
        return
    try:
        mode = Path(name).stat().st_mode
    except OSError as error:
        raise StorageError(f"{name} cannot be read: {error.strerror or error}") from None
    if stat.S_ISDIR(mode):
        raise InputError(f"{name} is a folder: give one file; several can be joined first, or scored one by one")


def is_stream(name: str) -> bool:
    """Tell whether an input can be read only once: stdin, or a pipe that has a name."""
    return name == STDIN or not stat.S_ISREG(Path(name).stat().st_mode)


def unpack(stream: BinaryIO, packing: Packing) -> io.BufferedIOBase | BinaryIO:
    """Return a stream of decompressed bytes."""
    if packing is Packing.GZIP:
        return gzip.GzipFile(fileobj=stream)
    if packing is Packing.ZSTD:
        # pyarrow finds out that a file was cut off, where zstandard's reader returns what there is and says nothing.
        return io.BufferedReader(pyarrow("read .zst").CompressedInputStream(stream, "zstd"), _BUFFER)
    return stream


def pack(content: bytes, packing: Packing) -> bytes:
    """Compress the content of a part; the same bytes whenever it is done."""
    if packing is Packing.GZIP:
        return gzip.compress(content, compresslevel=6, mtime=0)
    if packing is Packing.ZSTD:
        return cast(bytes, pyarrow("write .zst").compress(content, codec="zstd", asbytes=True))
    return content


@contextlib.contextmanager
def reading(name: str) -> Iterator[None]:
    """Turn what reading a file may raise into one line."""
    shown = "stdin" if name == STDIN else name
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{shown} is damaged, or was cut off while it was copied ({error}): copy it again") from None
    except OSError as error:
        if isinstance(error, (StorageError, ModelNotFoundError)):
            raise
        if error.errno is None:  # pyarrow's own, about the content
            raise InputError(f"{shown} is damaged, or was cut off while it was copied ({error}): copy it again") from None
        raise StorageError(f"{shown} cannot be read: {error.strerror or error}") from None


def pyarrow(purpose: str, module: str = "pyarrow") -> Any:
    """Import pyarrow, which only parquet and zst need.

    Raises:
        MissingDependencyError: It is not installed; the message names the pip line.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        raise MissingDependencyError.of("pyarrow", "data", purpose) from None


def sync_folder(folder: Path) -> None:
    """Make a folder's entries survive a power cut, where the system has that."""
    if sys.platform == "win32":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
