"""Small parts: staging memory, placement, provider options, the choice of Flash Attention."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fusedbert.engine.errors import DeviceError
from fusedbert.engine.run.cuda import flash
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


class Library:
    """A CUDA runtime with devices of these compute capabilities, times ten."""

    def __init__(self, *capabilities: int) -> None:
        self._capabilities = capabilities

    def cudaDeviceGetAttribute(self, value: Any, attribute: int, device: int) -> int:
        if device >= len(self._capabilities):
            return 101  # cudaErrorInvalidDevice
        found = {75: self._capabilities[device] // 10, 76: self._capabilities[device] % 10}[attribute]
        ctypes.cast(value, ctypes.POINTER(ctypes.c_int))[0] = found
        return 0


@pytest.fixture(autouse=True)
def _no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(flash.VARIABLE, raising=False)
    monkeypatch.delenv(flash.CUDNN, raising=False)


@pytest.mark.parametrize(
    ("library", "index", "expected"),
    [
        (Library(90), 0, "96"),
        (Library(120), 0, "96"),
        (Library(75), 0, None),
        (Library(89), 0, None),  # TensorRT's kernels run there
        (Library(80, 90), 1, "96"),
        (Library(90, 80), 1, None),
        (Library(90), 1, None),
        (None, 0, None),
    ],
)
def test_flash_attention_takes_over_where_tensorrt_has_no_kernels(
    library: Library | None, index: int, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flash, "cuda_runtime", lambda: library)
    with flash.attention_kernels(index, {}, cudnn=False):
        assert os.environ.get(flash.VARIABLE) == expected
        assert os.environ.get(flash.CUDNN) == (expected and "0")
    with flash.attention_kernels(index, {}, cudnn=True):
        assert os.environ.get(flash.VARIABLE) == expected and flash.CUDNN not in os.environ
    assert flash.VARIABLE not in os.environ and flash.CUDNN not in os.environ


def test_the_environment_is_as_before_also_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flash, "cuda_runtime", lambda: Library(90))
    before = dict(os.environ)
    with pytest.raises(DeviceError), flash.attention_kernels(0, {}, cudnn=False):
        raise DeviceError("no session")
    assert dict(os.environ) == before


def test_a_users_choice_of_attention_kernels_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flash, "cuda_runtime", lambda: Library(90))
    with flash.attention_kernels(0, {"sdpa_kernel": "2"}, cudnn=False):
        assert flash.VARIABLE not in os.environ
    monkeypatch.setenv(flash.VARIABLE, "300")
    with flash.attention_kernels(0, {}, cudnn=False):
        assert os.environ[flash.VARIABLE] == "300"
    assert os.environ[flash.VARIABLE] == "300"
