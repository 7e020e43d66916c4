"""The length from which the packed graph's attention runs by Flash Attention 2.

ONNX Runtime takes it for ``PackedMultiHeadAttention`` from 513 tokens on, because TensorRT's kernels are faster below that. On
compute capability 9.0 it has none of those, and CUTLASS's are slower from 96 tokens on (bench/NOTES.md, "CUDA"). It reads
the length when a session's first attention node is made, and only from the environment.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator, Mapping

from .buffers import cuda_runtime

FLASH_FROM = 96  # tokens of a batch's longest text
VARIABLE = "ORT_MIN_SEQ_LEN_FLASH_ATTENTION_PACKED_QKV"
_KERNELS = "sdpa_kernel"  # the provider's option that names the kernels, and then has another default
_LEAST_MAJOR = 9  # compute capability without TensorRT's kernels
_MAJOR = 75  # cudaDevAttrComputeCapabilityMajor


@contextlib.contextmanager
def flash_attention(index: int, user: Mapping[str, str]) -> Iterator[None]:
    """Set the length while a session is made on this device, unless the user has chosen; the caller holds ``cuda_lock``."""
    if VARIABLE in os.environ or _KERNELS in user or _major(index) < _LEAST_MAJOR:
        yield
        return
    # A setenv() during a getenv() of another thread, of another library for example, is undefined: rare, and the only way.
    os.environ[VARIABLE] = str(FLASH_FROM)
    try:
        yield
    finally:
        os.environ.pop(VARIABLE, None)


def _major(index: int) -> int:
    """Return the first number of the device's compute capability, or 0 if it cannot be read."""
    library, value = cuda_runtime(), ctypes.c_int()
    if library is None or library.cudaDeviceGetAttribute(ctypes.byref(value), _MAJOR, index) != 0:
        return 0
    return value.value
