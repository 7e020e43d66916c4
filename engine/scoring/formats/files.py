"""Opening, compression and errors of files.

Compressed output has a gzip, bzip2 or xz member or a zstd frame for each part, which readers take for one file; a zip has
one file.
"""

from __future__ import annotations

import bz2
import contextlib
import enum
import gzip
import importlib
import io
import lzma
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from ...errors import InputError, MissingDependencyError, ModelNotFoundError, StorageError
from .values import one_line

STDIN = "-"
_BUFFER = 1 << 18  # bytes


def shown(name: str) -> str:
    """Return an input's name for messages."""
    return "stdin" if name == STDIN else name


def check_input(name: str) -> None:
    """Raise StorageError if an input does not exist, InputError if it is a folder."""
    if name == STDIN:
        return
    with reading(name):
        is_folder = stat.S_ISDIR(Path(name).stat().st_mode)
    if is_folder:
        raise InputError(f"{name} is a folder: give one file; several can be joined first, or scored one by one")


@contextlib.contextmanager
def reading(name: str) -> Iterator[None]:
    """Turn the exceptions of reading a file into errors of one line."""
    damaged = f"{shown(name)} is damaged, or was cut off while it was copied"
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError, zipfile.BadZipFile) as error:
        raise InputError(f"{damaged} ({one_line(error)}): copy it again") from None
    except OSError as error:
        if isinstance(error, (StorageError, ModelNotFoundError)):
            raise
        if error.errno is None:  # raised by pyarrow or bz2, about the content
            raise InputError(f"{damaged} ({one_line(error)}): copy it again") from None
        raise StorageError(f"{shown(name)} cannot be read: {error.strerror or error}") from None


def pyarrow(purpose: str, module: str = "pyarrow") -> Any:
    """Import pyarrow, which only parquet and zst need, or raise MissingDependencyError."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise MissingDependencyError.of("pyarrow", "data", purpose) from None


class Compression(enum.StrEnum):
    """Compression of a text format, as a suffix."""

    NONE = ""
    GZIP = ".gz"
    ZSTD = ".zst"
    BZIP2 = ".bz2"
    XZ = ".xz"
    ZIP = ".zip"


def decompressed(raw: io.RawIOBase, compression: Compression, name: str) -> BinaryIO:
    """Return the decompressed stream of a raw file, EOFError if it is empty; ``name`` is for messages."""
    stream: Any = io.BufferedReader(raw, _BUFFER)
    if compression not in (Compression.NONE, Compression.ZIP) and not stream.peek(1):  # some take it for no content
        raise EOFError("it is empty")
    if compression is Compression.GZIP:
        stream = gzip.GzipFile(fileobj=stream)
    elif compression is Compression.ZSTD:
        # pyarrow detects a truncated file; zstandard's reader silently returns the part that is there.
        stream = io.BufferedReader(pyarrow("read .zst").CompressedInputStream(stream, "zstd"), _BUFFER)
    elif compression is Compression.BZIP2:
        stream = io.BufferedReader(_Members(stream, bz2.BZ2Decompressor), _BUFFER)
    elif compression is Compression.XZ:
        stream = io.BufferedReader(_Members(stream, lzma.LZMADecompressor), _BUFFER)
    elif compression is Compression.ZIP:
        stream = _open_zip(stream, name)
    return cast(BinaryIO, stream)


class _Members(io.RawIOBase):
    """Members of a bz2 or xz, one after the other. BZ2File and LZMAFile take a damaged later one for the end."""

    def __init__(self, stream: BinaryIO, new: Callable[[], Any]) -> None:
        self._stream, self._new, self._rest = stream, new, b""
        self._member: Any = None  # the decompressor of the current one

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read decompressed bytes; EOFError if a member is cut off."""
        while True:
            if self._member is None:
                self._rest = self._rest.lstrip(b"\0")  # an xz may have zeros between its members
                if not self._rest:
                    self._rest = self._stream.read(_BUFFER)
                    if not self._rest:
                        return 0
                    continue
                self._member = self._new()
            block = b""
            if self._member.needs_input:
                block = self._rest or self._stream.read(_BUFFER)
                self._rest = b""
                if not block:
                    raise EOFError("the end is missing")
            data: bytes = self._member.decompress(block, len(buffer))
            if self._member.eof:
                self._member, self._rest = None, self._member.unused_data
            if data:
                buffer[: len(data)] = data
                return len(data)


def _open_zip(stream: BinaryIO, name: str) -> BinaryIO:
    if not stream.seekable():
        raise InputError(f"{shown(name)}: a zip is read from its end, and cannot come from a stream: unpack it")
    with _unpacking(name):
        archive = zipfile.ZipFile(stream)
        return cast(BinaryIO, archive.open(_only_member(archive, name)))


def zip_member(name: str) -> str:
    """Return the name of the only file in a zip.

    Raises:
        InputError: It is damaged, encrypted, or has more files than one.
        StorageError: It cannot be read.
    """
    with _unpacking(name), zipfile.ZipFile(Path(name)) as archive:
        return _only_member(archive, name).filename


def _only_member(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    # macOS adds a folder with a second file for each.
    members = [each for each in archive.infolist() if not each.is_dir() and not each.filename.startswith("__MACOSX/")]
    if len(members) != 1:
        names = ", ".join([ascii(each.filename[:60]) for each in members[:3]] + ["..."] * (len(members) > 3))
        raise InputError(
            f"{name} has {len(members)} files{names and f' ({names})'}, expected one: unpack it, and give its files"
        )
    if members[0].flag_bits & 1:
        raise InputError(f"{name} is encrypted: unpack it, and give its file")
    return members[0]


@contextlib.contextmanager
def _unpacking(name: str) -> Iterator[None]:
    """Turn what zipfile raises about an archive into an error of one line."""
    try:
        with reading(name):
            yield
    except InputError:
        raise
    except (ValueError, IndexError, OverflowError, NotImplementedError, RuntimeError, struct.error) as error:
        raise InputError(f"{name} cannot be read as a zip ({one_line(error)}): unpack it, and give its file") from None


def compress(content: bytes, compression: Compression) -> bytes:
    """Compress content deterministically, as a member that others may follow; for a zip it stays as it is."""
    if compression is Compression.GZIP:
        return gzip.compress(content, compresslevel=6, mtime=0)
    if compression is Compression.ZSTD:
        return cast(bytes, pyarrow("write .zst").compress(content, codec="zstd", asbytes=True))
    if compression is Compression.BZIP2:
        return bz2.compress(content)
    if compression is Compression.XZ:
        return lzma.compress(content)
    return content


@contextlib.contextmanager
def archive(output: BinaryIO, compression: Compression, member: str) -> Iterator[BinaryIO]:
    """Return where an output's compressed parts are written: the output, or for a zip its only file, ``member``."""
    if compression is not Compression.ZIP:
        yield output
        return
    with zipfile.ZipFile(output, "w") as packed:
        info = zipfile.ZipInfo(member, date_time=(1980, 1, 1, 0, 0, 0))
        info.compress_type, info.external_attr, info.create_system = zipfile.ZIP_DEFLATED, 0o644 << 16, 3  # Unix
        with packed.open(info, "w", force_zip64=True) as file:
            yield cast(BinaryIO, file)
