"""A trial of CUDA on a graph of one node, for ``doctor``: it captures the process's stderr, where ONNX Runtime logs."""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np

from .device import CUDA

# y = -x, float32 [1], opset 13, as ONNX writes it
_NEGATE = (
    b'\x08\x08:2\n\x0b\n\x01x\x12\x01y"\x03Neg\x12\x01g'
    b"Z\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\r"
)
_WARNING = 2
_NO_PLUGIN = "No registered plugin EP device"  # logged for every named device, even if it works
_SILENT = "the session came without CUDA or computed wrongly, and nothing was logged"


def without_cudnn() -> str | None:
    """Return the loader's error if cuDNN is missing; ONNX Runtime 1.28 starts without it, with slow attention."""
    try:
        ctypes.CDLL("libcudnn.so.9" if os.name == "posix" else "cudnn64_9.dll")
    except OSError as error:
        return str(error)
    return None


def try_cuda(runtime: Any, index: int = 0) -> str | None:
    """Compute one number on a CUDA device; return None if it works, else all that was logged and raised."""
    raised = ""

    def attempt() -> bool:
        nonlocal raised
        options = runtime.SessionOptions()
        options.log_severity_level = _WARNING
        try:
            providers = [(CUDA, {"device_id": str(index)} if index else {})]
            session = runtime.InferenceSession(_NEGATE, options, providers=providers, enable_fallback=0)
            answer = session.run(None, {"x": np.ones(1, dtype=np.float32)})[0]
        except Exception as error:  # ONNX Runtime's exceptions share no base but Exception
            raised = str(error)
            return False
        return CUDA in session.get_providers() and bool(answer[0] == -1)

    worked, logged = _listen(attempt)
    logged = "\n".join(line for line in logged.splitlines() if _NO_PLUGIN not in line)
    return None if worked else " ".join(f"{logged} {raised}".split()) or _SILENT


def _listen(attempt: Callable[[], bool]) -> tuple[bool, str]:
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            result = attempt()
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
        file.seek(0)
        return result, file.read().decode(errors="replace")
