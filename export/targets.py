"""The graphs that an export can make, and which of them ``--for`` asks for."""

from __future__ import annotations

from fusedbert.engine.errors import OptionError
from fusedbert.export.lowering import Lowering
from fusedbert.export.lowering.attentions import CpuAttentions
from fusedbert.export.lowering.cpu import CpuFp32
from fusedbert.export.lowering.cpu_int8 import CpuInt8
from fusedbert.export.lowering.cuda import CudaFp16
from fusedbert.export.lowering.cuda_packed import CudaFp16Packed

LOWERINGS: tuple[type[Lowering], ...] = (CpuFp32, CpuInt8, CudaFp16, CudaFp16Packed)
TARGETS = ("all", "cpu", "cuda", "fp32")  # fp32: the exact graph alone


def chosen(target: str, *, attentions: bool = False) -> tuple[type[Lowering], ...]:
    """Return the lowerings of a target, and that which shows its attention where it is asked for.

    Raises:
        OptionError: The target is not one of ``TARGETS``, or has no graph.
    """
    if target not in TARGETS:
        raise OptionError(f"target is {target!r}, expected one of {', '.join(TARGETS)}")
    lowerings = tuple(lowering for lowering in LOWERINGS if target in ("all", lowering.target, lowering.precision))
    if not lowerings:
        raise OptionError(f"no graph for {target} can be built by this version: use --for cpu")
    return (*lowerings, CpuAttentions) if attentions else lowerings
