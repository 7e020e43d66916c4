"""What contenders convert a checkpoint into: kept in the cache, keyed by all that it depends on, written whole."""

from __future__ import annotations

import hashlib
import importlib.metadata
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from fusedbert.engine.errors import CheckpointError, StorageError
from fusedbert.engine.load.cache import cache_root, file_hash, locked, write_whole

_WEIGHTS = (".safetensors", ".bin", ".onnx", ".onnx_data")


def checkpoint_key(folder: Path) -> str:
    """Return a hash of a checkpoint's config, tokenizer and weights.

    Raises:
        CheckpointError: The folder holds no weights.
    """
    files = sorted(path for path in folder.rglob("*") if path.suffix in (*_WEIGHTS, ".json", ".txt") and path.is_file())
    if not any(path.suffix in _WEIGHTS for path in files):
        raise CheckpointError(f"{folder} holds no weights: give the folder of a checkpoint")
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.relative_to(folder).as_posix()} {file_hash(path, cache_root())}\n".encode())
    return digest.hexdigest()[:24]


def converted(work: Path, name: str, depends_on: Sequence[str], make: Callable[[Path], object]) -> Path:
    """Return the folder of a conversion, making it where it is not there; of many first users one makes it, the rest wait.

    Args:
        work: The job's folder.
        name: What the conversion is called.
        depends_on: All that changes what comes out, besides the checkpoint: versions, options, hashes of texts.
        make: Writes into the empty folder that it is given.

    Raises:
        StorageError: The folder cannot be written.
    """
    key = hashlib.sha256("\n".join(depends_on).encode()).hexdigest()[:12]
    folder = work / f"{name}-{key}"
    if folder.is_dir():
        return folder
    with locked(work / f"{name}-{key}.lock"):
        if folder.is_dir():
            return folder
        try:
            stage = Path(tempfile.mkdtemp(dir=work, prefix=f".{name}-"))
        except OSError as error:
            raise StorageError(f"{work} cannot be written ({error.strerror or error}): set FUSEDBERT_BENCH") from None
        try:
            make(stage)
            stage.rename(folder)
        except BaseException:
            shutil.rmtree(stage, ignore_errors=True)
            raise
    return folder


def write_calibration(work: Path) -> Path:
    """Write the texts that our own int8 export is calibrated on, for engines that calibrate: one a line, UTF-8."""
    from fusedbert.export.int8.texts import TEXTS  # the exporter's packages are not in the peers' environments

    path = work / "calibration.txt"
    content = "".join(f"{' '.join(text.split())}\n" for text in TEXTS).encode()
    try:
        if not path.is_file() or path.read_bytes() != content:
            write_whole(path, content)
    except OSError as error:
        raise StorageError(f"{path} cannot be written ({error.strerror or error}): set FUSEDBERT_BENCH") from None
    return path


def read_calibration(path: Path | None, count: int) -> list[str]:
    """Read at most ``count`` texts, spread evenly over the file, so that a sorted file is represented; empty ones are left out.

    Raises:
        CheckpointError: There is no file, or no text in it.
    """
    texts = [] if path is None else [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not texts:
        raise CheckpointError("int8 needs calibration texts, and there are none: give a file with one text a line")
    return [texts[i * len(texts) // count] for i in range(count)] if len(texts) > count else texts


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Return the versions of those packages that are installed here."""
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
