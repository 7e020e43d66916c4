"""The kernels in C, for operators that ONNX Runtime's CPU provider computes slowly.

``_int8`` has the int8 graph's operators, ``_fp32`` replaces LayerNormalization and Gelu of the fp32 graph. They are built with
gcc on x86-64, and registered as custom operators (https://onnxruntime.ai/docs/reference/operators/add-custom-op.html). The
int8 graph also has its operators as functions of standard ones, for a missing library, or a CPU without AVX-512 VNNI
(products) or bfloat16 (attention).
"""

from __future__ import annotations

import ctypes
import enum
import hashlib
from collections.abc import Mapping
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

from ..errors import DeviceError

DOMAIN = "fusedbert"  # of the int8 graph's operators, as ``fusedbert.export.graph.operators`` names it
SWITCH = "fusedbert.kernels"  # in ``session_options``: "0" leaves everything to ONNX Runtime


class Kernels(enum.StrEnum):
    """The libraries; the value is the file's name."""

    INT8 = "_int8"
    FP32 = "_fp32"


_MISSING = "ONNX Runtime kernels (fusedbert's were not built: install fusedbert where gcc is available, on x86-64)"
_SWITCHED_OFF = "ONNX Runtime kernels (as set in session_options)"
_BY_LEVEL = {
    (Kernels.INT8, -1): "ONNX Runtime kernels (they use this CPU's AMX)",
    (Kernels.INT8, 0): "ONNX Runtime kernels (this CPU lacks AVX-512 VNNI)",
    (Kernels.INT8, 1): "fusedbert's kernels for products (AVX-512 VNNI)",
    (Kernels.INT8, 2): "fusedbert's kernels for products and attention (AVX-512 VNNI, bfloat16)",
    (Kernels.FP32, 0): "ONNX Runtime kernels (this CPU lacks AVX-512)",
    (Kernels.FP32, 1): "fusedbert's kernels for LayerNormalization and Gelu (AVX-512)",
}


def library(kernels: Kernels = Kernels.INT8) -> Path | None:
    """Return a library's file, or None if it was not built."""
    files = (Path(__file__).with_name(f"{kernels}{suffix}") for suffix in EXTENSION_SUFFIXES)
    return next((file for file in files if file.is_file()), None)


def fingerprint(kernels: Kernels | None) -> str | None:
    """Return a library's SHA-256 or None, for the key of a verdict."""
    path = None if kernels is None else library(kernels)
    return None if path is None else hashlib.sha256(path.read_bytes()).hexdigest()


def describe(kernels: Kernels, session_options: Any) -> str:
    """Return the kernels that a session runs on, for ``runtime.why``."""
    path = library(kernels)
    if path is None:
        return _MISSING
    return _BY_LEVEL[kernels, level(path)] if wanted(session_options) else _SWITCHED_OFF


def wanted(session_options: Any) -> bool:
    """Return whether ``session_options`` allows the kernels; ``onnxruntime.SessionOptions`` does not."""
    return session_options is None or (isinstance(session_options, Mapping) and str(session_options.get(SWITCH, "1")) != "0")


def level(path: Path) -> int:
    """Return a library's level on this processor: 0 for nothing, -1 for nothing because ONNX Runtime's kernels are faster.

    Raises:
        DeviceError: The library cannot be loaded.
    """
    try:
        return int(ctypes.CDLL(str(path)).fusedbert_level())
    except (OSError, AttributeError) as error:
        raise _unusable(path, error) from None


def register(options: Any, session_options: Any, kernels: Kernels) -> None:
    """Register a library with a session's ``options``, if it was built and ``session_options`` allows it.

    Raises:
        DeviceError: The library cannot be loaded.
    """
    path = library(kernels)
    if path is None or not wanted(session_options):
        return
    try:
        options.register_custom_ops_library(str(path))
    except Exception as error:  # ONNX Runtime's exceptions share no base but Exception
        raise _unusable(path, error) from None


def _unusable(path: Path, error: Exception) -> DeviceError:
    return DeviceError(f"{path} cannot be loaded ({' '.join(str(error).split())}): install fusedbert again")
