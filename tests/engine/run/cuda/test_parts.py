"""Small parts: staging memory, placement, provider options."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest

from fusedbert.engine.errors import DeviceError
from fusedbert.engine.run.cuda.buffers import Staging
from fusedbert.engine.run.cuda.provider import off_device, provider_options, refuse_off_device, split_options


def test_staged_arrays_are_separate_and_aligned() -> None:
    asked = []
    released = []

    def pin(address: int, size: int) -> Callable[[], None]:
        asked.append((address, size))
        return lambda: released.append(address)

    specs = {"a": ((3, 5), np.int64), "b": ((7,), np.int32)}
    staging = Staging(specs, pin=pin)
    assert staging.pinned and asked[0][0] % 4096 == 0 and asked[0][1] >= 3 * 5 * 8 + 7 * 4
    arrays = {
        "a": np.arange(15, dtype=np.int32).reshape(3, 5),
        "b": np.arange(7, dtype=np.int32),
        "other": np.ones(1, np.int32),
    }
    staging.fill(arrays)
    for name in specs:
        np.testing.assert_array_equal(staging.arrays[name], arrays[name])
        assert staging.arrays[name].ctypes.data % 64 == 0
        assert staging.arrays[name].ctypes.data - staging.block.ctypes.data == staging.offsets[name]
    assert staging.arrays["a"].dtype == np.int64
    del staging
    assert released == [asked[0][0]]
    assert not Staging(specs, pin=lambda address, size: None).pinned


def test_a_refused_placement_names_a_few_nodes_and_counts_the_rest() -> None:
    nodes = [SimpleNamespace(op_type="Add", name=f"layer.{i}/Add") for i in range(7)]
    parts = [SimpleNamespace(ep_name=name, get_nodes=lambda: nodes) for name in ("CUDA", "CPU")]
    found = off_device(SimpleNamespace(get_provider_graph_assignment_info=lambda: parts), "CUDA")
    assert found is not None and len(found) == 7
    with pytest.raises(DeviceError, match=r"7 of the graph's nodes: Add \(layer\.0/Add\), .* and 2 more"):
        refuse_off_device(found, "cuda:0")
    refuse_off_device([], "cuda:0")
    assert off_device(SimpleNamespace(), "CUDA") is None  # an ONNX Runtime without this information


def test_provider_options_are_split_and_checked() -> None:
    assert "device_id" not in provider_options()  # ONNX Runtime warns of a plugin where it is named
    ours = provider_options(1, graphs=True)
    assert (ours["device_id"], ours["enable_cuda_graph"], ours["use_tf32"]) == ("1", "1", "0")
    assert provider_options(user={"use_tf32": "1"})["use_tf32"] == "1"
    options = object()
    assert split_options(options) == ({}, options) and split_options(None) == ({}, None)
    assert split_options({"cuda.a": 1}) == ({"a": "1"}, None)
