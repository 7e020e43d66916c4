"""CUDA without a GPU: a runtime that creates the CUDA provider's sessions and buffers on the CPU.

``PackedMultiHeadAttention`` has no kernel there, so a packed graph's place is taken by its stand-in, which computes the same
with standard operators (``fusedbert.export.parity.graphs``).
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from fusedbert.engine import Classifier
from fusedbert.engine.artifact import PADDED, read_manifest, write_manifest
from fusedbert.engine.hardware import device
from fusedbert.engine.hardware.device import CPU, CUDA, Offer
from fusedbert.engine.load import open as loading
from fusedbert.engine.load import open_cuda
from fusedbert.engine.run.cuda import flash
from fusedbert.export import export_checkpoint
from fusedbert.export.checkpoint.architecture import describe, read_config
from fusedbert.export.checkpoint.weights import Weights
from fusedbert.export.graph.bert import build
from fusedbert.export.parity.graphs import PackedStandIn

NOT_WHOLE = "all compute graph nodes have not been partitioned to the CUDAExecutionProvider"
GPU_WHEEL = (("onnxruntime-gpu", "1.31.1"),)


class OnCpu:
    """An ``InferenceSession`` of the CUDA provider, as seen from outside."""

    at_once: ClassVar[list[int]] = []  # sessions that ran at each run's begin, this one included
    _running: ClassVar[set[int]] = set()

    def __init__(self, raw: Any, elsewhere: tuple[str, ...], captures: bool, fails: str | None) -> None:
        self._raw = raw
        self._fails = fails
        self._elsewhere = elsewhere
        self.captures = captures
        self.graphs: list[str] = []
        self.refused = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)

    def get_providers(self) -> list[str]:
        return [CUDA, CPU]

    def get_provider_graph_assignment_info(self) -> list[Any]:
        parts = self._raw.get_provider_graph_assignment_info()
        return [Part(provider, nodes) for provider, nodes in self._split([node for part in parts for node in part.get_nodes()])]

    def _split(self, nodes: list[Any]) -> Iterator[tuple[str, list[Any]]]:
        yield CUDA, [node for node in nodes if node.op_type not in self._elsewhere]
        yield CPU, [node for node in nodes if node.op_type in self._elsewhere]

    def run_with_iobinding(self, binding: Any, options: Any) -> None:
        if self._fails:
            raise RuntimeError(self._fails)
        graph = options.get_run_config_entry("gpu_graph_id")
        if graph != "-1" and not self.captures:
            self.refused += 1
            raise RuntimeError("CUDA failure 901: operation failed due to a previous error during capture")
        self.graphs.append(graph)
        self._running.add(id(self))
        self.at_once.append(len(self._running))
        self._raw.run_with_iobinding(binding, options)
        self._running.discard(id(self))


class Part:
    """One provider's share of a graph."""

    def __init__(self, ep_name: str, nodes: list[Any]) -> None:
        self.ep_name = ep_name
        self._nodes = nodes

    def get_nodes(self) -> list[Any]:
        return self._nodes


class CpuAsCuda:
    """The onnxruntime module, with the CPU in place of the CUDA provider."""

    def __init__(
        self,
        *,
        elsewhere: tuple[str, ...] = (),
        captures: bool = True,
        version: str = onnxruntime.__version__,
        fails: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.__version__ = version
        self.captures, self._fails = captures, fails
        self.sessions: list[OnCpu] = []
        self.provider_options: list[dict[str, str]] = []
        self.flash_from: list[str | None] = []  # as the environment of each session says
        self.OrtValue = self
        self._elsewhere = elsewhere

    def __getattr__(self, name: str) -> Any:
        return getattr(onnxruntime, name)

    def get_available_providers(self) -> list[str]:
        return [CUDA, CPU]

    def preload_dlls(self) -> None:
        pass

    def ortvalue_from_shape_and_type(self, shape: list[int], dtype: Any, device: str, index: int) -> Any:
        assert device == "cuda"
        return onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, dtype, "cpu", 0)

    def InferenceSession(self, path: str, *, sess_options: Any, providers: list[Any], **rest: Any) -> Any:
        if providers == [CPU]:
            return onnxruntime.InferenceSession(path, sess_options, providers=providers, **rest)
        self.provider_options.append(providers[0][1])
        self.flash_from.append(os.environ.get(flash.VARIABLE))
        if self._elsewhere and providers[0][1]["enable_cuda_graph"] == "1":
            raise RuntimeError(f"This session cannot use the graph capture feature: {NOT_WHOLE}")
        fails = self._fails.get(Path(path).name)
        stand_in = Path(path).with_suffix(".stand-in")
        path = str(stand_in) if stand_in.exists() else path
        raw = onnxruntime.InferenceSession(path, sess_options, providers=[CPU], **rest)
        self.sessions.append(OnCpu(raw, self._elsewhere, self.captures, fails))
        return self.sessions[-1]


def write_stand_in(source: Path, artifact: Path) -> Path:
    """Write a stand-in for the artifact's packed graph next to it."""
    a, layout = describe(read_config(source))
    path = artifact / "onnx/model_fp16_packed.stand-in"
    build(a, Weights(source, a, layout), PackedStandIn).write(path, "stand-in", opset=PackedStandIn.opset, metadata={})
    return path


@pytest.fixture(scope="session", autouse=True)
def _the_fake_gpu_is_seen() -> Iterator[None]:
    """In a process that was started with the fake CUDA device, which has no file in /dev and computes nothing."""
    with pytest.MonkeyPatch.context() as patch:
        if "FUSEDBERT_TEST_FAKE_CUDA" in os.environ:
            patch.setattr(device, "gpu_present", lambda root=None: True)
            patch.setattr(open_cuda, "verify", lambda *_: "not verified, as nothing is computed")
        yield


@pytest.fixture(scope="session")
def stand_in_at() -> Callable[..., Path]:
    return write_stand_in


@pytest.fixture(scope="session")
def exported(checkpoint_at: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact with all graphs, with the stand-in of the packed one; not to be written to."""
    folder = tmp_path_factory.mktemp("cuda")
    source = checkpoint_at(folder / "source")
    export_checkpoint(source, folder / "artifact", required=True)
    write_stand_in(source, folder / "artifact")
    return folder / "artifact"


@pytest.fixture
def own_artifact(exported: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may change."""
    return Path(shutil.copytree(exported, tmp_path / "artifact"))


@pytest.fixture
def expected(exported: Path) -> Iterator[Callable[[list[str]], NDArray[np.float32]]]:
    """Return a function that gives the fp32 graph's logits."""
    with Classifier.from_pretrained(exported, device="cpu", precision="fp32") as clf:
        yield clf.decision_function


@pytest.fixture
def padded_artifact(own_artifact: Path) -> Path:
    """An artifact without a packed graph."""
    manifest = read_manifest(own_artifact)
    variants = tuple(v for v in manifest.variants if v.layout == PADDED)
    write_manifest(own_artifact, dataclasses.replace(manifest, variants=variants))
    return own_artifact


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Callable[..., CpuAsCuda]:
    """Return a function that replaces ONNX Runtime by this runtime."""

    def install(**options: Any) -> CpuAsCuda:
        fake = CpuAsCuda(**options)
        monkeypatch.setattr(loading, "import_onnxruntime", lambda: fake)
        offer = Offer(providers=(CUDA, CPU), wheels=GPU_WHEEL, gpu=True)
        monkeypatch.setattr(loading, "inspect_offer", lambda runtime: offer)
        return fake

    return install


@pytest.fixture(scope="session")
def artifact(embedded: Path) -> Path:
    """The embedded checkpoint's artifact, in place of the tiny one of the engine's other tests."""
    return embedded
