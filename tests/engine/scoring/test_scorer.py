"""``Scorer``: columns in, columns out, in this process or another."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fusedbert.engine.scoring.scorer as scorer_module
from fusedbert.engine import Classifier, InputError, OptionError, Scorer
from fusedbert.engine.model import Model

TEXTS = ["I really loved this movie.", "The spaghetti was bland.", "", "I really loved this movie."]


def test_columns_come_back_with_the_added_ones(artifact: Path, classifier: Classifier) -> None:
    batch = {"id": np.arange(4), "review": np.array(TEXTS, dtype=object)}
    found = Scorer(artifact, probabilities=True)(batch)
    assert list(found) == ["id", "review", "label", "score", "p_NEGATIVE", "p_POSITIVE", "truncated"]
    assert found["id"] is batch["id"] and "label" not in batch
    assert list(found["label"]) == classifier.predict(TEXTS)
    expected = classifier.predict_proba(TEXTS)
    np.testing.assert_allclose(np.stack([found["p_NEGATIVE"], found["p_POSITIVE"]], axis=1), expected, atol=1e-5)
    np.testing.assert_allclose(found["score"], expected.max(axis=1), atol=1e-5)
    assert [found[name].dtype for name in ("label", "score", "truncated")] == [object, np.float32, bool]


def test_a_pickle_holds_the_options_and_no_model(artifact: Path) -> None:
    scorer = Scorer(artifact, text_column="t", prefix="m_", threads=1)
    before = scorer({"t": TEXTS})
    content = pickle.dumps(scorer)
    assert len(content) < 2000
    after = pickle.loads(content)({"t": TEXTS})
    assert list(after) == ["t", "m_label", "m_score", "m_truncated"]
    np.testing.assert_array_equal(after["m_score"], before["m_score"])


def test_a_pickle_works_in_another_process(artifact: Path) -> None:
    import multiprocessing

    scorer = Scorer(artifact, threads=1)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert list(pool.apply(scorer, ({"text": TEXTS},))["label"]) == list(scorer({"text": TEXTS})["label"])


def test_threads_of_a_scorer_share_one_model(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loads = []
    real = scorer_module.load_model
    monkeypatch.setattr(scorer_module, "load_model", lambda *a, **k: loads.append(1) or real(*a, **k))
    scorer = Scorer(artifact, threads=1)
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(scorer, [{"text": TEXTS}] * 8))
    assert len(loads) == 1 and all(list(each["label"]) == list(results[0]["label"]) for each in results)


def test_a_scorer_names_rows_that_cannot_be_scored(artifact: Path) -> None:
    texts = ["fine", None, float("nan"), 5, "\ud83d"]
    with pytest.raises(InputError, match="row 1 of the batch cannot be scored: 'text' is null"):
        Scorer(artifact)({"text": texts})
    found = Scorer(artifact, on_error="null")({"text": texts})
    assert list(found["label"]) == ["POSITIVE", None, None, None, None]
    assert np.isnan(found["score"]).tolist() == [False, True, True, True, True]
    assert found["truncated"].tolist() == [False] * 5
    assert list(Scorer(artifact, on_error="null")({"text": [None]})["label"]) == [None]


def counts(monkeypatch: pytest.MonkeyPatch, scorer: Scorer, texts: list[str]) -> tuple[int, int, int]:
    """Return a scorer's errors for texts, and how many texts its model counts, in all and as truncated."""
    loaded: list[Model] = []
    real = scorer_module.load_model
    monkeypatch.setattr(scorer_module, "load_model", lambda options: loaded.append(real(options)) or loaded[-1])
    found = scorer({"text": texts})
    counters = loaded[0].counters
    return sum(each is None for each in found[list(found)[1]]), counters.texts, counters.truncated


@pytest.mark.parametrize("long_text", ["truncate", "error"])
def test_each_text_is_counted_once(
    artifact: Path, tokens_artifact: Path, monkeypatch: pytest.MonkeyPatch, long_text: str
) -> None:
    kinds: list[tuple[Path, dict[str, Any], int]] = [
        (artifact, {}, 1),
        (tokens_artifact, {}, 1),
        (artifact, {"candidate_labels": ["a", "b"]}, 2),  # pairs of each text
    ]
    for model, more, pairs in kinds:
        for texts, errors in ((["good", "bad", "fine"], 0), (["good", "good movies " * 900, "fine"], 1)):
            scorer = Scorer(model, on_error="null", long_text=long_text, threads=1, **more)
            expected = (errors, (3 - errors) * pairs, 0) if long_text == "error" else (0, 3 * pairs, errors * pairs)
            assert counts(monkeypatch, scorer, texts) == expected


@pytest.mark.parametrize("long_text", ["truncate", "error"])
def test_a_text_that_is_tried_by_itself_is_not_counted(artifact: Path, monkeypatch: pytest.MonkeyPatch, long_text: str) -> None:
    scorer = Scorer(artifact, on_error="null", long_text=long_text, candidate_labels="a", threads=1)
    assert counts(monkeypatch, scorer, ["good", "", "fine"]) == (1, 2, 0)  # zero-shot refuses an empty text


def test_a_multi_label_scorer_returns_lists(variant: Any) -> None:
    found = Scorer(variant("multi_label_classification"))({"text": TEXTS})
    assert all(
        isinstance(label, list) and len(label) == len(score)
        for label, score in zip(found["label"], found["score"], strict=True)
    )


def test_a_scorer_takes_pairs_and_empty_batches(artifact: Path, classifier: Classifier) -> None:
    scorer = Scorer(artifact, text_column="a", pair_column="b")
    found = scorer({"a": ["Is it?"], "b": ["It is."]})
    assert found["score"][0] == pytest.approx(classifier([("Is it?", "It is.")])[0]["score"], abs=1e-5)
    assert len(scorer({"a": [], "b": []})["label"]) == 0
    with pytest.raises(InputError, match="of one length"):
        scorer({"a": ["x"], "b": []})


def test_wrong_calls_of_a_scorer_are_refused(artifact: Path) -> None:
    with pytest.raises(OptionError, match="keeps every row"):
        Scorer(artifact, on_error="skip")
    with pytest.raises(InputError, match="a mapping of columns"):
        Scorer(artifact)(["text"])  # type: ignore[arg-type]
    with pytest.raises(InputError, match="'label' already"):
        Scorer(artifact)({"text": ["x"], "label": [1]})
    with pytest.raises(InputError, match=r"text column"):
        Scorer(artifact)({"a": ["x"], "b": ["y"]})
