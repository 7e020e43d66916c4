"""From a checkpoint to one graph of the artifact: built, written, held against its gate."""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fusedbert.engine.artifact import Parity, Variant
from fusedbert.engine.errors import ExportError

from .checkpoint.notes import ExportWarning as ExportWarning
from .checkpoint.notes import FusionWarning as FusionWarning
from .checkpoint.notes import IgnoredWarning as IgnoredWarning
from .checkpoint.notes import LeftOutWarning as LeftOutWarning
from .checkpoint.notes import TokenizerWarning as TokenizerWarning
from .graph.bert import build
from .graph.lowering.base import Lowering
from .parity import gates as check
from .parity.baseline import Progress, Subject


def make_variants(
    subject: Subject,
    lowerings: Sequence[type[Lowering]],
    stage: Path,
    metadata: Mapping[str, str],
    tell: Progress,
    *,
    required: bool,
) -> tuple[Variant, ...]:
    """Build, write and check each graph.

    Args:
        subject: The checkpoint.
        lowerings: The targets.
        stage: Where the artifact is being written.
        metadata: ``metadata_props`` of the graphs.
        tell: Called with each step's name as it begins.
        required: Whether a rounded graph (fp16, int8) that fails its gate fails the export; it is left out otherwise,
            with a ``LeftOutWarning``. The fp32 graph always has to pass.

    Raises:
        ExportError: A required graph did not pass.
    """
    variants: list[Variant] = []
    for lowering in lowerings:
        if reason := lowering.unfit(subject.architecture):
            tell(f"{lowering.file} is left out: {reason}")
            continue
        make = functools.partial(make_variant, subject, lowering, stage, metadata, tell)
        variants += keep(make, stage / lowering.file, required=required or lowering.precision == "fp32")
    return tuple(variants)


def keep(make: Callable[[], Variant], path: Path, *, required: bool) -> list[Variant]:
    """Make one variant; where it fails and is not required, remove its files and warn.

    Args:
        make: Writes the graph and holds it against its gate.
        path: Where it writes.
        required: Whether a failure is passed on.

    Returns:
        The variant, or nothing.
    """
    try:
        return [make()]
    except ExportError as error:
        if required:
            raise
        for file in graph_files(path):
            file.unlink()
        warnings.warn(f"{path.parent.name}/{path.name} is left out: {error}", LeftOutWarning, stacklevel=3)
        return []


def make_variant(
    subject: Subject, lowering: type[Lowering], stage: Path, metadata: Mapping[str, str], tell: Progress
) -> Variant:
    """Build one graph, write it, and hold it against the reference.

    Raises:
        ExportError: It does not pass its gate.
    """
    path, a = stage / lowering.file, subject.architecture
    tell(f"building {lowering.file}")
    graph = build(a, lowering.prepare(subject, tell), lowering)
    nodes = graph.count_nodes()
    fused = check.gate_attention(nodes, lowering.attention_ops, a.layers, lowering.file) if lowering.attention_ops else 0
    if lowering.note is not None:
        warnings.warn(f"{lowering.file}: {lowering.note}", FusionWarning, stacklevel=2)
    path.parent.mkdir(exist_ok=True)
    graph.write(path, f"{a.family} classifier", opset=lowering.opset, metadata=metadata, ir_version=lowering.ir_version)
    del graph
    parity = lowering.weigh(path, subject, tell) or judge(path, lowering.precision, subject, a.padding_id, tell)
    if lowering.precision == "fp16":
        check.gate_activations(subject.max_activation, lowering.file)
        bound = f"{parity.measured_on}, on the CPU; activations up to {check.three_digits(subject.max_activation):g} of 65504"
        parity = dataclasses.replace(parity, measured_on=bound)
    lowering.examine(path, subject, tell)
    return Variant(
        file=lowering.file,
        target=lowering.target,
        precision=lowering.precision,
        outputs=lowering.output_names,
        opset=lowering.opset,
        nodes=nodes,
        fused_attention=fused,
        parity=parity,
        layout=lowering.layout,
    )


class Judged(Protocol):
    """What a graph is held against, whichever route read the checkpoint."""

    @property
    def checks(self) -> check.CheckSet:
        """The check texts."""

    @property
    def reference(self) -> NDArray[np.float64]:
        """Their logits ``[texts, labels]``."""

    @property
    def problem_type(self) -> str:
        """What the outputs mean."""

    @property
    def terms(self) -> NDArray[np.float64] | None:
        """Of each logit the largest sum of its products without their signs ``[labels]``; None where not known."""

    def in_float32(self) -> NDArray[np.floating] | None:
        """Compute the reference in float32, logits ``[texts, labels]``; None where the route cannot."""


def judge(path: Path, precision: str, subject: Judged, padding_id: int, tell: Progress) -> Parity:
    """Run a written graph on the check texts and hold it against its gate.

    Raises:
        ExportError: It cannot be opened, fails, or does not pass.
    """
    file = f"{path.parent.name}/{path.name}"
    size = sum(part.stat().st_size for part in graph_files(path))
    tell(f"checking {file}, {size / 1e6:.1f} MB, against the reference")
    results = check.run_graph(check.open_session(path), subject.checks, padding_id)
    parity = check.measure(results, subject.reference, subject.problem_type, subject.terms)
    room = 0.0
    if precision == "fp32" and not check.is_exact(parity):
        tell("computing the reference in float32 too: some models are no more certain than that")
        room = check.own_room(subject.in_float32(), subject.reference, subject.problem_type, subject.terms)
    check.gate(parity, precision, file, room)
    return check.with_room(parity) if room else parity


def graph_files(path: Path) -> list[Path]:
    """List a graph's files: itself, and its external data where it has any."""
    return [file for file in (path, path.with_name(f"{path.name}_data")) if file.exists()]
