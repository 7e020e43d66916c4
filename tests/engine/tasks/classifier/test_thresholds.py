"""Thresholds of a multi-label model in ``predict``, calls, streams and a ``Batcher``; without them nothing changes."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import special

from fusedbert.engine import Batcher, Classifier, OptionError

LABELS = tuple("abcdefgh")
TEXTS = ["good movie", "bad", "", "the plot was very dull", "really loved this film, the actor was fine!"]
STORED = (0.1, 0.9, 0.3, 0.7, 0.5, 0.4, 0.6, 0.2)
GIVEN: dict[str, Any] = {
    "one": 0.3,
    "none": 0.0,
    "all": 1.0,
    "each": list(reversed(STORED)),
    "array": np.array(STORED),
    "some": {"b": 0.05, "h": 0.95},
}
KIND = "multi_label_classification"


@pytest.fixture
def clf(make_artifact: Callable[..., Path]) -> Classifier:
    return Classifier.from_pretrained(make_artifact(LABELS, KIND, thresholds=STORED), threads=1)


def thresholds(value: Any) -> np.ndarray:
    if isinstance(value, dict):
        value = [value.get(label, stored) for label, stored in zip(LABELS, STORED, strict=True)]
    return np.broadcast_to(value, 8)


@pytest.mark.parametrize("name", GIVEN)
def test_predict_gives_the_labels_that_reach_their_threshold(clf: Classifier, name: str) -> None:
    expected = clf.predict_proba(TEXTS) >= thresholds(GIVEN[name])
    found = clf.predict(TEXTS, threshold=GIVEN[name])
    assert found == [[label for label, counts in zip(LABELS, row, strict=True) if counts] for row in expected]


def test_predict_has_the_thresholds_of_the_artifact(clf: Classifier, make_artifact: Callable[..., Path]) -> None:
    assert clf.thresholds == STORED
    assert clf.predict(TEXTS) == clf.predict(TEXTS, threshold=STORED) == clf.predict(TEXTS, threshold={})
    plain = Classifier.from_pretrained(make_artifact(LABELS, KIND, name="plain"), threads=1)
    assert plain.thresholds == (0.5,) * 8
    assert plain.predict(TEXTS) == clf.predict(TEXTS, threshold=0.5) != clf.predict(TEXTS)
    assert pickle.loads(pickle.dumps(clf)).predict(TEXTS) == clf.predict(TEXTS)


@pytest.mark.parametrize("name", GIVEN)
@pytest.mark.parametrize("function", [None, "none", "softmax"])
@pytest.mark.parametrize("top_k", [..., None, 2])
def test_a_call_gives_these_labels_with_the_best_first(clf: Classifier, name: str, function: Any, top_k: Any) -> None:
    options = {"function_to_apply": function} | ({} if top_k is ... else {"top_k": top_k})
    logits = clf.decision_function(TEXTS).astype(np.float64)
    scores = {None: special.expit, "none": np.asarray, "softmax": lambda x: special.softmax(x, axis=1)}[function](logits)
    counts = special.expit(logits) >= thresholds(GIVEN[name])
    listed = clf(TEXTS, threshold=GIVEN[name], **options)
    for found, row, kept in zip(listed, scores, counts, strict=True):
        order = [i for i in np.argsort(-row) if kept[i]][: 2 if top_k == 2 else 8]
        assert [each["label"] for each in found] == [LABELS[i] for i in order]
        assert [each["score"] for each in found] == pytest.approx(list(row[order]), abs=1e-5)
    with Batcher(clf, workers=1) as batcher:
        answers = [batcher.submit(text, threshold=GIVEN[name], **options).result(20) for text in TEXTS]
    streamed: list[Any] = list(clf.stream(TEXTS, threshold=GIVEN[name], **options))
    alone = [clf(text, threshold=GIVEN[name], **options) for text in TEXTS]
    names = [[each["label"] for each in found] for found in listed]
    for others in (answers, streamed, alone):
        assert [[each["label"] for each in found] for found in others] == names


def test_calls_without_a_threshold_stay_those_of_the_pipeline(clf: Classifier, make_artifact: Callable[..., Path]) -> None:
    plain = Classifier.from_pretrained(make_artifact(LABELS, KIND, name="plain"), threads=1)
    options: dict[str, Any]
    for options in ({}, {"top_k": None}, {"top_k": 3}, {"threshold": None}):
        assert clf(TEXTS, **options) == plain(TEXTS, **options)


def test_models_of_another_kind_have_none(make_artifact: Callable[..., Path]) -> None:
    for labels, kind in ((("a", "b"), "single_label_classification"), (("value",), "regression")):
        clf = Classifier.from_pretrained(make_artifact(labels, kind, name=kind), threads=1)
        assert clf.thresholds is None
        for call in (clf, clf.predict, clf.stream):
            with pytest.raises(OptionError, match=r"threshold is for multi-label|decision_function"):
                call(["good"], threshold=0.5)  # type: ignore[operator]
