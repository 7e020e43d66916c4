"""Kernels of attention: Flash Attention 2 in the packed graph, from a length on, and cuDNN's only in the padded one.

ONNX Runtime takes the first for ``PackedMultiHeadAttention`` from 513 tokens on, because TensorRT's kernels are faster below
that. On compute capability 9.0 those are missing, and CUTLASS's are slower from 96 tokens on. Under a mask, for windows,
cuDNN's gain nothing, and cost 150 ms at the first batch of each shape (bench/NOTES.md, "CUDA"). Both settings are read when a
session's first attention node is made, and only from the environment.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator, Mapping

from .buffers import cuda_runtime

FLASH_FROM = 96  # tokens of a batch's longest text
CUDNN = "ORT_ENABLE_CUDNN_FLASH_ATTENTION"
VARIABLE = "ORT_MIN_SEQ_LEN_FLASH_ATTENTION_PACKED_QKV"
_KERNELS = "sdpa_kernel"  # the provider's option that names the kernels, and then has another default
_LEAST_MAJOR = 9  # compute capability without TensorRT's kernels
_MAJOR = 75  # cudaDevAttrComputeCapabilityMajor


@contextlib.contextmanager
def attention_kernels(index: int, user: Mapping[str, str], *, cudnn: bool) -> Iterator[None]:
    """Choose attention kernels, as far as the user has not, while a session is made; the caller holds ``cuda_lock``."""
    chosen = {VARIABLE: str(FLASH_FROM)} if cudnn else {VARIABLE: str(FLASH_FROM), CUDNN: "0"}
    chosen = {name: value for name, value in chosen.items() if name not in os.environ}
    if not chosen or _KERNELS in user or _major(index) < _LEAST_MAJOR:
        yield
        return
    # A setenv() during a getenv() of another thread, of another library for example, is undefined: rare, and the only way.
    os.environ.update(chosen)
    try:
        yield
    finally:
        for name in chosen:
            os.environ.pop(name, None)


def _major(index: int) -> int:
    """Return the first number of the device's compute capability, or 0 if it cannot be read."""
    library, value = cuda_runtime(), ctypes.c_int()
    if library is None or library.cudaDeviceGetAttribute(ctypes.byref(value), _MAJOR, index) != 0:
        return 0
    return value.value
