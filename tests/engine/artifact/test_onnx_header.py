"""Graph headers read without onnx: they agree with onnx, and files that are not graphs are refused."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fusedbert.engine import ArtifactError, FusedBertError
from fusedbert.engine.artifact.onnx_header import Tensor, data_files, read_header


def external(name: str, location: str) -> TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[2], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="offset", value="0")
    tensor.external_data.add(key="location", value=location)
    return tensor


def value(name: str, shape: list[str | int | None], kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def save(path: Path, nodes: list[onnx.NodeProto], weights: list[TensorProto] | None = None, **parts: Any) -> Path:
    graph = helper.make_graph(
        nodes,
        "graph",
        [value("input_ids", ["batch", "seq"], TensorProto.INT64)],
        [value("logits", ["batch", 2])],
        weights or [],
    )
    for tensor in parts.pop("sparse", []):
        graph.sparse_initializer.append(tensor)
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("com.microsoft", 1), helper.make_opsetid("", 21)], **parts
    )
    path.write_bytes(model.SerializeToString())
    return path


def node(kind: str = "Identity", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, ["input_ids"], ["logits"], **attributes)


def test_a_header_is_read_as_onnx_reads_it(artifact: Path) -> None:
    path = artifact / "onnx/model.onnx"
    model, found = onnx.load(path).graph, read_header(path)
    kinds = [each.op_type for each in model.node]
    assert dict(found.nodes) == {kind: kinds.count(kind) for kind in kinds}
    assert [tensor.name for tensor in found.inputs] == [each.name for each in model.input]
    assert found.inputs[0].shape == (None, None) and found.outputs == (Tensor(name="logits", shape=(None, 2)),)
    assert (found.opset, found.data_files, found.half) == (18, (), False)


def test_data_files_are_found_wherever_a_graph_may_name_them(tmp_path: Path) -> None:
    inner = helper.make_graph([node("Constant", value=external("in", "branch"))], "inner", [], [], [external("x", "inner")])
    sparse = onnx.SparseTensorProto(values=external("v", "values"), indices=external("i", "indices"), dims=[4])
    function = helper.make_function("own", "F", ["a"], ["b"], [node("Constant", value=external("f", "function"))], [])
    nodes = [
        node("Constant", value=external("c", "constant")),
        node("If", then_branch=inner, else_branch=helper.make_graph([node()], "other", [], [])),
        node("Constant", sparse_value=onnx.SparseTensorProto(values=external("s", "sparse"), dims=[4])),
        node("Own", domain="own", tensors=[external("t", "list")]),
        node(
            "Own",
            domain="own",
            graphs=[helper.make_graph([node("If", then_branch=inner)], "deep", [], [], [external("d", "deep")])],
        ),
    ]
    path = save(
        tmp_path / "x.onnx", nodes, [external("w", "weight"), external("w2", "weight")], sparse=[sparse], functions=[function]
    )
    found = read_header(path)
    assert set(found.data_files) == {
        "weight", "values", "indices", "function", "constant", "branch", "inner", "sparse", "list", "deep",
    }  # fmt: skip
    assert len(found.data_files) == 10
    assert found.nodes["own:Own"] == 2 and found.opset == 21


def test_a_location_with_two_values_counts_twice(tmp_path: Path) -> None:
    """Readers of protobuf take the last one, and which is last is not worth a bet."""
    tensor = external("w", "first")
    entry = bytes([0x6A, 20]) + b"\x0a\x08location" + b"\x12\x04../a" + b"\x12\x02ok"  # external_data {key, value, value}
    raw = tensor.SerializeToString() + entry
    path = tmp_path / "x.onnx"
    body = helper.make_graph([node()], "g", [], []).SerializeToString() + b"\x2a" + bytes([len(raw)]) + raw
    path.write_bytes(b"\x3a" + bytes([len(body)]) + body)
    assert {"first", "../a", "ok"} <= set(read_header(path).data_files)


def test_half_precision_is_recognized(tmp_path: Path) -> None:
    large, small = np.zeros(10, dtype=np.float16), np.zeros(2, dtype=np.float32)
    weights = [numpy_helper.from_array(array, str(number)) for number, array in enumerate((large, small))]
    assert read_header(save(tmp_path / "x.onnx", [node()], weights)).half
    assert not read_header(save(tmp_path / "x.onnx", [node()], weights[1:])).half


@pytest.mark.parametrize(
    "content", [b"", b"garbage" * 50, b"\0" * 100, b"version https://git-lfs.github.com/spec/v1\n", b"\xff" * 64]
)
def test_files_that_are_not_graphs_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.onnx").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"x\.onnx is not an ONNX graph, or damaged"):
        read_header(tmp_path / "x.onnx")


def test_a_missing_graph_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(FusedBertError, match="cannot be read"):
        read_header(tmp_path / "x.onnx")


def test_damage_is_a_fusedbert_error_or_harmless(artifact: Path, tmp_path: Path) -> None:
    whole = (artifact / "onnx/model.onnx").read_bytes()
    rng = random.Random(0)
    for _ in range(300):
        changed = bytearray(whole)
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        (tmp_path / "x.onnx").write_bytes(changed[: rng.choice([len(changed), rng.randrange(1, len(changed))])])
        try:
            read_header(tmp_path / "x.onnx")
        except ArtifactError as error:
            assert "\n" not in str(error)


def test_data_files_must_be_inside_the_artifact(tmp_path: Path) -> None:
    assert data_files(tmp_path, "onnx/model.onnx", ("model.onnx_data", "./a/b")) == ("onnx/model.onnx_data", "onnx/a/b")
    for bad in ("", "/x", "../x", "a/../../x", "a\\b", "C:x", "*/_ORT_MEM_ADDR_/*", "a\0"):
        with pytest.raises(ArtifactError, match="not a path inside its folder"):
            data_files(tmp_path, "onnx/model.onnx", (bad,))


def small(*values: int) -> TensorProto:
    return numpy_helper.from_array(np.array(values, np.int64), "shape")


def constant(**attributes: Any) -> onnx.NodeProto:
    return helper.make_node("Constant", [], ["s"], **attributes)


@pytest.mark.parametrize(
    ("nodes", "weights"),
    [
        ([node()], [TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2**40])]),
        ([node()], [TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2**62] * 200, raw_data=b"1234")]),
        ([node()], [TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[-1, 5])]),
        ([node("Constant", value=TensorProto(data_type=TensorProto.INT8, dims=[2**40]))], []),
        ([helper.make_node("ConstantOfShape", ["shape"], ["logits"])], [small(2**20, 2**20)]),
        (
            [
                helper.make_node("Constant", [], ["s"], value=small(2**40)),
                helper.make_node("Expand", ["input_ids", "s"], ["x"]),
            ],
            [],
        ),
        (
            [
                helper.make_node("Constant", [], ["s"], value_ints=[1, 2**40]),
                helper.make_node("Tile", ["input_ids", "s"], ["x"]),
            ],
            [],
        ),
    ],
)
def test_absurd_sizes_are_refused(tmp_path: Path, nodes: list[onnx.NodeProto], weights: list[TensorProto]) -> None:
    path = save(tmp_path / "x.onnx", nodes, weights)
    with pytest.raises(ArtifactError, match=r"elements"):
        read_header(path)


def test_a_sparse_tensor_of_an_absurd_size_is_refused(tmp_path: Path) -> None:
    sparse = onnx.SparseTensorProto(values=numpy_helper.from_array(np.ones(1, np.float32), "v"), indices=small(0), dims=[2**40])
    with pytest.raises(ArtifactError, match=r"elements"):
        read_header(save(tmp_path / "x.onnx", [node()], sparse=[sparse]))


def test_ordinary_constants_are_accepted(tmp_path: Path) -> None:
    end = helper.make_node("Slice", ["input_ids", "shape", "shape"], ["x"])  # to the end: the largest integer
    expand = helper.make_node("Expand", ["input_ids", "shape"], ["y"])
    assert read_header(save(tmp_path / "x.onnx", [end], [small(2**63 - 1)])).nodes
    assert read_header(save(tmp_path / "x.onnx", [expand], [small(-1, 0, 4096)])).nodes
    assert read_header(save(tmp_path / "x.onnx", [node()], [helper.make_tensor("e", TensorProto.FLOAT, [0, 2**40], [])])).nodes


@pytest.mark.parametrize("piece", [b"\x0a\x00", b"\x0a\x02\x22\x00", b"\x6a\x00"])
def test_a_small_file_of_a_million_parts_is_refused(tmp_path: Path, piece: bytes) -> None:
    graph = piece * 1_000_000
    size, prefix = len(graph), b"\x3a"
    while size:
        prefix, size = prefix + bytes([(size & 127) | (128 if size > 127 else 0)]), size >> 7
    (tmp_path / "x.onnx").write_bytes(prefix + graph)
    with pytest.raises(ArtifactError, match=r"more than 500,000 fields"):
        read_header(tmp_path / "x.onnx")


def test_graphs_of_fusedbert_are_known_by_their_metadata_or_operators(tmp_path: Path) -> None:
    path = save(tmp_path / "x.onnx", [node()])
    assert not read_header(path).by_fusedbert
    model = onnx.load(path)
    helper.set_model_props(model, {"created_with": '{"fusedbert": "1"}'})
    path.write_bytes(model.SerializeToString())
    assert read_header(path).by_fusedbert
    assert read_header(save(path, [node("Dense", domain="fusedbert")])).by_fusedbert
