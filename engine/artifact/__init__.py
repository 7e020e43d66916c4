"""The artifact: the folder that the exporter writes and the runtime reads."""

from __future__ import annotations

from .manifest import (
    FORMAT,
    MANIFEST,
    NO_MANIFEST,
    PACKED,
    PADDED,
    PROBLEM_TYPES,
    Golden,
    Manifest,
    Parity,
    Source,
    Variant,
    inside,
    read_manifest,
    sha256_of,
    staged_folder,
    verify_files,
    write_manifest,
)

__all__ = [
    "FORMAT",
    "MANIFEST",
    "NO_MANIFEST",
    "PACKED",
    "PADDED",
    "PROBLEM_TYPES",
    "Golden",
    "Manifest",
    "Parity",
    "Source",
    "Variant",
    "inside",
    "read_manifest",
    "sha256_of",
    "staged_folder",
    "verify_files",
    "write_manifest",
]
