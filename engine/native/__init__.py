"""Kernels of our own for the operators of the int8 graph, in C: what ONNX Runtime's CPU provider has no fused form of.

The library is built when the package is installed, where there is gcc on x86-64, and registered with a session through
ONNX Runtime's interface for custom operators (https://onnxruntime.ai/docs/reference/operators/add-custom-op.html). The
graph brings each operator as a function in standard operators too, which ONNX Runtime runs wherever there is no kernel:
without the library, or on a processor without AVX-512 VNNI (products) or bfloat16 (attention).
"""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Mapping
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

from fusedbert.engine.errors import DeviceError

DOMAIN = "fusedbert"  # of the operators, as ``fusedbert.export.operators`` names it
SWITCH = "fusedbert.kernels"  # in ``session_options``: "0" leaves everything to ONNX Runtime
_FOUND = {
    -1: "ONNX Runtime's kernels, which use this CPU's AMX",
    0: "ONNX Runtime's kernels, this CPU has not the instructions that ours use",
    1: "fusedbert's kernels for products (AVX-512 VNNI)",
    2: "fusedbert's kernels for products and attention (AVX-512 VNNI, bfloat16)",
}


def library() -> Path | None:
    """Return the library's file, or None where it was not built."""
    files = (Path(__file__).with_name(f"_kernels{suffix}") for suffix in EXTENSION_SUFFIXES)
    return next((file for file in files if file.is_file()), None)


def fingerprint() -> str | None:
    """Return the sha256 of the library, or None where there is none: what was verified holds for these kernels alone."""
    path = library()
    return None if path is None else hashlib.sha256(path.read_bytes()).hexdigest()


def describe(given: Any) -> str:
    """Say which kernels a session with these ``session_options`` runs on, for ``runtime.why``."""
    path = library()
    if path is None:
        return "ONNX Runtime's kernels, ours were not built: install fusedbert where gcc is found, on x86-64"
    if not wanted(given):
        return "ONNX Runtime's kernels, as session_options has it"
    return _FOUND[level(path)]


def wanted(given: Any) -> bool:
    """Tell whether ``session_options`` leaves room for our kernels.

    A ``SessionOptions`` is used as it is: whoever brings one registers ``library()`` with it, or does without.
    """
    return given is None or (isinstance(given, Mapping) and str(given.get(SWITCH, "1")) != "0")


def level(path: Path) -> int:
    """Return what the processor can run: 0 nothing, 1 the products, 2 attention too; -1 nothing, because it has AMX.

    Raises:
        DeviceError: The library cannot be loaded.
    """
    try:
        return int(ctypes.CDLL(str(path)).fusedbert_level())
    except (OSError, AttributeError) as error:
        raise DeviceError(f"{path} cannot be loaded ({error}): install fusedbert again") from None


def register(options: Any, given: Any) -> None:
    """Give a session's options our kernels, where they are built and wanted.

    Args:
        options: ``onnxruntime.SessionOptions``.
        given: What the caller gave as ``session_options``.

    Raises:
        DeviceError: The library cannot be loaded.
    """
    path = library()
    if path is None or not wanted(given):
        return
    try:
        options.register_custom_ops_library(str(path))
    except Exception as error:  # ONNX Runtime's exceptions share no base but Exception
        raise DeviceError(f"{path} cannot be loaded ({' '.join(str(error).split())}): install fusedbert again") from None
