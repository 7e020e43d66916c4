"""Two labels of one name: accepted, and kept apart where an output has labels by name."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from fusedbert.engine import Classifier
from fusedbert.engine.cli.classify import classify
from fusedbert.engine.scoring import score_file
from fusedbert.engine.text.outputs import distinct, names_by_id

LABELS = ("other", "spam", "other")
TEXTS = ["good movie", "dull plot", "bad actor", "the music was fine"]


@pytest.fixture
def shared(make_artifact: Callable[..., Path]) -> Path:
    return make_artifact(LABELS, name="shared")


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["a", "b"], ("a", "b")),
        (LABELS, ("other", "spam", "other (2)")),
        (["a", "a", "a"], ("a", "a (1)", "a (2)")),
        (["a", "a", "a (1)"], ("a", "a (1) (1)", "a (1)")),
        (["a (1)", "a", "a"], ("a (1)", "a", "a (2)")),
        ([], ()),
    ],
)
def test_labels_of_the_same_name_are_numbered(labels: list[str], names: tuple[str, ...]) -> None:
    assert distinct(labels) == names and len(set(distinct(labels))) == len(labels)


def test_label_names_are_read_unchanged() -> None:
    assert names_by_id(None) == {} and names_by_id({"0": "😀 👩\u200d💻", "2": ""}) == {0: "😀 👩\u200d💻", 2: ""}
    assert names_by_id({"0": 5}) == {0: "5"}


def test_a_list_of_answers_holds_both(shared: Path) -> None:
    with Classifier.from_pretrained(shared) as clf:
        assert clf.classes_ == list(LABELS)
        expected = clf.predict_proba(TEXTS)
        for row, answers in zip(expected, clf(TEXTS, top_k=None), strict=True):
            order = np.argsort(-row)
            assert [(each["label"], each["score"]) for each in answers] == [(LABELS[i], pytest.approx(row[i])) for i in order]


def test_the_scores_of_a_window_number_labels_of_the_same_name(shared: Path) -> None:
    with Classifier.from_pretrained(shared) as clf:
        (window,) = clf.windows(TEXTS[0])
        assert list(window.scores) == ["other", "spam", "other (2)"]
        assert list(window.scores.values()) == pytest.approx(clf.predict_proba(TEXTS[:1])[0].tolist())


@pytest.mark.parametrize("top", [[], ["--top-k", "2"]])
def test_classify_as_json(shared: Path, reference: Callable[..., np.ndarray], top: list[str]) -> None:
    done = CliRunner().invoke(classify, ["-m", str(shared), "--format", "jsonl", *top, *TEXTS], catch_exceptions=False)
    names = ("other", "spam", "other (2)")
    expected = softmax(reference(TEXTS, labels=3))
    for line, row in zip(done.stdout.splitlines(), expected, strict=True):
        entry = json.loads(line)
        order = np.argsort(-row)[: 2 if top else 3]
        assert entry["label"] == LABELS[order[0]]  # as transformers names it
        assert entry["scores"] == {names[i]: pytest.approx(row[i], abs=1e-5) for i in order}


def test_scored_files_have_a_column_for_each_label(shared: Path, tmp_path: Path, reference: Callable[..., np.ndarray]) -> None:
    (tmp_path / "in.csv").write_text("text\n" + "".join(f"{text}\n" for text in TEXTS))
    score_file(tmp_path / "in.csv", tmp_path / "out.csv", model=shared, probabilities=True)
    expected = softmax(reference(TEXTS, labels=3))
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row, shares in zip(rows, expected, strict=True):
        found = [float(row[f"p_{name}"]) for name in ("other", "spam", "other (2)")]
        assert found == pytest.approx(shares.tolist(), abs=1e-5)
        assert row["label"] == LABELS[int(shares.argmax())]
