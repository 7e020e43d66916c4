"""The buffers of one batch shape: pinned host memory, and a binding of inputs and logits to device memory.

ONNX Runtime's Python interface has no pinned memory, so pages are registered with ``cudaHostRegister`` of the CUDA that it has
loaded; if that fails, they serve unpinned.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import mmap
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..batches import Batch
from ..session import Session

GRAPH = "gpu_graph_id"  # run option: the CUDA graph that is captured or replayed
NO_GRAPH = "-1"
_CUDA_RUNTIMES = ("libcudart.so.13", "libcudart.so.12")
_ALIGNMENT = 64  # bytes, of each array

Pin = Callable[[int, int], Callable[[], None] | None]  # (address, size) -> undo, or None if it cannot


class Staging:
    """Host arrays of these shapes and dtypes in one block, copied at once, because every copy costs microseconds."""

    def __init__(self, specs: Mapping[str, tuple[tuple[int, ...], type[np.generic]]], *, pin: Pin) -> None:
        sizes = {name: math.prod(shape) * np.dtype(dtype).itemsize for name, (shape, dtype) in specs.items()}
        pages = mmap.mmap(-1, max(1, sum(map(_aligned, sizes.values()))))
        self.block: NDArray[np.uint8] = np.frombuffer(pages, dtype=np.uint8)
        self.arrays: dict[str, NDArray[Any]] = {}  # views of the block
        self.offsets: dict[str, int] = {}  # in the block, in bytes
        start = 0
        for name, (shape, dtype) in specs.items():
            flat = np.frombuffer(pages, dtype=dtype, count=math.prod(shape), offset=start)
            self.arrays[name], self.offsets[name] = flat.reshape(shape), start
            start += _aligned(sizes[name])
        unpin = pin(self.block.ctypes.data, self.block.nbytes)
        self.pinned = unpin is not None
        if unpin is not None:
            weakref.finalize(self, unpin)

    def fill(self, arrays: Mapping[str, NDArray[np.int32]]) -> None:
        """Copy a batch in, cast to the graph's dtypes, without arrays that the graph does not declare."""
        for name, place in self.arrays.items():
            np.copyto(place, arrays[name])


class IoBuffers:
    """Inputs and logits of one batch shape at fixed addresses, as a CUDA graph needs them; ``batch``: any of the shape."""

    def __init__(
        self, runtime: Any, session: Session, batch: Batch, *, shape: Sequence[int], device: str, index: int, pin: Pin
    ) -> None:
        make = runtime.OrtValue.ortvalue_from_shape_and_type
        shapes = {name: batch.arrays[name].shape for name in session.inputs}
        self._raw = session.raw
        self._runtime = runtime
        self._staging = Staging({name: (shapes[name], dtype) for name, dtype in session.inputs.items()}, pin=pin)
        self._block = make([self._staging.block.size], np.uint8, device, index)
        self._logits = make(list(shape), np.float32, device, index)
        self._binding = session.raw.io_binding()
        for name, dtype in session.inputs.items():
            address = self._block.data_ptr() + self._staging.offsets[name]
            self._binding.bind_input(name, self._block.device_name(), index, dtype, list(shapes[name]), address)
        self._binding.bind_ortvalue_output("logits", self._logits)

    def run(self, arrays: Mapping[str, NDArray[np.int32]], *, graph: int | None) -> NDArray[np.float32]:
        """Run a batch, with the CUDA graph of this number or without one; return the logits."""
        self._staging.fill(arrays)
        self._block.update_inplace(self._staging.block)
        options = self._runtime.RunOptions()
        options.add_run_config_entry(GRAPH, NO_GRAPH if graph is None else str(graph))
        self._raw.run_with_iobinding(self._binding, options)
        return np.array(self._logits.numpy(), dtype=np.float32)


def pin_memory(address: int, size: int, *, index: int = 0) -> Callable[[], None] | None:
    """Pin host memory; return a function that unpins it, or None if it cannot be pinned."""
    library = cuda_runtime()
    if library is None or library.cudaSetDevice(index) != 0:  # a thread without a device would open a context on the first
        return None
    if library.cudaHostRegister(ctypes.c_void_p(address), ctypes.c_size_t(size), 0) != 0:
        return None

    return lambda: library.cudaHostUnregister(ctypes.c_void_p(address))


def cuda_runtime() -> Any:
    """Return the CUDA runtime library that ONNX Runtime works with, or None."""
    for name in _CUDA_RUNTIMES:
        with contextlib.suppress(OSError):
            return ctypes.CDLL(name)
    return None


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
