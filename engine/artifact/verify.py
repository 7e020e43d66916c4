"""The check of an artifact's files against its manifest, at each load.

Size and SHA-256 are checked before a file is read; the other files are hashed in a thread, which is joined before the load
returns. Verdicts are cached by path, size, times and inode, which are compared again after the load.

Limits: with coarse timestamps, or if the clock is set back, a change can go unnoticed (``mtime`` can be faked, ``ctime`` is
compared too). A data file that is written later changes a running model, as ONNX Runtime maps it. The cache is trusted if only
its user can write there.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import ArtifactError, FusedBertError, StorageError
from ..hardware.storage import cache_root, inside, is_trusted, read_cached, write_cached
from . import Manifest, Variant
from .onnx_header import data_files, read_header

_PIECE = 1 << 20
# A file that changed this recently may change again within one tick of the file system's clock: its verdict is not cached.
TICK = 20_000_000  # nanoseconds


class FileCheck:
    """The check of one artifact's files during a load; of another tool's export only paths are checked.

    ``root`` is the cache, or None for no verdicts; ``ignore_verdicts`` reads every file.

    Raises:
        ArtifactError: A file is missing or of another size.
    """

    def __init__(self, folder: Path, manifest: Manifest, root: Path | None, *, ignore_verdicts: bool = False) -> None:
        self._folder = folder
        self._manifest = manifest
        self._hashes: dict[str, Any] = {}  # earlier verdicts: [*status, sha256] by name
        self._locations: dict[str, Any] = {}  # of a graph's data files, by its hash
        self._changed = False
        self._record: Path | None = None
        if root is not None:
            key = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:32]
            self._record = root / "verdicts" / f"{key}.json"
            match None if ignore_verdicts else read_cached(self._record):
                case {"files": dict(files), "graphs": dict(graphs)}:
                    self._hashes, self._locations = files, graphs
        cached = root is not None and folder.is_relative_to(root)
        self._way_out = f"remove {folder}, and it is made again" if cached else "copy it again, or export the checkpoint again"
        self._statuses = {name: self._checked_size(name) for name in manifest.files}
        known = {name for name, status in self._statuses.items() if self._hashes.get(name) == [*status, self._expected(name)]}
        self._pending = [name for name in manifest.files if name not in known]
        self._thread: threading.Thread | None = None
        self._error: FusedBertError | None = None
        self._stopped = False

    def __enter__(self) -> FileCheck:
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped = True
        if self._thread is not None:
            self._thread.join()

    def small_files(self) -> None:
        """Check config and tokenizer: every file that is neither a graph nor its data.

        Raises:
            ArtifactError: One has other content.
        """
        graphs = tuple(variant.file for variant in self._manifest.variants)
        self._require([name for name in self._manifest.files if not name.startswith(graphs)])

    def graph(self, variant: Variant) -> Path:
        """Check a graph and its data files, and return its path.

        Raises:
            ArtifactError: One has other content, is missing, leads out of the folder, or is not listed.
        """
        file = inside(self._folder, variant.file)
        if not file.is_file():
            raise ArtifactError(f"{file} is missing: {self._way_out}")
        self._require([variant.file])
        names = data_files(self._folder, variant.file, self._data_files_of(file, variant.file))
        for name in names:
            path = inside(self._folder, name)
            if not path.is_file():
                raise ArtifactError(f"{path} is missing, and {file} keeps weights in it: {self._way_out}")
        self._require(names)
        return file

    def start_rest(self) -> None:
        """Start checking the other files in a thread."""
        if self._pending and self._thread is None:
            self._thread = threading.Thread(target=self._check_rest, name="fusedbert-verify", daemon=True)
            self._thread.start()

    def finish(self) -> None:
        """Finish the check, and cache the verdicts.

        Raises:
            ArtifactError: A file has other content, or was changed during the load.
        """
        self.start_rest()
        self._wait()
        for name, status in self._statuses.items():
            if self._status(name) != status:
                raise ArtifactError(f"{self._folder / name} changed while it was loaded: load the model again")
        if self._changed and self._record is not None:
            write_cached(self._record, {"files": self._hashes, "graphs": self._locations})

    def _data_files_of(self, file: Path, name: str) -> tuple[str, ...]:
        if name not in self._manifest.files:
            return read_header(file).data_files
        sha256 = self._expected(name)
        if not isinstance(self._locations.get(sha256), list):
            self._locations[sha256] = list(read_header(file).data_files)
            self._changed = True
        return tuple(map(str, self._locations[sha256]))

    def _checked_size(self, name: str) -> list[int]:
        path, expected = self._folder / name, self._manifest.files[name]["bytes"]  # read_manifest has checked the path
        status = self._status(name)
        if not path.is_file():
            raise ArtifactError(f"{path} is not a file: {self._way_out}")
        if status[0] != expected:
            raise ArtifactError(f"{path} has {status[0]} bytes, the manifest says {expected}: {self._way_out}")
        return status

    def _status(self, name: str) -> list[int]:
        try:
            status = (self._folder / name).stat()
        except (FileNotFoundError, NotADirectoryError):
            raise ArtifactError(f"{self._folder / name} is missing: {self._way_out}") from None
        except OSError as error:
            raise StorageError(f"{self._folder / name} cannot be accessed: {error.strerror or error}") from None
        return [status.st_size, status.st_mtime_ns, status.st_ino, status.st_ctime_ns]

    def _expected(self, name: str) -> str:
        return str(self._manifest.files[name]["sha256"])

    def _require(self, names: Sequence[str]) -> None:
        """Check these files now, or wait for the thread that does."""
        for name in names:
            if name not in self._manifest.files and self._manifest.verifiable:
                raise ArtifactError(f"{self._folder / name} is not listed in the manifest: {self._way_out}")
        if self._thread is not None:
            self._wait()
        for name in [name for name in self._pending if name in names]:
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
        path, started = self._folder / name, time.time_ns()
        sha256 = self.hash_file(path)
        if sha256 is None:
            return
        if sha256 != self._expected(name):
            raise ArtifactError(f"{path} does not have the sha256 that the manifest gives: {self._way_out}")
        self._pending.remove(name)
        status = self._statuses[name]
        if max(status[1], status[3]) < started - TICK:
            self._hashes[name] = [*status, sha256]
            self._changed = True

    def hash_file(self, path: Path) -> str | None:
        """Return a file's SHA-256, or None if the load ended before."""
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


def verdict_root(folder: str | os.PathLike[str] | None) -> Path | None:
    """Return the cache for verdicts, or None if others may write there, or the user has no home folder."""
    try:
        root = cache_root(folder)
    except StorageError:
        return None
    return root if is_trusted(root) else None
