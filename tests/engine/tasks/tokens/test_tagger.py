"""The tagger's call: words, collections, windows, keywords and what it refuses, as the pipeline where that has them."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusedbert.engine import InputError, OptionError, Scorer, TextTooLongError, TokenClassifier, Window

from .conftest import LABELS, MAX_LENGTH, TOKENIZERS, Both, Build, logits_of

WORDS = [["The", "movie", "isn't", "GOOD,", "电影", "👍🏽"], ["a"], ["Paris", "", "goods  bad", " film"], ["good"] * 20]
STRATEGIES = ("none", "simple", "first", "average", "max")


@pytest.fixture
def both(build: Build) -> Both:
    return build("word piece")


@pytest.fixture(autouse=True)
def quiet() -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(heuristic|inside a word)")
        yield


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("delimiter", [None, "", " \n", "电"])
def test_words_equal_those_of_the_pipeline(build: Build, kind: str, delimiter: str | None) -> None:
    both = build(kind, limit=20)
    for strategy in STRATEGIES:
        for stride in (None,) if strategy == "none" else (None, 3):
            options: dict[str, Any] = {"aggregation_strategy": strategy, "is_split_into_words": True, "stride": stride}
            for words in WORDS:
                expected = both.pipeline([words], **options, delimiter=delimiter)
                assert both.tagger([words], **options, delimiter=delimiter) == expected
            assert both.tagger(WORDS[0], **options) == both.pipeline(WORDS[0], **options)  # one text gives a list too


@pytest.mark.parametrize(
    "labels", [("O", "B", "I-", "-X"), ("A-B-C", "B-A-C", "I-B-A-C"), ("PER", "LOC"), ("B-PER", "B-LOC", "I-PER", "I-PER")]
)
def test_labels_of_any_form_equal_those_of_the_pipeline(build: Build, labels: tuple[str, ...]) -> None:
    both = build("word piece", labels=labels)
    text = "the movie was good , not bad , it is fine ! x y z paris"
    for strategy in STRATEGIES:
        for ignored in (None, [], ["PER"], ["B-PER", "C"], ("O", "LOC")):
            options: dict[str, Any] = {"aggregation_strategy": strategy, "ignore_labels": ignored}
            assert both.tagger(text, **options) == both.pipeline(text, **options)


def test_results_have_the_forms_of_the_pipeline(both: Both) -> None:
    texts = ["good movie", "", "the film was bad ."]
    one, several = both.tagger(texts[0], ignore_labels=[]), both.tagger(texts, ignore_labels=[])
    assert one == several[0] and several == both.pipeline(texts, ignore_labels=[])
    assert several[1] == []
    assert all(type(value) in (str, int, float) for entity in several[2] for value in entity.values())
    streamed = both.tagger((text for text in texts), ignore_labels=[])
    assert next(streamed) == one and [*streamed] == several[1:]
    assert list(both.tagger.stream(texts, ignore_labels=[])) == several
    assert both.tagger(np.array(texts), ignore_labels=[]) == several
    assert both.tagger([]) == both.tagger([], is_split_into_words=True) == []  # where the pipeline raises ValueError
    assert both.tagger({"text": texts[0]}, ignore_labels=[]) == one
    assert both.tagger(texts, batch_size=2, num_workers=0, ignore_labels=[]) == several


def test_a_generator_is_read_lazily(both: Both) -> None:
    taken = []

    def endless() -> Any:
        while True:
            taken.append(1)
            yield "good movie"

    answers = both.tagger.stream(endless())
    for _ in range(3):
        next(answers)
    assert len(taken) == 3


def test_keywords_of_the_load_are_the_defaults(both: Both) -> None:
    text = "the movie was good , not bad"
    tagger = type(both.tagger)(both.tagger.model, both.tagger.defaults.updated({"aggregation_strategy": "max"}))
    assert tagger(text) == both.pipeline(text, aggregation_strategy="max")
    assert tagger(text, aggregation_strategy="NONE") == both.pipeline(text)
    assert tagger(text, aggregation_strategy=None, ignore_labels=None) == tagger(text)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"aggregation_strategy": "best"}, "none, simple, first, average, max"),
        ({"stride": 3}, "give simple, first, average or max"),
        ({"stride": 3, "aggregation_strategy": "none"}, "give simple, first, average or max"),
        ({"stride": 10, "aggregation_strategy": "simple"}, "a window has 10 tokens"),
        ({"stride": -1, "aggregation_strategy": "simple"}, "from 0 up"),
        ({"ignore_labels": "O"}, "give a list of labels"),
        ({"ignore_labels": [0]}, "names of labels"),
        ({"delimiter": 3}, "give a str"),
        ({"is_split_into_words": "yes"}, "True, False or None"),
        ({"offset_mapping": [(0, 1)]}, "leave it out"),
        ({"grouped_entities": True}, "aggregation_strategy='simple'"),
        ({"truncation": True}, "long_text="),
        ({"batch_size": 0}, "from 1 up"),
    ],
)
def test_values_that_mean_nothing_are_refused(both: Both, keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        both.tagger("good movie", **keywords)


@pytest.mark.parametrize(
    ("inputs", "keywords", "message"),
    [
        (("a", "b"), {}, "text 0 is a pair"),
        (["a", ("a", "b")], {}, "text 1 is a pair"),
        (["a", None], {}, "text 1 is None"),
        (3, {}, "a text or a list of texts"),
        ("a b", {"is_split_into_words": True}, "a list of words"),
        ([["a"], "b"], {"is_split_into_words": True}, "text 0 has .* among its words"),
        ([["a"], [1]], {"is_split_into_words": True}, "text 1 has 1 among its words"),
        (["\ud800"], {}, "lone surrogate"),
    ],
)
def test_inputs_that_are_not_texts_are_refused(both: Both, inputs: Any, keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        both.tagger(inputs, **keywords)


def test_an_iterator_gives_texts_and_each_is_a_list_of_words(both: Both) -> None:
    with pytest.raises(InputError, match="text 0 is of type str, and is_split_into_words is True: give a list of words"):
        next(both.tagger(iter(WORDS[0]), is_split_into_words=True))
    assert list(both.tagger(iter(WORDS), is_split_into_words=True)) == both.tagger(WORDS, is_split_into_words=True)


@pytest.mark.parametrize(
    "window", [Window(by="sentence"), Window(aggregate="max"), Window(stride=3, aggregate="max", label="PLACE")]
)
def test_windows_whose_scores_would_be_combined_are_refused(tokens_artifact: Path, window: Window) -> None:
    for load in (TokenClassifier.from_pretrained, lambda model, long_text: Scorer(model, long_text=long_text)({"text": [""]})):
        with pytest.raises(OptionError, match=r"by sentence, or with aggregate='max': a tagger takes Window\(stride=...\)"):
            load(tokens_artifact, long_text=window)


def test_an_unknown_keyword_is_a_type_error(both: Both) -> None:
    with pytest.raises(TypeError, match="top_k"):
        both.tagger("good", top_k=3)  # type: ignore[call-arg]


def test_long_texts_are_refused_or_read_in_windows_as_loaded(build: Build) -> None:
    long = "the movie was good , not bad , it is fine ! " * 30
    with pytest.raises(TextTooLongError, match="text 0 has"):
        build("word piece", long_text="error").tagger(long)
    both = build("word piece", long_text=Window(stride=4))
    assert both.tagger(long, aggregation_strategy="simple") == both.pipeline(long, aggregation_strategy="simple", stride=4)
    assert both.tagger("good", aggregation_strategy="simple") == both.pipeline("good", aggregation_strategy="simple")
    default = build("word piece", long_text="window")
    options = {"aggregation_strategy": "max", "stride": (MAX_LENGTH - 2) // 4}
    assert default.tagger(long, aggregation_strategy="max") == both.pipeline(long, **options)


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("stride", [0, 1, 4, 7, 9])
def test_each_token_of_a_long_text_has_the_window_in_which_it_is_deepest(build: Build, left: bool, stride: int) -> None:
    both = build("bytes after a space", long_text=Window(stride=stride), left=left)
    tokenizer = both.tagger.model.tokenizer
    width = MAX_LENGTH - 2
    for count in (0, 1, 9, 10, 11, 14, 23, 60):
        text = " ".join(["good", "bad", "x", "film"][i % 4] for i in range(count))
        found = both.tagger(text, ignore_labels=[])
        encoding = tokenizer.raw.encode(text)
        own = range(1, len(encoding) - 1)
        assert [entity["index"] for entity in found] == list(own)
        assert [(entity["start"], entity["end"]) for entity in found] == [encoding.offsets[i] for i in own]
        first = range(0, max(len(own) - stride, 1), width - stride)
        windows = [(start, min(start + width, len(own))) for start in first]
        windows = [(len(own) - end, len(own) - start) for start, end in windows] if left else windows
        for i, entity in enumerate(found):
            inside = [(start, end) for start, end in windows if start <= i < end]
            far = [min(i - a if a else 10**6, b - 1 - i if b < len(own) else 10**6) for a, b in inside]
            scores = set()
            for (start, end), depth in zip(inside, far, strict=True):
                if depth == max(far):
                    ids = [encoding.ids[0], *encoding.ids[1 + start : 1 + end], encoding.ids[-1]]
                    logits = logits_of(np.array(ids), len(LABELS))[1 + i - start]
                    scores.add(round(float(np.exp(logits.max()) / np.exp(logits).sum()), 5))
            assert round(entity["score"], 5) in scores


def test_predict_gives_a_label_to_each_word_or_token(both: Both) -> None:
    texts = ["the goods are bad", ""]
    every = both.tagger(texts, ignore_labels=[])
    assert both.tagger.predict(texts) == [[entity["entity"] for entity in entities] for entities in every]
    words = [["the", "goods", "\u200b", "bad"], [], ["good"] * 11]
    labels = both.tagger.predict(words)
    found = both.tagger([words[0]], is_split_into_words=True, ignore_labels=[])[0]
    first = {entity["start"]: entity["entity"] for entity in reversed(found)}
    assert labels[0] == [first[0], first[4], None, first[12]]
    assert labels[1] == [] and labels[2][-1] is None and None not in labels[2][:-1]  # the last word was cut off
    with pytest.raises(InputError, match="give \\[text\\]"):
        both.tagger.predict("good")


def test_words_by_spaces_are_warned_about_once(build: Build) -> None:
    tagger = build("unigram").tagger
    with pytest.warns(UserWarning, match="does not mark tokens inside a word"):
        tagger("good movie", aggregation_strategy="first")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tagger("good movie", aggregation_strategy="max")
        build("word piece").tagger("good movie", aggregation_strategy="max")


def test_the_defaults_can_be_pickled(both: Both) -> None:
    assert pickle.loads(pickle.dumps(both.tagger.defaults)) == both.tagger.defaults
