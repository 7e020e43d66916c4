"""The graphs for CUDA, compared with the reference as far as a CPU can run them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from fusedbert.bench.run.cuda_candidates import CANDIDATES
from fusedbert.engine.artifact import PACKED, PADDED, read_manifest
from fusedbert.engine.run.batches import COARSE, FINE, pack, packed_bucket
from fusedbert.engine.text.tokenizer import Row
from fusedbert.export import export_checkpoint
from fusedbert.export.checkpoint.architecture import describe, read_config
from fusedbert.export.checkpoint.weights import Weights
from fusedbert.export.graph.bert import build
from fusedbert.export.parity import gates as check
from fusedbert.export.parity.reference import forward

LENGTHS = ([3], [5, 2, 17], [39, 2, 2, 2, 2, 2, 2, 2, 38], [11] * 7)


def random_rows(lengths: list[int], rng: np.random.Generator, *, lowest: int) -> list[Row]:
    return [
        Row(ids=[2, *rng.integers(lowest, 15, size=n - 1).tolist()], types=rng.integers(0, 2, size=n).tolist(), truncated=False)
        for n in lengths
    ]


@pytest.mark.parametrize("fineness", [COARSE, FINE])
@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_packed_texts_with_fillers_equal_the_reference(
    family: str, fineness: int, tmp_path: Path, checkpoint_at: Callable[..., Path], stand_in_at: Callable[..., Path]
) -> None:
    source = checkpoint_at(tmp_path / "source", family=family)
    (tmp_path / "artifact/onnx").mkdir(parents=True)
    session = onnxruntime.InferenceSession(str(stand_in_at(source, tmp_path / "artifact")), providers=["CPUExecutionProvider"])
    a, layout = describe(read_config(source))
    rng = np.random.default_rng(1)
    for lengths in LENGTHS:
        # RoBERTa's positions count the tokens that are not padding, so a padding token inside a text matters there.
        rows = random_rows(list(lengths), rng, lowest=0 if family == "roberta" else 5)
        arrays = pack(rows, packed_bucket(list(lengths), fineness=fineness), 0).arrays
        declared = {item.name for item in session.get_inputs()}
        found = np.asarray(session.run(["logits"], {name: array for name, array in arrays.items() if name in declared})[0])
        expected = forward(a, Weights(source, a, layout), rows)
        np.testing.assert_allclose(found[: len(rows)], expected, atol=0.03)
        assert np.isfinite(found).all()


def test_the_stand_in_is_the_packed_graph_but_for_attention(exported: Path) -> None:
    graph, other = (onnx.load(exported / f"onnx/model_fp16_packed.{end}").graph for end in ("onnx", "stand-in"))
    assert [(i.name, i.type) for i in graph.input] == [(i.name, i.type) for i in other.input]
    theirs = {tensor.name: tensor.raw_data for tensor in other.initializer}
    for tensor in graph.initializer:  # the same rounded weights, under the same names
        assert theirs[tensor.name] == tensor.raw_data
    outside = [Counter(node.op_type for node in g.node if "/attention/" not in node.name) for g in (graph, other)]
    mask = Counter(node.op_type for node in other.node if node.name.startswith("mask/"))
    assert outside[1] - mask == outside[0]


@pytest.mark.parametrize("name", sorted(CANDIDATES))
def test_a_cpu_lacks_only_the_kernel_of_a_packed_graph(name: str, tmp_path: Path, checkpoint_at: Callable[..., Path]) -> None:
    """Inputs, attributes, types and shapes of a packed graph pass ONNX Runtime's checks; only CUDA is missing."""
    source = checkpoint_at(tmp_path / "source")
    a, layout = describe(read_config(source))
    path = tmp_path / "packed.onnx"
    build(a, Weights(source, a, layout), CANDIDATES[name].lowering).write(path, name, opset=17, metadata={})
    kind = name.split(",")[0]
    with pytest.raises(Exception, match=rf"kernel for com\.microsoft\.{kind}\(1\)|implementation for {kind}\(1\)"):
        onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def test_the_manifest_describes_both_graphs_for_cuda(exported: Path) -> None:
    manifest = read_manifest(exported)
    padded = manifest.variant(target="cuda", precision="fp16")
    packed = manifest.variant(target="cuda", precision="fp16", layout=PACKED)
    assert padded is not None and packed is not None
    assert (padded.layout, padded.file) == (PADDED, "onnx/model_fp16.onnx")
    assert (packed.layout, packed.file) == (PACKED, "onnx/model_fp16_packed.onnx")
    assert packed.fused_attention == padded.fused_attention == 2
    assert packed.nodes["com.microsoft:PackedMultiHeadAttention"] == 2
    assert "PackedMultiHeadAttention in standard operators" in packed.parity.measured_on
    for variant in (padded, packed):
        assert "of 65504" in variant.parity.measured_on and "on the CPU" in variant.parity.measured_on
        assert "Shape" not in variant.nodes  # or a node would have to leave the GPU


def test_a_model_without_a_packed_kernel_gets_no_packed_graph(tmp_path: Path, checkpoint_at: Callable[..., Path]) -> None:
    messages: list[str] = []
    source = checkpoint_at(tmp_path / "source", hidden=21, heads=3)
    manifest = export_checkpoint(source, tmp_path / "artifact", required=True, progress=messages.append)
    assert {(v.target, v.layout) for v in manifest.variants if v.precision in ("fp32", "fp16")} == {
        ("cpu", PADDED),
        ("cuda", PADDED),
    }
    assert [line for line in messages if "model_fp16_packed.onnx is left out: heads of width 7" in line]


def test_activations_beyond_float16_are_refused() -> None:
    check.check_activations(65503.0, "file")
    for largest in (65504.0, float("nan")):
        with pytest.raises(check.ExportError, match="--for cpu"):
            check.check_activations(largest, "file")


def test_one_query_attends_to_its_own_text(exported: Path) -> None:
    """The last layer's spans: key lengths, query starts and end, key starts and end, for every text of a padded batch."""
    graph = onnx.load(exported / "onnx/model_fp16.onnx")
    node = next(node for node in graph.graph.node if node.op_type == "MultiHeadAttention")
    graph.graph.output.append(onnx.helper.make_tensor_value_info(node.input[4], onnx.TensorProto.INT32, None))
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    mask = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [1, 0, 0, 0, 0]])
    feeds = dict.fromkeys(("input_ids", "token_type_ids", "attention_mask"), mask)
    assert np.asarray(session.run([node.input[4]], feeds)[0]).tolist() == [3, 5, 1, 0, 1, 2, 3, 0, 5, 10, 15]
