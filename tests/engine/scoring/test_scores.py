"""The added columns: functions of the logits, thresholds and the best labels, compared with NumPy in float64."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusedbert.engine import Classifier, OptionError, Scorer, score_file
from fusedbert.engine.artifact import read_manifest, write_manifest

TEXTS = ["I really loved this movie.", "Dull, and far too long.", "It is a film.", "good", "bad"]


@pytest.fixture
def source(write: Any) -> Path:
    return write("in.jsonl", [{"text": text} for text in TEXTS])


@pytest.fixture
def logits(classifier: Classifier) -> Any:
    return classifier.decision_function(TEXTS).astype(np.float64)


def rows(source: Path, **options: Any) -> list[dict[str, Any]]:
    output = source.with_name("out.jsonl")
    score_file(source, output, force=True, threads=1, **options)
    return [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]


def sigmoid(logits: Any) -> Any:
    return 1 / (1 + np.exp(-logits))


@pytest.mark.parametrize("name", ["softmax", "sigmoid", "none"])
def test_each_function_gives_its_scores(name: str, source: Path, logits: Any, artifact: Path) -> None:
    found = rows(source, model=artifact, function_to_apply=name, probabilities=True)
    exponents = np.exp(logits)
    expected = {"softmax": exponents / exponents.sum(axis=1, keepdims=True), "sigmoid": sigmoid(logits), "none": logits}[name]
    column = "logit_" if name == "none" else "p_"
    values = np.array([[row[f"{column}NEGATIVE"], row[f"{column}POSITIVE"]] for row in found])
    assert np.abs(values - expected).max() < 1e-5
    assert [row["score"] for row in found] == pytest.approx(expected.max(axis=1), abs=1e-5)
    assert [row["label"] for row in found] == [("NEGATIVE", "POSITIVE")[best] for best in logits.argmax(axis=1)]


def test_logits_have_all_digits_of_a_float32(source: Path, classifier: Classifier, artifact: Path) -> None:
    output = source.with_name("logits.csv")
    score_file(source, output, model=artifact, function_to_apply="none")
    lines = output.read_text(encoding="utf-8").splitlines()[1:]
    found = [np.float32(line.rsplit(",", 2)[1]) for line in lines]
    assert found == list(classifier.decision_function(TEXTS).max(axis=1))


def test_the_best_labels_come_as_lists(source: Path, logits: Any, artifact: Path) -> None:
    found = rows(source, model=artifact, top_k=2)
    names = np.array(["NEGATIVE", "POSITIVE"])
    assert [row["label"] for row in found] == [list(names[order]) for order in np.argsort(-logits, axis=1)]
    assert all(row["score"] == sorted(row["score"], reverse=True) for row in found)
    assert [len(row["label"]) for row in rows(source, model=artifact, top_k=1)] == [1] * len(TEXTS)


@pytest.fixture
def multi(variant: Any) -> Path:
    return variant("multi_label_classification")


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 0.9, 1.0, [0.2, 0.95], {"POSITIVE": 0.9}])
def test_a_multi_label_row_has_the_labels_from_their_threshold_on(
    threshold: Any, source: Path, logits: Any, multi: Path
) -> None:
    each = {"NEGATIVE": 0.5, "POSITIVE": 0.5} | (threshold if isinstance(threshold, dict) else {})
    least = np.array(list(each.values())) if isinstance(threshold, dict) else np.broadcast_to(threshold, 2)
    found = rows(source, model=multi, threshold=threshold)
    expected = [[name for name, counts in zip(each, row, strict=True) if counts] for row in sigmoid(logits) >= least]
    assert [row["label"] for row in found] == expected
    assert all(len(row["score"]) == len(row["label"]) for row in found)
    with Classifier.from_pretrained(multi) as classifier:
        assert classifier.predict(TEXTS, threshold=threshold) == expected


def test_thresholds_hold_for_probabilities_whatever_the_scores_are(source: Path, multi: Path) -> None:
    plain, raw = (rows(source, model=multi, threshold=0.3, function_to_apply=name) for name in (None, "none"))
    assert [row["label"] for row in plain] == [row["label"] for row in raw]


def test_the_best_labels_may_have_to_reach_a_threshold(source: Path, logits: Any, multi: Path) -> None:
    all_labels = rows(source, model=multi, top_k=2)
    assert [len(row["label"]) for row in all_labels] == [2] * len(TEXTS)  # without a threshold, as the pipeline
    some = rows(source, model=multi, top_k=2, threshold=0.5)
    assert [len(row["label"]) for row in some] == list((sigmoid(logits) >= 0.5).sum(axis=1))


def test_the_thresholds_of_the_artifact_are_the_default(source: Path, multi: Path) -> None:
    expected = [row["label"] for row in rows(source, model=multi, threshold=[0.1, 0.99])]
    write_manifest(multi, dataclasses.replace(read_manifest(multi), thresholds=(0.1, 0.99)))
    assert [row["label"] for row in rows(source, model=multi)] == expected
    assert [row["label"] for row in rows(source, model=multi, threshold=0.5)] != expected


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"threshold": 0.3}, "threshold is for multi-label models"),
        ({"top_k": 0}, "top_k is 0"),
        ({"function_to_apply": "tanh"}, "function_to_apply is 'tanh'"),
    ],
)
def test_options_that_do_not_fit_the_model_are_refused(options: Any, said: str, source: Path, artifact: Path) -> None:
    with pytest.raises(OptionError, match=said):
        score_file(source, source.with_name("out.csv"), model=artifact, **options)
    with pytest.raises(OptionError, match=said):
        Scorer(artifact, **options)({"text": TEXTS})
    assert not source.with_name("out.csv").exists()


def test_a_regression_has_no_best_labels(source: Path, variant: Any) -> None:
    with pytest.raises(OptionError, match="no labels for top_k"):
        score_file(source, source.with_name("out.csv"), model=variant("regression"), top_k=2)


def test_a_scorer_takes_the_same_options(source: Path, multi: Path) -> None:
    options: dict[str, Any] = {"threshold": {"NEGATIVE": 0.2}, "function_to_apply": "none", "probabilities": True}
    columns = Scorer(multi, **options)({"text": TEXTS})
    expected = rows(source, model=multi, **options)
    assert list(columns["label"]) == [row["label"] for row in expected]
    assert columns["logit_POSITIVE"] == pytest.approx([row["logit_POSITIVE"] for row in expected])


def test_resuming_with_other_thresholds_is_refused(source: Path, multi: Path, tmp_path: Path) -> None:
    def stop(_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score_file(source, tmp_path / "out.csv", model=multi, part_rows=2, threshold=0.3, progress=stop)
    with pytest.raises(OptionError, match="thresholds"):
        score_file(source, tmp_path / "out.csv", model=multi, part_rows=2, threshold=0.4, resume=True)


def test_the_command_reads_thresholds_by_name(fusedbert: Any, source: Path, multi: Path, tmp_path: Path) -> None:
    arguments = ["--threshold", "0.4", "--threshold", "POSITIVE=0.9", "--function", "sigmoid", "-o", "-"]
    done = fusedbert("score", source, "-m", multi, *arguments)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line)["label"] for line in done.stdout.splitlines()]
    assert found == [row["label"] for row in rows(source, model=multi, threshold={"POSITIVE": 0.9, "NEGATIVE": 0.4})]
