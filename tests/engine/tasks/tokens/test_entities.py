"""Entities equal those of transformers' pipeline, for every kind of tokenizer and every strategy."""

from __future__ import annotations

import random
import warnings
from typing import Any

import pytest
from random_tokenizers import random_text

from .conftest import TOKENIZERS, Build

STRATEGIES = ("none", "simple", "first", "average", "max")
TEXTS = [
    "The movie was GOOD, not bad!",
    "",
    " ",
    "[UNK] <unk> [SEP] </s>",
    "good\r\nmovie\r\n\r\n电影 很好 👍🏽 e\u0301\u0302 cafe\u0301 naïve  straße\u200d\u00a0x",
    "👩\u200d👩\u200d👧 Paris is a fine café; i hate this awful film . why ?",
    "goodlyingx movieing " * 9,
    "good  movie   the  film    is  bad  " * 3,
    "the movie <mask> is [SEP] bad  <mask>  why [MASK] " * 3,
]


@pytest.fixture(params=TOKENIZERS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(autouse=True)
def quiet() -> Any:
    """Ignore the warnings about words by spaces, of both."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(heuristic|inside a word)")
        yield


@pytest.mark.parametrize("left", [False, True])
def test_entities_equal_those_of_the_pipeline(build: Build, kind: str, left: bool) -> None:
    both = build(kind, left=left)
    r = random.Random(kind)
    for text in [*TEXTS, *(random_text(r) for _ in range(60))]:
        for strategy in STRATEGIES:
            expected = both.pipeline(text, aggregation_strategy=strategy)
            assert both.tagger(text, aggregation_strategy=strategy) == expected, (text, strategy)
    everything: dict[str, Any] = {"aggregation_strategy": "simple", "ignore_labels": []}
    assert both.tagger(TEXTS, **everything) == both.pipeline(TEXTS, **everything)


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("kind", [kind for kind in TOKENIZERS if "bytes" in kind or kind == "modernbert"])
@pytest.mark.parametrize("text", ["a  \u200db <mask> c   d e", " x  y ", "Paris film  Éa the film 👍 Éa ", "  <mask>   !  "])
def test_a_token_of_spaces_at_the_start_of_a_window_has_the_characters_of_the_pipeline(
    build: Build, kind: str, left: bool, text: str
) -> None:
    for limit in range(4, 14):
        both = build(kind, left=left, limit=limit)
        everything: dict[str, Any] = {"ignore_labels": []}
        assert both.tagger(text, **everything) == both.pipeline(text, **everything)
        options: dict[str, Any] = {**everything, "aggregation_strategy": "first", "stride": 0}
        for start in range(6):
            assert both.tagger(text[start:], **options) == both.pipeline(text[start:], **options)


@pytest.mark.parametrize("left", [False, True])
def test_windows_equal_those_of_the_pipeline(build: Build, kind: str, left: bool) -> None:
    both = build(kind, left=left)
    r = random.Random(kind)
    for text in [*TEXTS, *(random_text(r) for _ in range(60))]:
        for strategy in STRATEGIES[1:]:
            options: dict[str, Any] = {"aggregation_strategy": strategy, "stride": r.randrange(8)}
            assert both.tagger(text, **options) == both.pipeline(text, **options), (text, options)
