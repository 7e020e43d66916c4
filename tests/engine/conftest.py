"""A small but real artifact: a WordPiece tokenizer and a bag-of-embeddings graph, with its equations in NumPy."""

from __future__ import annotations

import dataclasses
import json
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from checkpoint_edits import edit_config, edit_tensors
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from fusedbert.engine.artifact import Golden, Manifest, Parity, Source, Variant, write_manifest

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
WORDS = [
    "good",
    "bad",
    "movie",
    "film",
    "plot",
    "was",
    "very",
    "not",
    "the",
    "a",
    "this",
    "dull",
    "bright",
    "actor",
    "music",
    "fine",
    "awful",
    "really",
    "loved",
]
VOCABULARY = [*SPECIAL, *WORDS, *string.ascii_lowercase, *(f"##{letter}" for letter in string.ascii_lowercase), *".,!?"]
HIDDEN = 16
MAX_LENGTH = 32


@dataclasses.dataclass(frozen=True)
class Weights:
    """Weights of the mock model: logits = tanh(mean over real tokens of (E[id] + T[type])) W + b."""

    embedding: np.ndarray  # [vocabulary, hidden]
    types: np.ndarray  # [2, hidden]
    weight: np.ndarray  # [hidden, labels]
    bias: np.ndarray  # [labels]

    @classmethod
    def make(cls, labels: int) -> Weights:
        rng = np.random.default_rng(labels)
        shapes = ((len(VOCABULARY), HIDDEN), (2, HIDDEN), (HIDDEN, labels), (labels,))
        return cls(*(rng.normal(size=shape).astype(np.float32) for shape in shapes))

    def logits(self, ids: list[int], types: list[int]) -> np.ndarray:
        """Compute the equations for one row without padding, in float64."""
        mean = (self.embedding.astype(np.float64)[ids] + self.types.astype(np.float64)[types]).mean(axis=0)
        return np.tanh(mean) @ self.weight + self.bias


def make_tokenizer() -> Tokenizer:
    """A BERT-like tokenizer whose file pads to 16 and truncates at 8, as some files on the hub do."""
    vocabulary = {token: index for index, token in enumerate(VOCABULARY)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")],
    )
    tokenizer.enable_padding(length=16)
    tokenizer.enable_truncation(8)
    return tokenizer


def make_graph(weights: Weights, *, types: bool = True) -> onnx.ModelProto:
    nodes = [
        helper.make_node("Gather", ["embedding", "input_ids"], ["tokens"]),  # [batch, seq, hidden]
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),  # [batch, seq]
        helper.make_node("Unsqueeze", ["mask", "last"], ["mask3"]),  # [batch, seq, 1]
        helper.make_node("Mul", ["sum" if types else "tokens", "mask3"], ["masked"]),
        helper.make_node("ReduceSum", ["masked", "one"], ["total"], keepdims=0),  # [batch, hidden]
        helper.make_node("ReduceSum", ["mask", "one"], ["count"], keepdims=1),  # [batch, 1]
        helper.make_node("Div", ["total", "count"], ["mean"]),
        helper.make_node("Tanh", ["mean"], ["pooled"]),
        helper.make_node("MatMul", ["pooled", "weight"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["logits"]),  # [batch, labels]
    ]
    if types:
        nodes[1:1] = [
            helper.make_node("Gather", ["types", "token_type_ids"], ["segments"]),
            helper.make_node("Add", ["tokens", "segments"], ["sum"]),
        ]
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if types else [])]
    arrays = {**vars(weights), "last": np.array([-1]), "one": np.array([1])}
    graph = helper.make_graph(
        nodes,
        "mock",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "seq"]) for name in names],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", weights.bias.size])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items() if types or name != "types"],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def make_variant(target: str = "cpu", precision: str = "fp32", **parity: Any) -> Variant:
    suffix = "" if precision == "fp32" else f"_{precision}"
    figures: dict[str, Any] = {"max_abs_logit": 1e-6, "label_agreement": 1.0} | parity
    return Variant(
        file=f"onnx/model{suffix}.onnx",
        target=target,
        precision=precision,
        outputs=("logits",),
        opset=18,
        nodes={"Gather": 2},
        fused_attention=0,
        parity=Parity(reference="numpy float64", texts=3, **figures),
    )


def make_manifest(labels: tuple[str, ...], problem_type: str, **changes: object) -> Manifest:
    manifest = Manifest(
        source=Source(id="mock", revision=None, sha256={}),
        created_with={},
        architecture="mock",
        problem_type=problem_type,
        labels=labels,
        max_length=MAX_LENGTH,
        variants=(make_variant(),),
    )
    return dataclasses.replace(manifest, **changes)


def write_artifact(
    folder: Path,
    labels: tuple[str, ...] = ("NEGATIVE", "POSITIVE"),
    problem_type: str = "single_label_classification",
    *,
    types: bool = True,
    **changes: object,
) -> Path:
    """Write the mock model with these labels as an artifact."""
    (folder / "onnx").mkdir(parents=True)
    weights = Weights.make(len(labels))
    if not types:
        weights = dataclasses.replace(weights, types=np.zeros_like(weights.types))
    make_tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"pad_token": "[PAD]"}))
    (folder / "config.json").write_text(json.dumps({"pad_token_id": 0}))
    manifest = make_manifest(labels, problem_type, **changes)
    for variant in manifest.variants:
        onnx.save(make_graph(weights, types=types), folder / variant.file)
    if not manifest.golden:
        tokenizer = make_tokenizer()
        tokenizer.no_padding()
        tokenizer.no_truncation()
        encoding = tokenizer.encode("good movie", "not dull")
        logits = tuple(weights.logits(encoding.ids, encoding.type_ids))
        manifest = dataclasses.replace(manifest, golden=(Golden(text="good movie", text_pair="not dull", logits=logits),))
    write_manifest(folder, manifest)
    return folder


@pytest.fixture(scope="session")
def artifact_at() -> Callable[..., Path]:
    """Return a function that writes an artifact: ``write_artifact``."""
    return write_artifact


@pytest.fixture
def make_artifact(tmp_path: Path) -> Callable[..., Path]:
    """Return the same, with a name for the folder; its path is the test's own."""

    def make(*arguments: Any, name: str = "artifact", **changes: Any) -> Path:
        return write_artifact(tmp_path / name, *arguments, **changes)

    return make


@pytest.fixture
def artifact(make_artifact: Callable[..., Path]) -> Path:
    return make_artifact()


@pytest.fixture(scope="session")
def tokens_artifact(checkpoint_at: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random token classifier, exported."""
    from safetensors.numpy import load_file, save_file

    from fusedbert.export import export_checkpoint

    folder = tmp_path_factory.mktemp("tokens")
    source = checkpoint_at(folder / "source")
    names = ["O", "B-NAME", "I-NAME", "PLACE"]
    config = json.loads((source / "config.json").read_text())
    config |= {"architectures": ["BertForTokenClassification"], "id2label": {str(i): name for i, name in enumerate(names)}}
    (source / "config.json").write_text(json.dumps(config))
    head = np.random.default_rng(2).normal(size=(len(names), config["hidden_size"])).astype(np.float32)
    tensors = load_file(source / "model.safetensors")
    for name in (name for name in tensors if "output.dense" in name):
        tensors[name] = tensors[name] / 10  # of random layers as they are, all tokens end up with one label
    tensors |= {"classifier.weight": head, "classifier.bias": np.zeros(len(names), dtype=np.float32)}
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    export_checkpoint(source, folder / "artifact", target="fp32")
    return folder / "artifact"


@pytest.fixture(scope="session")
def head_sources(checkpoint_at: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Three checkpoints on one encoder: one label of a text, several labels, and a number."""
    folder = tmp_path_factory.mktemp("heads")
    random = np.random.default_rng(0)
    found = {}
    for name, labels, values in (
        ("mood", ["NEGATIVE", "POSITIVE"], {}),
        ("topics", ["plot", "music", "price"], {"problem_type": "multi_label_classification"}),
        ("stars", ["stars"], {"problem_type": "regression"}),
    ):
        found[name] = checkpoint_at(folder / name)
        edit_config(found[name], id2label=dict(enumerate(labels)), **values)
        weight = random.standard_normal((len(labels), 32)).astype(np.float32)
        own = {"classifier.weight": weight, "classifier.bias": np.zeros(len(labels), np.float32)}
        edit_tensors(found[name], lambda tensors, own=own: tensors | own)
    return found


@pytest.fixture(scope="session")
def heads_artifact(head_sources: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact with a head of each of them."""
    from fusedbert.export import export_checkpoint

    folder = tmp_path_factory.mktemp("heads") / "both"
    export_checkpoint(None, folder, heads=head_sources, target="fp32", threshold=0.6, required=False)
    return folder


@pytest.fixture
def weights() -> Callable[[int], Weights]:
    return Weights.make


@pytest.fixture
def variant() -> Callable[..., Variant]:
    return make_variant


@pytest.fixture
def manifest() -> Callable[..., Manifest]:
    return make_manifest


@pytest.fixture
def tokenizer() -> Tokenizer:
    """The mock's tokenizer without padding and truncation: the judge of ids."""
    raw = make_tokenizer()
    raw.no_padding()
    raw.no_truncation()
    return raw


@pytest.fixture
def reference(tokenizer: Tokenizer) -> Callable[..., np.ndarray]:
    """Return a function from texts and pairs (that need no truncation) to the logits of the equations."""

    def logits(items: list[str | tuple[str, str]], labels: int = 2) -> np.ndarray:
        encodings = [tokenizer.encode(item) if isinstance(item, str) else tokenizer.encode(*item) for item in items]
        return np.array([Weights.make(labels).logits(each.ids, each.type_ids) for each in encodings])

    return logits


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep tests out of the user's cache."""
    folder = tmp_path_factory.mktemp("own") / "cache"
    monkeypatch.setenv("FUSEDBERT_CACHE", str(folder))
    return folder
