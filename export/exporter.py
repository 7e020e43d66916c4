"""The export, step by step: read, describe, compute the reference, build each graph, check it, write the manifest.

Everything is written into a temporary sibling of the output, which is renamed when all of it stands.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import shutil
from pathlib import Path

from fusedbert.engine.artifact import Manifest, Source, Variant, staged_folder, write_manifest
from fusedbert.engine.errors import OptionError
from fusedbert.export.card import write_card
from fusedbert.export.source import locate
from fusedbert.export.subject import Progress, Subject, study
from fusedbert.export.targets import chosen
from fusedbert.export.variants import make_variants


def export_checkpoint(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    target: str = "all",
    revision: str | None = None,
    token: str | None = None,
    local_files_only: bool = False,
    force: bool = False,
    required: bool | None = None,
    name: str | None = None,
    progress: Progress | None = None,
) -> Manifest:
    """Convert a checkpoint to an artifact.

    Args:
        source: Folder of the checkpoint, or hub id.
        output: Folder of the artifact; made, with its parents.
        target: ``all``, ``cpu`` or ``cuda``.
        revision: Branch, tag or commit on the hub.
        token: Access token for the hub.
        local_files_only: Use the hub's local cache alone.
        force: Replace an existing output.
        required: Whether a rounded graph (fp16, int8) that fails its gate fails the export, or is left out with a
            warning. None: it fails the export where ``target`` asked for it by name.
        name: Id of the checkpoint for the manifest, where ``source`` is a folder that only keeps a copy of it.
        progress: Called with each step's name as it begins.

    Returns:
        The artifact's manifest.

    Raises:
        CheckpointError: The checkpoint is incomplete, damaged, or of a kind that is not built.
        ExportError: A graph did not pass its gate; the output is left as it was.
        StorageError: The output exists and ``force`` is not set, or it cannot be written.

    Example:
        >>> manifest = export_checkpoint("models/sst2-mini", "artifacts/example", force=True)  # doctest: +SKIP
        >>> manifest.labels  # doctest: +SKIP
        ('NEGATIVE', 'POSITIVE')
    """
    tell: Progress = progress or (lambda _: None)
    lowerings = chosen(target)
    checkpoint = locate(os.fspath(source), revision=revision, token=token, local_files_only=local_files_only)
    folder = Path(output).expanduser()
    if checkpoint.folder.resolve() == folder.resolve() or folder.resolve() in checkpoint.folder.resolve().parents:
        raise OptionError(f"{folder} holds the checkpoint itself: choose another folder for the artifact")
    checkpoint = checkpoint if name is None else dataclasses.replace(checkpoint, id=name)
    with staged_folder(folder, replace=force) as stage:
        subject = study(checkpoint, tell, rounded=any(lowering.precision != "fp32" for lowering in lowerings))
        metadata = {"source": checkpoint.id, "revision": checkpoint.revision or "", "created_with": json.dumps(versions())}
        required = target != "all" if required is None else required
        variants = make_variants(subject, lowerings, stage, metadata, tell, required=required)
        tell("writing the manifest")
        return finish(subject, variants, stage)


def finish(subject: Subject, variants: tuple[Variant, ...], stage: Path) -> Manifest:
    """Write the files that stand beside the graphs."""
    shutil.copyfile(subject.checkpoint.folder / "config.json", stage / "config.json")
    subject.tokens.save(stage)
    manifest = Manifest(
        source=Source(id=subject.checkpoint.id, revision=subject.checkpoint.revision, sha256=subject.weights.sha256()),
        created_with=versions(),
        architecture=subject.architecture.family,
        problem_type=subject.problem_type,
        labels=subject.labels,
        max_length=subject.tokens.max_length,
        variants=variants,
        golden=subject.golden,
    )
    write_card(stage, manifest)
    return write_manifest(stage, manifest)


def versions() -> dict[str, str]:
    """Return the versions of what an artifact is made with."""
    names = ("fusedbert", "onnx", "onnxruntime", "onnxruntime-gpu", "numpy", "tokenizers")
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
