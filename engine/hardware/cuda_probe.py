"""Trying CUDA on a graph of one node, to hear what ONNX Runtime, CUDA and the loader have to say about it.

The cause of a provider that does not load is only logged, on the process's own stderr, so that is read for the time of the
attempt. That concerns the whole process: for ``doctor``, not for a library that shares a process with others.
"""

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
_NO_PLUGIN = "No registered plugin EP device"  # said of every device that is named, also where all is well
_SILENT = "the session came without CUDA or computed wrongly, and nothing was said"


def without_cudnn() -> str | None:
    """Return the loader's words where cuDNN cannot be had: from 1.28 on ONNX Runtime starts without, and attention is slow."""
    try:
        ctypes.CDLL("libcudnn.so.9" if os.name == "posix" else "cudnn64_9.dll")
    except OSError as error:
        return str(error)
    return None


def try_cuda(runtime: Any, index: int = 0) -> str | None:
    """Compute one number on a CUDA device.

    Args:
        runtime: The onnxruntime module.
        index: Number of the device.

    Returns:
        None where it works; else all that was logged, printed and raised.
    """
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
    """Call a function while the process's stderr goes to a file, and return its result with what was written there."""
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
