"""Any texts, in any order, cut into any batches, through any of the interfaces: the same results."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fusedbert.engine import Batcher, Classifier

# Any Unicode but surrogates, which are not text; and words of the vocabulary, so that lengths and scores differ.
TEXT = st.one_of(
    st.text(st.characters(exclude_categories=("Cs",)), max_size=60),
    st.lists(st.sampled_from(["good", "bad", "movie", "very", "dull", "not", "!", "\t"]), max_size=60).map(" ".join),
)
ITEM = st.one_of(TEXT, st.tuples(TEXT, TEXT))


@pytest.fixture
def clf(artifact: Path) -> Iterator[Classifier]:
    with Classifier.from_pretrained(artifact, threads=1) as classifier, Batcher(classifier) as batcher:
        classifier([("good " * 40), "bad"])  # the warning about a long text comes once
        classifier.batcher = batcher  # type: ignore[attr-defined]
        yield classifier


@pytest.mark.filterwarnings("ignore:text . has more tokens")
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(items=st.lists(ITEM, max_size=24), data=st.data())
def test_every_interface_gives_the_same_results(
    clf: Classifier, items: list[str | tuple[str, str]], data: st.DataObject
) -> None:
    batcher: Batcher = clf.batcher  # type: ignore[attr-defined]
    alone = [clf.predict_proba([item])[0] for item in items]
    expected = np.array(alone, dtype=np.float32).reshape(len(items), 2)

    def scores(results: list[Any]) -> np.ndarray:
        rows = [[{each["label"]: each["score"] for each in found}[name] for name in clf.classes_] for found in results]
        return np.array(rows, dtype=np.float32).reshape(len(items), 2)

    order = data.draw(st.permutations(range(len(items))))
    shuffled = [items[i] for i in order]
    cut = data.draw(st.integers(0, len(items)))

    async def ask() -> list[Any]:
        return await asyncio.gather(*(batcher.classify(item, top_k=None) for item in shuffled))

    futures = [batcher.submit(item, top_k=None) for item in shuffled]
    ways = {
        "predict_proba": clf.predict_proba(shuffled),
        "call": scores(clf(shuffled, top_k=None)),
        "two calls": scores(clf(shuffled[:cut], top_k=None) + clf(shuffled[cut:], top_k=None)),
        "stream": scores(list(clf.stream(iter(shuffled), top_k=None))),
        "submit": scores([future.result(20) for future in futures]),
        "classify": scores(asyncio.run(ask())),
    }
    for way, found in ways.items():
        np.testing.assert_allclose(found, expected[order], atol=1e-6, err_msg=way)
    assert clf.predict(shuffled) == [clf.classes_[i] for i in expected[order].argmax(axis=1)]
