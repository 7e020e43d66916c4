"""The cache: where exported models go, who may write there now, and which weights were hashed before."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from ..artifact import MANIFEST, read_manifest, sha256_of
from ..errors import ArtifactError, StorageError

VARIABLE = "FUSEDBERT_CACHE"
_log = logging.getLogger("fusedbert.engine.load.cache")
# Below this a file is hashed faster than its verdict is looked up.
_SMALL = 1 << 20


def cache_root(given: str | os.PathLike[str] | None = None) -> Path:
    """Return the cache's folder: what was given, else ``FUSEDBERT_CACHE``, else the platform's user cache. Not made yet.

    Raises:
        StorageError: There is no home folder to put it in.
    """
    if given is not None:
        return Path(given).expanduser().absolute()
    if named := os.environ.get(VARIABLE):
        return Path(named).expanduser().absolute()
    try:
        if sys.platform == "win32":
            local = os.environ.get("LOCALAPPDATA")
            return (Path(local) if local else Path.home() / "AppData" / "Local") / "fusedbert" / "cache"
        if sys.platform == "darwin":
            return Path.home() / "Library" / "Caches" / "fusedbert"
        xdg = os.environ.get("XDG_CACHE_HOME", "")
        # The XDG specification has relative paths ignored.
        return (Path(xdg) if Path(xdg).is_absolute() else Path.home() / ".cache") / "fusedbert"
    except RuntimeError:
        raise StorageError(f"no home folder was found for the cache: set {VARIABLE} to a folder that can be written") from None


def cached_artifact(root: Path, key: str, make: Callable[[Path], object]) -> Path:
    """Return the artifact of a key, making it where it is not there; of many first users one makes it, the rest wait.

    Args:
        root: The cache's folder.
        key: Hash of all that the artifact depends on.
        make: Writes the artifact to the path that it is given, whole or not at all.

    Raises:
        StorageError: The cache cannot be written; the message names the variable that moves it.
    """
    folder = root / "artifacts" / key
    if is_complete(folder):  # needs no lock, and no right to write
        return folder
    with locked(root / "locks" / f"{key}.lock"):
        if not is_complete(folder):
            if folder.exists():
                _log.warning("the cached artifact %s is damaged and is made again", folder)
                _remove(folder)
            make(folder)
    return folder


def is_complete(folder: Path) -> bool:
    """Tell whether an artifact has a readable manifest, and each file that it lists in the size that it lists."""
    if not (folder / MANIFEST).is_file():
        return False
    try:
        files = read_manifest(folder).files
        return all((folder / name).stat().st_size == entry["bytes"] for name, entry in files.items())
    except (ArtifactError, OSError):
        return False


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock that other processes and threads wait for; the system releases it when the process dies.

    Raises:
        StorageError: The lock's file cannot be made, or the file system has no locks.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+b")
    except OSError as error:
        raise _unwritable(path.parent, error) from None
    with file:
        try:
            _lock(file)
        except OSError as error:
            raise _unwritable(path, error) from None
        yield  # closing the file releases the lock


if sys.platform == "win32":
    import msvcrt
    import time

    def _lock(file: IO[bytes]) -> None:
        while True:
            file.seek(0)
            try:
                return msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            except OSError:
                time.sleep(0.1)  # LK_LOCK gives up after ten seconds, an export takes longer

else:
    import fcntl

    def _lock(file: IO[bytes]) -> None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _log.info("another process is exporting this model, waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)


def file_hash(path: Path, root: Path) -> str:
    """Return a file's sha256, remembered by path, size, time and inode, so that big weights are read once.

    A cache that cannot be written only costs the reading.
    """
    path = path.resolve()
    status = path.stat()
    if status.st_size < _SMALL:
        return sha256_of(path)
    stamp = [str(path), status.st_size, status.st_mtime_ns, status.st_ino]
    record = root / "hashes" / f"{hashlib.sha256(os.fsencode(path)).hexdigest()[:32]}.json"
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        known = json.loads(record.read_bytes())
        if known["stamp"] == stamp and isinstance(known["sha256"], str):
            return str(known["sha256"])
    digest = sha256_of(path)
    with contextlib.suppress(OSError, UnicodeEncodeError):
        write_whole(record, json.dumps({"stamp": stamp, "sha256": digest}).encode())
    return digest


def write_whole(path: Path, content: bytes) -> None:
    """Write a small file by rename, so that a reader sees the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def writable(root: Path) -> str | None:
    """Return why files cannot be made in the cache, or None where they can."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root):
            return None
    except OSError as error:
        return error.strerror or str(error)


def _remove(folder: Path) -> None:
    import shutil  # only where something is broken

    try:
        shutil.rmtree(folder)
    except OSError as error:
        raise _unwritable(folder, error) from None


def _unwritable(path: Path, error: OSError) -> StorageError:
    detail = error.strerror or error
    return StorageError(f"the cache {path} cannot be written ({detail}): set {VARIABLE} to a folder that can")
