"""The graphs that an export can make, and which of them ``--for`` asks for."""

from __future__ import annotations

from fusedbert.engine.errors import OptionError

from .graph.lowering.base import Lowering
from .graph.lowering.cpu_attentions import CpuAttentions
from .graph.lowering.cpu_fp32 import CpuFp32
from .graph.lowering.cpu_int8 import CpuInt8
from .graph.lowering.cpu_opsets import OPSETS, CpuPlain
from .graph.lowering.cuda_fp16 import CudaFp16
from .graph.lowering.cuda_fp16_packed import CudaFp16Packed

LOWERINGS: tuple[type[Lowering], ...] = (CpuFp32, CpuInt8, CudaFp16, CudaFp16Packed)
TARGETS = ("all", "cpu", "cuda", "fp32")  # fp32: the exact graph alone
FP32_OPSETS = (*OPSETS, CpuFp32.opset)  # that the fp32 graph can be written in


def chosen(target: str, *, attentions: bool = False, opset: int | None = None) -> tuple[type[Lowering], ...]:
    """Return the lowerings of a target, and that which shows its attention where it is asked for.

    Args:
        target: One of ``TARGETS``.
        attentions: Whether the graph that shows its attention is asked for.
        opset: Version of the operator set for the fp32 graph, one of ``FP32_OPSETS``; None for the usual one.

    Raises:
        OptionError: The target is not one of ``TARGETS``, or has no graph; ``opset`` is none that there is, or has no graph.
    """
    if target not in TARGETS:
        raise OptionError(f"target is {target!r}, expected one of {', '.join(TARGETS)}")
    if opset is not None and opset not in FP32_OPSETS:
        raise OptionError(f"opset is {opset!r}, expected a number from {FP32_OPSETS[0]} to {FP32_OPSETS[-1]}")
    lowerings = tuple(lowering for lowering in LOWERINGS if target in ("all", lowering.target, lowering.precision))
    if not lowerings:
        raise OptionError(f"no graph for {target} can be built by this version: use --for cpu")
    if opset is not None and CpuFp32 not in lowerings:
        raise OptionError(f"opset is for the fp32 graph, and --for {target} makes none: leave it out, or use --for cpu")
    if opset is not None:
        lowerings = tuple(_in_opset(opset) if lowering is CpuFp32 else lowering for lowering in lowerings)
    return (*lowerings, CpuAttentions) if attentions else lowerings


def _in_opset(opset: int) -> type[Lowering]:
    """Return the lowering of the fp32 graph to an operator set."""
    return CpuFp32 if opset == CpuFp32.opset else CpuPlain.at(opset)
