"""The builder's files, read back by onnx and ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from fusedbert.export.graph import builder as graphs
from fusedbert.export.graph.builder import Graph


def example() -> tuple[Graph, np.ndarray]:
    table = np.random.default_rng(0).normal(size=(40, 30)).astype(np.float32)
    g = Graph()
    x = g.input("x", "float32", ["batch", 40])
    with g.scope("a", "b"):
        y = g.op("MatMul", x, g.weight("table", table))
        y = g.op("Add", y, g.constant(1.5, "float32"))
        y = g.op("Relu", g.op("Relu", y))
    g.output("y", y, "float32", ["batch", 30])
    return g, table


@pytest.mark.parametrize("limit", [graphs.PROTOBUF_LIMIT, 1000], ids=["inside", "external"])
def test_onnx_reads_and_runs_a_written_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    monkeypatch.setattr(graphs, "PROTOBUF_LIMIT", limit)
    g, table = example()
    path = tmp_path / "model.onnx"
    g.write(path, "example", opset=17, metadata={"b": "2", "a": "1"})
    assert (tmp_path / "model.onnx_data").exists() == (limit == 1000)
    onnx.checker.check_model(str(path), full_check=True)
    model = onnx.load(path)
    assert [node.name for node in model.graph.node] == ["a/b/MatMul", "a/b/Add", "a/b/Relu", "a/b/Relu.2", "output/y"]
    assert [(entry.key, entry.value) for entry in model.metadata_props] == [("a", "1"), ("b", "2")]
    read = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    np.testing.assert_array_equal(read["a/b/table"], table)
    x = np.random.default_rng(1).normal(size=(3, 40)).astype(np.float32)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(np.asarray(session.run(None, {"x": x})[0]), np.maximum(x @ table + 1.5, 0), atol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "int8", "uint8", "int32", "int64", "bool"])
def test_weights_of_every_type_keep_their_values(tmp_path: Path, dtype: str) -> None:
    values = np.array([[0, 1, 2], [3, 4, 100]]).astype(dtype)
    g = Graph()
    g.output("y", g.op("Identity", g.weight("w", values)), dtype, [2, 3])
    g.write(tmp_path / "model.onnx", "types", opset=17, metadata={})
    (tensor,) = onnx.load(tmp_path / "model.onnx").graph.initializer
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(tensor), values)


@pytest.mark.parametrize(("value", "encoded"), [(0, b"\x00"), (127, b"\x7f"), (128, b"\x80\x01"), (300, b"\xac\x02")])
def test_varints_are_those_of_the_protobuf_documentation(value: int, encoded: bytes) -> None:
    assert graphs.varint(value) == encoded
