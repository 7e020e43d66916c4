"""The export, step by step: read, describe, compute the reference, build each graph, check it, write the manifest.

Everything is written into a temporary sibling of the output, which is renamed when all of it stands.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
from pathlib import Path

from fusedbert.engine.artifact import Manifest, Source, Variant, staged_folder
from fusedbert.engine.errors import OptionError

from .checkpoint.source import locate
from .graph.lowering.base import Lowering
from .metadata import provenance, requirements, versions, write_record
from .parity.baseline import Progress, Subject, study
from .targets import chosen
from .tokenizer.check import against_transformers, settle_differences, tell_notes
from .tokenizer.tokenization import Tokenization
from .variants import make_variants

ROUTES = ("direct", "optimum")
LEAST_TEXTS, MOST_TEXTS = 16, 512  # fewer say little of the activations' range; more cost time and change little


def export_checkpoint(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    target: str = "all",
    via: str = "direct",
    attentions: bool = False,
    opset: int | None = None,
    calibrate: str | os.PathLike[str] | None = None,
    revision: str | None = None,
    token: str | None = None,
    local_files_only: bool = False,
    force: bool = False,
    required: bool | None = None,
    name: str | None = None,
    progress: Progress | None = None,
    allow_tokenizer_difference: bool = False,
) -> Manifest:
    """Convert a checkpoint to an artifact.

    Args:
        source: Folder of the checkpoint, or hub id.
        output: Folder of the artifact; made, with its parents.
        target: ``all``, ``cpu``, ``cuda``, or ``fp32`` for the exact graph alone.
        via: ``direct``: our own graphs, for the families that we build. ``optimum``: for any family that optimum exports.
        attentions: Whether to make the graph that shows its attention weights too, ``onnx/model_attentions.onnx``.
        opset: Version of the operator set for the fp32 graph, 17 to 23, for a runtime that cannot load 23; None for 23.
            Below 23 its attention is not fused. The other graphs stay as they are.
        calibrate: File of texts, one a line, to fit the int8 graph to; None for the built-in ones.
        revision: Branch, tag or commit on the hub.
        token: Access token for the hub.
        local_files_only: Use the hub's local cache alone.
        force: Replace an existing output.
        required: Whether a rounded graph (fp16, int8) that fails its gate fails the export, or is left out with a
            warning. None: it fails the export where ``target`` asked for it by name.
        name: Id of the checkpoint for the manifest, where ``source`` is a folder that only keeps a copy of it.
        progress: Called with each step's name as it begins.
        allow_tokenizer_difference: Whether to export where transformers, which is installed, makes other ids of a text;
            that is an error otherwise.

    Returns:
        The artifact's manifest.

    Raises:
        CheckpointError: The checkpoint is incomplete, damaged, or of a kind that is not built.
        ExportError: A graph did not pass its gate, or the tokenizer is not that of transformers; the output stays as it was.
        MissingDependencyError: ``via`` needs packages that are not installed.
        StorageError: The output exists and ``force`` is not set, or it cannot be written.

    Example:
        >>> manifest = export_checkpoint("models/sst2-mini", "artifacts/example", force=True)
        >>> manifest.labels
        ('NEGATIVE', 'POSITIVE')
    """
    tell: Progress = progress or (lambda _: None)
    lowerings = chosen(target, attentions=attentions, opset=opset)
    if via not in ROUTES:
        raise OptionError(f"via is {via!r}, expected one of {', '.join(ROUTES)}")
    if attentions and via != "direct":
        raise OptionError(f"attentions are shown by the graphs that we build ourselves, found via={via!r}: use via='direct'")
    if opset is not None and via != "direct":
        raise OptionError(f"opset is chosen for the graphs that we build ourselves, found via={via!r}: use via='direct'")
    if via == "optimum":
        # Imported here: it needs torch and transformers, which the direct route does without.
        from .optimum.route import export_through_optimum
    texts = () if calibrate is None else read_calibration(Path(calibrate).expanduser())
    required = target != "all" if required is None else required
    checkpoint = locate(os.fspath(source), revision=revision, token=token, local_files_only=local_files_only)
    folder = Path(output).expanduser()
    if checkpoint.folder.resolve() == folder.resolve() or folder.resolve() in checkpoint.folder.resolve().parents:
        raise OptionError(f"{folder} holds the checkpoint itself: choose another folder for the artifact")
    checkpoint = checkpoint if name is None else dataclasses.replace(checkpoint, id=name)
    with staged_folder(folder, replace=force) as stage:
        with against_transformers(checkpoint.folder) as differences:

            def settle(tokens: Tokenization) -> None:
                tell("comparing the tokenizer with transformers', where that is installed")
                settle_differences(differences(tokens), allowed=allow_tokenizer_difference)

            if via == "optimum":
                return export_through_optimum(checkpoint, stage, target=target, required=required, tell=tell, settle=settle)
            rounded = any(lowering.precision != "fp32" for lowering in lowerings)
            subject = study(checkpoint, tell, rounded=rounded, calibration=texts)
            tell_notes(subject.tokens)
            metadata = provenance(checkpoint, versions())
            variants = make_variants(subject, lowerings, stage, metadata, tell, required=required)
            settle(subject.tokens)
        tell("writing the manifest")
        return finish(subject, variants, lowerings, stage)


def read_calibration(path: Path) -> tuple[str, ...]:
    """Read the user's calibration texts: the first lines of a file that are not empty, up to ``MOST_TEXTS``.

    Raises:
        OptionError: The file cannot be read as UTF-8, or holds fewer than ``LEAST_TEXTS``.
    """
    try:
        with path.open(encoding="utf-8") as file:
            texts = tuple(itertools.islice(filter(None, map(str.strip, file)), MOST_TEXTS))
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"{path} cannot be read as calibration texts ({error}): give a UTF-8 file, one text a line") from None
    if len(texts) < LEAST_TEXTS:
        raise OptionError(f"{path} holds {len(texts)} texts, at least {LEAST_TEXTS} are needed: give one text a line")
    return texts


def finish(subject: Subject, variants: tuple[Variant, ...], lowerings: tuple[type[Lowering], ...], stage: Path) -> Manifest:
    """Write the files that stand beside the graphs."""
    manifest = Manifest(
        source=Source(id=subject.checkpoint.id, revision=subject.checkpoint.revision, sha256=subject.weights.sha256()),
        created_with=versions(),
        architecture=subject.architecture.family,
        problem_type=subject.problem_type,
        labels=subject.labels,
        max_length=subject.tokens.max_length,
        variants=variants,
        golden=subject.golden,
        function_to_apply=subject.function_to_apply,
        requires=requirements(variants, {lowering.file: lowering.onnxruntime for lowering in lowerings}),
    )
    return write_record(stage, subject.checkpoint, subject.tokens, manifest)
