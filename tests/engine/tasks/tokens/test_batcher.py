"""A token classifier behind a ``Batcher``: each caller gets the entities of the text it gave."""

from __future__ import annotations

import asyncio
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from fusedbert.engine import Batcher, InputError, OptionError, TextTooLongError, TokenClassifier

WORDS = ["the", "movie", "movies", "was", "very", "not", "good", "bad", "!", ".", "👍🏽", "unknownword"]


@pytest.fixture
def tagger(tokens_artifact: Path) -> Any:
    with TokenClassifier.from_pretrained(tokens_artifact, threads=1, aggregation_strategy="simple") as loaded:
        yield loaded


def assert_close(found: Any, expected: Any) -> None:
    assert found == [{**entity, "score": pytest.approx(entity["score"], abs=1e-5)} for entity in expected]


@pytest.mark.filterwarnings("ignore:this tokenizer")
def test_each_caller_gets_its_own_entities(tagger: TokenClassifier) -> None:
    r = random.Random(0)
    texts = [" ".join(r.choices(WORDS, k=r.choice([0, 1, 5, 20, 120]))) for _ in range(80)]
    calls: list[dict[str, Any]] = [
        {},
        {"aggregation_strategy": "max"},
        {"aggregation_strategy": "none", "ignore_labels": []},
        {"stride": 6},
        {"is_split_into_words": True},
    ]
    chosen = [r.choice(calls) for _ in texts]
    items: list[Any] = [
        text.split() if "is_split_into_words" in call else text for text, call in zip(texts, chosen, strict=True)
    ]
    expected = [
        tagger([item], **call)[0] if "is_split_into_words" in call else tagger(item, **call)
        for item, call in zip(items, chosen, strict=True)
    ]
    with Batcher(tagger) as batcher, ThreadPoolExecutor(8) as pool:
        futures = list(pool.map(lambda pair: batcher.submit(pair[0], **pair[1]), zip(items, chosen, strict=True)))
        for future, entities in zip(futures, expected, strict=True):
            assert_close(future.result(60), entities)

        async def ask() -> list[Any]:
            return await asyncio.gather(*(batcher.classify(*[item], **call) for item, call in zip(items, chosen, strict=True)))

        for found, entities in zip(asyncio.run(ask()), expected, strict=True):
            assert_close(found, entities)
        assert batcher.stats.answered == 2 * len(texts)


def test_an_error_is_its_callers_own(tokens_artifact: Path) -> None:
    with TokenClassifier.from_pretrained(tokens_artifact, long_text="error") as tagger, Batcher(tagger) as batcher:
        futures = [batcher.submit(text) for text in ("good", "good " * 100, "bad")]
        assert futures[0].result(20) == tagger("good") and futures[2].result(20) == tagger("bad")
        with pytest.raises(TextTooLongError):
            futures[1].result(20)
        with pytest.raises(InputError, match="one text at a time"):
            batcher.submit(["good"])
        with pytest.raises(InputError, match="is a pair"):
            batcher.submit(("good", "bad"))
        with pytest.raises(OptionError, match="aggregation_strategy"):
            batcher.submit("good", aggregation_strategy="best")
        with pytest.raises(TypeError, match="top_k"):
            batcher.submit("good", top_k=2)
        with pytest.raises(OptionError, match="labels tokens"):
            batcher.rank("good", ["bad"])
