"""One model in transformers' pipeline and in fusedbert: the same shapes, labels, order and scores."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pipelines import FULL_PAIRS, PAIRS, PROPERTY, TEXTS, assert_same, mock_pipeline

from fusedbert.engine import Batcher, Classifier, InputError, OptionError, TextTooLongError

LABELS = ("joy", "anger", "fear")
CASES = {
    "softmax": (LABELS, "single_label_classification"),
    "multi": (LABELS, "multi_label_classification"),
    "regression": (("value",), "regression"),
    "one": (("yes",), "single_label_classification"),
    "one of many": (("yes",), "multi_label_classification"),
    "values": (("joy", "anger"), "regression"),
}
INPUTS: list[Any] = [
    "good movie",
    "",
    ["good movie", "the plot was dull"],
    ["good"],
    {"text": "good movie", "text_pair": "not dull"},
    {"text": "good movie", "text_pair": ""},
    [{"text": "good movie", "text_pair": "not dull"}, {"text": "bad"}],
    [{"text": "good movie"}, "bad", {"text": "", "text_pair": " "}],
    "very " * 100,
    {"text": "very " * 100, "text_pair": "good " * 7},
    [{"text": "good " * 7, "text_pair": "very " * 100}, {"text": "very " * 50, "text_pair": "bad " * 51}],
]
OPTIONS: list[dict[str, Any]] = [
    {},
    {"top_k": None},
    {"top_k": 1},
    {"top_k": 2},
    {"top_k": 99},
    {"function_to_apply": "sigmoid"},
    {"function_to_apply": "none", "top_k": None},
    {"function_to_apply": "softmax", "top_k": None},
    {"function_to_apply": "SOFTMAX"},
]


@pytest.fixture(params=CASES)
def both(
    request: pytest.FixtureRequest, make_artifact: Callable[..., Path], tokenizer: Any, weights: Any
) -> tuple[Any, Classifier]:
    labels, problem_type = CASES[request.param]
    ours = Classifier.from_pretrained(make_artifact(labels, problem_type), threads=1)
    return mock_pipeline(labels, problem_type, tokenizer, weights(len(labels))), ours


def test_results_equal_those_of_transformers(both: tuple[Any, Classifier]) -> None:
    theirs, ours = both
    for inputs in INPUTS:
        for options in OPTIONS:
            expected = theirs(inputs, truncation=True, **options)
            assert_same(ours(inputs, **options), expected)
    assert ours([]) == ours([], top_k=None) == []  # where transformers raises IndexError


@PROPERTY
@given(
    inputs=st.one_of(TEXTS, PAIRS, st.lists(st.one_of(TEXTS, FULL_PAIRS), min_size=1, max_size=5)),
    options=st.sampled_from(OPTIONS),
)
def test_results_of_random_texts_equal_those_of_transformers(
    both: tuple[Any, Classifier], inputs: Any, options: dict[str, Any]
) -> None:
    theirs, ours = both
    assert_same(ours(inputs, **options), theirs(inputs, truncation=True, **options))


@PROPERTY
@given(items=st.lists(st.one_of(TEXTS, FULL_PAIRS), max_size=12), seed=st.integers(0, 2**32))
def test_order_batches_and_interface_do_not_matter(both: tuple[Any, Classifier], items: list[Any], seed: int) -> None:
    _, ours = both
    expected = ours.predict_proba(items)
    assert expected.shape == (len(items), len(ours.classes_)) and expected.dtype == np.float32
    order = list(range(len(items)))
    random.Random(seed).shuffle(order)
    cut = seed % (len(items) + 1)
    parts = [[items[i] for i in half] for half in (order[:cut], order[cut:])]
    shuffled = np.concatenate([ours.predict_proba(part) for part in parts])
    np.testing.assert_allclose(shuffled, expected[order], atol=1e-6)
    streamed = list(ours.stream(iter(items), top_k=None))
    listed = ours(items, top_k=None)
    one_by_one = [ours([item], top_k=None)[0] for item in items]
    for results in (streamed, listed, one_by_one):
        for scores, row in zip(results, expected, strict=True):
            assert isinstance(scores, list)
            found = {each["label"]: each["score"] for each in scores}
            np.testing.assert_allclose([found[label] for label in ours.classes_], row, atol=1e-6)
            assert [each["score"] for each in scores] == sorted(found.values(), reverse=True)


def test_an_empty_second_text_counts_only_in_lists(artifact: Path, tokenizer: Any, weights: Any) -> None:
    """As transformers' tokenizer does in a batch; for a single pair, and so in the pipeline, ("a", "") is the same as "a"."""
    from transformers import PreTrainedTokenizerFast

    names = ["input_ids", "token_type_ids", "attention_mask"]
    judge = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_input_names=names)
    items = [("good", ""), {"text": "bad", "text_pair": ""}]

    def logits(encodings: Any) -> np.ndarray:
        rows = zip(encodings["input_ids"], encodings["token_type_ids"], strict=True)
        return np.stack([weights(2).logits(ids, types) for ids, types in rows])

    in_lists = logits(judge(["good", "bad"], ["", ""]))
    alone = np.stack([logits({name: [ids] for name, ids in judge(text, "").items()})[0] for text in ("good", "bad")])
    assert np.abs(in_lists - alone).max() > 0.01

    def scores(results: list[Any]) -> list[list[float]]:
        found = [{each["label"]: each["score"] for each in result} for result in results]
        return [[each[label] for label in ours.classes_] for each in found]

    def softmax(rows: np.ndarray) -> np.ndarray:
        return np.exp(rows) / np.exp(rows).sum(axis=1, keepdims=True)

    with Classifier.from_pretrained(artifact) as ours, Batcher(ours) as batcher:
        np.testing.assert_allclose(ours.decision_function(items), in_lists, atol=1e-5)
        submitted = [future.result(20) for future in [batcher.submit(each, top_k=None) for each in items]]
        for results in (ours(items, top_k=None), list(ours.stream(items, top_k=None)), submitted):
            np.testing.assert_allclose(scores(results), softmax(in_lists), atol=1e-5)
        np.testing.assert_allclose(scores([ours(each, top_k=None) for each in items]), softmax(alone), atol=1e-5)
        assert ours.windows("good", "")[0].logits == pytest.approx(alone[0], abs=1e-5)


def test_truncation_false_refuses_a_long_text(both: tuple[Any, Classifier]) -> None:
    _, ours = both  # the pipeline passes a text that is too long to the model, which fails in its own words
    long = "very " * 100
    assert ours(long) == ours(long, truncation=True)
    with pytest.raises(TextTooLongError, match=r"text 1 has .* tokens, max_length is 32"):
        ours(["good", long], truncation=False)


def test_wrong_arguments_are_refused(both: tuple[Any, Classifier]) -> None:
    _, ours = both
    for bad in (0, -1, 1.5, "all", True):
        with pytest.raises(OptionError, match="top_k"):
            ours("good", top_k=bad)  # type: ignore[arg-type]
    for bad in ("tanh", 3, ""):
        with pytest.raises(OptionError, match="function_to_apply"):
            ours("good", function_to_apply=bad)  # type: ignore[arg-type]


def test_tuples_are_pairs_and_nested_lists_are_refused(artifact: Path) -> None:
    with Classifier.from_pretrained(artifact) as ours:
        pair = ours({"text": "good", "text_pair": "bad"})
        assert ours(("good", "bad")) == pair
        assert ours([("good", "bad")]) == [pair]
        assert ours([("good", "bad")], top_k=None)[0][0] == pair
        for nested in ([["good", "bad"]], [["good"]]):
            with pytest.raises(InputError, match="text 0"):
                ours(nested)  # type: ignore[arg-type]
