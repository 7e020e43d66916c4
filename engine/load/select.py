"""The choice of an artifact's graph for a device, with the reason, and of its kernels."""

from __future__ import annotations

import dataclasses

from ..artifact import Manifest, Variant
from ..artifact.foreign import KNOWN
from ..artifact.limits import figures, limits, passes
from ..errors import OptionError
from ..hardware.cpu import Machine
from ..kernels import DOMAIN, Kernels
from . import Precision


@dataclasses.dataclass(frozen=True, kw_only=True)
class Selection:
    """A graph and the reason for it."""

    variant: Variant
    why: str


def select_variant(manifest: Manifest, *, target: str, precision: Precision, machine: Machine) -> Selection:
    """Choose the graph for a target, ``cpu`` or ``cuda``; the CPU's features decide on int8.

    Raises:
        OptionError: The artifact has no such graph; the message lists its graphs and how to make one.
    """
    if precision is not Precision.AUTO:
        variant = _first(manifest, (target, precision))
        if variant is None and target == "cuda" and precision is Precision.FP32:
            variant = _first(manifest, ("cpu", precision))
        if variant is None:
            raise OptionError(f"precision={str(precision)!r} on {target}: {_held(manifest, target, precision)}")
        return Selection(variant=variant, why=f"{precision} was asked for")
    return _automatic_cuda(manifest) if target == "cuda" else _automatic_cpu(manifest, machine)


def select_after(manifest: Manifest, failed: Selection, reason: str) -> Selection | None:
    """Return the fallback of "auto" for a graph that the CPU computes wrongly, or None."""
    variant = _first(manifest, ("cpu", Precision.FP32))
    if variant is None or failed.variant.precision == Precision.FP32:
        return None
    return Selection(variant=variant, why=f"fp32, because {reason}")


def kernels_for(variant: Variant) -> Kernels | None:
    """Return the library for a graph, or None; the fp32 one is for the exporter's direct route, which writes ``Attention``."""
    if f"{DOMAIN}:Dense" in variant.nodes:
        return Kernels.INT8
    direct = variant.fused_attention == variant.nodes.get("Attention")
    return Kernels.FP32 if direct and (variant.target, variant.precision) == ("cpu", "fp32") else None


def _automatic_cuda(manifest: Manifest) -> Selection:
    variant = _first(manifest, ("cuda", Precision.FP16), ("cuda", Precision.FP32))
    if variant is not None:
        return Selection(variant=variant, why=f"{variant.precision} is the artifact's graph for CUDA")
    variant = _first(manifest, ("cpu", Precision.FP32), ("cpu", Precision.FP16))
    if variant is None:
        raise OptionError(f"precision='auto' on cuda: {_held(manifest, 'cuda')}")
    hint = " (fusedbert export --for all makes one)" if manifest.verifiable else ""
    return Selection(variant=variant, why=f"{variant.precision} graph for the CPU, the artifact has no graph for CUDA{hint}")


def _automatic_cpu(manifest: Manifest, machine: Machine) -> Selection:
    if not manifest.verifiable:
        return _unverified_cpu(manifest)
    fp32, int8 = (_first(manifest, ("cpu", precision)) for precision in (Precision.FP32, Precision.INT8))
    if int8 is None:
        if fp32 is None:
            raise OptionError(f"precision='auto' on cpu: {_held(manifest, 'cpu')}")
        return Selection(variant=fp32, why="fp32, the artifact has no int8 graph")
    good, measured = passes(int8.parity, Precision.INT8), figures(int8.parity)
    if good and (machine.int8 or fp32 is None):
        return Selection(variant=int8, why=f"int8 within the gates ({measured})")
    if fp32 is None:
        raise OptionError(f"precision='auto' on cpu: the int8 graph does not pass the gates ({measured}): ask for int8")
    if not good:
        allowed = limits(int8.parity, Precision.INT8)
        return Selection(variant=fp32, why=f"fp32, int8 does not pass the gates ({measured}; limits {allowed})")
    return Selection(variant=fp32, why=f"fp32, this CPU has no 8-bit dot products (int8: {measured})")


def _unverified_cpu(manifest: Manifest) -> Selection:
    """Choose the least rounded graph of another tool's, whose accuracy is not known."""
    found = (_first(manifest, ("cpu", precision)) for precision in (Precision.FP32, Precision.FP16, Precision.INT8))
    graphs = [variant for variant in found if variant is not None]
    if not graphs:
        raise OptionError(f"precision='auto' on cpu: {_held(manifest, 'cpu')}")
    if len(graphs) == 1:
        return Selection(variant=graphs[0], why=f"{graphs[0].precision} is the only graph")
    other = f"precision='{graphs[-1].precision}' takes the other, whose accuracy is not known"
    return Selection(variant=graphs[0], why=f"{graphs[0].precision} is the least rounded graph ({other})")


def _first(manifest: Manifest, *wanted: tuple[str, str]) -> Variant | None:
    variants = (manifest.variant(target=target, precision=precision) for target, precision in wanted)
    return next((variant for variant in variants if variant is not None), None)


_ONE_TARGET = {
    ("cuda", str(Precision.INT8)): "int8 runs only on the CPU: device='cpu'",
    ("cpu", str(Precision.FP16)): "fp16 runs only on CUDA: another precision, or a machine with a GPU",
}


def _held(manifest: Manifest, target: str, precision: str = "") -> str:
    held = ", ".join(dict.fromkeys(f"{variant.precision} for {variant.target}" for variant in manifest.variants)) or "no graph"
    if not manifest.verifiable:
        files = ", ".join(name for name in KNOWN if not precision or KNOWN[name][1] == precision)
        return f"the folder has {held} and no fusedbert.json; graphs are looked for as {files}"
    way_out = _ONE_TARGET.get((target, precision), "make one with fusedbert export SOURCE OUTPUT --for all")
    return f"the artifact has {held}; {way_out}"
