"""Labels and problem types, from the config or without it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fusedbert.engine import Classifier
from fusedbert.engine.artifact import read_manifest
from fusedbert.export import export_checkpoint
from fusedbert.export.checkpoint.architecture import read_labels, read_problem_type


@pytest.mark.parametrize(
    ("names", "count", "labels"),
    [
        ({"0": "NO", "1": "YES"}, 2, ("NO", "YES")),
        ({"0": "a", "2": "c"}, 3, ("a", "LABEL_1", "c")),
        ({"1": "b", "0": "a"}, 2, ("a", "b")),
        ({}, 3, ("LABEL_0", "LABEL_1", "LABEL_2")),
        (None, 1, ("LABEL_0",)),
        ({0: 5}, 1, ("5",)),
    ],
)
def test_labels_are_named_by_id_and_gaps_by_number(names: dict | None, count: int, labels: tuple[str, ...]) -> None:
    assert read_labels({"id2label": names}, count) == labels


def test_a_classifier_without_a_problem_type_gives_one_label_a_text() -> None:
    assert read_problem_type({}) == read_problem_type({"problem_type": None}) == "single_label_classification"


@pytest.mark.parametrize(
    ("config", "problem_type", "labels"),
    [
        ({"num_labels": 1, "problem_type": "regression"}, "regression", 1),
        ({"num_labels": 1}, "single_label_classification", 1),
        ({"num_labels": 4, "problem_type": "multi_label_classification"}, "multi_label_classification", 4),
    ],
)
def test_every_kind_of_head_reaches_the_engine(
    make_checkpoint, tmp_path: Path, config: dict, problem_type: str, labels: int
) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

    source = make_checkpoint("bert", num_hidden_layers=2, **config)
    export_checkpoint(source, tmp_path / "artifact", target="fp32")
    manifest = read_manifest(tmp_path / "artifact")
    assert (manifest.problem_type, len(manifest.labels)) == (problem_type, labels)
    texts = ["a good movie", "boring and bad", "really loved it !"]
    model = AutoModelForSequenceClassification.from_pretrained(source, dtype=torch.float32)
    judge = pipeline("text-classification", model=model, tokenizer=AutoTokenizer.from_pretrained(source), device="cpu")
    with Classifier.from_pretrained(tmp_path / "artifact") as clf:
        judged: list[Any] = list(judge(texts, top_k=None))
        for ours, theirs in zip(clf(texts, top_k=None), judged, strict=True):
            assert isinstance(ours, list)
            assert [entry["label"] for entry in ours] == [entry["label"] for entry in theirs]
            for mine, yours in zip(ours, theirs, strict=True):
                assert mine["score"] == pytest.approx(yours["score"], abs=1e-5)


def test_a_gap_in_id2label_reaches_the_manifest(make_checkpoint, tmp_path: Path) -> None:
    source = make_checkpoint("bert", num_hidden_layers=2, num_labels=3)
    path = source / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "id2label": {"0": "low", "2": "high"}}))
    export_checkpoint(source, tmp_path / "artifact", target="fp32")
    assert read_manifest(tmp_path / "artifact").labels == ("low", "LABEL_1", "high")


def test_two_labels_of_one_name_reach_the_engine(make_checkpoint, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

    names = {"0": "other", "1": "spam", "2": "other"}
    source = make_checkpoint("bert", num_hidden_layers=2, num_labels=3, seed=5)
    path = source / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "id2label": names}))
    export_checkpoint(source, tmp_path / "artifact", target="fp32", attentions=True)
    texts = ["a good movie", "boring and bad", "really loved it !"]
    model = AutoModelForSequenceClassification.from_pretrained(source, dtype=torch.float32)
    judge = pipeline("text-classification", model=model, tokenizer=AutoTokenizer.from_pretrained(source), device="cpu")
    with Classifier.from_pretrained(tmp_path / "artifact") as clf:
        assert clf.classes_ == ["other", "spam", "other"]
        judged: list[Any] = list(judge(texts, top_k=None))
        for ours, theirs in zip(clf(texts, top_k=None), judged, strict=True):
            assert isinstance(ours, list)
            assert [entry["label"] for entry in ours] == [entry["label"] for entry in theirs]
            assert [entry["score"] for entry in ours] == pytest.approx([entry["score"] for entry in theirs], abs=1e-5)
        shares = clf.predict_proba(texts)
        for text, row in zip(texts, shares, strict=True):
            shown = clf.attentions(text)
            assert list(shown.probabilities) == ["other", "spam", "other (2)"]
            assert list(shown.probabilities.values()) == pytest.approx(row.tolist(), abs=1e-5)
            assert list(shown.probabilities).index(shown.prediction["label"]) == int(row.argmax())
            assert "other (2)" in shown.to_html()
        assert {int(row.argmax()) for row in shares} & {0, 2}, "the case is to meet one of the two"
