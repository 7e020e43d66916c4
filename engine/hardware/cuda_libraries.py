"""CUDA's and cuDNN's libraries, from the packages ``nvidia-*``."""

from __future__ import annotations

import contextlib
import io
from types import ModuleType


def load_cuda_libraries(runtime: ModuleType) -> str:
    """Load CUDA and cuDNN from their pip packages; return ONNX Runtime's output about failures."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(OSError):
        getattr(runtime, "preload_dlls", lambda: None)()
    return " ".join(printed.getvalue().split())
