"""Candidates for packed attention: their stand-ins, on a CPU, compared with the float64 reference; biases are not zero."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from checkpoint_edits import widen

from fusedbert.bench.run.cuda_candidates import (
    CANDIDATES,
    PRESENT,
    PRODUCTS,
    compare_candidates,
    open_candidates,
    time_candidates,
)
from fusedbert.engine.run.batches import FINE, Batch, pack, packed_bucket
from fusedbert.engine.text.tokenizer import Row
from fusedbert.export.checkpoint.architecture import describe, read_config
from fusedbert.export.checkpoint.weights import Dense, Layer, Weights
from fusedbert.export.graph import bert
from fusedbert.export.parity.reference import forward

LENGTHS = [5, 30, 17, 39, 2, 31]


def texts(words: int) -> list[Row]:
    random = np.random.default_rng(1)
    return [Row(ids=[2, *random.integers(5, words, n - 1).tolist()], types=[0] * n, truncated=False) for n in LENGTHS]


def packed(rows: list[Row]) -> Batch:
    return pack(rows, packed_bucket(LENGTHS, fineness=FINE), 0)


def exact(source: Path, rows: list[Row]) -> np.ndarray:
    a, layout = describe(read_config(source))
    return forward(a, Weights(source, a, layout), rows)


@pytest.fixture
def biased(tmp_path: Path, checkpoint_at: Callable[..., Path]) -> Path:
    """A random checkpoint with large biases of queries, keys and values."""
    source = checkpoint_at(tmp_path / "source")
    widen(source, "query.bias", "key.bias", "value.bias", factor=4)
    return source


def test_every_candidate_gives_the_logits_of_trained_weights(checkpoint: Path, tmp_path: Path) -> None:
    rows = texts(words=4000)
    opened = open_candidates(checkpoint, tmp_path, on_cpu=True)
    assert list(opened) == list(CANDIDATES) and list(tmp_path.iterdir()) == []
    expected = exact(checkpoint, rows)
    assert np.ptp(expected, axis=0).min() > 1
    for graphs in opened.values():
        np.testing.assert_allclose(graphs.run(packed(rows)), expected, atol=0.01)
    timed = time_candidates(opened, {"mixed": packed(rows)}, seconds=0)
    assert list(timed) == list(CANDIDATES) and timed[PRESENT]["max_abs_difference"] == 0
    assert all(each["mixed_ms"] > 0 and each["max_abs_difference"] < 0.01 for each in timed.values()), timed


def test_every_candidate_gives_the_logits_of_large_biases(biased: Path, tmp_path: Path) -> None:
    rows = texts(words=15)
    expected = exact(biased, rows)
    for graphs in open_candidates(biased, tmp_path, on_cpu=True).values():
        np.testing.assert_allclose(graphs.run(packed(rows)), expected, atol=0.01)


@pytest.mark.parametrize(("part", "counts"), [("query", True), ("key", False), ("value", True)])
def test_a_lost_bias_would_show(part: str, counts: bool, biased: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is dropped and not folded, but for the keys', which softmax does not see."""
    rows, fold = texts(words=15), bert.fold_biases

    def lose(layer: Layer, *, keys_biased: bool) -> Layer:
        dense: Dense = getattr(layer, part)
        lost = dataclasses.replace(layer, **{part: dataclasses.replace(dense, bias=np.zeros_like(dense.bias))})
        return fold(lost, keys_biased=keys_biased)

    monkeypatch.setattr(bert, "fold_biases", lose)
    for graphs in open_candidates(biased, tmp_path, on_cpu=True).values():
        assert (np.abs(graphs.run(packed(rows)) - exact(biased, rows)).max() > 0.1) == counts


def test_the_differences_are_those_from_the_present_graph(checkpoint: Path, biased: Path, tmp_path: Path) -> None:
    """If all were compared with another one, or each with itself, a wrong candidate would not be seen."""
    opened = open_candidates(biased, tmp_path, on_cpu=True)
    wrong = open_candidates(checkpoint, tmp_path, on_cpu=True)[PRODUCTS]
    found = compare_candidates({**opened, PRODUCTS: wrong}, [packed(texts(words=15))])
    assert found[PRODUCTS] > 0.1 > 0.01 > max(difference for name, difference in found.items() if name != PRODUCTS)


def test_three_products_leave_attention_no_bias(biased: Path, tmp_path: Path) -> None:
    """So that ONNX Runtime has nothing to add and to transpose; the queries' stands in their product."""
    a, layout = describe(read_config(biased))
    lowering = CANDIDATES[PRODUCTS].lowering
    bert.build(a, Weights(biased, a, layout), lowering).write(tmp_path / "g.onnx", "g", opset=lowering.opset, metadata={})
    nodes = onnx.load(tmp_path / "g.onnx").graph.node
    makers = {node.output[0]: node.op_type for node in nodes}
    attention = [node.input[:4] for node in nodes if node.op_type == "PackedMultiHeadAttention"]
    assert [[makers.get(name, name) for name in inputs] for inputs in attention] == [
        ["Gemm", "MatMul", "MatMul", ""]
    ] * a.layers
    assert [*makers.values()].count("Gemm") == a.layers
