"""Files on disk: atomic writes, staged folders, locks, hashes, paths that stay inside a folder, the cache.

The first answer waits for this import, so it imports little: ``filelock`` would add ``asyncio``, 68 ms.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any, BinaryIO

from ..errors import ArtifactError, StorageError

CACHE_VARIABLE = "FUSEDBERT_CACHE"
_SMALL = 1 << 20  # bytes: a smaller file is hashed faster than its hash is looked up
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
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
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


@contextlib.contextmanager
def staged_folder(output: Path, *, replace: bool = False) -> Iterator[Path]:
    """Create a temporary sibling of ``output``; rename it to ``output`` after the block, or remove it if that raises.

    ``replace`` allows an existing ``output``.

    Raises:
        StorageError: The folder exists, cannot be created, or the disk is full.
    """
    import shutil  # the runtime writes no folders
    import tempfile

    if os.path.lexists(output) and not replace and not (output.is_dir() and not any(output.iterdir())):
        raise StorageError(f"{output} exists already: choose another folder, or replace it with --force")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(prefix=f".{output.name}.", suffix=".part", dir=output.parent))
        stage.chmod(0o755)
    except OSError as error:
        raise StorageError(f"{output} cannot be written: {error.strerror or error}") from None
    try:
        yield stage
        if not os.path.lexists(output) or (output.is_dir() and not output.is_symlink() and not any(output.iterdir())):
            stage.rename(output)  # rename(2) replaces an empty folder
            return
        aside = Path(tempfile.mkdtemp(prefix=f".{output.name}.", suffix=".old", dir=output.parent)) / "old"
        output.rename(aside)
        try:
            stage.rename(output)
        except OSError:
            aside.rename(output)
            raise
        finally:
            shutil.rmtree(aside.parent, ignore_errors=True)
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError(f"{output} could not be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)


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
    if pure.is_absolute() or ".." in pure.parts or not pure.parts or any(character in name for character in "\\\0:"):
        source = folder / named_by
        raise ArtifactError(f"{source} names {name!r}, which is not a path inside the folder: do not use this artifact")
    real, target = folder.resolve(), path.resolve()
    # models--ORG--NAME/{blobs,snapshots/COMMIT}
    snapshots = next((p for p in real.parents if p.name == "snapshots" and p.parent.name.startswith("models--")), None)
    if not target.is_relative_to(real) and not (snapshots and target.is_relative_to(snapshots.parent / "blobs")):
        raise ArtifactError(f"{path} is a link out of its folder: do not use it, or copy the file in its place")
    return path


def cache_root(folder: str | os.PathLike[str] | None = None) -> Path:
    """Return the cache folder, which may not exist: ``folder``, else ``FUSEDBERT_CACHE``, else the platform's.

    Raises:
        StorageError: The user has no home folder.
    """
    if chosen := folder if folder is not None else os.environ.get(CACHE_VARIABLE):
        return Path(chosen).expanduser().absolute()
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


def cache_error(path: Path, error: OSError) -> StorageError:
    """Return the error for a cache that cannot be written."""
    detail = error.strerror or error
    return StorageError(f"the cache {path} cannot be written ({detail}): set {CACHE_VARIABLE} to a writable folder")


def write_cached(path: Path, document: Any) -> None:
    """Write a JSON document to the cache; a failure is only logged, as it only costs time."""
    try:
        write_whole(path, json.dumps(document).encode())
    except (OSError, UnicodeEncodeError) as error:
        _log.info("%s was not written to the cache: %s", path, error)


def read_cached(path: Path) -> Any:
    """Read a JSON document from the cache; None if missing or damaged."""
    with contextlib.suppress(OSError, ValueError):
        return json.loads(path.read_bytes())
    return None


def cached_sha256(path: Path, root: Path) -> str:
    """Return a file's SHA-256, cached by path, size, time and inode."""
    path = path.resolve()
    status = path.stat()
    if status.st_size < _SMALL:
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
