"""The choice of an artifact's graph for a device, with the reason, and of its kernels."""

from __future__ import annotations

import dataclasses

from ..artifact import Manifest, Parity, Variant
from ..artifact.foreign import KNOWN
from ..artifact.limits import figures, limits, passes
from ..errors import OptionError
from ..hardware.cpu import Int8, Machine
from ..kernels import DOMAIN, Kernels
from . import Precision


@dataclasses.dataclass(frozen=True, kw_only=True)
class Selection:
    """A graph and the reason for it."""

    variant: Variant
    why: str


def select_variant(manifest: Manifest, *, target: str, precision: Precision, machine: Machine, bf16: bool = False) -> Selection:
    """Choose the graph for a target, ``cpu`` or ``cuda``; the CPU's features decide on int8, ``bf16`` whether it has kernels.

    Raises:
        OptionError: The artifact has no such graph; the message lists its graphs and how to make one.
    """
    if precision is not Precision.AUTO:
        variant = _first(manifest, (target, precision))
        if variant is None and target == "cuda" and precision is Precision.FP32:
            variant = _first(manifest, ("cpu", precision))
        if variant is None:
            raise OptionError(f"precision={str(precision)!r} on {target}: {_held(manifest, target, precision)}")
        beyond = saturation(variant, machine)
        return Selection(variant=variant, why=f"{precision} was asked for" + (f", and {beyond}" if beyond else ""))
    return _automatic_cuda(manifest) if target == "cuda" else _automatic_cpu(manifest, machine, bf16=bf16)


def select_after(manifest: Manifest, failed: Selection, reason: str) -> Selection | None:
    """Return the fallback of "auto" for a graph that the CPU computes wrongly, or None."""
    variant = _first(manifest, ("cpu", Precision.FP32))
    if variant is None or failed.variant.precision == Precision.FP32:
        return None
    return Selection(variant=variant, why=f"fp32, because {reason}")


def kernels_for(variant: Variant) -> Kernels | None:
    """Return the library for a graph, or None; the fp32 one is for the exporter's direct route, which writes ``Attention``."""
    if f"{DOMAIN}:Dense" in variant.nodes:
        return Kernels.INT8_POSITIONS if f"{DOMAIN}:DisentangledAttention" in variant.nodes else Kernels.INT8
    if f"{DOMAIN}:Bf16Dense" in variant.nodes:
        return Kernels.BF16
    direct = variant.fused_attention == variant.nodes.get("Attention")
    return Kernels.FP32 if direct and (variant.target, variant.precision) == ("cpu", "fp32") else None


def _automatic_cuda(manifest: Manifest) -> Selection:
    variant = _first(manifest, ("cuda", Precision.FP16), ("cuda", Precision.FP32))
    beyond = None if variant is None else beyond_on_own_texts(variant)
    exact = _first(manifest, ("cuda", Precision.FP32), ("cpu", Precision.FP32))
    if beyond is not None and exact is not None:
        return Selection(variant=exact, why=f"fp32, {beyond}")
    if variant is not None:
        return Selection(variant=variant, why=f"{variant.precision} is the artifact's graph for CUDA")
    variant = _first(manifest, ("cpu", Precision.FP32), ("cpu", Precision.FP16))
    if variant is None:
        raise OptionError(f"precision='auto' on cuda: {_held(manifest, 'cuda')}")
    hint = " (fusedbert export --for all makes one)" if manifest.verifiable else ""
    return Selection(variant=variant, why=f"{variant.precision} graph for the CPU, the artifact has no graph for CUDA{hint}")


def _automatic_cpu(manifest: Manifest, machine: Machine, *, bf16: bool) -> Selection:
    """Take the fastest graph within its gates: int8, then bf16 where there are kernels for it, then fp32."""
    if not manifest.verifiable:
        return _unverified_cpu(manifest)
    fp32, half, int8 = (_first(manifest, ("cpu", each)) for each in (Precision.FP32, Precision.BF16, Precision.INT8))
    beyond = "the artifact has no int8 graph"
    if int8 is not None:
        reason = _against_int8(int8, machine, others=fp32 is not None)
        if reason is None:
            return Selection(variant=int8, why=f"int8 within the gates{_measured(int8, machine)}{_on_own_texts(int8)}")
        beyond = reason
    if half is not None and bf16 and passes(half.parity, Precision.BF16) and not beyond_on_own_texts(half):
        return Selection(variant=half, why=f"bf16 within the gates ({figures(half.parity)}){_on_own_texts(half)}; {beyond}")
    if fp32 is not None:
        inexact = beyond_on_own_texts(half) if half is not None and bf16 else None
        return Selection(variant=fp32, why=f"fp32, {beyond}" + (f", and {inexact}" if inexact else ""))
    if int8 is None:
        raise OptionError(f"precision='auto' on cpu: {_held(manifest, 'cpu')}")
    raise OptionError(f"precision='auto' on cpu: the artifact has no fp32 graph, and {beyond}: ask for int8")


def _against_int8(int8: Variant, machine: Machine, *, others: bool) -> str | None:
    """Return why int8 is not taken, or None. It is taken without fast products too if there are no ``others``."""
    if not passes(int8.parity, Precision.INT8):
        return f"int8 does not pass the gates ({_with_limits(int8.parity)})"
    if beyond := saturation(int8, machine) or beyond_on_own_texts(int8):
        return beyond
    if _clipped(int8, machine) is not None or machine.int8 is Int8.EXACT or not others:
        return None
    unknown = "8-bit products saturate on this CPU, and the artifact does not say what that changes: export it again"
    reason = unknown if machine.int8 is Int8.SATURATING else "this CPU is not known to have 8-bit dot products"
    return f"{reason} (int8: {figures(int8.parity)})"


def _measured(int8: Variant, machine: Machine) -> str:
    clipped = _clipped(int8, machine)
    if clipped is None:
        return f" ({figures(int8.parity)})"
    kernel = f"ONNX Runtime's {'AVX-512' if 'avx512f' in machine.features else 'AVX2'} kernel"
    return f" on {kernel}, whose products saturate ({figures(clipped)})"


def as_computed_on(machine: Machine, variant: Variant) -> Variant:
    """Return the variant with the parity that holds on a processor: ``parity_avx2`` where saturation is within the gates."""
    clipped = _clipped(variant, machine)
    return variant if clipped is None or saturation(variant, machine) else dataclasses.replace(variant, parity=clipped)


def saturation(variant: Variant, machine: Machine) -> str | None:
    """Return why saturation takes a graph beyond its gates on a processor, or None."""
    clipped = _clipped(variant, machine)
    if clipped is None or passes(clipped, Precision.INT8):
        return None
    return f"int8 does not pass the gates where its products saturate, as on this CPU ({_with_limits(clipped)})"


def beyond_on_own_texts(variant: Variant) -> str | None:
    """Return why the user's texts, if the export measured on them, take a graph beyond its gates, or None."""
    evaluation, precision = variant.evaluation, variant.precision
    if evaluation is None or precision == Precision.FP32 or passes(evaluation.parity, precision):
        return None
    return (
        f"{precision} does not pass the gates on your texts, {evaluation.texts} ({_with_limits(evaluation.parity, precision)})"
    )


def _on_own_texts(variant: Variant) -> str:
    found = variant.evaluation
    return f", and on your texts, {found.texts} ({figures(found.parity)})" if found is not None else ""


def _clipped(variant: Variant, machine: Machine) -> Parity | None:
    return variant.parity_avx2 if machine.int8 is Int8.SATURATING else None


def _with_limits(parity: Parity, precision: str = Precision.INT8) -> str:
    return f"{figures(parity)}; limits {limits(parity, precision)}"


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
    ("cuda", str(Precision.BF16)): "bf16 runs only on the CPU: device='cpu'",
    ("cpu", str(Precision.FP16)): "fp16 runs only on CUDA: another precision, or a machine with a GPU",
}


def _held(manifest: Manifest, target: str, precision: str = "") -> str:
    held = ", ".join(dict.fromkeys(f"{variant.precision} for {variant.target}" for variant in manifest.variants)) or "no graph"
    if not manifest.verifiable:
        files = ", ".join(name for name in KNOWN if KNOWN[name][1] == precision or not precision)
        if not files:
            return f"the folder has {held} and no fusedbert.json; only an export by fusedbert has a graph in {precision}"
        return f"the folder has {held} and no fusedbert.json; graphs are looked for as {files}"
    way_out = _ONE_TARGET.get((target, precision), "make one with fusedbert export SOURCE OUTPUT --for all")
    return f"the artifact has {held}; {way_out}"
