"""The graphs that an export can make, and which of them ``--for`` asks for."""

from __future__ import annotations

from fusedbert.engine.errors import OptionError
from fusedbert.export.lowering import Lowering
from fusedbert.export.lowering.cpu import CpuFp32
from fusedbert.export.lowering.cuda import CudaFp16

LOWERINGS: tuple[type[Lowering], ...] = (CpuFp32, CudaFp16)
TARGETS = ("all", "cpu", "cuda")


def chosen(target: str) -> tuple[type[Lowering], ...]:
    """Return the lowerings of a target.

    Raises:
        OptionError: The target is not one of ``TARGETS``, or has no graph.
    """
    if target not in TARGETS:
        raise OptionError(f"target is {target!r}, expected one of {', '.join(TARGETS)}")
    lowerings = tuple(lowering for lowering in LOWERINGS if target in ("all", lowering.target))
    if not lowerings:
        raise OptionError(f"no graph for {target} can be built by this version: use --for cpu")
    return lowerings
