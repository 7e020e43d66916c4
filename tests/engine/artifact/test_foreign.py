"""Exports of other tools: they run unchanged, described by config.json, and are never reported as verified."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from fusedbert.engine import ArtifactError, Classifier, OptionError
from fusedbert.engine.artifact import read_manifest as read_artifact
from fusedbert.engine.artifact.foreign import KNOWN, derive_manifest, manifest_of
from fusedbert.engine.cli.doctor import Status, examine

CONFIG = {
    "model_type": "bert",
    "id2label": {"0": "NEGATIVE", "1": "POSITIVE"},
    "max_position_embeddings": 32,
    "pad_token_id": 0,
}


@pytest.fixture
def plain(artifact: Path) -> Path:
    """The mock artifact as optimum would have written it."""
    (artifact / "fusedbert.json").unlink()
    configure(artifact)
    return artifact


def configure(folder: Path, **changes: Any) -> None:
    config = {name: value for name, value in {**CONFIG, **changes}.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(config))


def change(path: Path, edit: Callable[[onnx.ModelProto], None], target: Path | None = None) -> None:
    model = onnx.load(path)
    edit(model)
    onnx.save(model, target or path)


def quantize(model: onnx.ModelProto) -> None:
    """Put a product of integers into a graph, for its name: its result is not used."""
    zero = helper.make_node("Constant", [], ["zero"], value=helper.make_tensor("z", TensorProto.UINT8, [1, 1], [0]))
    model.graph.node.extend([zero, helper.make_node("MatMulInteger", ["zero", "zero"], ["unused"])])


def test_another_tools_export_runs_and_says_that_it_is_not_verified(plain: Path, reference: Callable[..., np.ndarray]) -> None:
    with Classifier.from_pretrained(plain, device="cpu") as clf:
        items = ["good movie", ("the plot", "was dull"), ""]
        np.testing.assert_allclose(clf.decision_function(items), reference(items), atol=1e-5)
        assert clf.classes_ == ["NEGATIVE", "POSITIVE"] and clf.max_length == 32
        assert clf.problem_type == "single_label_classification"
        assert "nothing was verified" in clf.runtime.why and "fp32 is the only graph" in clf.runtime.why
        assert (clf.runtime.precision, clf.runtime.fused_attention) == ("fp32", 0)


@pytest.mark.parametrize("name", [name for name, (target, _) in KNOWN.items() if target == "cpu"])
def test_graphs_are_found_under_every_usual_name(plain: Path, name: str) -> None:
    _, precision = KNOWN[name]
    if name != "onnx/model.onnx":
        (plain / "onnx/model.onnx").rename(plain / name)
    with Classifier.from_pretrained(plain, precision=precision) as clf:
        assert clf.runtime.file == plain / name and clf.runtime.precision == precision
        assert clf.predict(["good"])
    with Classifier.from_pretrained(plain) as clf:  # the only one
        assert clf.runtime.precision == precision


def test_auto_takes_the_least_rounded(plain: Path) -> None:
    change(plain / "onnx/model.onnx", quantize, plain / "onnx/model_quantized.onnx")
    with Classifier.from_pretrained(plain) as clf:
        assert clf.runtime.precision == "fp32" and "precision='int8' takes the other" in clf.runtime.why
    with Classifier.from_pretrained(plain, precision="int8") as clf:
        assert clf.runtime.file.name == "model_quantized.onnx" and clf.predict(["good"])


def test_a_quantized_graph_under_the_plain_name_counts_as_int8(plain: Path) -> None:
    change(plain / "onnx/model.onnx", quantize)
    assert Classifier.from_pretrained(plain).runtime.precision == "int8"
    with pytest.raises(
        OptionError, match=r"precision='fp32' on cpu: the folder has int8 for cpu.*onnx/model\.onnx, model\.onnx"
    ):
        Classifier.from_pretrained(plain, precision="fp32")


def test_bf16_is_said_to_come_only_from_fusedbert(plain: Path) -> None:
    with pytest.raises(OptionError, match=r"the folder has fp32 for cpu .*; only an export by fusedbert has a graph in bf16"):
        Classifier.from_pretrained(plain, precision="bf16")


def test_a_foreign_graph_may_lack_segments(make_artifact: Callable[..., Path]) -> None:
    folder = make_artifact(types=False)
    (folder / "fusedbert.json").unlink()
    configure(folder)
    with Classifier.from_pretrained(folder) as clf:
        assert clf.decision_function(["good", ("good", "bad")]).shape == (2, 2)


@pytest.mark.parametrize(
    ("labels", "changes", "expected"),
    [
        (3, {"id2label": {"0": "a", "1": "b", "2": "c"}}, ("a", "b", "c")),
        (3, {"id2label": {"1": "b"}}, ("LABEL_0", "b", "LABEL_2")),
        (3, {"id2label": {"0": "a", "1": "b", "2": "a"}}, ("a", "b", "a")),
        (3, {"id2label": None}, ("LABEL_0", "LABEL_1", "LABEL_2")),
        (1, {"id2label": None, "problem_type": "regression"}, ("LABEL_0",)),
    ],
)
def test_labels_come_from_config_json(
    make_artifact: Callable[..., Path], labels: int, changes: Any, expected: tuple[str, ...]
) -> None:
    folder = make_artifact(tuple(map(str, range(labels))))
    configure(folder, **changes)
    assert derive_manifest(folder).labels == expected
    assert derive_manifest(folder).problem_type == changes.get("problem_type", "single_label_classification")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"id2label": {"0": "a", "1": "b", "2": "c"}}, "names 3 labels, the graph gives 2"),
        ({"id2label": {"x": "a"}}, "expected numbers and names"),
        ({"id2label": ["a", "b"]}, "expected numbers and names"),
        ({"id2label": {"-1": "a", "1": "b"}}, "the id -1, expected ids from 0 up"),
        ({"id2label": {"0": "a\nb", "1": "c"}}, "for 0, expected a name of one line"),
        ({"id2label": {"0": "\ud800", "1": "c"}}, "half a surrogate pair"),
        ({"problem_type": "other"}, "problem_type 'other', expected one of"),
    ],
)
def test_a_config_that_does_not_fit_the_graph_is_refused(plain: Path, changes: Any, said: str) -> None:
    configure(plain, **changes)
    with pytest.raises(ArtifactError, match=said) as caught:
        Classifier.from_pretrained(plain)
    assert "config.json" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "tokenizer", "expected"),
    [
        ({}, {}, 32),
        ({}, {"model_max_length": 20}, 20),
        ({}, {"model_max_length": 1e30}, 32),
        ({}, {"model_max_length": 100}, 32),
        ({"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1}, {}, 512),
        ({"model_type": "xlm-roberta", "max_position_embeddings": 514, "pad_token_id": None}, {}, 512),
        ({"max_position_embeddings": None}, {"model_max_length": 128}, 128),
        ({"max_position_embeddings": None}, {}, 512),
    ],
)
def test_the_maximum_length_comes_from_the_tokenizer_and_the_config(
    plain: Path, changes: Any, tokenizer: Any, expected: int
) -> None:
    configure(plain, **changes)
    (plain / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    assert derive_manifest(plain).max_length == expected


def _rename_output(model: onnx.ModelProto) -> None:
    model.graph.output[0].name = model.graph.node[-1].output[0] = "last_hidden_state"


def _third_axis(model: onnx.ModelProto) -> None:
    model.graph.output[0].type.tensor_type.shape.dim.add().dim_param = "more"


def _fixed(model: onnx.ModelProto) -> None:
    for tensor in model.graph.input:
        tensor.type.tensor_type.shape.dim[1].dim_value = 128


def _pixels(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("position_ids", TensorProto.INT64, ["batch", "seq"]))


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (_rename_output, "outputs last_hidden_state.*sequence classifier"),
        (_third_axis, r"gives logits \[\?, 2, \?\], expected \[texts, labels\].*sequence classifier"),
        (_fixed, r"fixed size \(128\).*dynamic axes"),
        (_pixels, "inputs .*position_ids.*sequence classifier"),
    ],
)
def test_graphs_of_other_kinds_are_refused(plain: Path, edit: Callable[[onnx.ModelProto], None], said: str) -> None:
    change(plain / "onnx/model.onnx", edit)
    with pytest.raises(ArtifactError, match=said):
        Classifier.from_pretrained(plain)


def test_graphs_of_two_models_are_refused(plain: Path, make_artifact: Callable[..., Path]) -> None:
    other = make_artifact(("a", "b", "c"), name="other")
    shutil.copy(other / "onnx/model.onnx", plain / "onnx/model_quantized.onnx")
    with pytest.raises(ArtifactError, match=r"graphs with \[2, 3\] labels"):
        Classifier.from_pretrained(plain)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("config.json", "no config.json, which names the labels"),
        ("tokenizer.json", r"no tokenizer\.json: save it.*save_pretrained"),
    ],
)
def test_a_missing_config_or_tokenizer_is_refused(plain: Path, name: str, said: str) -> None:
    (plain / name).unlink()
    with pytest.raises(ArtifactError, match=said):
        Classifier.from_pretrained(plain)


@pytest.mark.parametrize("content", ["{", "[]", "[" * 5000 + "]" * 5000])
def test_a_damaged_config_is_refused(plain: Path, content: str) -> None:
    (plain / "config.json").write_text(content)
    with pytest.raises(ArtifactError, match=r"config\.json (cannot be read as JSON|is not a JSON object).*copy it again"):
        Classifier.from_pretrained(plain)


def test_a_damaged_graph_does_not_hide_the_others(plain: Path) -> None:
    (plain / "onnx/model_quantized.onnx").write_text("version https://git-lfs.github.com/spec/v1\n")
    assert Classifier.from_pretrained(plain).runtime.precision == "fp32"
    with pytest.raises(ArtifactError, match=r"model_quantized\.onnx is not an ONNX graph"):
        Classifier.from_pretrained(plain, precision="int8")


def test_weights_may_be_in_a_file_next_to_the_graph(plain: Path, reference: Callable[..., np.ndarray]) -> None:
    path = plain / "onnx/model.onnx"
    onnx.save_model(onnx.load(path), path, save_as_external_data=True, location="model.onnx_data", size_threshold=200)
    with Classifier.from_pretrained(plain) as clf:
        np.testing.assert_allclose(clf.decision_function(["good"]), reference(["good"]), atol=1e-5)
    (plain / "onnx/model.onnx_data").rename(plain.parent / "outside")
    (plain / "onnx/model.onnx_data").symlink_to(plain.parent / "outside")
    with pytest.raises(ArtifactError, match="link out of its folder"):
        Classifier.from_pretrained(plain)
    (plain / "onnx/model.onnx_data").unlink()
    with pytest.raises(ArtifactError, match=r"model\.onnx_data is missing"):
        Classifier.from_pretrained(plain)


@pytest.mark.parametrize("name", ["onnx/model.onnx", "config.json", "tokenizer.json", "tokenizer_config.json"])
def test_a_link_out_of_the_folder_is_refused(plain: Path, name: str) -> None:
    (plain / name).rename(plain.parent / "outside")
    (plain / name).symlink_to(plain.parent / "outside")
    with pytest.raises(ArtifactError, match="link out of its folder"):
        Classifier.from_pretrained(plain)


def test_a_folder_with_a_manifest_is_read_as_an_artifact(artifact: Path, tmp_path: Path) -> None:
    assert manifest_of(artifact) == read_artifact(artifact) and manifest_of(artifact).verifiable
    with pytest.raises(ArtifactError, match="not an artifact"):
        manifest_of(tmp_path / "missing")


def test_the_doctor_says_which_checks_it_skipped(plain: Path) -> None:
    findings = {finding.name: finding for finding in examine(plain)}
    assert findings["model_files"].status is findings["model_golden"].status is Status.NOTE
    assert "model_works" not in findings
