"""Token classifiers of every family, end to end: their entities are those of transformers' pipeline."""

from __future__ import annotations

import os
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusedbert.engine import Classifier, OptionError, TextTooLongError, TokenClassifier, Window
from fusedbert.export import export_checkpoint

FAMILIES = (
    *("bert", "roberta", "xlm-roberta", "camembert", "distilbert", "electra", "deberta-v2", "mpnet", "albert", "modernbert"),
)
NAMES = {0: "O", 1: "B-PER", 2: "I-PER", 3: "LOC"}
LABELS = {"id2label": NAMES, "label2id": {name: i for i, name in NAMES.items()}}
STRATEGIES = ("none", "simple", "first", "average", "max")
TEXTS = [
    "the movie was really good , not bad !",
    "",
    "Loved 👍🏽 it \r\n e\u0301 filmeding 电影 42",
    "i hated it , but we loved it ! 1 2 3 . " * 9,
    "[SEP] so boring",
]


def pipeline_of(folder: Path, limit: int) -> Any:
    from transformers import AutoModelForTokenClassification, AutoTokenizer, TokenClassificationPipeline

    model = AutoModelForTokenClassification.from_pretrained(folder, attn_implementation="eager").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, model_max_length=limit)
    return TokenClassificationPipeline(model=model, tokenizer=tokenizer, device="cpu")


def assert_same(found: Any, expected: Any) -> None:
    """Compare entities; scores within float32's rounding."""
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        if isinstance(other, list):
            assert_same(one, other)
        else:
            assert one == {**other, "score": pytest.approx(float(other["score"]), abs=1e-4)}
            assert type(one["score"]) is float


def export_one(make_checkpoint: Callable[..., Path], folder: Path, family: str, **config: Any) -> tuple[Path, Path]:
    checkpoint = make_checkpoint(family, tokens=True, **LABELS, **config)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what a tiny random model is warned about
        export_checkpoint(checkpoint, folder, target="fp32")
    return checkpoint, folder


@pytest.fixture(scope="module", params=FAMILIES)
def both(request: Any, make_checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """The pipeline of a checkpoint, and its artifact."""
    folder = tmp_path_factory.mktemp("tagger") / "artifact"
    checkpoint, folder = export_one(make_checkpoint, folder, request.param)
    with TokenClassifier.from_pretrained(folder) as tagger:
        return pipeline_of(checkpoint, tagger.max_length), folder


def test_entities_equal_those_of_the_pipeline(both: tuple[Any, Path]) -> None:
    pipeline, folder = both
    with TokenClassifier.from_pretrained(folder, precision="fp32") as tagger:
        for strategy in STRATEGIES:
            options: dict[str, Any]
            for options in ({}, {"ignore_labels": []}):
                expected = [pipeline(text, aggregation_strategy=strategy, **options) for text in TEXTS]
                assert_same(tagger(TEXTS, aggregation_strategy=strategy, **options), expected)
                assert_same(tagger(TEXTS[0], aggregation_strategy=strategy, **options), expected[0])
            if strategy != "none":
                options = {"aggregation_strategy": strategy, "stride": 7}
                assert_same(tagger(TEXTS[3], **options), pipeline(TEXTS[3], **options))
        words = [text.split() for text in TEXTS if text]
        assert_same(tagger(words, is_split_into_words=True), pipeline(words, is_split_into_words=True))
        assert [len(labels) for labels in tagger.predict(words)] == [len(each) for each in words]
        assert tagger.stats.truncated > 0 and tagger.stats.windows > 0


@pytest.fixture(scope="module")
def bert(make_checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return export_one(make_checkpoint, tmp_path_factory.mktemp("bert") / "artifact", "bert")


def test_spans_of_5000_tokens_equal_those_of_the_pipeline(bert: tuple[Path, Path]) -> None:
    checkpoint, folder = bert
    rng = np.random.default_rng(0)
    words = ["the", "movie", "films", "was", "not", "good", "loved", "boringly", "it", ",", "!", "hated", "7"]
    text = " ".join(rng.choice(words, 4500))
    pipeline = pipeline_of(checkpoint, 40)
    for strategy, stride in (("simple", 10), ("max", 0)):
        with TokenClassifier.from_pretrained(folder, long_text=Window(stride=stride), precision="fp32") as tagger:
            found = tagger(text, aggregation_strategy=strategy)
            assert_same(found, pipeline(text, aggregation_strategy=strategy, stride=stride))
            assert tagger.stats.tokens > 5000 and tagger.stats.truncated == 0
            assert found[-1]["end"] > len(text) - 200


def test_each_class_names_the_other_one(bert: tuple[Path, Path], embedded: Path) -> None:
    with pytest.raises(OptionError, match="labels tokens, not texts: use TokenClassifier"):
        Classifier.from_pretrained(bert[1])
    with pytest.raises(OptionError, match="labels texts, not tokens: use Classifier"):
        TokenClassifier.from_pretrained(embedded)


def test_a_long_text_is_refused_as_asked_for(bert: tuple[Path, Path]) -> None:
    with TokenClassifier.from_pretrained(bert[1], long_text="error") as tagger, pytest.raises(TextTooLongError):
        tagger(TEXTS[3])


def test_a_cut_text_gives_a_warning_once(bert: tuple[Path, Path]) -> None:
    with TokenClassifier.from_pretrained(bert[1]) as tagger:
        with pytest.warns(UserWarning, match="text 1 has more tokens than max_length, 40"):
            tagger(["good", TEXTS[3]])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            tagger(TEXTS[3])


def test_a_pickle_keeps_the_defaults(bert: tuple[Path, Path]) -> None:
    with TokenClassifier.from_pretrained(bert[1], aggregation_strategy="max", ignore_labels=["LOC"]) as tagger:
        copy = pickle.loads(pickle.dumps(tagger))
        assert copy(TEXTS[0]) == tagger(TEXTS[0]) and copy.defaults == tagger.defaults
        assert repr(tagger).startswith("TokenClassifier(")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork exists only on Unix")
def test_a_forked_child_opens_the_graph_again(bert: tuple[Path, Path]) -> None:
    import multiprocessing

    with TokenClassifier.from_pretrained(bert[1], threads=1) as tagger:
        expected = tagger(TEXTS[0])
        with multiprocessing.get_context("fork").Pool(1) as pool:
            assert pool.apply(tagger, (TEXTS[0],)) == expected
