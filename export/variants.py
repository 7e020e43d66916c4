"""From a checkpoint to one graph of the artifact: built, written, held against its gate."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

from fusedbert.engine.artifact import Variant
from fusedbert.engine.errors import ExportError
from fusedbert.export import check
from fusedbert.export.encoder import build
from fusedbert.export.lowering import Lowering
from fusedbert.export.subject import Progress, Subject


class LeftOutWarning(UserWarning):
    """A graph did not pass its gate, and the artifact goes without it."""


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
    variants = []
    for lowering in lowerings:
        try:
            variants.append(make_variant(subject, lowering, stage, metadata, tell))
        except ExportError as error:
            if required or lowering.precision == "fp32":
                raise
            for file in graph_files(stage / lowering.file):
                file.unlink()
            warnings.warn(f"{lowering.file} is left out: {error}", LeftOutWarning, stacklevel=3)
    return tuple(variants)


def make_variant(
    subject: Subject, lowering: type[Lowering], stage: Path, metadata: Mapping[str, str], tell: Progress
) -> Variant:
    """Build one graph, write it, and hold it against the reference.

    Raises:
        ExportError: It does not pass its gate.
    """
    path, a = stage / lowering.file, subject.architecture
    tell(f"building {lowering.file}")
    graph = build(a, subject.weights, lowering.prepare(subject, tell))
    nodes = graph.count_nodes()
    fused = check.gate_attention(nodes, lowering.attention_ops, a.layers, lowering.file)
    path.parent.mkdir(exist_ok=True)
    graph.write(path, f"{a.family} classifier", opset=lowering.opset, metadata=metadata)
    del graph
    size = sum(file.stat().st_size for file in graph_files(path))
    tell(f"checking {lowering.file}, {size / 1e6:.1f} MB, against the reference")
    results = check.run_graph(check.open_session(path), subject.checks, a.padding_id)
    parity = check.measure(results, subject.reference, subject.problem_type)
    check.gate(parity, lowering.precision, lowering.file)
    return Variant(
        file=lowering.file,
        target=lowering.target,
        precision=lowering.precision,
        outputs=lowering.output_names,
        opset=lowering.opset,
        nodes=nodes,
        fused_attention=fused,
        parity=parity,
    )


def graph_files(path: Path) -> list[Path]:
    """List a graph's files: itself, and its external data where it has any."""
    return [file for file in (path, path.with_name(f"{path.name}_data")) if file.exists()]
