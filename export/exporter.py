"""Exporter: reads a checkpoint, computes the reference, builds and checks each graph, and writes the artifact.

Everything is written into a temporary folder next to the output, which is renamed at the end.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fusedbert.engine.artifact import Head, Manifest, accessing, given_path
from fusedbert.engine.artifact.staging import staged_folder
from fusedbert.engine.errors import OptionError, shown
from fusedbert.engine.hardware.packages import versions
from fusedbert.engine.text.thresholds import MULTI_LABEL, Threshold, is_number, parse_thresholds

from .checkpoint import Checkpoint, locate
from .checkpoint.architecture import classifies_tokens, expected_labels, read_problem_type
from .checkpoint.heads import NamedHead, check_names
from .checkpoint.modules import Parts, read_parts
from .evaluation.evaluate import check_labels, refuse_unfit
from .evaluation.evaluate import evaluate as measure_graphs
from .evaluation.texts import Given, TextColumns, UserTexts, check_columns, read_texts
from .metadata import PACKAGES, graph_metadata, rewrite, source_of, write_metadata
from .parity.baseline import Baseline, Progress, compute_baseline
from .parity.tokenizer import against_transformers, report_differences, show_notes
from .variants import choose_lowerings, make_variants

ROUTES = ("direct", "optimum")
MOST_TEXTS = 512  # for calibration; more cost time and change little


def export_checkpoint(
    source: str | os.PathLike[str] | None,
    output: str | os.PathLike[str],
    *,
    heads: Mapping[str, str | os.PathLike[str]] | None = None,
    target: str = "all",
    via: str = "direct",
    attentions: bool = False,
    opset: int | None = None,
    calibrate: Given | None = None,
    evaluate: Given | None = None,
    text_column: str | None = None,
    pair_column: str | None = None,
    label_column: str | None = None,
    revision: str | None = None,
    token: str | None = None,
    local_files_only: bool = False,
    force: bool = False,
    required: bool | None = None,
    name: str | None = None,
    progress: Progress | None = None,
    allow_tokenizer_difference: bool = False,
    threshold: Threshold | None = None,
) -> Manifest:
    """Convert a checkpoint to an artifact.

    Args:
        source: Folder of the checkpoint, or hub id.
        output: Folder of the artifact; it is created with its parents.
        heads: Other checkpoints on the same encoder, by the names of their heads; that of ``source`` has the name of its
            folder, and may be None.
        target: ``all``, ``cpu``, ``cuda``, or ``fp32`` for the exact graph only.
        via: ``direct``: fusedbert's graphs, for the families of BERT. ``optimum``: any family that optimum exports.
        attentions: Add the graph with attention weights as outputs, ``onnx/model_attentions.onnx``.
        opset: Operator set of the fp32 graph, 17 to 23; None for 23. Below 23 its attention is not fused.
        calibrate: Texts or pairs to fit the int8 graph to, 16 at least: a file with one a line, a table that
            ``fusedbert score`` reads, or a list of texts and ``(text, text_pair)``; None for the built-in ones.
        evaluate: Likewise, to measure every graph on that can run on this machine; the figures go into the manifest, and
            ``precision="auto"`` leaves out a graph that they show to be beyond the limits of the parity check.
        text_column: Column of the texts in tables of ``calibrate`` and ``evaluate``; None for the only candidate.
        pair_column: Column of the second texts, for sentence pairs.
        label_column: Column of the right labels in ``evaluate``, by name or number; None for no accuracy.
        revision: Branch, tag or commit on the hub.
        token: Access token for the hub.
        local_files_only: Use only the hub's local cache.
        force: Replace an existing output.
        required: Whether an fp16 or int8 graph that fails its parity check fails the export, or is left out with a warning;
            None for ``target != "all"``.
        name: Id of the checkpoint in the manifest; None for the name of ``source``.
        progress: Called with each step's name as it begins.
        allow_tokenizer_difference: Export even if the installed transformers tokenizes a text differently.
        threshold: For a multi-label model, the least probability of a label in ``Classifier.predict``, to be stored in the
            artifact: a number, a list of one for each label, or a dict of them by name; 0.5 for labels that are left out.

    Returns:
        The artifact's manifest.

    Raises:
        CheckpointError: The checkpoint is incomplete, damaged, or not supported.
        ExportError: A graph failed its parity check, or the tokenizer is not that of transformers; the output is unchanged.
        OptionError: An option has an invalid value, or does not fit the checkpoint.
        MissingDependencyError: ``via`` needs packages that are not installed.
        StorageError: The output exists and ``force`` is not set, or it cannot be written.

    Example:
        >>> manifest = export_checkpoint("models/sst2-mini", "artifacts/example", force=True)
        >>> manifest.labels
        ('NEGATIVE', 'POSITIVE')
    """
    progress = progress or (lambda _: None)
    lowerings = choose_lowerings(target, attentions=attentions, opset=opset)
    if via not in ROUTES:
        raise OptionError(f"via is {shown(via)}, expected one of {', '.join(ROUTES)}")
    for option, is_set in (("attentions", attentions), ("opset", opset is not None)):
        if is_set and via != "direct":
            raise OptionError(f"{option} is an option of fusedbert's own graphs, found via={via!r}: use via='direct'")
    # It needs torch and transformers, unlike the direct route.
    optimum = importlib.import_module(f"{__package__}.optimum") if via == "optimum" else None
    columns = TextColumns(text=text_column, pair=pair_column, label=label_column)
    check_columns(columns, calibrate, evaluate)
    texts = () if calibrate is None else read_texts(calibrate, "calibrate", columns, most=MOST_TEXTS).texts
    own = None if evaluate is None else read_texts(evaluate, "evaluate", columns)
    if own is not None and not any((each.target, each.precision) == ("cpu", "fp32") for each in lowerings):
        raise OptionError(f"evaluate compares graphs with the fp32 graph, and --for {target} makes none: use --for all")
    required = target != "all" if required is None else required
    folder = given_path(output, "output", OptionError)
    find = functools.partial(find_checkpoint, folder, revision=revision, token=token, local_files_only=local_files_only)
    named = find_heads(source, heads or {}, find)
    checkpoint, parts = named[0].checkpoint, named[0].parts
    if len(named) > 1:
        refuse_options("a single classifier", "several heads", via=via, attentions=attentions, label_column=label_column)
    elif classifies_tokens(parts.config):
        refuse_options("classifiers of texts", "tokens", via=via, attentions=attentions, label_column=label_column)
    elif own is not None:
        check_labels(own, *expected_labels(parts.config))
    if threshold is not None:  # before the work: the labels are known when the weights are read
        check_threshold(threshold, [read_problem_type(head.parts.config) for head in named])
    if name is not None:
        checkpoint = dataclasses.replace(checkpoint, id=name)
        named[0] = dataclasses.replace(named[0], checkpoint=checkpoint)
    created_with = versions((*PACKAGES, *(optimum.PACKAGES if optimum else ())))
    metadata = graph_metadata(checkpoint, created_with)
    with staged_folder(folder, replace=force) as stage:
        with against_transformers(parts.folder) as differences:
            baseline: Baseline
            if optimum:
                baseline, variants = optimum.make_variants(
                    checkpoint, stage, metadata, progress, target=target, required=required
                )
                runtimes = optimum.first_runtimes(variants)
            else:
                rounded = any(lowering.precision != "fp32" for lowering in lowerings)
                baseline = compute_baseline(named, progress, rounded=rounded, calibration=texts)
                with_thresholds(baseline.outputs, threshold)
                show_notes(baseline.tokens)
                if own is not None:
                    refuse_unfit(own, baseline.tokens)
                variants = make_variants(baseline, lowerings, stage, metadata, progress, required=required)
                runtimes = {lowering.file: lowering.onnxruntime for lowering in lowerings}
            progress("comparing the tokenizer with that of transformers, if installed")
            report_differences(differences(baseline.tokens), allowed=allow_tokenizer_difference)
        progress("writing the manifest")
        outputs = [
            dataclasses.replace(head, source=source_of(each.checkpoint, files))
            for head, each, files in zip(with_thresholds(baseline.outputs, threshold), named, baseline.files, strict=True)
        ]
        manifest = write_metadata(stage, baseline, variants, created_with, runtimes, outputs)
        return manifest if own is None else add_evaluation(stage, manifest, own, progress)


def find_checkpoint(output: Path, source: str | os.PathLike[str], **options: Any) -> tuple[Checkpoint, Parts]:
    """Find a checkpoint and read its config; raise ``OptionError`` if it lies in the ``output``."""
    with accessing(source):
        checkpoint = locate(source, **options)
        if checkpoint.folder.resolve() == output.resolve() or output.resolve() in checkpoint.folder.resolve().parents:
            raise OptionError(f"{output} holds the checkpoint itself: choose another folder for the artifact")
        return checkpoint, read_parts(checkpoint.folder)


def find_heads(
    source: str | os.PathLike[str] | None,
    heads: Mapping[str, str | os.PathLike[str]],
    find: Callable[[Any], tuple[Checkpoint, Parts]],
) -> list[NamedHead]:
    """Find the checkpoints of all heads; the name of a single one is empty."""
    if source is None and len(heads) == 1:
        raise OptionError("1 head and no source: give a checkpoint, or at least two heads NAME=CHECKPOINT")
    check_names(tuple(heads))
    named = []
    first = [("", source)] if source is not None or not heads else []
    for name, place in [*first, *heads.items()]:
        checkpoint, parts = find(place)
        own = name or (re.sub("[^A-Za-z0-9_.-]", "_", checkpoint.id.rpartition("/")[2])[:100] if heads else "")
        named.append(NamedHead(name=own, checkpoint=checkpoint, parts=parts))
    if heads:
        check_names([head.name for head in named])
    return named


def refuse_options(kind: str, found: str, *, via: str, attentions: bool, label_column: str | None) -> None:
    """Raise ``OptionError`` for options of another ``kind`` of model."""
    for option, is_set in ((f"via={via!r}", via != "direct"), ("attentions", attentions), ("label_column", bool(label_column))):
        if is_set:
            raise OptionError(f"{option} is for {kind}, and this export is of {found}: leave it out")


def check_threshold(threshold: Threshold, problem_types: Sequence[str]) -> None:
    """Raise ``OptionError`` if no head takes thresholds, or one number is not enough for several."""
    if len(problem_types) == 1 or MULTI_LABEL not in problem_types:
        parse_thresholds(None, (), problem_types[0])
    elif not is_number(threshold):
        raise OptionError("threshold is for each label, and there are several heads: give one number for all")


def with_thresholds(heads: Sequence[Head], threshold: Threshold | None) -> list[Head]:
    """Return the heads with the threshold of each label; raise ``OptionError`` if they do not fit."""
    if threshold is None:
        return list(heads)
    taking = [head for head in heads if len(heads) == 1 or head.problem_type == MULTI_LABEL]
    return [
        dataclasses.replace(head, thresholds=parse_thresholds(threshold, head.labels, head.problem_type))
        if head in taking
        else head
        for head in heads
    ]


def add_evaluation(stage: Path, manifest: Manifest, texts: UserTexts, progress: Progress) -> Manifest:
    """Measure the graphs of an unfinished artifact on the user's texts, and write the figures into its manifest and README."""
    manifest = dataclasses.replace(manifest, variants=measure_graphs(stage, manifest, texts, progress))
    return rewrite(stage, manifest)
