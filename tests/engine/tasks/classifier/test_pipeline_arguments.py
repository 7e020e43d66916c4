"""Arguments that people bring from transformers' pipeline: its answer, or an OptionError with the way out."""

from __future__ import annotations

import pickle
from collections import UserList
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pipelines import FULL_PAIRS, PAIRS, PROPERTY, TEXTS, assert_same, mock_pipeline

from fusedbert.engine import Batcher, Classifier, InputError, OptionError, TextTooLongError, Window

CUTTING: list[dict[str, Any]] = [
    {"max_length": 8},
    {"truncation": True, "max_length": 9},
    {"truncation": "longest_first", "max_length": 12, "batch_size": 3, "num_workers": 0},
    {"truncation": "only_first"},
    {"truncation": "only_first", "max_length": 20},
    {"truncation": "only_second"},
    {"truncation": "only_second", "max_length": 20},
    {"truncation": True, "padding": True, "batch_size": 2},
    {"truncation": True, "padding": "max_length", "max_length": 16},
    {"truncation": True, "split_special_tokens": True},
    {"truncation": True, "split_special_tokens": False, "return_all_scores": False},
]
READING: list[dict[str, Any]] = [
    *CUTTING,
    {"padding": "max_length", "max_length": 16},
    {"padding": True},
    {"truncation": False, "max_length": 8},
    {"truncation": "do_not_truncate", "padding": "longest"},
]


def as_dicts(inputs: Any) -> list[dict[str, str]]:
    items = inputs if isinstance(inputs, list) else [inputs]
    return [each if isinstance(each, dict) else {"text": each} for each in items]


@pytest.fixture
def two_labels(artifact: Path, tokenizer: Any, weights: Any) -> tuple[Any, Classifier]:
    ours = Classifier.from_pretrained(artifact, threads=1)
    return mock_pipeline(("NEGATIVE", "POSITIVE"), "single_label_classification", tokenizer, weights(2)), ours


@pytest.mark.parametrize("side", ["right", "left"])
@PROPERTY
@given(
    inputs=st.one_of(TEXTS, PAIRS, st.lists(st.one_of(TEXTS, FULL_PAIRS), min_size=1, max_size=3)),
    reading=st.sampled_from(READING),
)
def test_texts_are_cut_as_in_transformers(
    two_labels: tuple[Any, Classifier], side: str, inputs: Any, reading: dict[str, Any]
) -> None:
    theirs, ours = two_labels
    theirs.tokenizer.truncation_side = side
    fits = all(len(theirs.tokenizer(**each)["input_ids"]) <= 32 for each in as_dicts(inputs))
    assume(fits or reading in CUTTING)  # transformers gives longer texts to the model
    try:
        expected = theirs(inputs, **reading)
    except Exception as error:
        assert "Truncation error" in str(error)
        with pytest.raises(TextTooLongError, match=r"truncation='only_.*' cannot cut enough .*: use truncation=True"):
            ours(inputs, truncation_side=side, **reading)
    else:
        assert_same(ours(inputs, truncation_side=side, **reading), expected)


def test_generators_are_answered_lazily_and_collections_at_once(two_labels: tuple[Any, Classifier]) -> None:
    theirs, ours = two_labels
    from transformers.pipelines.pt_utils import KeyDataset

    texts = ["good movie", "the plot was dull", "bad"]
    rows: Any = KeyDataset([{"text": text, "label": 0} for text in texts], "text")  # type: ignore[arg-type]
    expected = ours(texts)
    read: list[str] = []
    answers = ours(read.append(text) or text for text in texts)  # type: ignore[func-returns-value]
    assert not isinstance(answers, list) and not read
    assert_same(next(answers), expected[0])
    assert read == texts[:1]
    for lazy in (ours(rows), ours(iter(texts)), ours(map(str, texts)), ours.stream(rows)):
        assert not isinstance(lazy, list)
        assert_same(list(lazy), list(theirs(rows, batch_size=2)))
    for at_once in (np.array(texts), np.array(texts, dtype=object), dict.fromkeys(texts).keys(), UserList(texts)):
        assert_same(ours(at_once, batch_size=2), expected)
    assert ours(np.array([], dtype=str)) == []
    assert ours.predict(rows) == [each["label"] for each in expected]  # type: ignore[arg-type]


def test_tables_and_numbers_are_refused(artifact: Path) -> None:
    class Table:
        ndim = 2

        def __iter__(self) -> Any:
            return iter(("text", "label"))  # as pandas: its columns

        def __len__(self) -> int:
            return 2

    with Classifier.from_pretrained(artifact) as ours:
        for table in (Table(), np.array([["good", "bad"]])):
            for call in (ours, ours.predict, ours.stream):
                with pytest.raises(InputError, match=r"found a table, .*: give one column"):
                    list(call(table))  # type: ignore[operator]
        for wrong in (None, 3, b"good", bytearray(b"good"), memoryview(b"good"), np.array("good"), object(), str):
            with pytest.raises(InputError, match="text 0 is"):
                ours(wrong)  # type: ignore[arg-type]
        with pytest.raises(InputError, match="text 1 is the int 3"):
            list(ours(each for each in ("good", 3)))  # type: ignore[misc]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"max_length": 33}, "33: the model takes up to 32 tokens"),
        ({"max_length": 10**5000}, "too long to show: the model takes up to 32 tokens"),
        ({"max_length": 2}, "from 3 up"),
        ({"max_length": True}, "from 3 up"),
        ({"max_length": "8"}, "from 3 up"),
        ({"truncation": "first"}, "longest_first, only_first, only_second"),
        ({"truncation": 1}, "True, False, or one of"),
        ({"truncation": -(10**5000)}, "too long to show: give True, False, or one of"),
        ({"top_k": -(10**5000)}, "too long to show: give an integer from 1 up"),
        ({"truncation": []}, "True, False, or one of"),
        ({"truncation_side": "top"}, "left, right"),
        ({"truncation_side": []}, "left, right"),
        ({"padding": "short"}, "longest, max_length"),
        ({"padding": 1}, "longest, max_length"),
        ({"padding": []}, "longest, max_length"),
        ({"batch_size": 0}, "from 1 up"),
        ({"num_workers": -1}, "from 0 up"),
        ({"split_special_tokens": "yes"}, "True, False or None"),
        ({"return_all_scores": True}, "give top_k=None"),
        ({"return_tensors": "pt"}, "leave it out"),
        ({"stride": 3}, "long_text=Window"),
        ({"pad_to_multiple_of": 8}, "leave it out"),
        ({"device": 0}, "from_pretrained"),
        ({"text_pair": "good"}, "text_pair"),
        ({"threshold": 0.5}, "multi-label"),
    ],
)
def test_arguments_that_cannot_be_followed_name_the_way_out(artifact: Path, arguments: dict[str, Any], words: str) -> None:
    with Classifier.from_pretrained(artifact, threads=1) as ours, Batcher(ours, workers=1) as batcher:
        for call in (ours, ours.stream, batcher.submit):
            inputs: Any = ["good"] if call == ours.stream else "good"
            with pytest.raises(OptionError, match=f"^{next(iter(arguments))}[ =].*{words}") as caught:
                call(inputs, **arguments)  # type: ignore[operator]
            assert "\n" not in str(caught.value)
            with pytest.raises(TypeError, match="unexpected keyword argument 'tpo_k'"):
                call(inputs, tpo_k=1)  # type: ignore[operator]


def test_a_call_may_read_more_than_the_classifier_was_loaded_for(two_labels: tuple[Any, Classifier], artifact: Path) -> None:
    theirs, _ = two_labels
    text = "very " * 20 + "bad"
    with Classifier.from_pretrained(artifact, threads=1, max_length=8) as ours:
        assert_same(ours(text, max_length=32), theirs(text))
        assert_same(ours(text), theirs(text, truncation=True, max_length=8))
        assert ours.max_length == 8
        numbers: dict[str, Any] = {"truncation": np.True_, "max_length": np.int64(9), "batch_size": np.int32(2)}
        assert_same(ours(text, **numbers), theirs(text, truncation=True, max_length=9))


@pytest.mark.parametrize("loaded", [None, False, True])
def test_special_tokens_in_texts_of_strangers_can_be_text(
    two_labels: tuple[Any, Classifier], artifact: Path, loaded: Any
) -> None:
    theirs, _ = two_labels
    text, options = "good [SEP] bad [PAD]", {"top_k": None, "function_to_apply": "none"}
    expected = {each: theirs(text, split_special_tokens=each, **options) for each in (True, False)}
    assert abs(expected[True][0]["score"] - expected[False][0]["score"]) > 1e-3
    with Classifier.from_pretrained(artifact, threads=1, split_special_tokens=loaded) as ours:
        copies = [ours, pickle.loads(pickle.dumps(ours))]
        for clf in copies:
            for each in (None, True, False, True, None):
                assert_same(clf(text, split_special_tokens=each, **options), expected[loaded is True if each is None else each])


def test_windows_follow_the_length_of_a_call(artifact: Path) -> None:
    text, pair = "good bad " * 30, ("good " * 30, "bad " * 30)
    window = Window(stride=2, aggregate="max")
    with (
        Classifier.from_pretrained(artifact, threads=1, long_text=window) as ours,
        Classifier.from_pretrained(artifact, threads=1, long_text=window, max_length=12) as short,
    ):
        with pytest.warns(UserWarning, match="two long texts"):
            assert_same(ours([text, pair], top_k=None, max_length=12), short([text, pair], top_k=None))
        assert ours.stats.windows == short.stats.windows > 5
        assert_same(ours(text, truncation=True, max_length=12), short(text, truncation=True))
        with pytest.raises(OptionError, match="stride is 2: a window has 1 tokens"):
            ours(text, max_length=3)
        two = ("bad " + "good " * 30, "plot " + "bad " * 30)
        with pytest.warns(UserWarning, match="two long texts"):
            left, right = (ours(two, truncation_side=side) for side in ("left", "right"))
        assert left != right


def test_requests_of_different_options_share_a_batch(artifact: Path) -> None:
    items: list[Any] = ["good [SEP] " + "very " * 40 + "bad", ("good " * 20 + "bad", "plot"), "fine"]
    calls = [{**reading, "truncation_side": side} for reading in READING for side in ("left", "right", None)]
    with Classifier.from_pretrained(artifact, threads=1) as ours, Batcher(ours, workers=1) as batcher:
        futures = [(item, call, batcher.submit(item, top_k=None, **call)) for call in calls for item in items]  # type: ignore[misc]
        for item, call, future in futures:
            if isinstance(error := future.exception(30), TextTooLongError):
                with pytest.raises(TextTooLongError) as caught:
                    ours(item, top_k=None, **call)
                assert str(caught.value) == str(error)
            else:
                assert_same(future.result(), ours(item, top_k=None, **call))
