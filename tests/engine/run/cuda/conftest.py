"""CUDA without a GPU: a runtime that takes the CUDA provider's sessions and buffers, and makes them on the CPU.

``PackedAttention`` has no kernel there, so a packed graph's place is taken by its stand-in, which computes the same with
standard operators (``fusedbert.export.parity.packed``).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import onnxruntime
import pytest
from safetensors.numpy import save_file

from fusedbert.engine.hardware import device
from fusedbert.engine.hardware.device import CPU, CUDA, Offer
from fusedbert.engine.load import open as loading
from fusedbert.export import export_checkpoint
from fusedbert.export.checkpoint.architecture import describe, read_config
from fusedbert.export.checkpoint.weights import Weights
from fusedbert.export.graph.bert import build
from fusedbert.export.parity.packed import PackedStandIn

NOT_WHOLE = "all compute graph nodes have not been partitioned to the CUDAExecutionProvider"
GPU_WHEEL = (("onnxruntime-gpu", "1.31.1"),)


class OnCpu:
    """An ``InferenceSession`` of the CUDA provider, as far as anyone can tell from outside."""

    at_once: ClassVar[list[int]] = []  # sessions that ran at each run's begin, this one included
    _running: ClassVar[set[int]] = set()

    def __init__(self, raw: Any, elsewhere: tuple[str, ...], captures: bool, fails: str | None) -> None:
        self._raw = raw
        self._fails = fails
        self._elsewhere = elsewhere
        self._captures = captures
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
        if graph != "-1" and not self._captures:
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
    """The onnxruntime module, with the CUDA provider played by the CPU."""

    def __init__(
        self,
        *,
        elsewhere: tuple[str, ...] = (),
        captures: bool = True,
        version: str = onnxruntime.__version__,
        fails: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.__version__ = version
        self._captures, self._fails = captures, fails
        self.sessions: list[OnCpu] = []
        self.provider_options: list[dict[str, str]] = []
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
        if self._elsewhere and providers[0][1]["enable_cuda_graph"] == "1":
            raise RuntimeError(f"This session cannot use the graph capture feature: {NOT_WHOLE}")
        fails = self._fails.get(Path(path).name)
        stand_in = Path(path).with_suffix(".stand-in")
        path = str(stand_in) if stand_in.exists() else path
        raw = onnxruntime.InferenceSession(path, sess_options, providers=[CPU], **rest)
        self.sessions.append(OnCpu(raw, self._elsewhere, self._captures, fails))
        return self.sessions[-1]


WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "movie", "was", "the", "not", "very", "##s", ".", "!"]


def write_checkpoint(
    folder: Path, *, family: str = "bert", heads: int = 2, hidden: int = 32, layers: int = 2, positions: int = 40
) -> Path:
    """A random BERT or RoBERTa with a WordPiece tokenizer, without torch; padding has the id 0 in both."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    folder.mkdir(parents=True)
    config = {
        "model_type": family,
        "pad_token_id": 0,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "vocab_size": len(WORDS),
        "max_position_embeddings": positions,
        "type_vocab_size": 2,
    }
    (folder / "config.json").write_text(json.dumps(config))
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> np.ndarray:
        return rng.normal(scale=0.4, size=shape).astype(np.float32)

    sizes = {"word": len(WORDS), "position": positions, "token_type": 2}
    tensors = {f"{family}.embeddings.{name}_embeddings.weight": draw(rows, hidden) for name, rows in sizes.items()}
    head = ("bert.pooler.dense", "classifier") if family == "bert" else ("classifier.dense", "classifier.out_proj")
    dense = {head[0]: (hidden, hidden), head[1]: (2, hidden)}
    norms = [f"{family}.embeddings.LayerNorm"]
    for i in range(layers):
        at = f"{family}.encoder.layer.{i}."
        dense |= {f"{at}attention.{n}": (hidden, hidden) for n in ("self.query", "self.key", "self.value", "output.dense")}
        dense |= {f"{at}intermediate.dense": (2 * hidden, hidden), f"{at}output.dense": (hidden, 2 * hidden)}
        norms += [f"{at}attention.output.LayerNorm", f"{at}output.LayerNorm"]
    for name, shape in dense.items():
        tensors |= {f"{name}.weight": draw(*shape), f"{name}.bias": draw(shape[0])}
    for name in norms:
        tensors |= {f"{name}.weight": 1 + draw(hidden) / 4, f"{name}.bias": draw(hidden)}
    save_file(tensors, folder / "model.safetensors")
    vocabulary = {word: i for i, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.add_special_tokens(WORDS[:5])
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"pad_token": "[PAD]", "tokenizer_class": "BertTokenizer"}))
    return folder


def write_stand_in(source: Path, artifact: Path) -> Path:
    """Write what computes as the artifact's packed graph does, beside it."""
    a, layout = describe(read_config(source))
    path = artifact / "onnx/model_fp16_packed.stand-in"
    build(a, Weights(source, a, layout), PackedStandIn).write(path, "stand-in", opset=PackedStandIn.opset, metadata={})
    return path


@pytest.fixture(scope="session", autouse=True)
def _a_pretended_gpu_is_seen() -> Iterator[None]:
    """Where the process was started with the libraries of ``pretended``: that device has no file in /dev."""
    with pytest.MonkeyPatch.context() as patch:
        if "FUSEDBERT_TEST_PRETENDED" in os.environ:
            patch.setattr(device, "gpu_present", lambda root=None: True)
        yield


@pytest.fixture(scope="session")
def checkpoint_at() -> Callable[..., Path]:
    return write_checkpoint


@pytest.fixture(scope="session")
def stand_in_at() -> Callable[..., Path]:
    return write_stand_in


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact with all graphs, the packed one's stand-in beside it; not to be written to."""
    folder = tmp_path_factory.mktemp("cuda")
    source = write_checkpoint(folder / "source")
    export_checkpoint(source, folder / "artifact", required=True)
    write_stand_in(source, folder / "artifact")
    return folder / "artifact"


@pytest.fixture
def own_artifact(exported: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may change."""
    return Path(shutil.copytree(exported, tmp_path / "artifact"))


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Callable[..., CpuAsCuda]:
    """Return a function that puts the played runtime in ONNX Runtime's place."""

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
