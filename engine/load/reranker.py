"""Rerankers in folders of sentence-transformers: known by their files, read by the export.

They are an encoder and modules after it, each in its own folder, which ``modules.json`` lists.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import FusedBertError, StorageError
from ..hardware.json_file import SMALL, parse_object, read_json_file, read_regular
from ..hardware.storage import inside

LIST, SETTINGS, KIND = "modules.json", "config_sentence_transformers.json", "CrossEncoder"


def is_reranker(folder: Path) -> bool:
    """Return whether a folder lists modules and says that it is a ``CrossEncoder``; the export finds out if they are read.

    Settings that cannot be read count as such, so that the export names their fault.
    """
    if not (folder / LIST).is_file():
        return False
    try:
        return (read_json_file(folder / SETTINGS, way_out="") or {}).get("model_type") == KIND
    except FusedBertError:
        return True


def module_folders(folder: Path) -> tuple[str, ...]:
    """Return the folders below a reranker's that its modules are in, without those that lead out of it."""
    return tuple(dict.fromkeys(_module_folders(folder))) if is_reranker(folder) else ()


def read_list(folder: Path) -> list[Any]:
    """Read ``modules.json``; raise an ``OSError``, or a ``ValueError`` if it is not a list in JSON."""
    found = parse_object(b'{"modules": ' + read_regular(folder / LIST, SMALL) + b"}")
    if found.keys() != {"modules"} or not isinstance(found["modules"], list):
        raise ValueError("not a list")
    return found["modules"]


def _module_folders(folder: Path) -> Iterator[str]:
    try:
        modules = read_list(folder)
    except (OSError, ValueError):  # the export says so
        return
    for module in modules:
        place = module.get("path") if isinstance(module, dict) else None
        if isinstance(place, str) and place:
            try:
                inside(folder, place)
            except FusedBertError:
                continue
            yield place


def files_of(folder: Path, suffixes: tuple[str, ...]) -> list[str]:
    """Return the paths of a checkpoint's files with these endings, below the folder only those of a reranker's modules.

    Raises:
        StorageError: A folder cannot be read.
    """
    places = ["", *(place for place in module_folders(folder) if (folder / place).is_dir())]
    try:
        found = [path for place in places for path in (folder / place).iterdir() if path.suffix in suffixes and path.is_file()]
    except OSError as error:
        raise StorageError(f"{folder} cannot be read: {error}") from None
    return sorted({path.relative_to(folder).as_posix() for path in found})
