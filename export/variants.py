"""Variants: the graphs that an export can make, each built, written and checked."""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

from fusedbert.engine.artifact import Parity, Variant
from fusedbert.engine.errors import ExportError, OptionError, shown

from .calibrate import calibrate, calibration_texts
from .checkpoint import FusionWarning
from .checkpoint.weights import Weights
from .graph.bert import build
from .graph.cpu.bf16 import CpuBf16
from .graph.cpu.fp32 import OPSETS, CpuAttentions, CpuFp32, CpuPlain
from .graph.cpu.int8 import CpuInt8
from .graph.cuda.fp16 import CudaFp16
from .graph.cuda.packed import CudaFp16Packed
from .graph.int8.weights import QuantizedWeights
from .graph.lowering import Lowering
from .parity.baseline import DirectBaseline, Progress
from .parity.compare import three_digits
from .parity.gates import check_activations, check_fused_attention, check_parity, keep_if_passing
from .parity.graphs import check_attentions, check_packed
from .parity.precision import choose_bf16_layers
from .parity.saturation import check_exact, measure_saturated

LOWERINGS: tuple[type[Lowering], ...] = (CpuFp32, CpuInt8, CpuBf16, CudaFp16, CudaFp16Packed)
TARGETS = ("all", "cpu", "cuda", "fp32")  # fp32: only the exact graph
FP32_OPSETS = (*OPSETS, CpuFp32.opset)  # that the fp32 graph can be written in


def choose_lowerings(target: str, *, attentions: bool = False, opset: int | None = None) -> tuple[type[Lowering], ...]:
    """Return the lowerings for arguments of ``export_checkpoint``; raise ``OptionError`` if they are not possible."""
    if target not in TARGETS:
        raise OptionError(f"target is {shown(target)}, expected one of {', '.join(TARGETS)}")
    if opset is not None and opset not in FP32_OPSETS:
        raise OptionError(f"opset is {shown(opset)}, expected a number from {FP32_OPSETS[0]} to {FP32_OPSETS[-1]}")
    lowerings = tuple(lowering for lowering in LOWERINGS if target in ("all", lowering.target, lowering.precision))
    if opset is not None:
        if CpuFp32 not in lowerings:
            raise OptionError(f"opset is for the fp32 graph, and --for {target} makes none: leave it out, or use --for cpu")
        fp32 = CpuFp32 if opset == CpuFp32.opset else CpuPlain.at(opset)
        lowerings = tuple(fp32 if lowering is CpuFp32 else lowering for lowering in lowerings)
    return (*lowerings, CpuAttentions) if attentions else lowerings


def make_variants(
    baseline: DirectBaseline,
    lowerings: Sequence[type[Lowering]],
    stage: Path,
    metadata: Mapping[str, str],
    progress: Progress,
    *,
    required: bool,
) -> tuple[Variant, ...]:
    """Build, write and check each graph in ``stage``; raise ``ExportError`` if a ``required`` one or fp32 fails its check."""
    variants: list[Variant] = []
    reasons: list[str] = []
    for lowering in lowerings:
        if reason := lowering.unsupported(baseline.architecture):
            reasons.append(f"{lowering.file} is left out: {reason}")
            progress(reasons[-1])
            continue
        make = functools.partial(make_variant, baseline, lowering, stage, metadata, progress)
        variants += keep_if_passing(make, stage / lowering.file, required=required or lowering.precision == "fp32")
    if not variants:
        found = "; ".join(reasons) or "each failed its check"
        raise ExportError(f"this model cannot have a graph for that target: {found}; use --for all")
    return tuple(variants)


def make_variant(
    baseline: DirectBaseline, lowering: type[Lowering], stage: Path, metadata: Mapping[str, str], progress: Progress
) -> Variant:
    """Build, write and check one graph; raise ``ExportError`` if it fails its parity check."""
    path, a = stage / lowering.file, baseline.architecture
    progress(f"building {lowering.file}")
    weights: Weights | QuantizedWeights = baseline.weights
    if lowering is CpuInt8:
        texts = calibration_texts(baseline)
        progress(f"calibrating {lowering.file} on {len(texts)} texts")
        params = calibrate(baseline, texts)
        weights = QuantizedWeights(baseline.weights, params, choose_bf16_layers(baseline, params, progress))
    graph = build(a, weights, lowering)
    nodes = graph.count_nodes()
    fused = check_fused_attention(nodes, lowering.attention_ops, a.layers, lowering.file) if lowering.attention_ops else 0
    if lowering.note is not None:
        warnings.warn(f"{lowering.file}: {lowering.note}", FusionWarning, stacklevel=2)
    path.parent.mkdir(exist_ok=True)
    graph.write(path, f"{a.family} classifier", opset=lowering.opset, metadata=metadata, ir_version=lowering.ir_version)
    del graph
    return Variant(
        file=lowering.file,
        target=lowering.target,
        precision=lowering.precision,
        outputs=lowering.output_names,
        opset=lowering.opset,
        nodes=nodes,
        fused_attention=fused,
        parity=_check(lowering, path, baseline, progress),
        layout=lowering.layout,
        parity_avx2=measure_saturated(path, baseline, progress) if lowering is CpuInt8 else None,
    )


def _check(lowering: type[Lowering], path: Path, baseline: DirectBaseline, progress: Progress) -> Parity:
    if lowering is CudaFp16Packed:
        parity = check_packed(path, baseline, progress)
    elif lowering is CpuInt8:
        parity = check_exact(path, baseline, progress)
    else:
        parity = check_parity(path, lowering.precision, baseline, progress)
    if lowering.precision == "fp16":
        check_activations(baseline.max_activation, lowering.file)
        bound = f"{parity.measured_on}, on the CPU; activations up to {three_digits(baseline.max_activation):g} of 65504"
        parity = dataclasses.replace(parity, measured_on=bound)
    if lowering is CpuAttentions:
        check_attentions(path, baseline, progress)
    return parity
