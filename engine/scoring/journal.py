"""The journal: what a run was started with, and which parts of its output are committed. A kill at any moment leaves it true.

It lies in a folder beside the output, ``OUTPUT.parts/``, with the parts. Its first line says which input, model and options
the run has; each line after that commits a part. A part is on the disk before its line is, and the line before the
next part's; a line that a kill tore off does not count. The order of the end: all parts joined into a file of the folder,
that file on the disk, renamed to the output, the journal removed, then the folder. So an output without a journal beside
it is whole, and a journal means that the run goes on.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from ..errors import InputError, OptionError, StorageError
from .files import sync_folder
from .tally import Tally

FORMAT = 1
_JOURNAL, _LOCK = "journal.jsonl", "lock"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """A committed part.

    Attributes:
        number: From 0.
        end: Number of the input's row behind its last.
        bytes: Size of its file.
        error_bytes: Size of its lines for the side file.
        on_error: What happened to its rows that could not be scored.
        tally: Its counts.
    """

    number: int
    end: int
    bytes: int
    error_bytes: int
    on_error: str
    tally: Tally


class Journal:
    """An open journal, locked against other processes. ``close`` it, or use it as a context manager.

    Attributes:
        folder: Where parts lie.
        parts: The committed ones.
        complete: Whether all of the input is committed.
    """

    def __init__(self, folder: Path, lock: IO[bytes]) -> None:
        self.folder = folder
        self.parts: list[Part] = []
        self.complete = False
        self._lock = lock
        self._file: IO[bytes] | None = None

    @property
    def end(self) -> int:
        """Number of the row to go on with."""
        return self.parts[-1].end if self.parts else 0

    def part_path(self, number: int) -> Path:
        """Return where a part lies."""
        return self.folder / f"part-{number:07d}"

    def error_path(self, number: int) -> Path:
        """Return where a part's lines for the side file lie, if it has any."""
        return self.folder / f"part-{number:07d}.errors"

    def commit(self, part: Part) -> None:
        """Commit a part whose files are on the disk."""
        self._append({"part": part.number} | {name: value for name, value in vars(part).items() if name != "number"})
        self.parts.append(part)

    def commit_all(self) -> None:
        """Note that the input has come to its end."""
        self._append({"complete": True})
        self.complete = True

    def remove(self) -> None:
        """Remove the journal and then its folder: the output is whole."""
        self._close_file()
        with storing(self.folder):
            (self.folder / _JOURNAL).unlink()
            sync_folder(self.folder)
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def close(self) -> None:
        """Let go of the lock; the journal stays."""
        self._close_file()
        self._lock.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self, identity: dict[str, Any]) -> None:
        """Write a new journal's first line; it is there whole or not at all."""
        path = self.folder / _JOURNAL
        with storing(self.folder):
            fresh = path.with_suffix(".new")
            with fresh.open("wb") as file:
                file.write(_line({"format": FORMAT, **identity}))
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(path)
            sync_folder(self.folder)
            sync_folder(self.folder.parent)
            self._file = path.open("ab")

    def load(self, identity: dict[str, Any], on_error: str) -> None:
        """Read an unfinished run's journal, and check that it is of the same run.

        Raises:
            OptionError: Input, model or options are others; the message says which.
            InputError: It is damaged, or a part is gone.
        """
        path = self.folder / _JOURNAL
        with storing(self.folder):
            whole, _, torn = path.read_bytes().rpartition(b"\n")
            if torn:
                os.truncate(path, len(whole) + 1)
            self._file = path.open("ab")
        way_out = "start over with --force"
        try:
            first, *lines = [json.loads(line) for line in whole.splitlines()]
            self.complete = any("complete" in line for line in lines)
            self.parts = [_part(line) for line in lines if "part" in line]
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"{path} is damaged ({type(error).__name__}: {error}): {way_out}") from None
        other = differences({"format": FORMAT, **identity}, first)
        if other:
            raise OptionError(f"the unfinished run in {self.folder} had {'; '.join(other)}: give the same, or {way_out}")
        for part in self.parts:
            self._check(part, on_error, way_out)

    def _check(self, part: Part, on_error: str, way_out: str) -> None:
        if part.tally.errors and part.on_error != on_error:
            raise OptionError(
                f"the unfinished run in {self.folder} had --on-error {part.on_error}, and rows that it applied to: "
                f"give the same, or {way_out}"
            )
        sizes = {self.part_path(part.number): part.bytes}
        if part.error_bytes:
            sizes[self.error_path(part.number)] = part.error_bytes
        for path, size in sizes.items():
            found = path.stat().st_size if path.is_file() else None
            if found != size:
                raise InputError(f"{path} has {found or 'no'} bytes, the journal says {size}: {way_out}")

    def _append(self, entry: dict[str, Any]) -> None:
        assert self._file is not None
        with storing(self.folder):
            self._file.write(_line(entry))
            self._file.flush()
            os.fsync(self._file.fileno())

    def _close_file(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):  # what a full disk did not take was said when it was written
                self._file.close()
            self._file = None


def parts_folder(output: Path) -> Path:
    """Return the folder of an output's parts."""
    return output.with_name(f"{output.name}.parts")


def unfinished(output: Path) -> bool:
    """Tell whether a run of this output was started and has not come to its end."""
    return (parts_folder(output) / _JOURNAL).is_file()


def open_journal(output: Path) -> Journal:
    """Lock an output's folder of parts, making it where it is not there.

    Raises:
        StorageError: Another process is at it, or it cannot be made.
    """
    folder = parts_folder(output)
    with storing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / _LOCK).open("ab")
    try:
        try_lock(lock)
    except OSError as error:
        lock.close()
        if error.errno in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
            raise StorageError(f"another process is writing {output}: wait for it, or choose another output") from None
        raise StorageError(f"{folder} cannot be locked: {error.strerror or error}") from None
    return Journal(folder, lock)


def discard(output: Path) -> None:
    """Remove what a finished run's kill, or a run that is given up, left beside an output.

    Raises:
        StorageError: Another process is at it.
    """
    if parts_folder(output).is_dir():
        with open_journal(output) as journal:
            (journal.folder / _JOURNAL).unlink(missing_ok=True)
            shutil.rmtree(journal.folder, ignore_errors=True)


def differences(now: dict[str, Any], then: dict[str, Any], name: str = "") -> list[str]:
    """Say which values a run was started with that are others now."""
    found = []
    for key in dict.fromkeys([*now, *then]):
        mine, theirs = now.get(key), then.get(key)
        if isinstance(mine, dict) and isinstance(theirs, dict):
            found += differences(mine, theirs, f"{name}{key} ")
        elif mine != theirs:
            found.append(f"{name}{key} {_short(theirs)}, not {_short(mine)}")
    return found


@contextlib.contextmanager
def storing(folder: Path) -> Iterator[None]:
    """Turn what writing may raise into one line."""
    try:
        yield
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        way_out = ": make room, then go on with --resume" if full else ""
        raise StorageError(f"{folder} cannot be written: {error.strerror or error}{way_out}") from error


if sys.platform == "win32":
    import msvcrt

    def try_lock(file: IO[bytes]) -> None:
        """Lock a file, or raise OSError at once."""
        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def try_lock(file: IO[bytes]) -> None:
        """Lock a file, or raise OSError at once; the system lets go of it when the process dies."""
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _part(line: dict[str, Any]) -> Part:
    values = {name: value for name, value in line.items() if name not in ("part", "tally")}
    return Part(number=line["part"], tally=Tally.of(line["tally"]), **values)


def _line(entry: dict[str, Any]) -> bytes:
    return f"{json.dumps(entry, ensure_ascii=False, default=Tally.document)}\n".encode()


def _short(value: object) -> str:
    text = str(value)
    return f"{text[:12]}..." if len(text) == 64 else repr(value)
