"""One shape's buffers, bound to a session: filled, run, read, and used again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .staging import Register, Staging

GRAPH = "gpu_graph_id"  # run option: the CUDA graph that is captured or replayed
NO_GRAPH = "-1"


class Bound:
    """Inputs and logits of one shape at addresses that stay, as a CUDA graph needs them and an allocator likes them.

    The inputs lie in one block, on the host as on the device, and travel in one copy.

    Args:
        runtime: The onnxruntime module.
        raw: The ``InferenceSession``.
        declared: Its inputs, with their dtypes.
        arrays: A batch of the shape.
        texts: Rows of the logits.
        labels: Columns of the logits.
        device: ``cuda``, or ``cpu`` where there is no GPU to test with.
        index: Number of the device.
        pin: Pins host memory.
    """

    def __init__(
        self,
        runtime: Any,
        raw: Any,
        declared: Mapping[str, type[np.generic]],
        arrays: Mapping[str, NDArray[Any]],
        *,
        texts: int,
        labels: int,
        device: str,
        index: int,
        pin: Register,
    ) -> None:
        make = runtime.OrtValue.ortvalue_from_shape_and_type
        self._raw = raw
        self._runtime = runtime
        self._staging = Staging({name: (arrays[name].shape, dtype) for name, dtype in declared.items()}, pin=pin)
        self._block = make([self._staging.block.size], np.uint8, device, index)
        self._logits = make([texts, labels], np.float32, device, index)
        self._binding = raw.io_binding()
        for name, dtype in declared.items():
            address = self._block.data_ptr() + self._staging.offsets[name]
            self._binding.bind_input(name, self._block.device_name(), index, dtype, list(arrays[name].shape), address)
        self._binding.bind_ortvalue_output("logits", self._logits)

    def run(self, arrays: Mapping[str, NDArray[np.int32]], *, graph: int | None) -> NDArray[np.float32]:
        """Copy a batch in, run, and copy the logits out.

        Args:
            arrays: Of the shape that this was made for.
            graph: Number of the CUDA graph to capture or replay; None to launch every kernel.

        Returns:
            Logits ``[texts, labels]``, an array of its own.
        """
        self._staging.fill(arrays)
        self._block.update_inplace(self._staging.block)
        options = self._runtime.RunOptions()
        options.add_run_config_entry(GRAPH, NO_GRAPH if graph is None else str(graph))
        self._raw.run_with_iobinding(self._binding, options)
        return np.array(self._logits.numpy(), dtype=np.float32)
