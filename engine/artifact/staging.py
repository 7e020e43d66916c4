"""Folders that appear whole or not at all: written next to their place, and renamed to it at the end.

The work is in a hidden sibling, ``.NAME.xxxxxxxx.part``, with a lock that ends with the process: a killed run's work is known
by that, and the next one to the same place removes it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from ..errors import FusedBertError, StorageError
from ..hardware.json_file import read_json_file
from ..hardware.storage import lock_file

_MANIFEST = "fusedbert.json"
_LOCK, _NEW, _OLD = "lock", "new", "old"
_WORK = re.compile(r"\.(.+)\.[a-z0-9_]{8}\.part")  # as tempfile.mkdtemp names it
_FILE = re.compile(r"\..+\.[0-9a-f]{12}")  # as storage.new_file names it
_YOUNG = 60  # seconds: a file that may not have its lock yet
_LONGEST = 100  # bytes of a name within another
# What any artifact may hold, also if its manifest is damaged; and what a desktop puts into any folder.
_OURS = re.compile(
    r"fusedbert\.json|README\.md|config\.json|tokenizer(_config)?\.json|onnx/model\w*\.onnx(_data)?"
    r"|(.*/)?(\.DS_Store|Thumbs\.db|desktop\.ini)"
)


@contextlib.contextmanager
def staged_folder(output: Path, *, replace: bool = False) -> Iterator[Path]:
    """Give a new folder; rename it to ``output`` after the block, or remove it if that raises.

    Nothing that appears at ``output`` during the block is removed. ``replace`` allows an artifact there, and nothing else.

    Raises:
        StorageError: ``output`` exists, cannot be created, or the disk is full.
    """
    try:
        output = output.resolve() if output.is_dir() else output.parent.resolve() / output.name
        _check_place(output, replace=replace)
        output.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(output.parent, output.name)
        work, lock = _start(output)
    except (OSError, ValueError, RuntimeError) as error:
        raise _cannot(output, error) from None
    try:
        stage = work / _NEW
        stage.mkdir()
        stage.chmod(0o755)
        yield stage
        _take(stage, output, work / _OLD, replace=replace)
    except FusedBertError:
        raise
    except OSError as error:
        raise _cannot(output, error) from error
    finally:
        if lock is not None:
            lock.close()
        if not _clear(work, output):
            kept = f"what was at {output} before is kept in {work / _OLD}, because its place was taken"
            warnings.warn(kept, UserWarning, stacklevel=3)


def _cannot(output: Path, error: Exception) -> StorageError:
    if isinstance(error, StorageError):
        return error
    return StorageError(f"{output} cannot be written: {getattr(error, 'strerror', None) or error}")


def _start(output: Path) -> tuple[Path, IO[bytes] | None]:
    """Create the hidden folder, and lock it; None where the file system has no locks."""
    while True:
        work = Path(tempfile.mkdtemp(prefix=f".{_stem(output.name)}.", suffix=".part", dir=output.parent))
        try:
            lock = lock_file(work / _LOCK, wait=False)
            if _is_at(lock, work / _LOCK):
                return work, lock
            lock.close()  # another process took it for a leftover, before it was locked
        except (BlockingIOError, FileNotFoundError):
            continue
        except OSError:
            return work, None


def _is_at(lock: IO[bytes], path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(lock.fileno()), path.stat())
    return False


def _stem(name: str) -> str:
    """Return the output's name, or a hash of one that leaves no room for more letters."""
    raw = os.fsencode(name)
    return name if len(raw) <= _LONGEST else hashlib.sha256(raw).hexdigest()[:32]


def _take(stage: Path, output: Path, aside: Path, *, replace: bool) -> None:
    """Rename to the output's place; an artifact that ``replace`` allows to replace is moved aside."""
    _check_place(output, replace=replace)
    if _renamed(stage, output):
        return
    if not replace:
        raise _exists(output)
    output.rename(aside)
    # It may have come after the look at the place, and another after that.
    if _not_ours(aside) is not None or not _renamed(stage, output):
        raise _exists(output)
    shutil.rmtree(aside, ignore_errors=True)


def _clear(work: Path, output: Path) -> bool:
    """Put back what was moved aside, and remove the rest; false if something stays aside, because its place was taken."""
    aside = work / _OLD
    while True:
        with contextlib.suppress(OSError):
            if os.path.lexists(aside) and not os.path.lexists(output):
                aside.rename(output)
        try:
            replaced = not os.path.lexists(aside) or (_not_ours(aside) is None and _not_ours(output) is None)
        except FileNotFoundError:  # another run is just replacing it: look again
            continue
        except OSError:
            replaced = False
        if replaced:
            shutil.rmtree(work, ignore_errors=True)
        return replaced


def _renamed(stage: Path, output: Path) -> bool:
    """Rename a folder, atomically onto nothing or an empty folder; false if there is anything else."""
    try:
        if os.name == "nt" and output.is_dir() and not output.is_symlink():
            output.rmdir()  # which only an empty one allows; POSIX replaces that
        stage.rename(output)
    except OSError:
        if os.path.lexists(output):
            return False
        raise
    return True


def _exists(output: Path) -> StorageError:
    return StorageError(f"{output} exists already: choose another folder, or replace it with --force")


def _check_place(output: Path, *, replace: bool) -> None:
    """Refuse an output's place where there is anything but an empty folder, or, with ``replace``, an artifact."""
    is_folder = output.is_dir()
    if not os.path.lexists(output) or (is_folder and not any(output.iterdir())):
        return
    if not replace:
        raise _exists(output)
    if not is_folder:
        raise StorageError(f"{output} is not an artifact's folder, which is all that --force replaces: remove it, or rename it")
    other = _not_ours(output)
    if other is not None:
        raise StorageError(
            f"{output} holds {ascii(other)[1:-1]}, which is not of an artifact, and --force replaces only those: "
            "choose another folder, or move that away"
        )


def _not_ours(folder: Path) -> str | None:
    """Return something in a folder that no artifact has, or None if it is an artifact."""
    files = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()]
    if _MANIFEST not in files:
        return min(files, default="folders")
    try:
        listed = (read_json_file(folder / _MANIFEST, way_out="") or {}).get("files")
    except FusedBertError:  # a damaged artifact may be replaced too
        listed = None
    known = set(listed) if isinstance(listed, dict) else set()
    return next((name for name in sorted(files) if name not in known and not _OURS.fullmatch(name)), None)


def remove_leftovers(folder: Path, name: str | None = None) -> None:
    """Remove what killed processes left in a folder, of one output or of all; what a process still writes stays.

    An output that was moved aside and not yet replaced is put back.
    """
    for path in folder.iterdir() if folder.is_dir() else ():
        with contextlib.suppress(OSError):
            if (match := _WORK.fullmatch(path.name)) and (name is None or match[1] == _stem(name)):
                _remove_work(path, folder / (name or match[1]))
            elif name is None and _FILE.fullmatch(path.name) and time.time() - path.stat().st_mtime > _YOUNG:
                with lock_file(path, wait=False):
                    path.unlink()


def _remove_work(work: Path, output: Path) -> None:
    names = {path.name for path in work.iterdir()}
    if _LOCK not in names or not names <= {_LOCK, _NEW, _OLD}:
        work.rmdir()  # of a process that got no further; a folder with content is another program's
        return
    with lock_file(work / _LOCK, wait=False):
        cleared = _clear(work, output)
    if cleared:
        shutil.rmtree(work, ignore_errors=True)  # Windows keeps the lock's file while it is open
