"""The text of a file's bytes: its encoding, and bytes that do not fit it."""

from __future__ import annotations

import codecs
import io
from pathlib import Path
from typing import Any, BinaryIO

from ...errors import InputError, OptionError
from .files import shown

_UTF8 = "utf-8"
# Byte order marks, and the encodings that read them. UTF-32's begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, _UTF8),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# Beginnings of files that are not text.
_SIGNATURES = (
    (b"\x1f\x8b\x08", "gzip", "name it .gz"),
    (b"\x28\xb5\x2f\xfd", "zstd", "name it .zst"),
    (b"BZh91AY&SY", "bzip2", "name it .bz2"),
    (b"\xfd7zXZ\0", "xz", "name it .xz"),
    (b"PK\x03\x04", "a zip archive or a spreadsheet", "name it .zip, or save the spreadsheet as .csv"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "a spreadsheet or document of Office", "save it as .csv"),
    (b"PAR1\x15", "parquet", "name it .parquet"),
    (b"ARROW1\0\0", "a file of Arrow", "write it as .parquet"),
    (b"SQLite format 3\0", "a database", "write its table as .csv"),
    (b"%PDF-", "a PDF", "save its text"),
    (b"version https://git-lfs.github.com/spec/", "a pointer of Git LFS", "get the file with git lfs pull"),
)
_WIDE = ("utf-16", "utf-32")
_BUFFER = 1 << 17  # bytes
_HEAD = 1024  # bytes that are looked at
_HANDLER = "fusedbert.undecodable"


def _escape(error: UnicodeError) -> tuple[str, int]:
    """Decode bytes that do not fit as lone surrogates, which mark their row."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "".join(chr(0xDC00 + byte) for byte in error.object[error.start : error.end]), error.end


codecs.register_error(_HANDLER, _escape)


class Text:
    """Decoded text of a stream. Bytes that do not fit the encoding are lone surrogates, in UTF-8 those of ``surrogateescape``.

    Attributes:
        stream: The text.
        label: Name of the encoding for messages.
        utf8: Whether it is UTF-8, so that bytes that do not fit can be written as they were read.

    Raises:
        OptionError: ``encoding`` is not known, or not one of text.
        InputError: The bytes begin with the mark of another encoding, or are not text.
    """

    def __init__(self, stream: BinaryIO, encoding: str | None, newline: str | None, name: str) -> None:
        requested = None if encoding is None else check_encoding(encoding)
        head = stream.read(_HEAD)
        codec, mark = _choose(head, requested, encoding, name)
        self.utf8 = codec == _UTF8
        self.label = codec.upper() if encoding is None or self.utf8 else encoding
        rest = io.BufferedReader(_Rest(head[len(mark) :] if self.utf8 else head, stream), _BUFFER)
        errors = "surrogateescape" if self.utf8 else _HANDLER
        self.stream = io.TextIOWrapper(rest, encoding=codec, errors=errors, newline=newline)

    @property
    def reason(self) -> str:
        """Why a row with bytes that do not fit cannot be scored."""
        return f"not {self.label}"


class _Rest(io.RawIOBase):
    """A stream whose beginning was read before."""

    def __init__(self, head: bytes, stream: Any) -> None:
        self._head, self._stream = head, stream

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read some bytes."""
        if not self._head:
            return int(self._stream.readinto1(buffer))
        size = min(len(buffer), len(self._head))
        buffer[:size], self._head = self._head[:size], self._head[size:]
        return size

    def close(self) -> None:
        """Close the stream too."""
        if not self.closed:
            self._stream.close()
        super().close()


def check_encoding(encoding: str) -> str:
    """Return Python's name of an encoding.

    Raises:
        OptionError: It is not known, or not one of text.
    """
    try:
        name = codecs.lookup(encoding).name
        # UTF-16 and UTF-32 need their marks.
        io.TextIOWrapper(io.BytesIO(b"abcd"), encoding=f"{name}-le" if name in _WIDE else name, errors=_HANDLER).read()
    except (LookupError, ValueError, TypeError):
        raise OptionError(
            f"encoding is {encoding!r}: give one that Python knows, such as utf-8, utf-16, latin-1 or cp1252"
        ) from None
    return _UTF8 if name == "utf-8-sig" else name


def _choose(head: bytes, requested: str | None, given: str | None, name: str) -> tuple[str, bytes]:
    """Return the encoding of a file that begins with ``head``, and its byte order mark; ``requested`` is that of ``given``."""
    for signature, what, way_out in _SIGNATURES:
        if head.startswith(signature):
            if f"name it {Path(name).suffix.lower()}" in way_out:  # it is packed twice, or from a stream
                way_out = "unpack it first"
            raise InputError(f"{shown(name)} is {what}, expected text: {way_out}")
    mark, marked = next(((mark, codec) for mark, codec in _MARKS if head.startswith(mark)), (b"", None))
    if requested is None:
        if marked is None:
            _check_zeros(head, name)
        return marked or _UTF8, mark
    if marked is None:
        return (f"{requested}-{_order(head)}" if requested in _WIDE else requested), mark
    if requested.startswith(marked):
        return marked, mark
    raise InputError(
        f"{shown(name)} begins with the byte order mark of {marked.upper()}, and --encoding is {given}: leave it out"
    )


def _check_zeros(head: bytes, name: str) -> None:
    """Raise InputError if a tenth of the bytes are zero, as in UTF-16 without a byte order mark, where they alternate."""
    even, odd = head[::2].count(0), head[1::2].count(0)
    if 10 * (even + odd) < len(head) or not even + odd:
        return
    counts = [head[start::4].count(0) for start in range(4)]
    if 3 * min(counts) > max(counts):
        raise InputError(f"{shown(name)} has zero bytes, expected text: it is another kind of file, or damaged")
    guess = f"{'utf-32' if even + odd > len(head) / 2 else 'utf-16'}-{_order(head)}"
    raise InputError(f"{shown(name)} has zero bytes, as UTF-16 without a byte order mark has: give --encoding {guess}")


def _order(head: bytes) -> str:
    """Return the byte order of UTF-16 or UTF-32 without a mark: the zeros of most characters are in front, or behind."""
    return "be" if head[::2].count(0) > head[1::2].count(0) else "le"
