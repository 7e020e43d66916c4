"""Which of an artifact's graphs to run on a device, and why."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from ..artifact import Manifest, Variant
from ..artifact.foreign import KNOWN
from ..artifact.gates import figures, limits, passes
from ..errors import OptionError
from ..hardware.cpu import Machine
from ..options import Precision


@dataclasses.dataclass(frozen=True, kw_only=True)
class Selection:
    """A graph and the reason for it."""

    variant: Variant
    why: str


def select_variant(manifest: Manifest, *, target: str, precision: Precision, machine: Machine) -> Selection:
    """Choose the graph for a device.

    Args:
        manifest: The artifact's.
        target: ``cpu`` or ``cuda``.
        precision: What the caller asked for.
        machine: What the CPU can do.

    Raises:
        OptionError: The artifact has no such graph; the message says which it has and how to make one.
    """
    if precision is not Precision.AUTO:
        variant = _find(manifest, ((target, precision),))
        if variant is None and target == "cuda" and precision is Precision.FP32:
            variant = _find(manifest, (("cpu", Precision.FP32),))
        if variant is None:
            raise OptionError(f"precision={str(precision)!r} on {target}: {_has(manifest, target, precision)}")
        return Selection(variant=variant, why=f"{precision} was asked for")
    return _automatic_cuda(manifest) if target == "cuda" else _automatic_cpu(manifest, machine)


def select_after(manifest: Manifest, failed: Selection, reason: str) -> Selection | None:
    """Return what "auto" takes on the CPU in place of a graph that computes wrongly there, or None where nothing is left."""
    variant = _find(manifest, (("cpu", Precision.FP32),))
    if variant is None or failed.variant.precision == Precision.FP32:
        return None
    return Selection(variant=variant, why=f"fp32, because {reason}")


def _automatic_cuda(manifest: Manifest) -> Selection:
    variant = _find(manifest, (("cuda", Precision.FP16), ("cuda", Precision.FP32)))
    if variant is not None:
        return Selection(variant=variant, why=f"{variant.precision} is the artifact's graph for CUDA")
    variant = _find(manifest, (("cpu", Precision.FP32), ("cpu", Precision.FP16)))
    if variant is None:
        raise OptionError(f"precision='auto' on cuda: {_has(manifest, 'cuda')}")
    hint = " (fusedbert export --for all makes one)" if manifest.verifiable else ""
    why = f"{variant.precision} as made for the CPU, there is no graph for CUDA{hint}"
    return Selection(variant=variant, why=why)


def _automatic_cpu(manifest: Manifest, machine: Machine) -> Selection:
    fp32, int8 = (_find(manifest, (("cpu", precision),)) for precision in (Precision.FP32, Precision.INT8))
    if not manifest.verifiable:
        return _unverified_cpu(manifest)
    if int8 is None:
        if fp32 is None:
            raise OptionError(f"precision='auto' on cpu: {_has(manifest, 'cpu')}")
        return Selection(variant=fp32, why="fp32, the artifact has no int8 graph")
    good, found = passes(int8.parity, Precision.INT8), figures(int8.parity)
    if good and (machine.int8 or fp32 is None):
        return Selection(variant=int8, why=f"int8 within the gates ({found})")
    if fp32 is None:
        raise OptionError(f"precision='auto' on cpu: the int8 graph does not pass the gates ({found}): ask for int8")
    if not good:
        allowed = limits(int8.parity, Precision.INT8)
        return Selection(variant=fp32, why=f"fp32, int8 does not pass the gates ({found}; limits {allowed})")
    return Selection(variant=fp32, why=f"fp32, this CPU has no 8-bit dot products (int8: {found})")


def _unverified_cpu(manifest: Manifest) -> Selection:
    """Choose among another tool's graphs: of their accuracy nothing is known, so the least rounded one."""
    held = [_find(manifest, (("cpu", precision),)) for precision in (Precision.FP32, Precision.FP16, Precision.INT8)]
    found = [variant for variant in held if variant is not None]
    if not found:
        raise OptionError(f"precision='auto' on cpu: {_has(manifest, 'cpu')}")
    more = "" if len(found) == 1 else f" (precision='{found[-1].precision}' takes the other, whose accuracy is not known)"
    return Selection(variant=found[0], why=f"{found[0].precision} is {'the least rounded' if more else 'the only'} graph{more}")


def _find(manifest: Manifest, wanted: Iterable[tuple[str, str]]) -> Variant | None:
    found = (manifest.variant(target=target, precision=precision) for target, precision in wanted)
    return next((variant for variant in found if variant is not None), None)


_ALONE = {
    ("cuda", str(Precision.INT8)): "int8 runs on the CPU alone: device='cpu'",
    ("cpu", str(Precision.FP16)): "fp16 runs on CUDA alone: another precision, or a machine with a GPU",
}


def _has(manifest: Manifest, target: str, precision: str = "") -> str:
    held = ", ".join(dict.fromkeys(f"{variant.precision} for {variant.target}" for variant in manifest.variants)) or "no graph"
    if not manifest.verifiable:
        files = ", ".join(name for name in KNOWN if not precision or KNOWN[name][1] == precision)
        return f"the folder has {held} and no fusedbert.json; graphs are looked for as {files}"
    if (target, precision) in _ALONE:
        return f"the artifact has {held}; {_ALONE[target, precision]}"
    return f"the artifact has {held}; make one with fusedbert export SOURCE OUTPUT --for all"
