"""Kernels of our own, in C, for what ONNX Runtime's CPU provider does slowly.

For the operators of the int8 graph, which it has no fused form of; and for two of the fp32 graph that it computes number by
number, LayerNormalization and Gelu.

The libraries are built when the package is installed, where there is gcc on x86-64, and registered with a session through
ONNX Runtime's interface for custom operators (https://onnxruntime.ai/docs/reference/operators/add-custom-op.html). The
int8 graph brings each operator as a function in standard operators too, which ONNX Runtime runs wherever there is no kernel:
without the library, or on a processor without AVX-512 VNNI (products) or bfloat16 (attention). The fp32 graph is of
standard operators alone; with AVX-512, our kernels take the place of two of ONNX Runtime's.
"""

from __future__ import annotations

import ctypes
import enum
import hashlib
from collections.abc import Mapping
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

from ..artifact import Variant
from ..errors import DeviceError

DOMAIN = "fusedbert"  # of the int8 graph's operators, as ``fusedbert.export.graph.operators`` names it
SWITCH = "fusedbert.kernels"  # in ``session_options``: "0" leaves everything to ONNX Runtime
_MISSING = "ONNX Runtime's kernels, ours were not built: install fusedbert where gcc is found, on x86-64"
_REFUSED = "ONNX Runtime's kernels, as session_options has it"


class Kernels(enum.StrEnum):
    """The libraries, by what they are for. The value is the name of the file."""

    INT8 = "_kernels"
    FP32 = "_standard"


_FOUND = {
    (Kernels.INT8, -1): "ONNX Runtime's kernels, which use this CPU's AMX",
    (Kernels.INT8, 0): "ONNX Runtime's kernels, this CPU has not the instructions that ours use",
    (Kernels.INT8, 1): "fusedbert's kernels for products (AVX-512 VNNI)",
    (Kernels.INT8, 2): "fusedbert's kernels for products and attention (AVX-512 VNNI, bfloat16)",
    (Kernels.FP32, 0): "ONNX Runtime's kernels, this CPU has not the instructions that ours use",
    (Kernels.FP32, 1): "fusedbert's kernels for LayerNormalization and Gelu (AVX-512)",
}


def kernels_for(variant: Variant) -> Kernels | None:
    """Return the library that a graph gains by, or None.

    The one for fp32 takes the place of standard operators and knows no other form of them than the exporter's own route
    writes, whose attention is ONNX's; a graph of another tool's has none.
    """
    if f"{DOMAIN}:Dense" in variant.nodes:
        return Kernels.INT8
    ours = variant.target == "cpu" and variant.precision == "fp32" and variant.fused_attention == variant.nodes.get("Attention")
    return Kernels.FP32 if ours else None


def library(kernels: Kernels = Kernels.INT8) -> Path | None:
    """Return a library's file, or None where it was not built."""
    files = (Path(__file__).with_name(f"{kernels}{suffix}") for suffix in EXTENSION_SUFFIXES)
    return next((file for file in files if file.is_file()), None)


def fingerprint(kernels: Kernels | None) -> str | None:
    """Return the sha256 of a library, or None where there is none: what was verified holds for these kernels alone."""
    path = None if kernels is None else library(kernels)
    return None if path is None else hashlib.sha256(path.read_bytes()).hexdigest()


def describe(kernels: Kernels, given: Any) -> str:
    """Say which kernels a session with these ``session_options`` runs on, for ``runtime.why``."""
    path = library(kernels)
    if path is None:
        return _MISSING
    return _FOUND[kernels, level(path)] if wanted(given) else _REFUSED


def wanted(given: Any) -> bool:
    """Tell whether ``session_options`` leaves room for our kernels.

    A ``SessionOptions`` is used as it is: whoever brings one registers ``library()`` with it, or does without.
    """
    return given is None or (isinstance(given, Mapping) and str(given.get(SWITCH, "1")) != "0")


def level(path: Path) -> int:
    """Return how much of a library the processor can run: 0 nothing, -1 nothing, because ONNX Runtime has better.

    Raises:
        DeviceError: The library cannot be loaded.
    """
    try:
        return int(ctypes.CDLL(str(path)).fusedbert_level())
    except (OSError, AttributeError) as error:
        raise DeviceError(f"{path} cannot be loaded ({error}): install fusedbert again") from None


def register(options: Any, given: Any, kernels: Kernels) -> None:
    """Give a session's options our kernels, where they are built and wanted.

    Args:
        options: ``onnxruntime.SessionOptions``.
        given: What the caller gave as ``session_options``.
        kernels: Which.

    Raises:
        DeviceError: The library cannot be loaded.
    """
    path = library(kernels)
    if path is None or not wanted(given):
        return
    try:
        options.register_custom_ops_library(str(path))
    except Exception as error:  # ONNX Runtime's exceptions share no base but Exception
        raise DeviceError(f"{path} cannot be loaded ({' '.join(str(error).split())}): install fusedbert again") from None
