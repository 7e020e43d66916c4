"""An opened input: the bytes that are hashed are those that are read, and a change during the run is detected."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import logging
import os
import stat
import sys
from pathlib import Path
from typing import Any

from ...errors import InputError, StorageError
from .files import STDIN, check_input, reading, shown

_log = logging.getLogger("fusedbert.engine.scoring")
_PIECE = 1 << 20  # bytes
_LARGE = 4 << 30  # bytes; hashing so many takes long enough for a message


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stamp:
    """The state of a file: if nothing of it changed, its content did not. Picklable."""

    size: int
    modified: int  # nanoseconds
    changed: int  # nanoseconds, of content, name or permissions
    inode: int
    volume: int

    @classmethod
    def of(cls, status: os.stat_result) -> Stamp:
        """Read the result of a stat call."""
        return cls(
            size=status.st_size,
            modified=status.st_mtime_ns,
            changed=status.st_ctime_ns,
            inode=status.st_ino,
            volume=status.st_dev,
        )


class InputFile:
    """An input, opened once: stdin, a pipe, or a file.

    ``expected`` is its state when another process opened it.

    Attributes:
        name: Its path, or ``-``.
        raw: The opened file.
        stamp: Its state when it was opened; None for a stream.

    Raises:
        StorageError: It cannot be opened.
        InputError: It is a folder, or not the file that is expected.
    """

    def __init__(self, name: str, expected: Stamp | None = None) -> None:
        check_input(name)
        self.name = name
        self.raw = self._open()
        status = os.fstat(self.raw.fileno())
        self.stamp = Stamp.of(status) if name != STDIN and stat.S_ISREG(status.st_mode) else None
        self._sha256: str | None = None
        if expected is not None and self.stamp != expected:
            self.close()
            raise self._changed()

    @property
    def size(self) -> int:
        """Bytes of the file; 0 for a stream."""
        return self.stamp.size if self.stamp is not None else 0

    def identity(self) -> dict[str, Any]:
        """Return size and SHA-256 of the opened file for the journal; a stream has no identity."""
        if self.stamp is None:
            return {"stream": True}
        if self.size > _LARGE:
            _log.info("reading %s (%.0f GB) once for its hash", self.name, self.size / 1e9)
        self._sha256 = self._sha256 or self._hash()
        return {"bytes": self.size, "sha256": self._sha256}

    def check_unchanged(self) -> None:
        """Raise InputError if the file, or the one at its path, is not as it was when it was opened."""
        if self.stamp is None:
            return
        try:
            found = Stamp.of(Path(self.name).stat())
        except OSError:
            raise self._changed() from None
        opened = self._opened() or found
        if found == opened == self.stamp:
            return
        # A new link or permission changes only one time: then the content decides.
        if found != opened or dataclasses.replace(opened, changed=self.stamp.changed) != self.stamp:
            raise self._changed()
        self.stamp = opened
        if self._sha256 is None or self._hash() != self._sha256:
            raise self._changed()

    def close(self) -> None:
        """Close the file; stdin stays open."""
        self.raw.close()

    def reopen(self) -> None:
        """Open the file again if it was closed; InputError if it is another one by now."""
        if not self.raw.closed:
            return
        self.raw = self._open()
        if Stamp.of(os.fstat(self.raw.fileno())) != self.stamp:
            self.close()
            raise self._changed()

    def _open(self) -> io.FileIO:
        with reading(self.name):
            if self.name != STDIN:
                return io.FileIO(self.name)
            if sys.stdin is None:  # then another file may have its number
                raise StorageError("stdin is closed: give it a file or a pipe")
            # Not sys.stdin.buffer: a thread that waits for it would hold its lock while the process ends.
            return io.FileIO(0, closefd=False)

    def _opened(self) -> Stamp | None:
        """Return the state of the opened file, or None if it is closed, as another thread may do that reads it."""
        raw = self.raw
        with contextlib.suppress(OSError, ValueError):
            stamp = Stamp.of(os.fstat(raw.fileno()))
            return None if raw.closed else stamp  # by then its number may be another file's
        return None

    def _hash(self) -> str:
        """Hash the file, opened once more, because another thread may read it."""
        with self._open() as raw, reading(self.name):
            if Stamp.of(os.fstat(raw.fileno())) != self.stamp:
                raise self._changed()
            return _hash(raw)

    def _changed(self) -> InputError:
        return InputError(
            f"{shown(self.name)} was replaced or written to while it was scored: the rows so far are of the file as it was; "
            "start over with --force once it is complete"
        )


def _hash(raw: io.FileIO) -> str:
    digest, buffer = hashlib.sha256(), bytearray(_PIECE)
    while size := raw.readinto(buffer):
        digest.update(memoryview(buffer)[:size])
    return digest.hexdigest()
