"""Long texts in windows: equal to those of transformers' tokenizers, aggregated, and nothing dropped without a warning."""

from __future__ import annotations

import itertools
import json
import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import FUSEDBERT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fusedbert.engine import Classifier, OptionError, TextTooLongError, Window
from fusedbert.engine.text.inputs import check_items
from fusedbert.engine.text.tokenizer import TextTokenizer
from fusedbert.engine.text.windows import spans, tokenize_windows

WORDS = ["good", "bad", "movie", "plot", "was", "very", "not", "the", "dull", "fine"]


def words(count: int, seed: int = 0) -> str:
    return " ".join(np.random.default_rng(seed).choice(WORDS, size=count).tolist())


@given(count=st.integers(0, 90), max_length=st.integers(4, 24), stride=st.integers(0, 21))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_windows_equal_those_of_transformers(artifact: Path, judge: Any, count: int, max_length: int, stride: int) -> None:
    stride = min(stride, max_length - 3)
    text = words(count)
    ours = tokenize_windows(TextTokenizer.load(artifact, max_length), check_items([text]), Window(stride=stride))
    theirs = judge(text, truncation=True, max_length=max_length, stride=stride, return_overflowing_tokens=True)
    assert [row.ids for row in ours.rows] == theirs["input_ids"]


@given(first=st.integers(0, 60), second=st.integers(0, 60), max_length=st.integers(8, 24), stride=st.integers(0, 6))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_the_longer_text_of_a_pair_is_read_in_windows(
    artifact: Path, judge: Any, first: int, second: int, max_length: int, stride: int
) -> None:
    pair = check_items([(words(first), words(second, 1))])
    tokens = tokenize_windows(TextTokenizer.load(artifact, max_length), pair, Window(stride=stride))
    short, room = min(first, second), max_length - 3
    width = room - min(short, room // 2)
    if first + second > room:
        assert tokens.truncated() == [short > room // 2]
    if short <= room // 2:  # the shorter one is whole, and the windows are those of transformers
        side = "only_first" if first >= second else "only_second"
        overlap = min(stride, width // 2)
        theirs = judge(
            words(first),
            words(second, 1),
            truncation=side,
            max_length=max_length,
            stride=overlap,
            return_overflowing_tokens=True,
            return_token_type_ids=True,
        )
        # transformers ignores an empty second text of a single pair.
        if second:
            assert [row.ids for row in tokens.rows] == theirs["input_ids"]
            assert [row.types for row in tokens.rows] == theirs["token_type_ids"]
    for row in tokens.rows:
        assert len(row.ids) <= max_length and row.ids[0] == 2 and row.ids.count(3) == 2


@given(count=st.integers(0, 500), width=st.integers(1, 40), stride=st.integers(0, 39))
def test_spans_cover_every_token_and_overlap_by_the_stride(count: int, width: int, stride: int) -> None:
    stride = min(stride, width - 1)
    found = spans(count, width, stride)
    assert found[0][0] == 0 and found[-1][1] == count
    assert all(stop - start <= width for start, stop in found)
    for (_, stop), (start, _) in itertools.pairwise(found):
        assert stop - start == stride


def in_windows(text: str, stride: int, width: int = 30) -> list[str]:
    """The windows of a text of one-token words."""
    tokens = text.split()
    return [" ".join(tokens[start : start + width]) for start in range(0, max(len(tokens) - stride, 1), width - stride)]


@pytest.mark.parametrize("aggregate", ["mean", "max"])
def test_logits_are_the_aggregate_of_the_windows(artifact: Path, reference: Callable[..., np.ndarray], aggregate: str) -> None:
    texts = [words(5), words(200), "", words(31), words(30), words(1000, 3)]
    reduce = np.mean if aggregate == "mean" else np.max
    expected = np.array([reduce(reference(in_windows(text, 4)), axis=0) for text in texts])
    with Classifier.from_pretrained(artifact, threads=1, long_text=Window(stride=4, aggregate=aggregate)) as clf:
        np.testing.assert_allclose(clf.decision_function(texts), expected, atol=1e-5)
        np.testing.assert_allclose(clf.decision_function(texts[::-1]), expected[::-1], atol=1e-5)
        assert clf.predict(texts) == [clf.classes_[i] for i in expected.argmax(axis=1)]
        streamed: list[Any] = list(clf.stream(iter(texts)))
        assert [each["label"] for each in streamed] == clf.predict(texts)
        assert clf(texts[1], top_k=None)[0]["label"] == clf.predict(texts)[1]
        assert clf.truncated == 0
        windows = [len(in_windows(text, 4)) for text in texts]
        assert (clf.stats.windowed, clf.stats.windows) == (6 * 3 + 1, 6 * sum(n for n in windows if n > 1) + windows[1])


def test_the_default_overlap_is_a_quarter(artifact: Path, reference: Callable[..., np.ndarray]) -> None:
    text = words(100)
    with Classifier.from_pretrained(artifact, threads=1, long_text="window") as clf:
        expected = reference(in_windows(text, 30 // 4)).mean(axis=0)
        np.testing.assert_allclose(clf.decision_function([text])[0], expected, atol=1e-5)


def test_more_texts_than_are_tokenized_together(artifact: Path, reference: Callable[..., np.ndarray]) -> None:
    texts = [words(40 if i % 700 == 3 else 4, i) for i in range(2500)]
    with Classifier.from_pretrained(artifact, threads=1, long_text=Window(stride=2)) as clf:
        found = clf.decision_function(texts)
    some = [0, 3, 700, 703, 2047, 2048, 2103, 2499]
    expected = np.array([reference(in_windows(texts[i], 2)).mean(axis=0) for i in some])
    np.testing.assert_allclose(found[some], expected, atol=1e-5)


def test_each_window_has_its_own_scores(artifact: Path, reference: Callable[..., np.ndarray]) -> None:
    text = f"  {words(70)}  "
    with Classifier.from_pretrained(artifact, threads=1, long_text=Window(stride=10)) as clf:
        found = clf.windows(text)
        assert [text[each.start : each.end] for each in found] == in_windows(text, 10)
        np.testing.assert_allclose([each.logits for each in found], reference(in_windows(text, 10)), atol=1e-5)
        assert all(sum(each.scores.values()) == pytest.approx(1) and set(each.scores) == set(clf.classes_) for each in found)
        mean = np.mean([each.logits for each in found], axis=0)
        np.testing.assert_allclose(clf.decision_function([text])[0], mean, atol=1e-5)
        whole = clf.windows("good movie", "bad")
        assert [(each.start, each.end, each.segment) for each in whole] == [(0, 10, 0)]
        assert {each.segment for each in clf.windows("bad", text)} == {1}
        assert [each.scores for each in clf.windows("good", function_to_apply="none")] == [
            dict(zip(clf.classes_, clf.windows("good")[0].logits, strict=True))
        ]


def test_windows_can_be_listed_without_long_text_window(artifact: Path) -> None:
    with Classifier.from_pretrained(artifact, threads=1) as clf, warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(clf.windows(words(70))) == 3 and clf.truncated == 0


def test_a_call_may_override_long_text(artifact: Path) -> None:
    with Classifier.from_pretrained(artifact, threads=1, long_text="window") as clf:
        cut = clf(words(90), truncation=True)
        assert clf.truncated == 1 and clf.stats.windows == 0
        assert cut == clf(words(90).rsplit(maxsplit=60)[0])
        with pytest.raises(TextTooLongError):
            clf(words(90), truncation=False)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"stride": -1}, "from 0 up"),
        ({"stride": 1.5}, "from 0 up"),
        ({"stride": True}, "from 0 up"),
        ({"aggregate": "median"}, "mean, max"),
    ],
)
def test_wrong_options_are_refused_with_the_valid_values(options: dict[str, Any], named: str) -> None:
    with pytest.raises(OptionError, match=named):
        Window(**options)


def test_a_stride_must_leave_room_to_advance(artifact: Path) -> None:
    with pytest.raises(OptionError, match="stride is 8: a window has 8 tokens of text"):
        Classifier.from_pretrained(artifact, max_length=10, long_text=Window(stride=8))
    with Classifier.from_pretrained(artifact, max_length=10, long_text=Window(stride=7)) as clf:
        assert len(clf.windows(words(20))) == 13


def test_truncation_is_warned_of_once(artifact: Path) -> None:
    with Classifier.from_pretrained(artifact, threads=1) as clf:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            clf(words(90), truncation=True)  # asked for
            clf(["good"])
        with pytest.warns(UserWarning, match=r"text 1 has more tokens than max_length, 32, and was cut") as caught:
            clf.predict(["good", words(90)])
        assert [warning.filename for warning in caught] == [__file__]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            clf(words(90))
            list(clf.stream([words(90)]))
        assert clf.truncated == 4


def test_a_pair_of_two_long_texts_gives_a_warning(artifact: Path) -> None:
    with Classifier.from_pretrained(artifact, threads=1, long_text="window") as clf:
        with pytest.warns(UserWarning, match="the shorter one was cut"):
            clf((words(90), words(80)))
        assert clf.truncated == 1 and clf.stats.windows > 1


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*FUSEDBERT, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False)


def test_the_commands_take_the_options_of_long_texts(artifact: Path, tmp_path: Path) -> None:
    text = words(90)
    with Classifier.from_pretrained(artifact, long_text=Window(stride=3, aggregate="max")) as clf:
        expected = clf(text, top_k=None)[0]
    window = ["--long-text", "window", "--stride", "3", "--aggregate", "max"]
    done = run("classify", "-m", artifact, "--format", "jsonl", *window, text)
    entry = json.loads(done.stdout)
    assert done.stderr == "" and entry["label"] == expected["label"]
    assert entry["score"] == pytest.approx(expected["score"], abs=1e-5)
    refused = run("classify", "-m", artifact, "--long-text", "error", text)
    assert refused.returncode == 1 and "92 tokens" in refused.stderr
    cut = run("classify", "-m", artifact, text)
    assert cut.returncode == 0 and cut.stderr.count("was cut") == 1
    assert run("classify", "-m", artifact, "--stride", "3", text).returncode == 2

    table, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    table.write_text("".join(json.dumps({"text": each}) + "\n" for each in ("good", text)))
    assert run("score", table, "-o", out, "-m", artifact, *window).returncode == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["truncated"] for row in rows] == [False, False]
    assert rows[1]["label"] == expected["label"] and rows[1]["score"] == pytest.approx(expected["score"], abs=1e-5)


def test_scoring_reports_a_refused_long_text_by_its_row(artifact: Path, tmp_path: Path) -> None:
    table, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    table.write_text("".join(json.dumps({"text": each}) + "\n" for each in ("good", words(90), "bad", words(90))))
    refused = run("score", table, "-o", out, "-m", artifact, "--long-text", "error")
    assert refused.returncode == 1 and "row 2 cannot be scored" in refused.stderr and "max_length, 32" in refused.stderr
    done = run("score", table, "-o", out, "-m", artifact, "--long-text", "error", "--on-error", "null", "--force", "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["errors"] == 2
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["label"] is None for row in rows] == [False, True, False, True]
