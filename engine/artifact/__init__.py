"""The artifact: a folder with graphs, tokenizer, config, and ``fusedbert.json``, the manifest that describes them.

It lists every other file with size and SHA-256, and ends with its own hash, which detects damage but is not a signature. Its
paths stay inside the folder, except for a hub snapshot's links to its blobs. The same checkpoint and versions give the same
bytes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from ..errors import ArtifactError, shown
from ..hardware.json_file import LARGE, SMALL, check_regular, parse_object, read_json_file, read_regular
from ..hardware.storage import accessing, given_path, inside, sha256_of
from .form import to_manifest
from .manifest import (
    FORMAT,
    HEAD_NAME,
    NEWEST,
    NO_MANIFEST,
    PACKED,
    PADDED,
    PROBLEM_TYPES,
    TEXTS,
    TOKENS,
    WINDOW_BLOCKS,
    WINDOW_TEXTS,
    Evaluation,
    Golden,
    Head,
    Manifest,
    Parity,
    Source,
    Variant,
    columns_of,
    is_head_name,
)

__all__ = [
    "FORMAT",
    "HEAD_NAME",
    "LARGE",
    "MANIFEST",
    "NEWEST",
    "NO_MANIFEST",
    "PACKED",
    "PADDED",
    "PROBLEM_TYPES",
    "TEXTS",
    "TOKENS",
    "WINDOW_BLOCKS",
    "WINDOW_TEXTS",
    "Evaluation",
    "Golden",
    "Head",
    "Manifest",
    "Parity",
    "Source",
    "Variant",
    "accessing",
    "check_regular",
    "columns_of",
    "given_path",
    "inside",
    "is_head_name",
    "parse_object",
    "read_json_file",
    "read_manifest",
    "read_regular",
    "sha256_of",
    "write_manifest",
]

MANIFEST = "fusedbert.json"
_NO_HASH = "0" * 64
_OPTIONAL = ("task", "heads", "requires", "function_to_apply", "thresholds", "longest", "parity_avx2", "evaluation")


_FIELDS = {field.name for field in dataclasses.fields(Manifest)}


def write_manifest(folder: Path, manifest: Manifest) -> Manifest:
    """Write ``fusedbert.json`` with size and SHA-256 of every file in ``folder``; return the manifest with ``files``."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    files = {path.relative_to(folder).as_posix(): {"sha256": sha256_of(path), "bytes": path.stat().st_size} for path in paths}
    manifest = dataclasses.replace(manifest, files=files)
    document = {"format": manifest.format, **_without_defaults(dataclasses.asdict(manifest)), "sha256": _NO_HASH}
    content = (json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
    head, _, tail = content.rpartition(_NO_HASH.encode())
    (folder / MANIFEST).write_bytes(head + hashlib.sha256(content).hexdigest().encode() + tail)
    return manifest


def _without_defaults(document: dict[str, Any]) -> dict[str, Any]:
    """Leave out unset fields, which earlier versions do not know.

    ``parity_avx2`` and ``evaluation`` move to where those let unknown keys pass.
    """
    clipped, evaluated = {}, {}
    for variant in document["variants"]:
        variant["parity"] = _parity(variant["parity"])
        if (parity := variant.pop("parity_avx2")) is not None:
            clipped[variant["file"]] = _parity(parity)
        if (evaluation := variant.pop("evaluation")) is not None:
            evaluated[variant["file"]] = _set(evaluation | {"parity": _parity(evaluation["parity"])})
    document |= {"parity_avx2": clipped, "evaluation": evaluated}
    document["task"] = document["task"] if document["task"] != TEXTS else None
    document["heads"] = [_set(head) for head in document["heads"]]
    return {name: value for name, value in document.items() if not (name in _OPTIONAL and not value)}


def _parity(fields: dict[str, Any]) -> dict[str, Any]:
    heads = fields["heads"] or {}
    return _set(fields | {"heads": {name: _set(head) for name, head in heads.items()} or None})


def _set(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _has_its_hash(content: bytes, sha256: Any) -> bool:
    """Compare a manifest's hash with that of its bytes, with zeros in place of the hash at its end."""
    if not isinstance(sha256, str) or len(sha256) != len(_NO_HASH) or not sha256.isascii():
        return False
    head, separator, tail = content.rpartition(sha256.encode())
    return bool(separator) and hashlib.sha256(head + _NO_HASH.encode() + tail).hexdigest() == sha256


def read_manifest(folder: Path) -> Manifest:
    """Read ``fusedbert.json`` and check its form and hash; ``verify.FileCheck`` checks the files.

    Raises:
        ArtifactError: It is missing, damaged, of a newer format, or not a manifest.
    """
    path = folder / MANIFEST
    again = "copy it again, or export again"
    try:
        content = read_regular(path, SMALL)
        document = parse_object(content)
    except FileNotFoundError:
        raise ArtifactError(f"{folder} holds no {MANIFEST}: not an artifact; make one with fusedbert export") from None
    except (OSError, ValueError) as error:
        detail = (error.strerror if isinstance(error, OSError) else None) or error
        raise ArtifactError(f"{path} cannot be read as JSON ({detail}): export the checkpoint again") from None
    version = document.get("format")
    if type(version) is int and version > NEWEST:
        raise ArtifactError(f"{path} has format {version}, this version reads up to {NEWEST}: upgrade fusedbert")
    if type(version) is not int or not FORMAT <= version <= NEWEST:
        raise ArtifactError(f"{path} has format {shown(version)}, expected {FORMAT} or {NEWEST}: export the checkpoint again")
    try:
        manifest = to_manifest(document)
    except ValueError as error:
        raise ArtifactError(f"{path} does not have the form of a manifest ({error}): export the checkpoint again") from None
    for name in {*manifest.files, *(variant.file for variant in manifest.variants)}:
        inside(folder, name, named_by=MANIFEST)
    for variant in manifest.variants:
        if variant.file not in manifest.files:
            raise ArtifactError(f"{folder / variant.file} is not listed among the files of {path}: {again}")
    # A manifest that another tool wrote may have no hash; one whose hash key was damaged has an unknown key.
    unknown = document.keys() - _FIELDS - {"sha256"}
    if "sha256" not in document and unknown:
        raise ArtifactError(f"{path} has {shown(sorted(unknown))} and no sha256: {again}")
    if "sha256" in document and not _has_its_hash(content, document["sha256"]):
        raise ArtifactError(f"{path} is damaged (its sha256 differs): {again}")
    return manifest
