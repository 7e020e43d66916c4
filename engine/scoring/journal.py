"""The journal of a run: its input, model and options, and the committed parts of its output.

It is in ``OUTPUT.parts/`` with the parts. The first line identifies the run; each other line commits a part with its hash,
which is on the disk before its line is. A torn last line does not count; anything else that does not fit is damage. At the end
the parts are joined into a file, which is flushed to the disk and renamed to the output; then the folder is removed. So an
output without a journal is complete.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from ..errors import InputError, OptionError, StorageError
from ..hardware.json_file import parse_object
from ..hardware.storage import lock_file, new_file, sha256_of, sync_folder
from .formats.base import Writer
from .pipeline import Job, Rendered
from .summary import Counts

FORMAT = 2
_JOURNAL, _LOCK = "journal.jsonl", "lock"
# Names of a run's files, and of those that ``new_file`` has not renamed yet.
_OURS = re.compile(r"(lock|\.?(journal\.jsonl|joined|errors|part-\d{7,}(\.errors)?)(\.[0-9a-f]{12})?)")
_WAY_OUT = "start over with --force"
_PART_BYTES = 64 << 20  # a part of this size ends early: it is in memory until it is written


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """A committed part."""

    number: int  # from 0
    end: int  # number of the row after its last one
    bytes: int  # of its file
    sha256: str  # of its file
    error_bytes: int  # of its lines for the error file
    error_sha256: str  # of these; empty if there are none
    on_error: str  # what happened to its rows that could not be scored
    counts: Counts

    def line(self) -> dict[str, Any]:
        """Return the part's line of the journal."""
        values = {key: value for key, value in vars(self).items() if key not in ("number", "counts")}
        return {"part": self.number, **values, "tally": self.counts.document()}

    @classmethod
    def of(cls, line: dict[str, Any], before: Part | None) -> Part:
        """Read a line of the journal, which follows that of another part; ValueError if it cannot be one."""
        number, start = (0, 0) if before is None else (before.number + 1, before.end)
        kinds = {"part": int, "end": int, "bytes": int, "sha256": str, "error_bytes": int, "error_sha256": str}
        kinds |= {"on_error": str, "tally": dict}
        if line.keys() != kinds.keys() or any(type(line[key]) is not kind for key, kind in kinds.items()):
            raise ValueError("a line is not that of a part")
        if line["part"] != number:
            raise ValueError(f"part {line['part']} is where part {number} comes next")
        counts = Counts.of(line["tally"])
        if counts.rows != line["end"] - start or min(line["bytes"], line["error_bytes"]) < 0:
            raise ValueError(f"part {number} ends at row {line['end']} and has {counts.rows} rows from row {start} on")
        values = {key: value for key, value in line.items() if key not in ("part", "tally")}
        return cls(number=number, counts=counts, **values)


class Journal:
    """An open journal, locked against other processes until ``close``."""

    def __init__(self, folder: Path, lock: IO[bytes]) -> None:
        self.folder = folder
        self.parts: list[Part] = []  # the committed ones
        self.complete = False  # whether all of the input is committed
        self.replaces = False  # whether the output may replace a file
        self._path, self._lock = folder / _JOURNAL, lock

    @property
    def end(self) -> int:
        """Number of the next row to score."""
        return self.parts[-1].end if self.parts else 0

    def part_path(self, number: int) -> Path:
        """Return the path of a part."""
        return self.folder / f"part-{number:07d}"

    def error_path(self, number: int) -> Path:
        """Return the path of a part's lines for the error file."""
        return self.folder / f"part-{number:07d}.errors"

    def commit(self, part: Part) -> None:
        """Commit a part whose files are on the disk."""
        self._append(part.line())
        self.parts.append(part)

    def commit_all(self) -> None:
        """Commit the end of the input."""
        self._append({"complete": True, "rows": self.end})
        self.complete = True

    def remove(self) -> None:
        """Remove the journal, then its folder: the output is complete."""
        with _storing(self.folder):
            self._path.unlink()
            sync_folder(self.folder)
        self.close()
        _clear(self.folder)

    def close(self) -> None:
        """Release the lock; the journal stays."""
        self._lock.close()

    def start(self, identity: dict[str, Any], *, replaces: bool) -> None:
        """Write the first line of a new journal, atomically; ``replaces`` if the output may replace a file."""
        self.replaces = replaces
        with _storing(self.folder):
            with new_file(self._path, durable=True) as file:
                file.write(_line({"format": FORMAT, "replaces": replaces, **identity}))
            sync_folder(self.folder)
            sync_folder(self.folder.parent)

    def load(self, identity: dict[str, Any], on_error: str) -> None:
        """Read an unfinished run's journal; OptionError if its input, model or options differ, InputError if it is damaged."""
        with _storing(self.folder):
            complete, _, torn = self._path.read_bytes().rpartition(b"\n")
            if torn:
                os.truncate(self._path, len(complete) + 1)
        try:
            first, *lines = map(parse_object, complete.splitlines())
            for line in lines:
                if self.complete:
                    raise ValueError("a line follows the end of the input")
                if "complete" not in line:
                    self.parts.append(Part.of(line, self.parts[-1] if self.parts else None))
                elif self.parts and line == {"complete": True, "rows": self.end}:
                    self.complete = True
                else:
                    raise ValueError("the end of the input does not fit the parts")
        except ValueError as error:
            raise InputError(f"{self._path} is damaged ({error}): {_WAY_OUT}") from None
        self.replaces = first.pop("replaces", False) is True
        different = _differences({"format": FORMAT, **identity}, first)
        if different:
            shown = "; ".join(different[:4]) + (f"; and {len(different) - 4} more" if len(different) > 4 else "")
            raise OptionError(f"the unfinished run in {self.folder} had {shown}: give the same, or {_WAY_OUT}")
        for part in self.parts:
            self._check(part, on_error)

    def _check(self, part: Part, on_error: str) -> None:
        if part.counts.errors and part.on_error != on_error:
            raise OptionError(
                f"the unfinished run in {self.folder} had --on-error {part.on_error}, and rows that it applied to: "
                f"give the same, or {_WAY_OUT}"
            )
        files = {self.part_path(part.number): (part.bytes, part.sha256)}
        if part.error_bytes:
            files[self.error_path(part.number)] = part.error_bytes, part.error_sha256
        for path, (size, sha256) in files.items():
            actual = path.stat().st_size if path.is_file() else None
            if actual != size:
                raise InputError(f"{path} has {actual or 'no'} bytes, the journal says {size}: {_WAY_OUT}")
            if sha256_of(path) != sha256:
                raise InputError(f"{path} is damaged (its sha256 differs from the journal's): {_WAY_OUT}")

    def _append(self, entry: dict[str, Any]) -> None:
        with _storing(self.folder), self._path.open("ab") as file:
            file.write(_line(entry))
            file.flush()
            os.fsync(file.fileno())


def parts_folder(output: Path) -> Path:
    """Return the folder of an output's parts."""
    return output.with_name(f"{output.name}.parts")


def unfinished(output: Path) -> bool:
    """Return whether an output has a run that is not complete."""
    return (parts_folder(output) / _JOURNAL).is_file()


def open_journal(output: Path) -> Journal:
    """Create and lock an output's folder of parts; StorageError if another process holds it."""
    folder = parts_folder(output)
    with _storing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        foreign = _foreign(folder)
    if foreign:
        raise StorageError(f"{folder} has {foreign!r}, which is not of a run: move it away, or choose another output")
    try:
        lock = lock_file(folder / _LOCK, wait=False)
    except BlockingIOError:
        raise StorageError(f"another process is writing {output}: wait for it, or choose another output") from None
    except OSError as error:
        raise StorageError(f"{folder} cannot be locked: {error.strerror or error}") from None
    with contextlib.suppress(OSError):
        for path in folder.glob(".*"):  # unfinished files of a killed run
            if _OURS.fullmatch(path.name):
                path.unlink()
    return Journal(folder, lock)


def discard(output: Path) -> None:
    """Remove the parts that a killed run left next to a finished output."""
    folder = parts_folder(output)
    if folder.is_dir() and not _foreign(folder):
        with contextlib.closing(open_journal(output)):
            _clear(folder)


def _foreign(folder: Path) -> str | None:
    """Return a file of a folder of parts that no run has written, but for hidden ones of the system."""
    names = sorted(path.name for path in folder.iterdir())
    return next((name for name in names if not name.startswith(".") and not _OURS.fullmatch(name)), None)


def _clear(folder: Path) -> None:
    """Remove the files of a run, and the folder if it is empty then."""
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            if _OURS.fullmatch(path.name):
                path.unlink()
        folder.rmdir()


def error_file(output: Path) -> Path:
    """Return the path of the list of rows that could not be scored."""
    return output.with_name(f"{output.name}.errors.jsonl")


def write_parts(
    chunks: Iterable[Rendered],
    journal: Journal,
    job: Job,
    report: Callable[[Rendered], None],
    check: Callable[[], None],
) -> None:
    """Gather chunks into parts and commit these; ``report`` each chunk, and raise its failure.

    Before each commit ``check`` raises if the input changed, so that no part has rows of another file.
    """
    waiting: list[Rendered] = []
    for chunk in chunks:
        if chunk.failure is not None:
            raise chunk.failure
        waiting.append(chunk)
        report(chunk)
        rows, size = sum(each.counts.rows for each in waiting), sum(each.size for each in waiting)
        if rows >= job.options.part_rows or size >= _PART_BYTES:
            check()
            _commit(waiting, journal, job)
            waiting = []
    check()
    if waiting or not journal.parts:  # an input without rows has one part without rows
        _commit(waiting, journal, job)
    journal.commit_all()


def _commit(chunks: list[Rendered], journal: Journal, job: Job) -> None:
    number = len(journal.parts)
    errors = b"".join(chunk.errors for chunk in chunks)
    with _storing(journal.folder):
        with new_file(journal.part_path(number), durable=True) as file:
            job.writer.part([chunk.content for chunk in chunks], file)
        if errors:
            with new_file(journal.error_path(number), durable=True) as file:
                file.write(errors)
        sync_folder(journal.folder)
    path = journal.part_path(number)
    counts = Counts()
    for chunk in chunks:
        counts.add(chunk.counts)
    part = Part(
        number=number,
        end=chunks[-1].end if chunks else 0,
        bytes=path.stat().st_size,
        sha256=sha256_of(path),
        error_bytes=len(errors),
        error_sha256=hashlib.sha256(errors).hexdigest() if errors else "",
        on_error=job.options.on_error,
        counts=counts,
    )
    journal.commit(part)


def join_parts(output: Path, journal: Journal, writer: Writer) -> None:
    """Write output and error file from the parts, then remove these; StorageError without room for both."""
    joined, errors = journal.folder / "joined", journal.folder / "errors"
    error_paths = [journal.error_path(part.number) for part in journal.parts if part.error_bytes]
    with _storing(output):
        with new_file(joined, durable=True) as file:
            writer.join([journal.part_path(part.number) for part in journal.parts], file)
        if error_paths:
            with new_file(errors, durable=True) as file:
                for path in error_paths:
                    with path.open("rb") as lines:
                        shutil.copyfileobj(lines, file)
            errors.replace(error_file(output))
        else:
            error_file(output).unlink(missing_ok=True)  # of an older run
        _place(joined, output, replaces=journal.replaces)
        sync_folder(output.parent)
    journal.remove()


def _place(joined: Path, output: Path, *, replaces: bool) -> None:
    """Rename a file to the output; without ``replaces`` StorageError if another file has come there."""
    if replaces:
        joined.replace(output)
        return
    try:
        os.link(joined, output)  # a rename would replace the file
    except FileExistsError:
        if sha256_of(output) != sha256_of(joined):  # the same if a run was killed just after this
            raise StorageError(f"{output} has come while it was scored: move it away, then continue with --resume") from None
    except OSError:  # a file system without links
        joined.replace(output)


def _differences(now: dict[str, Any], then: dict[str, Any], name: str = "") -> list[str]:
    result = []
    for key in dict.fromkeys([*now, *then]):
        new, old = now.get(key), then.get(key)
        if isinstance(new, dict) and isinstance(old, dict):
            result += _differences(new, old, f"{name}{key} ")
        elif new != old:
            result.append(f"{name}{key} {_short(old)}, not {_short(new)}")
    return result


@contextlib.contextmanager
def _storing(path: Path) -> Iterator[None]:
    """Turn exceptions of writing into errors of one line."""
    try:
        yield
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        way_out = ": make room, then continue with --resume" if full else ""
        raise StorageError(f"{path} cannot be written: {error.strerror or error}{way_out}") from error


def _line(entry: dict[str, Any]) -> bytes:
    return f"{json.dumps(entry, ensure_ascii=False)}\n".encode()


def _short(value: object) -> str:
    text = str(value)
    return f"{text[:12]}..." if len(text) == 64 else repr(value)
