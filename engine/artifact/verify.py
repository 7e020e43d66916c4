"""Whether an artifact's files are what its manifest says, each time that it is loaded.

Every file is checked, by size and by sha256. What a load reads is checked before it is read; the rest (graphs for another
device or precision) is hashed in a thread meanwhile, and joined before the load returns. A verdict is kept in the cache by
path, size, time of change and inode, so that the next start looks at each file's status and reads nothing.

What stands between the check and the load: a file's status is taken before its bytes are hashed, and once more when all
is loaded. A file that was written to or replaced in between has another time or inode by then, and the load fails. A file
system whose times are coarse, or somebody who sets the clock back, is not found out; ``ctime``, which no call sets, makes
that a matter of more than ``os.utime``. ONNX Runtime keeps data files mapped: who writes to one in place later, changes
the weights of a model that runs. Whoever may write to the cache may write verdicts, too.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

from ..errors import ArtifactError, FusedBertError, StorageError
from ..load.cache import cache_root, write_whole
from .manifest import Manifest, Variant, inside
from .onnx_header import data_files, scan

_log = logging.getLogger("fusedbert.engine.artifact.verify")
_PIECE = 1 << 20
# A file that changed this short a time ago may change once more within one tick of the file system's clock, and its
# status would be the same: what was found of it is not kept.
_TICK = 20_000_000  # nanoseconds


def stamp_of(path: Path) -> list[int]:
    """Return what tells, without reading it, that a file is the one which was read before."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ino, status.st_ctime_ns]


class FileCheck:
    """The check of one artifact's files while it is loaded.

    Args:
        folder: The artifact.
        manifest: Its manifest. One that was made up for another tool's export has no hashes: then only paths are checked.
        root: The cache, or None to keep and believe no verdicts.
        anew: Whether to read every file, whatever is known of it.

    Raises:
        ArtifactError: A file is missing or of another size; the message names it.

    Example:
        >>> with FileCheck(folder, manifest, root) as check:  # doctest: +SKIP
        ...     check.small_files()
        ...     session = open_session(runtime, check.graph(variant), choice, threads=2)
        ...     check.finish()
    """

    def __init__(self, folder: Path, manifest: Manifest, root: Path | None, *, anew: bool = False) -> None:
        self._folder = folder
        self._manifest = manifest
        self._record = _Record(folder, root, anew=anew)
        self._way_out = _way_out(folder, root)
        self._stamps = {name: self._look(name) for name in manifest.files}
        self._pending = [
            name for name in manifest.files if not self._record.knows(name, self._stamps[name], self._expected(name))
        ]
        self._thread: threading.Thread | None = None
        self._error: FusedBertError | None = None
        self._stopped = False

    def __enter__(self) -> FileCheck:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Leave no thread behind, however the load ended."""
        self._stopped = True
        if self._thread is not None:
            self._thread.join()

    def small_files(self) -> None:
        """Check config and tokenizer: all that is no graph and no graph's data.

        Raises:
            ArtifactError: One has another content; the message names it.
        """
        graphs = tuple(variant.file for variant in self._manifest.variants)
        self._require([name for name in self._manifest.files if not name.startswith(graphs)])

    def graph(self, variant: Variant) -> Path:
        """Check a graph and the data files that it names, and return its path.

        Raises:
            ArtifactError: One has another content, is missing, leads out of the folder, or is not listed.
        """
        file = inside(self._folder, variant.file)
        if not file.is_file():
            raise ArtifactError(f"{file} is missing: {self._way_out}")
        self._require([variant.file])
        names = data_files(self._folder, variant.file, self._locations(file, variant.file))
        for name in names:
            path = inside(self._folder, name)
            if not path.is_file():
                raise ArtifactError(f"{path} is missing, and {file} keeps weights in it: {self._way_out}")
        self._require(names)
        return file

    def _locations(self, file: Path, name: str) -> tuple[str, ...]:
        """Return where a graph keeps weights; by its hash, as far as that is known, to save the reading."""
        known = self._manifest.files.get(name)
        found = None if known is None else self._record.locations(str(known["sha256"]))
        if found is None:
            found = scan(file).data_files
            if known is not None:
                self._record.add_locations(str(known["sha256"]), found)
        return found

    def rest_meanwhile(self) -> None:
        """Begin to check all other files, in a thread."""
        if self._pending and self._thread is None:
            self._thread = threading.Thread(target=self._check_rest, name="fusedbert-verify", daemon=True)
            self._thread.start()

    def finish(self) -> None:
        """Wait for all files, and see that none changed since it was checked; keep the verdict.

        Raises:
            ArtifactError: A file has another content, or was changed or replaced during the load.
        """
        self.rest_meanwhile()
        self._wait()
        for name, stamp in self._stamps.items():
            if self._stamp(name) != stamp:
                raise ArtifactError(f"{self._folder / name} changed while it was loaded: load the model again")
        self._record.save()

    def _look(self, name: str) -> list[int]:
        path, expected = self._folder / name, self._manifest.files[name]["bytes"]  # inside: read_manifest saw to it
        if not path.is_file():
            raise ArtifactError(f"{path} is missing: {self._way_out}")
        stamp = self._stamp(name)
        if stamp[0] != expected:
            raise ArtifactError(f"{path} has {stamp[0]} bytes, the manifest says {expected}: {self._way_out}")
        return stamp

    def _stamp(self, name: str) -> list[int]:
        try:
            return stamp_of(self._folder / name)
        except OSError as error:
            raise StorageError(f"{self._folder / name} cannot be looked at: {error.strerror or error}") from None

    def _expected(self, name: str) -> str:
        return str(self._manifest.files[name]["sha256"])

    def _require(self, names: Iterable[str]) -> None:
        """Check files now; those that the thread has are waited for."""
        for name in names:
            if name not in self._manifest.files and self._manifest.verifiable:
                raise ArtifactError(f"{self._folder / name} is not listed in the manifest: {self._way_out}")
        if self._thread is not None:
            self._wait()
        for name in [name for name in self._pending if name in set(names)]:
            self._check(name)

    def _wait(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            raise self._error

    def _check_rest(self) -> None:
        try:
            for name in list(self._pending):
                if self._stopped:
                    return
                self._check(name)
        except FusedBertError as error:
            self._error = error

    def _check(self, name: str) -> None:
        path, began = self._folder / name, time.time_ns()
        found = self._hash(path)
        if found is None:
            return
        if found != self._expected(name):
            raise ArtifactError(f"{path} does not have the sha256 that the manifest gives: {self._way_out}")
        self._pending.remove(name)
        self._record.add(name, self._stamps[name], found, began)

    def _hash(self, path: Path) -> str | None:
        """Return a file's sha256, or None where the load was given up meanwhile."""
        digest, buffer = hashlib.sha256(), bytearray(_PIECE)
        try:
            with path.open("rb", buffering=0) as file:
                while size := file.readinto(buffer):
                    digest.update(memoryview(buffer)[:size])
                    if self._stopped:
                        return None
        except OSError as error:
            raise StorageError(f"{path} cannot be read: {error.strerror or error}") from None
        return digest.hexdigest()


def check_graph(folder: Path, manifest: Manifest, variant: Variant, root: Path | None = None) -> Path:
    """Check one graph, the data files that it names, and the small files beside it; return the graph's path.

    Raises:
        ArtifactError: A file is damaged, missing, or leads out of the folder; the message names it.
    """
    with FileCheck(folder, manifest, root) as check:
        check.small_files()
        return check.graph(variant)


def verdict_root(given: str | os.PathLike[str] | None) -> Path | None:
    """Return the cache to keep verdicts in, or None where this system has no place for one: that costs time alone."""
    try:
        return cache_root(given)
    except StorageError:
        return None


def keep(path: Path, document: Any) -> None:
    """Write a verdict as JSON; a cache that cannot be written costs the next start's time, and is no error."""
    try:
        write_whole(path, json.dumps(document).encode())
    except (OSError, UnicodeEncodeError) as error:
        _log.info("the verdict %s was not kept: %s", path, error)


def kept(path: Path) -> Any:
    """Return what was kept, or None."""
    with contextlib.suppress(OSError, ValueError):
        return json.loads(path.read_bytes())
    return None


class _Record:
    """What is known of a folder's files from earlier loads.

    ``{"files": {name: [*stamp, sha256]}, "graphs": {sha256: locations of data files}}``
    """

    def __init__(self, folder: Path, root: Path | None, *, anew: bool) -> None:
        self._path: Path | None = None
        self._files: dict[str, Any] = {}
        self._graphs: dict[str, Any] = {}
        self._new = False
        if root is not None:
            key = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:32]
            self._path = root / "verdicts" / f"{key}.json"
            found = None if anew else kept(self._path)
            with contextlib.suppress(TypeError, KeyError, ValueError):
                self._files, self._graphs = dict(found["files"]), dict(found["graphs"])  # type: ignore[index]

    def knows(self, name: str, stamp: list[int], expected: str) -> bool:
        """Tell whether a file was read before, as it is now, and had this sha256."""
        return bool(self._files.get(name) == [*stamp, expected])

    def add(self, name: str, stamp: list[int], found: str, when: int) -> None:
        """Note what a file was found to be; ``when`` it was read, in nanoseconds since the epoch."""
        if max(stamp[1], stamp[3]) < when - _TICK:
            self._files[name] = [*stamp, found]
            self._new = True

    def locations(self, sha256: str) -> tuple[str, ...] | None:
        """Return where a graph of this hash keeps weights, None where that is not known."""
        found = self._graphs.get(sha256)
        return tuple(map(str, found)) if isinstance(found, list) else None

    def add_locations(self, sha256: str, found: tuple[str, ...]) -> None:
        """Note where a graph keeps weights."""
        self._graphs[sha256] = list(found)
        self._new = True

    def save(self) -> None:
        """Keep it, where something is new."""
        if self._new and self._path is not None:
            keep(self._path, {"files": self._files, "graphs": self._graphs})


def _way_out(folder: Path, root: Path | None) -> str:
    if root is not None and folder.is_relative_to(root):
        return f"remove {folder}, and it is made again"
    return "copy it again, or export the checkpoint again"
