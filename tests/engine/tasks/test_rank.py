"""``rank`` and ``predict_pairs``: order, ties, options, inputs of all kinds, and errors that name the way out."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import expit, softmax

from fusedbert.engine import Classifier, ClosedError, InputError, OptionError, TextTooLongError

QUERY = "good movie"
DOCUMENTS = ["not dull", "the plot was very dull", "fine actor", "", "not dull", "bright music !", "awful"]

Load = Callable[..., Classifier]


@pytest.fixture
def load(make_artifact: Callable[..., Path]) -> Iterator[Load]:
    """Return a function that loads a model of so many labels."""
    made: list[Classifier] = []

    def make(labels: int, problem_type: str = "single_label_classification", **options: Any) -> Classifier:
        names = ("irrelevant", "relevant", "other")[:labels]
        folder = make_artifact(names, problem_type, name=f"artifact{len(made)}")
        made.append(Classifier.from_pretrained(folder, threads=1, **options))
        return made[-1]

    yield make
    for classifier in made:
        classifier.close()


def pairs(documents: list[str] = DOCUMENTS) -> list[tuple[str, str]]:
    return [(QUERY, document) for document in documents]


def order(found: list[Any]) -> list[int]:
    return [each["corpus_id"] for each in found]


def test_the_best_comes_first_and_ties_keep_their_order(load: Load, reference: Callable[..., np.ndarray]) -> None:
    expected = expit(reference(pairs(), 1)[:, 0])
    found = load(1).rank(QUERY, DOCUMENTS)
    assert order(found) == sorted(range(7), key=lambda i: -expected[i])
    assert [each["score"] for each in found] == pytest.approx(expected[order(found)], abs=1e-5)
    assert order(found).index(0) == order(found).index(4) - 1
    assert {type(each["score"]) for each in found} == {float} and set(found[0]) == {"corpus_id", "score"}
    two: Any = np.int64(2)
    assert load(1).rank(QUERY, DOCUMENTS, 2) == found[:2] == load(1).rank(QUERY, DOCUMENTS, top_k=two)
    assert [each["text"] for each in load(1).rank(QUERY, DOCUMENTS, return_documents=True)] == [
        DOCUMENTS[i] for i in order(found)
    ]
    assert load(1).rank(QUERY, []) == []


def test_of_two_labels_the_second_one_counts_or_the_one_asked_for(load: Load, reference: Callable[..., np.ndarray]) -> None:
    probabilities, clf = softmax(reference(pairs()), axis=1), load(2)
    choices: list[tuple[int, tuple[Any, ...]]] = [(1, (None, "relevant", 1, np.int64(1))), (0, ("irrelevant", 0))]
    for column, labels in choices:
        for label in labels:
            found = clf.rank(QUERY, DOCUMENTS, label=label)
            assert [each["score"] for each in found] == pytest.approx(sorted(probabilities[:, column], reverse=True), abs=1e-5)
    logits = clf.rank(QUERY, DOCUMENTS, function_to_apply="none")
    assert [each["score"] for each in logits] == pytest.approx(sorted(reference(pairs())[:, 1], reverse=True), abs=1e-5)


def test_pairs_have_the_scores_of_the_equations(load: Load, reference: Callable[..., np.ndarray]) -> None:
    one, logits = load(1), reference(pairs(), 1)
    scores = one.predict_pairs(pairs())
    assert scores.shape == (7,) and scores.dtype == np.float32
    np.testing.assert_allclose(scores, expit(logits[:, 0]), atol=1e-5)
    np.testing.assert_allclose(one.predict_pairs(pairs(), function_to_apply="none"), logits[:, 0], atol=1e-5)
    assert np.shape(one.predict_pairs((QUERY, "awful"))) == () and one.predict_pairs([]).shape == (0,)
    three, logits = load(3), reference(pairs(), 3)
    np.testing.assert_allclose(three.predict_pairs(pairs()), logits, atol=1e-5)
    np.testing.assert_allclose(three.predict_pairs(pairs(), apply_softmax=True), softmax(logits, axis=1), atol=1e-5)
    assert three.predict_pairs([QUERY, "awful"]).shape == (3,) and three.predict_pairs([]).shape == (0, 3)


def test_pairs_come_in_all_forms(load: Load) -> None:
    clf = load(1)
    expected = clf.predict_pairs(pairs())
    forms: list[Any] = [
        [list(pair) for pair in pairs()],
        [{"text": a, "text_pair": b} for a, b in pairs()],
        (pair for pair in pairs()),
        np.array(pairs()),
        np.array(pairs(), dtype=object),
        tuple(pairs()),
    ]
    for form in forms:
        np.testing.assert_array_equal(clf.predict_pairs(form), expected)
    for single in ((QUERY, "awful"), [QUERY, "awful"], np.array([QUERY, "awful"]), {"text": QUERY, "text_pair": "awful"}):
        assert clf.predict_pairs(single) == expected[-1]


def test_documents_come_in_all_forms(load: Load) -> None:
    import pyarrow

    clf = load(1)
    expected = clf.rank(QUERY, DOCUMENTS)
    forms: list[Any] = [
        tuple(DOCUMENTS),
        iter(DOCUMENTS),
        (d for d in DOCUMENTS),
        np.array(DOCUMENTS),
        dict.fromkeys(DOCUMENTS),
    ]
    forms = [*forms[:4], np.array(DOCUMENTS, dtype=object), pyarrow.array(DOCUMENTS).to_pylist()]
    for form in forms:
        assert clf.rank(QUERY, form) == expected


def test_scores_do_not_depend_on_the_other_documents(load: Load) -> None:
    clf = load(1)
    many = [f"{document} {'very ' * (i % 20)}dull" for i in range(40) for document in DOCUMENTS]
    together = {each["corpus_id"]: each["score"] for each in clf.rank(QUERY, many)}
    alone = [clf.rank(QUERY, [document])[0]["score"] for document in many]
    assert [together[i] for i in range(len(many))] == pytest.approx(alone, abs=1e-6)
    assert clf.stats.texts == 2 * len(many)


def test_long_documents_are_treated_as_the_option_says(load: Load) -> None:
    long = ["dull " * 100, "fine"]
    with pytest.warns(UserWarning, match="text 0 has more tokens than max_length"):
        found = load(1).rank(QUERY, long)
    assert {each["corpus_id"] for each in found} == {0, 1}
    with pytest.raises(TextTooLongError, match="text 0 has 105 tokens"):
        load(1, long_text="error").rank(QUERY, long)
    windowed = load(1, long_text="window")
    assert len(windowed.rank(QUERY, long)) == 2 and windowed.stats.windowed == 1


@pytest.mark.parametrize(
    ("query", "documents", "message"),
    [
        (None, ["a"], "the query is None"),
        (b"good", ["a"], r"the query is of type bytes.*decode it first"),
        ("\ud800", ["a"], r"the query has a lone surrogate"),
        ("good", "a document", r"expected a list of documents, found str: .*\[document\]"),
        ("good", b"a", "expected a list of documents, found bytes"),
        ("good", None, "expected a list of documents, found NoneType"),
        ("good", 3, "expected a list of documents, found int"),
        ("good", ["a", None], "document 1 is None, expected a str"),
        ("good", ["a", "b", b"c"], "document 2 is of type bytes.*decode it first"),
        ("good", ["a\udfff"], r"document 0 has a lone surrogate \(U\+DFFF\)"),
        ("good", [("a", "b")], "document 0 is of type tuple"),
        ("good", [float("nan")], "document 0 is NaN"),
        ("good", np.array([["a", "b"]]), "found a table"),
    ],
)
def test_what_is_not_a_text_is_an_error_of_one_line(load: Load, query: Any, documents: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load(1).rank(query, documents)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("good", "expected pairs of texts, found str"),
        (None, "expected pairs of texts, found NoneType"),
        (["a", "b", "c"], "pair 0 is a list of 3"),
        (["a"], "pair 0 is a list of 1"),
        ([("a", "b"), "c"], "pair 1 is of type str"),
        ([("a", "b"), ("a", None)], "pair 1 is None, expected a str"),
        ([("a", "b", "c")], "pair 0 is a tuple of 3"),
        ([("a", "\ud800")], "pair 0 has a lone surrogate"),
        ({"text": "a"}, "pair 0 is a dict with keys 'text': expected 'text' and 'text_pair'"),
        ([{"text": "a", "pair": "b"}], "pair 0 is a dict"),
    ],
)
def test_what_is_not_a_pair_is_an_error_of_one_line(load: Load, given: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load(1).predict_pairs(given)
    assert "\n" not in str(caught.value)


def test_models_without_a_score_to_rank_by_are_refused_with_the_way_out(load: Load) -> None:
    with pytest.raises(OptionError, match=r"one or two labels, and this one has 3: give predict_pairs"):
        load(3).rank(QUERY, DOCUMENTS)
    with pytest.raises(OptionError, match=r"this is multi-label: give predict_pairs"):
        load(2, "multi_label_classification").rank(QUERY, DOCUMENTS)
    for label in ("other", 2, -1, True, 1.0):
        with pytest.raises(OptionError, match=r"label is .*: give one of \['irrelevant', 'relevant'\], or its number"):
            load(2).rank(QUERY, DOCUMENTS, label=label)  # type: ignore[arg-type]


def test_keywords_of_cross_encoder_are_taken_or_refused_with_the_way_out(load: Load) -> None:
    import torch

    clf = load(1)
    harmless: dict[str, Any] = {"batch_size": 8, "show_progress_bar": False, "num_workers": 0, "convert_to_numpy": True}
    nothing: dict[str, Any] = dict.fromkeys(("prompt", "prompt_name", "device", "pool", "chunk_size", "activation_fn"))
    both: dict[str, Any] = {**harmless, **nothing, "convert_to_tensor": False, "apply_softmax": False}
    assert clf.rank(QUERY, DOCUMENTS, **both) == clf.rank(QUERY, DOCUMENTS, convert_to_tensor=True, apply_softmax=True)
    np.testing.assert_array_equal(clf.predict_pairs(pairs(), **both), clf.predict_pairs(pairs()))
    logits = clf.predict_pairs(pairs(), function_to_apply="none")
    np.testing.assert_array_equal(clf.predict_pairs(pairs(), activation_fn=torch.nn.Identity()), logits)
    refused: dict[str, tuple[Any, str]] = {
        "device": ("cuda", "from_pretrained"),
        "prompt": ("query: ", "before each query"),
        "pool": ({}, "--on ray"),
        "batch_size": (0, "from 1 up"),
        "show_progress_bar": ("yes", "True, False or None"),
        "activation_fn": (torch.nn.Tanh(), "give function_to_apply, one of sigmoid, softmax, none"),
        "function_to_apply": ("tanh", "give one of"),
        "top_k": (0, "from 1 up"),
    }
    for name, (value, message) in refused.items():
        with pytest.raises(OptionError, match=message):
            clf.rank(QUERY, DOCUMENTS, **{name: value})
    for tensor, array in ((True, True), (False, False)):
        with pytest.raises(OptionError, match=r"torch\.from_numpy"):
            clf.predict_pairs(pairs(), convert_to_tensor=tensor, convert_to_numpy=array)
    with pytest.raises(OptionError, match="softmax of sigmoids"):
        load(2).predict_pairs(pairs(), function_to_apply="sigmoid", apply_softmax=True)
    with pytest.raises(OptionError, match="leave one out"):
        clf.rank(QUERY, DOCUMENTS, function_to_apply="none", activation_fn=torch.nn.Identity())
    for call in (clf.rank, clf.predict_pairs):
        with pytest.raises(TypeError, match="unexpected keyword argument 'sentences'"):
            call(QUERY, DOCUMENTS, sentences=1) if call == clf.rank else call(pairs(), sentences=1)  # type: ignore[call-arg]


def test_after_close_and_in_a_pickle(load: Load) -> None:
    clf = load(2)
    found = clf.rank(QUERY, DOCUMENTS)
    with pickle.loads(pickle.dumps(clf)) as other:
        assert other.rank(QUERY, DOCUMENTS) == found
    clf.close()
    with pytest.raises(ClosedError):
        clf.rank(QUERY, DOCUMENTS)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_ranks(load: Load) -> None:
    clf = load(2)
    found = clf.rank(QUERY, DOCUMENTS)
    child = os.fork()
    if child == 0:
        os._exit(0 if clf.rank(QUERY, DOCUMENTS) == found else 1)
    assert os.waitpid(child, 0)[1] == 0
