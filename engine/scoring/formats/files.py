"""Opening, compression and errors of files.

Compressed output has a gzip member or zstd frame for each part, which readers take for one file.
"""

from __future__ import annotations

import contextlib
import enum
import gzip
import importlib
import io
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from ...errors import InputError, MissingDependencyError, ModelNotFoundError, StorageError

STDIN = "-"
_BUFFER = 1 << 18  # bytes


class Compression(enum.StrEnum):
    """Compression of a text format, as a suffix."""

    NONE = ""
    GZIP = ".gz"
    ZSTD = ".zst"


def shown(name: str) -> str:
    """Return an input's name for messages."""
    return "stdin" if name == STDIN else name


def open_input(name: str, compression: Compression) -> tuple[BinaryIO, io.RawIOBase | None]:
    """Return a file's decompressed stream, and the raw file below it, for its position; None for stdin."""
    check_input(name)
    with reading(name):
        # Not sys.stdin.buffer: a thread that waits for it would hold its lock while the process ends.
        raw = io.FileIO(0, closefd=False) if name == STDIN else io.FileIO(name)
    stream: io.BufferedIOBase = io.BufferedReader(raw, _BUFFER)
    if compression is Compression.GZIP:
        stream = gzip.GzipFile(fileobj=stream)
    elif compression is Compression.ZSTD:
        # pyarrow detects a truncated file; zstandard's reader silently returns the part that is there.
        stream = io.BufferedReader(pyarrow("read .zst").CompressedInputStream(stream, "zstd"), _BUFFER)
    return cast(BinaryIO, stream), None if name == STDIN else raw


def check_input(name: str) -> None:
    """Raise StorageError if an input does not exist, InputError if it is a folder."""
    if name == STDIN:
        return
    with reading(name):
        is_folder = stat.S_ISDIR(Path(name).stat().st_mode)
    if is_folder:
        raise InputError(f"{name} is a folder: give one file; several can be joined first, or scored one by one")


def is_stream(name: str) -> bool:
    """Return whether an input can be read only once: stdin or a named pipe."""
    return name == STDIN or not stat.S_ISREG(Path(name).stat().st_mode)


def compress(content: bytes, compression: Compression) -> bytes:
    """Compress content deterministically."""
    if compression is Compression.GZIP:
        return gzip.compress(content, compresslevel=6, mtime=0)
    if compression is Compression.ZSTD:
        return cast(bytes, pyarrow("write .zst").compress(content, codec="zstd", asbytes=True))
    return content


@contextlib.contextmanager
def reading(name: str) -> Iterator[None]:
    """Turn the exceptions of reading a file into errors of one line."""
    damaged = f"{shown(name)} is damaged, or was cut off while it was copied"
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{damaged} ({error}): copy it again") from None
    except OSError as error:
        if isinstance(error, (StorageError, ModelNotFoundError)):
            raise
        if error.errno is None:  # raised by pyarrow, about the content
            raise InputError(f"{damaged} ({error}): copy it again") from None
        raise StorageError(f"{shown(name)} cannot be read: {error.strerror or error}") from None


def pyarrow(purpose: str, module: str = "pyarrow") -> Any:
    """Import pyarrow, which only parquet and zst need, or raise MissingDependencyError."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise MissingDependencyError.of("pyarrow", "data", purpose) from None
