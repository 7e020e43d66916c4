"""Files on disk: atomic writes, locks, hashes, paths that stay inside a folder, the cache.

The first answer waits for this import, so it imports little: ``filelock`` would add ``asyncio``, 68 ms.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import stat
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any, BinaryIO

from ..errors import ArtifactError, FusedBertError, StorageError, shown
from .json_file import read_json_file

CACHE_VARIABLE = "FUSEDBERT_CACHE"
_SMALL = 1 << 20  # bytes: a smaller file is hashed faster than its hash is looked up
_LONGEST_PATH, _LONGEST_NAME = 1000, 255  # characters, and bytes of each part, as file systems have it
_log = logging.getLogger("fusedbert.engine.hardware.storage")


@contextlib.contextmanager
def new_file(path: Path, *, durable: bool = False) -> Iterator[BinaryIO]:
    """Open a temporary sibling of ``path``; rename it to ``path`` after the block, or remove it if that raises.

    ``durable`` flushes the content to the disk; ``sync_folder`` makes the rename durable too.

    Raises:
        OSError: The file cannot be written.
    """
    stage = path.with_name(f".{path.name[:100]}.{os.urandom(6).hex()}")
    try:
        # "x", not mkstemp: files of mkstemp are readable only by their owner, whatever the umask.
        with stage.open("xb") as file:
            if sys.platform != "win32":  # which would refuse the rename
                with contextlib.suppress(OSError):
                    _try_lock(file)  # so that it is not taken for the leftover of a killed process
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
            if sys.platform != "win32":
                stage.replace(path)
        if sys.platform == "win32":
            stage.replace(path)
    except BaseException:
        stage.unlink(missing_ok=True)
        raise


def write_whole(path: Path, content: bytes) -> None:
    """Write a small file atomically, creating its parent folders.

    Raises:
        StorageError: The file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with new_file(path) as file:
            file.write(content)
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror or error}") from None


def sync_folder(folder: Path) -> None:
    """Make a folder's entries survive a power cut, if the system supports that."""
    if sys.platform == "win32":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def lock_file(path: Path, *, wait: bool = True) -> IO[bytes]:
    """Open a file, and lock it against other processes and threads until it is closed or the process dies.

    Raises:
        BlockingIOError: Without ``wait``: the lock is held elsewhere.
        OSError: The file cannot be opened, or the file system has no locks.
    """
    file = path.open("a+b")
    try:
        try:
            _try_lock(file)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
                raise
            if not wait:
                raise BlockingIOError(error.errno, os.strerror(error.errno), str(path)) from None
            _log.info("waiting for the lock %s, which another process holds", path)
            _wait_for_lock(file)
    except BaseException:
        file.close()
        raise
    return file


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock of the cache; other processes and threads wait.

    Raises:
        StorageError: The file system does not allow it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = lock_file(path)
    except OSError as error:
        raise cache_error(path, error) from None
    with file:
        yield


if sys.platform == "win32":
    import msvcrt
    import time

    def _try_lock(file: IO[bytes]) -> None:
        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)

    def _wait_for_lock(file: IO[bytes]) -> None:
        while True:
            with contextlib.suppress(OSError):
                return _try_lock(file)
            time.sleep(0.1)  # LK_LOCK gives up after ten seconds; an export takes longer

else:
    import fcntl

    def _try_lock(file: IO[bytes]) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _wait_for_lock(file: IO[bytes]) -> None:
        fcntl.flock(file, fcntl.LOCK_EX)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal.

    Raises:
        StorageError: The file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror or error}") from None


def inside(folder: Path, name: str, *, named_by: str = "") -> Path:
    """Return the path of a file inside a folder; ``named_by``: the file that names it, for the message.

    Raises:
        ArtifactError: The name is absolute, has ``..``, or leads out of the folder by a link, except a hub snapshot's.
    """
    pure, path = PurePosixPath(name), folder / name
    bad = any(character in "\\:\x7f" or character < " " for character in name)
    long = len(name) > _LONGEST_PATH or any(len(part.encode()) > _LONGEST_NAME for part in pure.parts)
    if bad or long or pure.is_absolute() or ".." in pure.parts or not pure.parts:
        source = folder / named_by
        raise ArtifactError(f"{source} names {shown(name)}, which is not a path inside the folder: do not use this artifact")
    try:
        real, target = folder.resolve(), path.resolve()
    except (OSError, RuntimeError) as error:  # RuntimeError: a link to itself
        detail = getattr(error, "strerror", None) or "a link to itself"
        raise ArtifactError(f"{path} cannot be found ({detail}): do not use it, or copy the file in its place") from None
    # models--ORG--NAME/{blobs,snapshots/COMMIT}
    snapshots = next((p for p in real.parents if p.name == "snapshots" and p.parent.name.startswith("models--")), None)
    if not target.is_relative_to(real) and not (snapshots and target.is_relative_to(snapshots.parent / "blobs")):
        raise ArtifactError(f"{path} is a link out of its folder: do not use it, or copy the file in its place")
    return path


def given_path(value: object, name: str, error: type[FusedBertError], way_out: str = "give the path of a folder") -> Path:
    """Return a path that a user gave as ``name``, with ``~`` expanded.

    Raises:
        FusedBertError: ``error``: it is empty, not a path, or none that a file system can have.

    Example:
        >>> given_path("models/sst2-mini", "MODEL", StorageError).name
        'sst2-mini'
    """
    try:
        text = os.fspath(value)  # type: ignore[call-overload]
        if isinstance(text, str) and text.strip() and "\0" not in text and text.encode():
            return Path(text).expanduser()
        why = ""
    except UnicodeEncodeError:
        why = ", which is not UTF-8, and ONNX Runtime opens no such file"
    except (TypeError, RuntimeError):  # no path, or a home that is not known
        why = ""
    raise error(f"{name} is {shown(value)}{why}: {way_out}")


@contextlib.contextmanager
def accessing(place: object) -> Iterator[None]:
    """Turn what the file system raises inside into one error; ``place``: what is accessed, if the system does not say it.

    Raises:
        StorageError: A file or folder cannot be accessed.
    """
    try:
        yield
    except FusedBertError:
        raise
    except OSError as error:
        where = str(error.filename or place)
        where = where if len(where) <= 200 else f"{where[:197]}..."
        raise StorageError(f"{where} cannot be accessed: {error.strerror or error}") from error


def cache_root(folder: str | os.PathLike[str] | None = None) -> Path:
    """Return the cache folder, which may not exist: ``folder``, else ``FUSEDBERT_CACHE``, else the platform's.

    Raises:
        StorageError: The user has no home folder.
    """
    if folder is not None:
        return given_path(folder, "cache_dir", StorageError).absolute()
    if chosen := os.environ.get(CACHE_VARIABLE):
        return given_path(chosen, CACHE_VARIABLE, StorageError).absolute()
    try:
        if sys.platform == "win32":
            local = os.environ.get("LOCALAPPDATA")
            return (Path(local) if local else Path.home() / "AppData" / "Local") / "fusedbert" / "cache"
        if sys.platform == "darwin":
            return Path.home() / "Library" / "Caches" / "fusedbert"
        xdg = Path(os.environ.get("XDG_CACHE_HOME", ""))
        return (xdg if xdg.is_absolute() else Path.home() / ".cache") / "fusedbert"  # XDG: relative paths are ignored
    except RuntimeError:
        raise StorageError(f"no home folder was found for the cache: set {CACHE_VARIABLE} to a writable folder") from None


cache_warnings: set[str] = set()  # folders of which users were warned


def is_trusted(root: Path) -> bool:
    """Return whether only its user can write into a cache and its parents up to home; warn once if others can.

    What is in another's cache is not believed: files are hashed at each load.
    """
    folder = _writable_by_others(root)
    if folder is None:
        return True
    if str(folder) not in cache_warnings:
        cache_warnings.add(str(folder))
        warnings.warn(
            f"other users may write into {folder}, where fusedbert's cache is: its verdicts are not believed, and files are "
            f"hashed at each load; run chmod go-w {folder} as its owner, or set {CACHE_VARIABLE} to a folder of yours",
            UserWarning,
            stacklevel=2,
        )
    return False


def _writable_by_others(root: Path) -> Path | None:
    """Return the cache, or a folder above it, if another user owns it or may write there; a sticky one above is safe."""
    if sys.platform == "win32":
        return None
    user, home = os.geteuid(), Path(os.path.expanduser("~"))  # noqa: PTH111 (Path.home raises without one)
    for folder in (root.resolve(), *root.resolve().parents):
        try:
            status = folder.stat()
        except FileNotFoundError:
            continue
        except OSError:
            return None  # whoever opens it says so
        # Where each user has a separate group, their files are writable by it.
        own_group = status.st_gid == os.getegid() == user
        others = status.st_mode & (stat.S_IWOTH if own_group else stat.S_IWOTH | stat.S_IWGRP)
        safe = not others or (folder != root.resolve() and status.st_mode & stat.S_ISVTX)
        if status.st_uid not in (0, user) or not safe:
            return folder
        if folder == home:
            break
    return None


def cache_error(path: Path, error: OSError) -> StorageError:
    """Return the error for a cache that cannot be written."""
    detail = error.strerror or error
    return StorageError(f"the cache {path} cannot be written ({detail}): set {CACHE_VARIABLE} to a writable folder")


def write_cached(path: Path, document: Any) -> None:
    """Write a JSON object to the cache; a failure is only logged, as it only costs time."""
    try:
        write_whole(path, json.dumps(document).encode())
    except (OSError, UnicodeEncodeError) as error:
        _log.info("%s was not written to the cache: %s", path, error)


def read_cached(path: Path) -> Any:
    """Read a JSON object from the cache; None if missing or damaged."""
    with contextlib.suppress(FusedBertError):
        return read_json_file(path, way_out="")
    return None


def cached_sha256(path: Path, root: Path) -> str:
    """Return a file's SHA-256, cached by path, size, time and inode, if the cache is trusted."""
    path = path.resolve()
    status = path.stat()
    if status.st_size < _SMALL or not is_trusted(root):
        return sha256_of(path)
    stamp = [str(path), status.st_size, status.st_mtime_ns, status.st_ino]
    record = root / "hashes" / f"{hashlib.sha256(os.fsencode(path)).hexdigest()[:32]}.json"
    match read_cached(record):
        case {"stamp": known, "sha256": str(sha256)} if known == stamp:
            return sha256
    sha256 = sha256_of(path)
    write_cached(record, {"stamp": stamp, "sha256": sha256})
    return sha256


def why_not_writable(folder: Path) -> str | None:
    """Return why files cannot be created in a folder, or None if they can."""
    import tempfile  # only the doctor asks

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as error:
        return error.strerror or str(error)
