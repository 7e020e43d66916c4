"""What stands beside the graphs of an artifact, whichever route made them: config, tokenizer, model card, manifest."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fusedbert.engine.artifact import Manifest, Variant, write_manifest

from .checkpoint.source import Checkpoint
from .model_card import write_card
from .tokenizer.check import check_written
from .tokenizer.tokenization import Tokenization

PACKAGES = ("fusedbert", "onnx", "onnxruntime", "onnxruntime-gpu", "numpy", "tokenizers")


def versions(*more: str) -> dict[str, str]:
    """Return the versions of what an artifact is made with: ``PACKAGES`` and ``more``, those that are installed."""
    found = {}
    for name in (*PACKAGES, *more):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def provenance(checkpoint: Checkpoint, made_with: Mapping[str, str]) -> dict[str, str]:
    """Return the ``metadata_props`` that each graph carries: where its weights came from, and what made it."""
    return {"source": checkpoint.id, "revision": checkpoint.revision or "", "created_with": json.dumps(dict(made_with))}


def requirements(variants: Iterable[Variant], least: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Return what runs each graph, for ``Manifest.requires``.

    Args:
        variants: The graphs.
        least: The first ONNX Runtime that runs each, by file.
    """
    return {variant.file: {"opset": variant.opset, "onnxruntime": least[variant.file]} for variant in variants}


def write_record(stage: Path, checkpoint: Checkpoint, tokens: Tokenization, manifest: Manifest) -> Manifest:
    """Write the files that stand beside the graphs in ``stage``.

    Returns:
        The manifest as written, with size and sha256 of every file.

    Raises:
        ExportError: The engine would read another tokenizer from them than the graphs were checked with.
    """
    shutil.copyfile(checkpoint.folder / "config.json", stage / "config.json")
    tokens.save(stage)
    check_written(stage, tokens)
    write_card(stage, manifest)
    return write_manifest(stage, manifest)
