"""The fp32 graph in an older operator set: the same logits, with nothing that the set or its file format lacks."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from fusedbert.engine import Classifier
from fusedbert.engine.artifact import read_manifest
from fusedbert.engine.errors import OptionError
from fusedbert.engine.text.tokenizer import pad
from fusedbert.export import export_checkpoint
from fusedbert.export.checkpoint import FusionWarning
from fusedbert.export.checkpoint.architecture import describe, read_config
from fusedbert.export.parity.texts import check_set
from fusedbert.export.tokenizer import Tokenization
from fusedbert.export.variants import FP32_OPSETS

FAMILIES = ("bert", "roberta", "xlm-roberta", "camembert", "distilbert", "electra")
CASES = [
    *((opset, family, {}) for opset in (17, 20, 23) for family in FAMILIES),
    *((opset, "bert", {}) for opset in (18, 19, 21, 22)),
    *((opset, "bert", {"hidden_act": kind}) for opset in (17, 20) for kind in ("gelu_new", "relu", "silu")),
    (17, "bert", {"num_hidden_layers": 1}),  # the first layer is the last
    (17, "bert", {"num_hidden_layers": 2, "num_attention_heads": 3, "hidden_size": 21, "intermediate_size": 17}),
    (17, "bert", {"num_hidden_layers": 6, "num_attention_heads": 16, "hidden_size": 32}),  # as many heads as texts of a batch
    (20, "bert", {"type_vocab_size": 1, "num_labels": 5}),
]
OLDER = [opset for opset in FP32_OPSETS if opset < 23]


def export(source: Path, output: Path, opset: int | None, target: str = "fp32") -> Path:
    """Export quietly; return the fp32 graph."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FusionWarning)
        export_checkpoint(source, output, target=target, opset=opset)
    return output / "onnx/model.onnx"


def name(value: object) -> str:
    return value if isinstance(value, str) else "-".join(map(str, value)) if isinstance(value, dict) else str(value)


@pytest.mark.parametrize(("opset", "family", "options"), CASES, ids=name)
def test_logits_equal_transformers(make_checkpoint, judge, tmp_path: Path, opset: int, family: str, options: dict) -> None:
    source = make_checkpoint(family, **options)
    graph = export(source, tmp_path / "artifact", opset)
    architecture, _ = describe(read_config(source))
    checks = check_set(architecture, Tokenization(source, architecture))
    session = onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    names = {item.name for item in session.get_inputs()}
    for batch in checks.batches:
        right = pad([checks.texts[row] for row in batch], architecture.padding_id)
        left = {key: array[:, ::-1].copy() for key, array in right.items()}  # a mask may have its zeros anywhere
        for arrays in (right, left):
            (ours,) = session.run(["logits"], {key: array for key, array in arrays.items() if key in names})
            np.testing.assert_allclose(np.asarray(ours), judge(source, arrays), atol=1e-4, rtol=0)


@pytest.fixture(scope="module")
def source(make_checkpoint) -> Path:
    return make_checkpoint("bert")


@pytest.fixture(scope="module")
def graphs(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int | None, Path]:
    """The graphs by operator set, with None for the default."""
    folder = tmp_path_factory.mktemp("opsets")
    return {opset: export(source, folder / str(opset), opset) for opset in (None, *FP32_OPSETS)}


@pytest.mark.parametrize("opset", FP32_OPSETS)
def test_the_graph_is_standard_onnx_of_the_operator_set(graphs: dict, opset: int) -> None:
    model = onnx.load(graphs[opset])
    assert [(item.domain, item.version) for item in model.opset_import] == [("", opset)]
    onnx.checker.check_model(model, full_check=True)
    for node in model.graph.node:
        assert node.domain == ""
        assert onnx.defs.has(node.op_type, max_inclusive_version=opset), node.op_type
    # The least file format with this operator set, from onnx's own table of its releases; 23 is written in an older one.
    formats = [row[1] for row in onnx.helper.VERSION_TABLE if row[2] == opset]
    assert model.ir_version == min(10, *formats)


def test_operators_missing_from_an_operator_set_are_written_out(graphs: dict) -> None:
    nodes = {opset: Counter(node.op_type for node in onnx.load(graphs[opset]).graph.node) for opset in FP32_OPSETS}
    for opset in OLDER:
        assert (nodes[opset]["Attention"], nodes[opset]["Softmax"], nodes[opset]["MatMul"]) == (0, 3, 6)
        assert (nodes[opset]["Gelu"], nodes[opset]["Erf"]) == ((3, 0) if opset >= 20 else (0, 3))
    assert (nodes[23]["Attention"], nodes[23]["Softmax"], nodes[23]["Gelu"]) == (3, 0, 3)


def test_the_last_layer_computes_only_cls(graphs: dict) -> None:
    """Its query has one row for each text: a product over all tokens would give [tokens, hidden]."""
    model = onnx.load(graphs[17])
    shown = [node.output[0] for node in model.graph.node if node.name.startswith("layer.2/") and node.op_type == "Softmax"]
    model.graph.output.extend(onnx.helper.make_tensor_value_info(value, 1, None) for value in shown)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    ids = np.ones((2, 9), dtype=np.int64)
    weights = np.asarray(session.run(None, {"input_ids": ids, "attention_mask": ids, "token_type_ids": ids * 0})[1])
    assert weights.shape == (2, 4, 1, 9)
    np.testing.assert_allclose(weights.sum(axis=-1), 1.0, atol=1e-6)


@pytest.mark.parametrize(("kind", "fused"), [("gelu", "Gelu"), ("gelu_new", "FastGelu")])
def test_onnx_runtime_fuses_the_written_out_gelu(make_checkpoint, tmp_path, kind: str, fused: str) -> None:
    graph = export(make_checkpoint("bert", hidden_act=kind), tmp_path / "artifact", 17)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    nodes = Counter(f"{node.domain}:{node.op_type}" for node in onnx.load(tmp_path / "optimized.onnx").graph.node)
    assert nodes[f"com.microsoft:{fused}"] == 3
    assert not any(name in nodes for name in (":Erf", ":Pow"))


def test_the_default_opset_is_23_to_the_byte(graphs: dict) -> None:
    assert graphs[None].read_bytes() == graphs[23].read_bytes()


def test_the_other_graphs_stay_as_they_are(source: Path, tmp_path: Path) -> None:
    for opset in (None, 17):
        export(source, tmp_path / str(opset), opset, "all")
    files = {path.name: hashlib.sha256(path.read_bytes()).digest() for path in (tmp_path / "None/onnx").iterdir()}
    changed = {name for name in files if hashlib.sha256((tmp_path / "17/onnx" / name).read_bytes()).digest() != files[name]}
    assert changed == {"model.onnx"} < set(files)


def test_the_manifest_and_the_card_say_what_each_graph_requires(source: Path, tmp_path: Path) -> None:
    with pytest.warns(FusionWarning, match=r"^onnx/model\.onnx: opset 20 has no Attention operator, so attention is not fused"):
        manifest = export_checkpoint(source, tmp_path / "artifact", opset=20, attentions=True)
    assert manifest.requires == {
        "onnx/model.onnx": {"opset": 20, "onnxruntime": "1.17"},
        "onnx/model_int8.onnx": {"opset": 24, "onnxruntime": "1.25"},
        "onnx/model_bf16.onnx": {"opset": 24, "onnxruntime": "1.25"},
        "onnx/model_fp16.onnx": {"opset": 17, "onnxruntime": "1.31"},
        "onnx/model_attentions.onnx": {"opset": 23, "onnxruntime": "1.24"},
    }
    assert read_manifest(tmp_path / "artifact").requires == manifest.requires
    for variant in manifest.variants:
        assert variant.opset == manifest.requires[variant.file]["opset"]
    assert manifest.variants[0].fused_attention == 0
    card = (tmp_path / "artifact/README.md").read_text(encoding="utf-8")
    assert "is standard ONNX (opset 20) and loads with optimum too, from ONNX Runtime 1.17 on" in card
    head, _, *rows = (line.split(" | ") for line in card.splitlines() if line.startswith("|"))
    shown = {row[0].strip("| `"): row[head.index("ONNX Runtime from")] for row in rows}
    assert shown == {file: entry["onnxruntime"] for file, entry in manifest.requires.items()}


def test_at_the_default_opset_there_is_no_warning(source: Path, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", FusionWarning)
        manifest = export_checkpoint(source, tmp_path / "artifact", target="fp32", opset=23)
    assert manifest.requires == {"onnx/model.onnx": {"opset": 23, "onnxruntime": "1.23"}}
    assert manifest.variants[0].fused_attention == 3


@pytest.mark.parametrize("opset", [17, 20])
def test_the_engine_loads_graphs_of_other_opsets(graphs: dict, opset: int) -> None:
    folder = graphs[opset].parent.parent
    golden = read_manifest(folder).golden
    with Classifier.from_pretrained(folder, device="cpu") as classifier:
        found = classifier.decision_function([each.text for each in golden])
        assert (classifier.runtime.precision, classifier.runtime.fused_attention) == ("fp32", 0)
    np.testing.assert_allclose(found, [each.logits for each in golden], atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"opset": 16}, "opset is 16, expected a number from 17 to 23"),
        ({"opset": 24}, "opset is 24, expected a number from 17 to 23"),
        ({"opset": "17"}, "opset is '17', expected a number from 17 to 23"),
        ({"opset": 17, "target": "cuda"}, "opset is for the fp32 graph, and --for cuda makes none: .* use --for cpu"),
        ({"opset": 17, "via": "optimum"}, "opset is an option of fusedbert's own graphs, found via='optimum'"),
    ],
    ids=str,
)
def test_wrong_options_of_opset_are_refused(source: Path, tmp_path: Path, options: dict, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        export_checkpoint(source, tmp_path / "artifact", **options)
    assert list(tmp_path.iterdir()) == []


def test_an_older_operator_set_can_be_chosen_on_the_command_line(fusedbert, source: Path, tmp_path: Path) -> None:
    done = fusedbert("export", source, tmp_path / "artifact", "--for", "fp32", "--opset", "17", "--json", check=True)
    assert json.loads(done.stdout)["requires"] == {"onnx/model.onnx": {"opset": 17, "onnxruntime": "1.12"}}
    (warning,) = [line for line in done.stderr.splitlines() if "opset" in line]
    assert warning.startswith("warning: onnx/model.onnx: opset 17 has no Attention operator")
    wrong = fusedbert("export", source, tmp_path / "wrong", "--opset", "9")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.strip().endswith("opset is 9, expected a number from 17 to 23")
