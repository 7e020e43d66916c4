"""Host memory for transfers: page-aligned, reused, and pinned where CUDA's runtime library lets itself be found.

A copy to the GPU from pinned memory goes directly; from other memory the driver copies it into a pinned buffer of its own
first. ONNX Runtime's Python interface gives out no pinned memory, so pages of our own are registered with
``cudaHostRegister`` of the library that ONNX Runtime has loaded already. Where that fails, the same pages serve unpinned.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LIBRARIES = ("libcudart.so.13", "libcudart.so.12")
_ALIGNMENT = 64  # bytes, of each array

Register = Callable[[int, int], Callable[[], None] | None]


class Staging:
    """Arrays that lie together in one block of pages.

    Args:
        specs: Shape and dtype of each array, by name.
        pin: Registers an address and a size, and returns what undoes it, or None where it cannot.

    Attributes:
        block: All of it, uint8, to be copied to the GPU at once: every copy costs microseconds, whatever its size.
        arrays: By name, to be filled in place.
        offsets: Where each array begins in the block, in bytes.
        pinned: Whether the pages are registered with CUDA.

    Example:
        >>> staging = Staging({"input_ids": ((2, 3), np.int32)}, pin=lambda address, size: None)
        >>> staging.arrays["input_ids"].shape, staging.pinned
        ((2, 3), False)
    """

    def __init__(self, specs: Mapping[str, tuple[tuple[int, ...], type[np.generic]]], *, pin: Register) -> None:
        sizes = {name: math.prod(shape) * np.dtype(dtype).itemsize for name, (shape, dtype) in specs.items()}
        pages = mmap.mmap(-1, max(1, sum(map(_aligned, sizes.values()))))
        self.block: NDArray[np.uint8] = np.frombuffer(pages, dtype=np.uint8)
        self.arrays: dict[str, NDArray[Any]] = {}
        self.offsets: dict[str, int] = {}
        start = 0
        for name, (shape, dtype) in specs.items():
            flat = np.frombuffer(pages, dtype=dtype, count=math.prod(shape), offset=start)
            self.arrays[name], self.offsets[name] = flat.reshape(shape), start
            start += _aligned(sizes[name])
        release = pin(self.block.ctypes.data, self.block.nbytes)
        self.pinned = release is not None
        if release is not None:
            weakref.finalize(self, release)

    def fill(self, arrays: Mapping[str, NDArray[np.int32]]) -> None:
        """Copy a batch in, as the dtypes that the graph declares; arrays that have no place here are left out."""
        for name, place in self.arrays.items():
            np.copyto(place, arrays[name])


def cuda_register(address: int, size: int, *, index: int = 0) -> Callable[[], None] | None:
    """Pin host memory; return what unpins it, or None where it stays as it was.

    On the device of this number: a thread that has named none works on the first, and would open a context there.
    """
    library = cudart()
    if library is None or library.cudaSetDevice(index) != 0:
        return None
    if library.cudaHostRegister(ctypes.c_void_p(address), ctypes.c_size_t(size), 0) != 0:
        return None

    def release() -> None:
        library.cudaHostUnregister(ctypes.c_void_p(address))

    return release


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def cudart() -> Any:
    """Return CUDA's runtime library, the one that ONNX Runtime works with, or None where it does not let itself be found."""
    for name in _LIBRARIES:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None
