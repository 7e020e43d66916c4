"""The optimum route, for families that are not built directly: optimum exports, ONNX Runtime's optimizer fuses.

Parity is checked against transformers' model in float64. A missing fused attention node is only a warning. There is no int8
graph, because the scales of ONNX Runtime's dynamic quantization depend on the batch.
"""

from __future__ import annotations

import dataclasses
import functools
import tempfile
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fusedbert.engine.artifact import Variant
from fusedbert.engine.errors import CheckpointError, ExportError, MissingDependencyError
from fusedbert.engine.hardware.packages import versions

# Before our modules, which import torch and transformers: a missing optimum is reported first.
try:
    from optimum.exporters.onnx import export
    from optimum.exporters.tasks import TasksManager
    from optimum.onnxruntime.utils import ORTConfigManager
except ModuleNotFoundError as error:
    package = "optimum-onnx" if (error.name or "optimum").startswith("optimum") else str(error.name)
    raise MissingDependencyError.of(package, "optimum", "export by way of optimum") from None
except ImportError as error:
    raise MissingDependencyError(
        f"optimum-onnx does not work with the installed packages ({error}); it needs transformers below 4.58: "
        'make a separate environment with pip install "fusedbert[cpu,optimum]"'
    ) from None

from ..checkpoint import Checkpoint, FusionWarning
from ..checkpoint.architecture import read_problem_type, refuse_absurd_sizes
from ..checkpoint.modules import read_parts
from ..checkpoint.tensors import headers, weight_files
from ..graph.builder import count_nodes
from ..graph.cpu.fp32 import OPSETS, CpuFp32
from ..graph.cpu.int8 import CpuInt8
from ..graph.cuda.fp16 import CudaFp16
from ..graph.lowering import Lowering
from ..parity.baseline import Baseline, Progress, read_outputs, run_reference
from ..parity.gates import check_parity, keep_if_passing
from ..parity.tokenizer import show_notes
from . import fusion, transformers_model

TASK = "text-classification"
PACKAGES = ("optimum", "optimum-onnx", "transformers", "torch")
_OPSET = 17  # the first with LayerNormalization, which the optimizer fuses on


GRAPHS: tuple[type[Lowering], ...] = (CpuFp32, CudaFp16)  # of the direct route, with the same file, target and precision


def make_variants(
    checkpoint: Checkpoint, stage: Path, metadata: Mapping[str, str], progress: Progress, *, target: str, required: bool
) -> tuple[Baseline, tuple[Variant, ...]]:
    """Export a checkpoint with optimum; fuse, write and check each graph. The arguments are those of the direct route.

    Raises:
        CheckpointError: The checkpoint is incomplete, damaged, or of a family that optimum does not export.
        ExportError: optimum failed, or a graph failed its parity check.
    """
    packages = versions(PACKAGES)
    progress(f"reading {checkpoint.id} with transformers {packages['transformers']}")
    parts = read_parts(checkpoint.folder)
    if parts.has_own_head:
        raise CheckpointError(
            f"{checkpoint.folder} is a reranker of sentence-transformers with a head that optimum would leave out: "
            "export it with via='direct'"
        )
    config, files = parts.config, weight_files(parts.folder)
    refuse_absurd_sizes(config, {name: tensor.shape for name, tensor in headers(files).items()})
    read_problem_type(config)
    refuse_unknown(str(config.get("model_type")))
    model = transformers_model.load(parts.folder)
    outputs = (read_outputs(config, model.config.num_labels),)
    with tempfile.TemporaryDirectory(dir=stage) as scratch:  # on the artifact's file system, which has room for it
        progress(f"exporting with optimum-onnx {packages['optimum-onnx']}")
        graph = Path(scratch) / "model.onnx"
        inputs = write_graph(model, graph)
        kinds = [kind for kind in GRAPHS if target in ("all", kind.target, kind.precision)]
        baseline = run_reference(
            functools.partial(transformers_model.forward, model, inputs),
            checkpoint,
            parts,
            (files,),
            transformers_model.describe(model, inputs),
            outputs,
            progress,
            rounded=any(kind.precision != "fp32" for kind in kinds),
        )
        del model
        show_notes(baseline.tokens)
        variants: list[Variant] = []
        for kind in kinds:
            make = functools.partial(make_variant, baseline, graph, kind, stage, metadata, progress)
            variants += keep_if_passing(make, stage / kind.file, required=required or kind.precision == "fp32")
    return baseline, tuple(variants)


def first_runtimes(variants: Iterable[Variant]) -> dict[str, str]:
    """Return the first ONNX Runtime for each graph, by its operator set on the CPU."""
    by_opset = {opset: release.onnxruntime for opset, release in OPSETS.items()}
    by_opset |= {lowering.opset: lowering.onnxruntime for lowering in (CpuFp32, CpuInt8)}
    newest = by_opset[max(by_opset)]
    return {v.file: CudaFp16.onnxruntime if v.target == "cuda" else by_opset.get(v.opset, newest) for v in variants}


def refuse_unknown(family: str) -> None:
    """Raise a ``CheckpointError`` for a family that optimum does not export as a text classifier."""
    known = sorted(name for name in TasksManager.get_supported_model_type_for_task(TASK, exporter="onnx"))
    if family not in known:
        raise CheckpointError(f"model_type is {family!r}, for {TASK} optimum exports {', '.join(known)}: use one of these")


def write_graph(model: Any, path: Path) -> tuple[str, ...]:
    """Write a model as ONNX, and return the names of its inputs; raise ``ExportError`` if optimum fails."""
    try:
        with fusion.quiet():
            make_config = TasksManager.get_exporter_config_constructor(
                "onnx", model=model, task=TASK, library_name="transformers"
            )
            config = make_config(model.config)
            inputs, _ = export(model, config, path, opset=max(config.DEFAULT_ONNX_OPSET, _OPSET))
    except Exception as error:  # torch, transformers and optimum each raise their own
        reason = " ".join(str(error).split())[:300]
        family = model.config.model_type
        raise ExportError(f"optimum cannot export this {family} model ({reason}): nothing was written") from None
    return tuple(inputs)


def optimizer_kind(family: str) -> str | None:
    """Return the optimizer's name of a family, or None."""
    try:
        return str(ORTConfigManager.get_model_ort_type(family))
    except KeyError:
        return None


def make_variant(
    baseline: Baseline, graph: Path, kind: type[Lowering], stage: Path, metadata: Mapping[str, str], progress: Progress
) -> Variant:
    """Fuse, write and check one graph, from torch's ``graph``; raise ``ExportError`` if it fails its parity check."""
    about, path = baseline.architecture, stage / kind.file
    progress(f"fusing {kind.file}")
    family = optimizer_kind(about.family)
    fused = fusion.fuse(graph, family, heads=about.heads, hidden_size=about.hidden_size, target=kind.target)
    if kind.precision == "fp16":
        fusion.to_float16(fused)
    fusion.save(fused.model, path, metadata)
    nodes, opset = count_nodes(fused.model.graph.node), fusion.opset(fused.model)
    del fused
    attention = sum(nodes.get(op, 0) for op in fusion.ATTENTION)
    if attention < about.layers:
        actual = f"the attention of {attention} of {about.layers} layers" if attention else "no attention"
        warnings.warn(f"{kind.file}: ONNX Runtime's optimizer fused {actual} ({about.family})", FusionWarning, stacklevel=2)
    parity = check_parity(path, kind.precision, baseline, progress)
    return Variant(
        file=kind.file,
        target=kind.target,
        precision=kind.precision,
        outputs=("logits",),
        opset=opset,
        nodes=nodes,
        fused_attention=attention,
        parity=dataclasses.replace(parity, reference=transformers_model.REFERENCE),
    )
