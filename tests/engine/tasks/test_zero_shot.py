"""Zero-shot: one model in transformers' pipeline and in fusedbert, the same labels, order, scores and errors."""

from __future__ import annotations

import pickle
import random
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pipelines import PROPERTY, TEXTS, mock_pipeline

from fusedbert.engine import Classifier, InputError, OptionError, TextTooLongError, Window, ZeroShot
from fusedbert.engine.text.tokenizer import TextTokenizer

NLI: dict[str, tuple[str, ...]] = {
    "contradiction first": ("contradiction", "neutral", "entailment"),
    "entailment first": ("ENTAILMENT", "NEUTRAL", "CONTRADICTION"),
    "entailment between": ("contradiction", "entails", "neutral"),
    "two labels": ("entailment", "not_entailment"),
    "two labels, the other order": ("not_entailment", "Entailment"),
}
INPUTS: list[Any] = [
    "good movie",
    ["good movie", "the plot was dull", "fine"],
    ["good"],
    " ",
    "É電影 👍 [SEP] ﬁne",
    "very " * 100,
    ["very dull " * 30, "bad", "good " * 24],
]
LABELS: list[Any] = [
    ["good", "bad"],
    "music, the movie ,, not dull",
    ("fine",),
    ["{0}, {braces}", "{}", "a, b"],
    ["good", "good", "bad"],
    ["電影", "", "É"],
    [f"{a} {b}" for a in "abcdef" for b in "ghijklm"],
]


@pytest.fixture(params=NLI)
def both(request: pytest.FixtureRequest, make_artifact: Callable[..., Path], tokenizer: Any, weights: Any) -> Iterator[Any]:
    labels = NLI[request.param]
    theirs = mock_pipeline(labels, "single_label_classification", tokenizer, weights(len(labels)), "zero-shot-classification")
    with ZeroShot.from_pretrained(make_artifact(labels), threads=1) as ours:
        yield theirs, ours


@pytest.fixture
def nli(make_artifact: Callable[..., Path]) -> Callable[..., ZeroShot]:
    def load(*labels: str, **options: Any) -> ZeroShot:
        problem_type = options.pop("problem_type", "single_label_classification")
        return ZeroShot.from_pretrained(make_artifact(labels or NLI["contradiction first"], problem_type), **options)

    return load


def assert_same(found: Any, expected: Any) -> None:
    """Compare answers: labels exactly but for those whose scores are equal, scores within float32's rounding."""
    assert type(found) is type(expected)
    if isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
        return
    assert list(found) == list(expected) and found["sequence"] == expected["sequence"]
    assert found["scores"] == pytest.approx(expected["scores"], abs=1e-5)
    assert all(type(score) is float for score in found["scores"])
    assert sorted(found["labels"]) == sorted(expected["labels"])
    gaps = np.abs(np.diff(expected["scores"]))
    if len(gaps) == 0 or gaps.min() > 2e-5:
        assert found["labels"] == expected["labels"]


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("labels", LABELS, ids=range(len(LABELS)))
@pytest.mark.parametrize("inputs", INPUTS, ids=range(len(INPUTS)))
def test_answers_are_those_of_the_pipeline(both: tuple[Any, ZeroShot], inputs: Any, labels: Any, multi_label: bool) -> None:
    theirs, ours = both
    assert_same(ours(inputs, candidate_labels=labels, multi_label=multi_label), theirs(inputs, labels, multi_label=multi_label))


@pytest.mark.parametrize("template", ["It was {}.", "{}", "a {0} film, {0} and {{bright}}", "was {:>5}?", "{!r}"])
def test_templates_are_filled_as_in_the_pipeline(both: tuple[Any, ZeroShot], template: str) -> None:
    theirs, ours = both
    labels = ["good", "not {dull}"]
    expected = theirs("good movie", candidate_labels=labels, hypothesis_template=template)
    assert_same(ours("good movie", labels, template), expected)
    assert_same(ours("good movie", labels, hypothesis_template=template, batch_size=8, num_workers=0), expected)


@PROPERTY
@given(
    texts=st.lists(TEXTS.filter(bool), max_size=6),
    labels=st.lists(TEXTS.map(lambda text: text[:40]), min_size=1, max_size=6, unique=True),
    multi_label=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_answers_do_not_depend_on_the_batch(
    both: tuple[Any, ZeroShot], texts: list[str], labels: list[str], multi_label: bool, seed: int
) -> None:
    theirs, ours = both
    template = "{}"
    try:
        expected = [ours(text, labels, template, multi_label) for text in texts]
    except TextTooLongError:
        return
    assert_same(ours(texts, labels, template, multi_label), expected)
    assert_same(list(ours(iter(texts), labels, template, multi_label)), expected)
    order = random.Random(seed).sample(range(len(texts)), len(texts))
    assert_same(ours([texts[i] for i in order], labels, template, multi_label), [expected[i] for i in order])
    if texts:
        assert_same(expected[0], theirs(texts[0], labels, hypothesis_template=template, multi_label=multi_label))
        other = ours(texts[0], ["bright", *labels], template, multi_label=True)  # other labels do not change a label's own
        scores = dict(zip(other["labels"], other["scores"], strict=True))
        for one in ours(texts[0], labels, template, multi_label=True)["labels"]:
            (score,) = ours(texts[0], [one], template)["scores"]
            assert score == pytest.approx(scores[one], abs=1e-6)


def test_without_an_entailment_label_it_warns_and_takes_the_last_as_the_pipeline(
    make_artifact: Callable[..., Path], tokenizer: Any, weights: Any, caplog: pytest.LogCaptureFixture
) -> None:
    labels = ("LABEL_0", "LABEL_1", "LABEL_2")
    theirs = mock_pipeline(labels, "single_label_classification", tokenizer, weights(3), "zero-shot-classification")
    with Classifier.from_pretrained(make_artifact(labels)) as clf:
        with pytest.warns(UserWarning, match=r"LABEL_0, LABEL_1, LABEL_2, begins with 'entail': .*id2label") as caught:
            ours = ZeroShot(clf)
        with pytest.warns(UserWarning, match="begins with") as loaded:
            ZeroShot.from_pretrained(clf.model.source.folder).close()
        assert caught[0].filename == loaded[0].filename == __file__
        for multi_label in (False, True):
            assert_same(ours("good", "a, b", multi_label=multi_label), theirs("good", "a, b", multi_label=multi_label))


@pytest.mark.parametrize(
    ("labels", "problem_type", "said"),
    [
        (("value",), "regression", "a regression"),
        (("a", "b"), "regression", "a regression"),
        (("entailment",), "single_label_classification", "a model of one label"),
        (("entailment", "b"), "multi_label_classification", "a multi_label_classification"),
    ],
)
def test_models_that_are_not_nli_are_refused(
    nli: Callable[..., ZeroShot], labels: tuple[str, ...], problem_type: str, said: str
) -> None:
    with pytest.raises(OptionError, match=f"this model is {said}, .*contradiction, neutral and entailment"):
        nli(*labels, problem_type=problem_type)


@pytest.mark.parametrize(
    ("labels", "template", "said"),
    [
        ([], "{}", "candidate_labels is empty"),
        (" , ", "{}", "candidate_labels is empty"),
        (["a"], "It is it.", "without a place for the label"),
        (["a"], "{{}}", "without a place for the label"),
        (["a"], "{} or {}", "cannot fill"),
        (["a"], "{label}", "cannot fill"),
        (["a"], "{", "cannot fill"),
        (["a"], "{:d}", "cannot fill"),
        (["a"], "{.name}", "cannot fill"),
        (["a"], None, "is None, without a place"),
        (["a", 5], "{}", "has 5, expected texts"),
        ([None], "{}", "has None, expected texts"),
        (["a", "\ud83d"], "{}", "lone surrogate"),
        (5, "{}", "candidate_labels is 5"),
        ({"a": 1}, "{}", "candidate_labels is {'a': 1}"),
    ],
)
def test_wrong_labels_and_templates_are_refused(nli: Callable[..., ZeroShot], labels: Any, template: Any, said: str) -> None:
    with nli() as ours, pytest.raises(OptionError, match=said):
        ours("good", labels, template)


def test_what_the_pipeline_refuses_is_refused(both: tuple[Any, ZeroShot]) -> None:
    theirs, ours = both
    calls: list[tuple[Any, ...]] = [("", ["a"]), (["good", ""], ["a"]), ("good", []), ("good", ","), ("good", ["a"], "It is.")]
    for inputs, labels, *template in calls:
        keywords = {"hypothesis_template": template[0]} if template else {}
        with pytest.raises(ValueError):
            theirs(inputs, candidate_labels=labels, **keywords)
        with pytest.raises(ValueError):
            ours(inputs, candidate_labels=labels, **keywords)
    assert ours([], ["a"]) == []  # where the pipeline fails
    with pytest.raises(TypeError, match="multi_class"):  # which the pipeline ignores, like any other keyword
        ours("good", ["a"], multi_class=True)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        (["good", ""], "text 1 is empty"),
        ("", "text 0 is empty"),
        ([("good", "bad")], "text 0 is a pair"),
        ([{"text": "good", "text_pair": "bad"}], "text 0 is a pair"),
        ({"text": "good", "text_pair": "bad"}, "text 0 is a pair"),
        (["good", None], "text 1 is None"),
        (5, "text 0 is the int 5"),
        (["\ud83d"], "lone surrogate"),
    ],
)
def test_pairs_and_other_inputs_than_texts_are_refused(nli: Callable[..., ZeroShot], inputs: Any, said: str) -> None:
    with nli() as ours:
        with pytest.raises(InputError, match=said):
            ours(inputs, "a, b")
        with pytest.raises(OptionError, match="batch_size"):
            ours("good", "a", batch_size=0)
        with pytest.raises(InputError, match="stream takes an iterable"):
            ours.stream("good", "a")


def test_only_the_text_is_cut_and_counted(nli: Callable[..., ZeroShot]) -> None:
    with nli() as ours:
        with pytest.warns(UserWarning, match=r"text 1 has more tokens than max_length, 32, and was cut") as caught:
            ours(["good", "very " * 40], "music, film")
        assert len(caught) == 1
        assert (ours.classifier.stats.texts, ours.classifier.stats.truncated) == (4, 2)
        start, end = "very " * 40 + "good", "very " * 40 + "bad"
        assert ours(start, "a, b")["scores"] == ours(end, "a, b")["scores"]
        assert ours("good", ["very " * 5 + "a", "b"])["scores"] != ours("good", ["very " * 5 + "b", "b"])["scores"]


def test_a_hypothesis_that_leaves_no_room_is_read_uncut_as_in_the_pipeline(
    both: tuple[Any, ZeroShot], make_artifact: Callable[..., Path]
) -> None:
    theirs, _ = both
    theirs.tokenizer.model_max_length = 12
    folder = make_artifact(tuple(theirs.model.config.id2label.values()), name="short")
    with ZeroShot.from_pretrained(folder, max_length=12) as ours:
        for text in ("good movie", "very " * 12, " "):
            labels = ["very " * 10, "good", "fine " * 4]
            assert_same(ours([text], labels, "{}"), theirs([text], labels, hypothesis_template="{}"))
        with pytest.raises(TextTooLongError, match=r"text 0 and the hypothesis 'very .* do not fit in 32 tokens"):
            ours(["fine", "good"], ["very " * 30, "good"], "{}")


def test_long_texts_are_refused_or_read_in_windows_if_asked_for(nli: Callable[..., ZeroShot]) -> None:
    long = "the movie was good . " * 12
    with nli(long_text="error") as ours:
        with pytest.raises(TextTooLongError, match="text 1 has"):
            ours(["good", long], "a, b")
        folder = ours.classifier.model.source.folder
    with ZeroShot.from_pretrained(folder, long_text=Window(stride=2)) as ours:
        (result,) = ours([long], ["dull", "bright"])
        clf = ours.classifier
        logits = [clf.decision_function([(long, f"This example is {label}.")])[0, 2] for label in result["labels"]]
        assert clf.stats.windowed == 4 and result["scores"][0] == pytest.approx(1 / (1 + np.exp(logits[1] - logits[0])))


def test_columns_generators_and_streams(nli: Callable[..., ZeroShot]) -> None:
    class Dataset:  # such as transformers' KeyDataset
        def __len__(self) -> int:
            return 2

        def __getitem__(self, i: int) -> str:
            return ["good", "bad"][i]

    texts = ["good", "bad"]
    with nli() as ours:
        expected = ours(texts, "music, film")
        assert ours(np.array(texts), np.array(["music", "film"])) == expected
        assert ours(("good", "bad"), ("music", "film")) == expected
        dataset: Any = Dataset()
        for lazy in (ours(iter(texts), "music, film"), ours(dataset, "music, film"), ours.stream(texts, ["music", "film"])):
            assert next(lazy) == expected[0] and list(lazy) == expected[1:]
        asked: list[int] = []
        endless = (asked.append(i) or f"good {i}" for i in range(10**9))
        stream = ours.stream(endless, [f"label {i}" for i in range(100)])
        for _ in range(20):
            next(stream)
        assert len(asked) <= 24, "it reads as many texts ahead as make 256 pairs"


def test_long_lists_run_in_chunks(nli: Callable[..., ZeroShot], monkeypatch: pytest.MonkeyPatch) -> None:
    with nli() as ours:
        texts = [f"good {'very ' * (i % 7)}{i}" for i in range(1500)]
        found = ours(texts, ["music", "film", "dull"])
        sizes: list[int] = []
        real = ours.classifier.model.tokenize
        monkeypatch.setattr(ours.classifier.model, "tokenize", lambda pairs, cut: sizes.append(len(pairs)) or real(pairs, cut))
        assert ours(texts, ["music", "film", "dull"]) == found
        assert sum(sizes) == 4500 and max(sizes) <= 2048
        assert_same([found[777]], [ours(texts[777], ["music", "film", "dull"])])


def test_texts_and_hypotheses_are_tokenized_once(nli: Callable[..., ZeroShot], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    encode = TextTokenizer.encode_fast

    def record(self: TextTokenizer, texts: Any, **options: Any) -> Any:
        asked.extend(texts)
        return encode(self, texts, **options)

    monkeypatch.setattr(TextTokenizer, "encode_fast", record)
    with nli() as ours:
        expected = ours(["good", "bad"], "music, film", "the {}")
        asked.clear()
        assert ours(["good", "bad"], "music, film", "the {}") == expected
        assert ours(["dull plot"], ["film", "music"], "the {}")[0]["sequence"] == "dull plot"
        assert asked == ["good", "bad", "dull plot"]


def test_pickles_closing_and_repr(nli: Callable[..., ZeroShot]) -> None:
    with nli() as ours, warnings.catch_warnings():
        warnings.simplefilter("error")
        with pickle.loads(pickle.dumps(ours)) as other:
            assert other("good", "a, b") == ours("good", "a, b")
        assert repr(ours).startswith("ZeroShot(Classifier(")
    with pytest.raises(RuntimeError, match="closed"):
        ours("good", "a, b")
