"""Manifests and configs with wrong values: one ArtifactError, or the right answer, and never another exception."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from wrong_values import changes

from fusedbert.engine import ArtifactError, Classifier, FusedBertError
from fusedbert.engine.artifact import MANIFEST, Evaluation, Manifest, Variant, read_manifest, write_manifest
from fusedbert.engine.artifact.form import to_manifest

TEXTS = ["good movie", "dull"]


@pytest.fixture
def document(artifact: Path) -> dict[str, Any]:
    """A manifest without its hash, so that a changed value is not a damaged file."""
    content: dict[str, Any] = json.loads((artifact / MANIFEST).read_text())
    del content["sha256"]
    content["thresholds"] = None
    return content


def test_every_wrong_value_of_a_manifest_is_refused_or_harmless(artifact: Path, document: dict[str, Any]) -> None:
    refused = 0
    for at, value, changed in changes(document):
        (artifact / MANIFEST).write_text(json.dumps(changed))
        try:
            read_manifest(artifact)
        except ArtifactError as error:
            refused += 1
            assert MANIFEST in str(error) and "\n" not in str(error) and len(str(error)) < 600, (at, value)
    assert refused > 600


def test_a_manifest_that_is_accepted_gives_the_same_answers(artifact: Path, document: dict[str, Any]) -> None:
    (artifact / MANIFEST).write_text(json.dumps(document))
    with Classifier.from_pretrained(artifact) as clf:
        expected = clf.predict(TEXTS)
    for at, _, changed in changes(document):
        if at[:1] in (("golden",), ("labels",)) or at == ("max_length",):  # other texts and names have other answers
            continue
        (artifact / MANIFEST).write_text(json.dumps(changed))
        try:
            with Classifier.from_pretrained(artifact) as clf:
                assert list(clf.predict(TEXTS)) == list(expected), at
        except FusedBertError as error:
            assert isinstance(error, ArtifactError), at


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"labels": "AB"}, r"labels is 'AB', expected a list"),
        ({"labels": ["a\nb", "c"]}, r"labels\[0\] is 'a\\nb', expected a text of one line"),
        ({"format": True}, "has format True, expected 1"),
        ({"format": 1.0}, "has format 1.0, expected 1"),
        ({"max_length": 10**12}, "max_length is 1000000000000, expected an integer from 3 to 1000000"),
        ({"thresholds": [0.5, 0.5]}, "thresholds belong to multi_label_classification"),
        ({"requires": {"onnx/model.onnx": {"opset": 18, "onnxruntime": "new"}}}, r"requires\['onnx/model.onnx'\].onnxruntime"),
        ({"files": {}}, r"onnx/model\.onnx is not listed"),
    ],
)
def test_the_message_names_the_key(artifact: Path, document: dict[str, Any], values: dict[str, Any], said: str) -> None:
    (artifact / MANIFEST).write_text(json.dumps({**document, **values}))
    with pytest.raises(ArtifactError, match=said):
        Classifier.from_pretrained(artifact)


def test_values_that_contradict_each_other_are_refused(document: dict[str, Any]) -> None:
    variant = document["variants"][0]
    multi = {**document, "problem_type": "multi_label_classification"}
    golden = {**document["golden"][0], "logits": [1.0]}
    for changed, said in (
        ({**document, "golden": [golden]}, r"golden\[0\]\.logits has 1 numbers, expected one for each of 2"),
        ({**document, "variants": [variant, variant]}, "of the same file"),
        ({**document, "variants": [variant, {**variant, "file": "onnx/other.onnx"}]}, "of the same kind"),
        ({**multi, "thresholds": [0.5]}, "thresholds has 1 numbers"),
        ({**multi, "thresholds": [0.5, 1.5]}, r"thresholds\[1\] is 1\.5, expected a number from 0 to 1"),
        ({**document, "variants": [{**variant, "more": 1}]}, r"variants\[0\] has the unknown key 'more'"),
    ):
        with pytest.raises(ValueError, match=said):
            to_manifest(changed)


def test_figures_for_avx2_are_read_and_written_and_may_be_missing(
    tmp_path: Path, manifest: Callable[..., Manifest], variant: Callable[..., Variant]
) -> None:
    int8 = variant("cpu", "int8")
    (tmp_path / "onnx").mkdir()
    (tmp_path / int8.file).touch()
    for clipped in (None, dataclasses.replace(int8.parity, texts=17, spread=2.5)):
        held = manifest(("a", "b"), "single_label_classification", variants=(dataclasses.replace(int8, parity_avx2=clipped),))
        write_manifest(tmp_path, held)
        assert read_manifest(tmp_path).variants[0].parity_avx2 == clipped
        document = json.loads((tmp_path / MANIFEST).read_text())
        assert set(document.get("parity_avx2", {})) == (set() if clipped is None else {int8.file})
        assert "parity_avx2" not in document["variants"][0]  # earlier versions refuse what they do not know there
    broken = json.loads((tmp_path / MANIFEST).read_text())
    for value, said in (("good", "'good', expected an object"), ({}, "has no label_agreement"), ({"more": 1}, "has no")):
        broken["parity_avx2"] = {int8.file: value}
        with pytest.raises(ValueError, match=rf"parity_avx2.*{said}"):
            to_manifest(broken)


def test_figures_on_own_texts_are_read_and_written_and_may_be_missing(
    tmp_path: Path, manifest: Callable[..., Manifest], variant: Callable[..., Variant]
) -> None:
    int8 = variant("cpu", "int8")
    (tmp_path / "onnx").mkdir()
    (tmp_path / int8.file).touch()
    own = Evaluation(texts="pairs.csv", parity=dataclasses.replace(int8.parity, texts=17), accuracy=0.75)
    for evaluation in (None, own, dataclasses.replace(own, accuracy=None)):
        one = dataclasses.replace(int8, evaluation=evaluation)
        write_manifest(tmp_path, manifest(("a", "b"), "single_label_classification", variants=(one,)))
        assert read_manifest(tmp_path).variants[0].evaluation == evaluation
        document = json.loads((tmp_path / MANIFEST).read_text())
        assert "evaluation" not in document["variants"][0]  # earlier versions refuse what they do not know there
        assert set(document.get("evaluation", {})) == (set() if evaluation is None else {int8.file})
    broken = json.loads((tmp_path / MANIFEST).read_text())
    figures = broken["evaluation"][int8.file]
    for value, said in (
        ("good", "'good', expected an object"),
        ({"texts": "t"}, "no parity"),
        ({**figures, "accuracy": 2}, "2"),
    ):
        broken["evaluation"] = {int8.file: value}
        with pytest.raises(ValueError, match=rf"evaluation.*{said}"):
            to_manifest(broken)


def test_thresholds_and_equal_labels_are_accepted(document: dict[str, Any]) -> None:
    multi = {**document, "problem_type": "multi_label_classification", "labels": ["A", "A"], "thresholds": [0, 0.25]}
    manifest = to_manifest(multi)
    assert manifest.thresholds == (0.0, 0.25) and manifest.labels == ("A", "A")


def _names(document: dict[str, Any], name: str) -> dict[str, Any]:
    return {**document, "files": {**document["files"], name: {"sha256": "0" * 64, "bytes": 1}}}


@pytest.mark.parametrize("name", ["a" * 5000, "x/" + "é" * 200, "a\nb", "a\x7f"])
def test_a_file_name_that_no_system_has_is_refused(artifact: Path, document: dict[str, Any], name: str) -> None:
    (artifact / MANIFEST).write_text(json.dumps(_names(document, name)))
    with pytest.raises(ArtifactError, match="not a path inside the folder") as caught:
        Classifier.from_pretrained(artifact)
    assert len(str(caught.value)) < 400


def test_a_link_to_itself_is_refused(artifact: Path) -> None:
    (artifact / "config.json").unlink()
    (artifact / "config.json").symlink_to("config.json")
    with pytest.raises(ArtifactError, match=r"config\.json"):
        Classifier.from_pretrained(artifact)


SETTINGS = {
    "pad_token": {"content": "[PAD]"},
    "model_input_names": ["input_ids", "token_type_ids"],
    "truncation_side": "right",
    "split_special_tokens": False,
    "model_max_length": 64,
}
CONFIG = {
    "pad_token_id": 0,
    "vocab_size": 1000,
    "id2label": {"0": "a", "1": "b"},
    "num_labels": 2,
    "model_type": "bert",
    "problem_type": "single_label_classification",
    "max_position_embeddings": 64,
    "sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"},
}


@pytest.mark.parametrize(("name", "content"), [("tokenizer_config.json", SETTINGS), ("config.json", CONFIG)])
@pytest.mark.parametrize("foreign", [False, True])
def test_every_wrong_value_of_a_config_is_refused_or_harmless(
    artifact: Path, name: str, content: dict[str, Any], foreign: bool
) -> None:
    manifest = dataclasses.replace(read_manifest(artifact), golden=())
    if foreign:
        (artifact / MANIFEST).unlink()
        (artifact / "config.json").write_text(json.dumps(CONFIG))
    for at, value, changed in changes(content):
        (artifact / name).write_text(json.dumps(changed))
        if not foreign:
            write_manifest(artifact, manifest)
        try:
            with Classifier.from_pretrained(artifact) as clf:
                assert len(clf(TEXTS)) == 2, (at, value)
        except FusedBertError as error:
            assert isinstance(error, ArtifactError) and "\n" not in str(error), (at, value, error)


def test_a_manifest_that_is_a_folder_is_refused(artifact: Path) -> None:
    (artifact / MANIFEST).unlink()
    (artifact / MANIFEST).mkdir()
    with pytest.raises(ArtifactError, match=r"fusedbert\.json cannot be read"):
        Classifier.from_pretrained(artifact)


def test_an_artifact_without_its_manifest_warns_that_nothing_is_verified(
    artifact: Path, recwarn: pytest.WarningsRecorder
) -> None:
    (artifact / MANIFEST).unlink()
    Classifier.from_pretrained(artifact).close()
    assert not recwarn.list  # an export of another tool
    (artifact / "README.md").write_text("# x\n\nExported by fusedbert from `x`: a bert classifier")
    with pytest.warns(
        UserWarning, match=r"fusedbert\.json is gone: no file is verified.*export the checkpoint again"
    ) as caught:
        Classifier.from_pretrained(artifact).close()
    assert len(caught) == 1 and caught[0].filename == __file__
