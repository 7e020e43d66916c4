"""ModernBERT's graphs: lengths around the window and far beyond it, padding, exactness, memory, kernels and their fallback."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusedbert.engine import Classifier
from fusedbert.engine.artifact import read_manifest
from fusedbert.export import export_checkpoint
from fusedbert.export.checkpoint.architecture import describe, read_config
from fusedbert.export.checkpoint.weights import Weights
from fusedbert.export.graph.blocks import longest_short
from fusedbert.export.graph.cpu.bf16 import CpuBf16
from fusedbert.export.graph.cpu.fp32 import CpuFp32
from fusedbert.export.parity.gates import open_scratch, open_session
from fusedbert.export.parity.reference import Trace, attend, softmax, turn

WINDOW = 16
SHAPE = {
    "hidden_size": 64,
    "num_attention_heads": 2,
    "intermediate_size": 72,
    "local_attention": 2 * WINDOW,
    "num_hidden_layers": 4,
}
LENGTHS = (1, 2, WINDOW - 1, WINDOW, WINDOW + 1, WINDOW + 2, 2 * WINDOW + 1, 2 * WINDOW + 2, 3 * WINDOW, 200)
SHORT_TEXTS = longest_short(WINDOW)  # tokens of the longest text whose attention is not in blocks
POOLINGS = ("cls", "mean")


def batch(lengths: tuple[int, ...], seed: int = 0) -> dict[str, np.ndarray]:
    """Random token ids of texts of these lengths, padded on the right with 0."""
    random = np.random.default_rng(seed)
    real = np.arange(max(lengths)) < np.array(lengths)[:, None]
    ids = np.where(real, random.integers(5, 70, real.shape), 0)
    return {"input_ids": ids, "attention_mask": real.astype(np.int64)}


@pytest.fixture(scope="module", params=POOLINGS)
def long_checkpoint(make_checkpoint, request) -> Path:
    return make_checkpoint(
        "modernbert", **SHAPE, classifier_pooling=request.param, max_position_embeddings=8192, num_labels=3, seed=7
    )


@pytest.fixture(scope="module")
def artifact(long_checkpoint: Path, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("artifact") / "artifact"
    export_checkpoint(long_checkpoint, folder, target="all", required=False)
    return folder


def test_texts_around_the_window_and_beyond_it_equal_transformers(long_checkpoint, artifact, judge) -> None:
    """One by one, and padded together: the window must not move with the padding."""
    graph = open_graph(artifact / "onnx/model.onnx")
    singles = (*LENGTHS, SHORT_TEXTS, SHORT_TEXTS + 1)
    for lengths in (LENGTHS, (SHORT_TEXTS, 1, 40), *((length,) for length in singles), (700, 40, 1100)):
        arrays = batch(lengths)
        np.testing.assert_allclose(graph.run(["logits"], arrays)[0], judge(long_checkpoint, arrays), atol=1e-4, rtol=0)


def test_a_text_of_8192_tokens_equals_transformers(long_checkpoint, artifact) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification

    arrays = batch((8192, 5000))
    model = AutoModelForSequenceClassification.from_pretrained(long_checkpoint, attn_implementation="sdpa").eval()
    with torch.no_grad():
        expected = model(**{name: torch.from_numpy(array) for name, array in arrays.items()}).logits.numpy()
    np.testing.assert_allclose(open_graph(artifact / "onnx/model.onnx").run(["logits"], arrays)[0], expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("file", ["onnx/model_int8.onnx", "onnx/model_bf16.onnx"])
def test_batch_mates_and_padding_move_little_without_kernels(artifact, file: str) -> None:
    """The functions run here, in ONNX Runtime's own order of sums; a window that moved with the padding would be seen."""
    graph = open_graph(artifact / file)
    together = batch((200, 17, 90, 1))
    found = graph.run(["logits"], together)[0]
    for row, length in enumerate((200, 17, 90, 1)):
        single = {name: array[row : row + 1, :length] for name, array in together.items()}
        np.testing.assert_allclose(graph.run(["logits"], single)[0][0], found[row], atol=1e-4)


@pytest.mark.parametrize("precision", ["int8", "bf16"])
def test_with_kernels_batch_mates_and_padding_move_no_bit(artifact, precision: str) -> None:
    clf = Classifier.from_pretrained(artifact, precision=precision, device="cpu")
    if "kernels for products and attention" not in clf.runtime.why:
        pytest.skip("this processor has no kernels for it")
    texts = ["the movie was great " * n for n in (1, 3, 9, 60)] + ["a"]
    together = clf.decision_function(texts)
    for row, text in enumerate(texts):
        np.testing.assert_array_equal(clf.decision_function([text])[0], together[row])
    np.testing.assert_array_equal(clf.decision_function(texts[::-1])[::-1], together)


def test_the_graphs_are_within_their_gates(artifact) -> None:
    variants = {variant.file: variant for variant in read_manifest(artifact).variants}
    assert {"onnx/model.onnx", "onnx/model_fp16.onnx", "onnx/model_fp16_packed.onnx", "onnx/model_bf16.onnx"} <= set(variants)
    assert all(variant.fused_attention == SHAPE["num_hidden_layers"] for variant in variants.values())
    assert "fusedbert:WindowAttention" in variants["onnx/model_int8.onnx"].nodes


def test_heads_that_do_not_fill_panels_are_turned_by_a_separate_node(make_checkpoint, assert_logits, tmp_path: Path) -> None:
    source = make_checkpoint("modernbert", **{**SHAPE, "hidden_size": 96, "num_attention_heads": 2})
    export_checkpoint(source, tmp_path / "artifact", target="cpu", required=False)
    assert_logits(tmp_path / "artifact/onnx/model.onnx", source)
    variants = {variant.precision: variant for variant in read_manifest(tmp_path / "artifact").variants}
    assert variants["bf16"].nodes["RotaryEmbedding"] == 2 * SHAPE["num_hidden_layers"] - 1
    assert "fusedbert:Bf16DenseRope" not in variants["bf16"].nodes


def test_the_last_layer_in_a_window_reads_only_the_first_tokens(make_checkpoint) -> None:
    """[CLS] sees ``WINDOW`` tokens after itself: what is behind them does not reach it through a single layer."""
    source = make_checkpoint("modernbert", **{**SHAPE, "num_hidden_layers": 1, "layer_types": ["sliding_attention"]})
    architecture, layout = describe(read_config(source))
    for lowering in (CpuFp32, CpuBf16):
        graph = open_scratch(architecture, Weights(source, architecture, layout), lowering)
        arrays = batch((40,))
        changed = {**arrays, "input_ids": arrays["input_ids"].copy()}
        changed["input_ids"][0, WINDOW + 1 :] = 9
        np.testing.assert_array_equal(graph.run(["logits"], arrays)[0], graph.run(["logits"], changed)[0])
        changed["input_ids"][0, WINDOW] = 11 if arrays["input_ids"][0, WINDOW] != 11 else 12
        assert np.abs(graph.run(["logits"], arrays)[0] - graph.run(["logits"], changed)[0]).max() > 1e-4


def test_the_reference_turns_pairs_by_their_position() -> None:
    """Su et al. 2021, by complex numbers; a product of turned vectors depends only on the distance of their positions."""
    random = np.random.default_rng(0)
    x = random.normal(size=(9, 8))
    turned = turn(x, 100.0)
    for position in range(9):
        for j in range(4):
            angle = position / 100.0 ** (2 * j / 8)
            pair = complex(x[position, j], x[position, j + 4]) * complex(math.cos(angle), math.sin(angle))
            assert abs(pair - complex(turned[position, j], turned[position, j + 4])) < 1e-6
    same = np.tile(random.normal(size=8), (9, 1))
    products = turn(same, 100.0) @ turn(same, 100.0).T
    assert np.allclose(np.diag(products, 3), products[0, 3], atol=1e-6)


def test_the_reference_sees_only_the_window() -> None:
    random = np.random.default_rng(1)
    q, k, v = (random.normal(size=(1100, 4)) for _ in range(3))  # more than a block of queries
    far = np.abs(np.arange(1100)[:, None] - np.arange(1100)) > 5
    expected = softmax(np.where(far, -np.inf, q @ k.T / 2)) @ v
    np.testing.assert_allclose(attend(q, k, v, 5, Trace(), None), expected, atol=1e-12)


MEMORY = """
import resource, sys
import numpy as np
from fusedbert.engine import Classifier
clf = Classifier.from_pretrained(sys.argv[1], precision=sys.argv[2], device="cpu")
clf.decision_function(["a"])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
clf.decision_function(["the movie was great and " * 2000])
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has another unit elsewhere")
@pytest.mark.parametrize(
    ("precision", "kernels"), [("fp32", ""), ("int8", ""), ("int8", "onnxruntime"), ("bf16", "onnxruntime")]
)
def test_memory_is_linear_in_the_length(artifact, precision: str, kernels: str) -> None:
    """At 8,192 tokens a matrix [heads, tokens, tokens] of 2 heads would be 512 MB in float32, and without heads 256 MB."""
    command, environment = [sys.executable, "-c", MEMORY, artifact, precision], {**os.environ, "FUSEDBERT_KERNELS": kernels}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert float(done.stdout) < 200


def open_graph(path: Path) -> Any:
    return open_session(path)
