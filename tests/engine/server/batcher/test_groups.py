"""Several texts that one coroutine puts into the queue together: all or none, one error for all, tokens counted."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from typing import Any

import pytest

from fusedbert.engine import Batcher, Classifier
from fusedbert.engine.errors import DeadlineError, InputError, OverloadError
from fusedbert.engine.server.batcher import Answers, Form
from fusedbert.engine.server.batcher.request import Group
from fusedbert.engine.text.inputs import Text, check_item

TEXTS = ["good movie", "bad " * 20, "very dull plot", "fine", "good movie"]


def checked(items: list[Any]) -> list[Text]:
    return [check_item(item, index) for index, item in enumerate(items)]


def form_of(clf: Classifier, **arguments: Any) -> Form:
    return Form(call=clf.model.call({"top_k": None, **arguments}))  # type: ignore[typeddict-item]


async def running(batcher: Batcher, count: int) -> None:
    while batcher.stats.running < count:
        await asyncio.sleep(0.001)


def test_a_group_has_the_results_of_the_classifier_and_its_tokens(clf: Classifier) -> None:
    async def ask() -> tuple[Answers, Answers]:
        async with Batcher(clf) as batcher:
            return await batcher.run(checked(TEXTS), form_of(clf)), await batcher.run([], form_of(clf))

    found, none = asyncio.run(ask())
    for one, other in zip(found.results, clf(TEXTS, top_k=None), strict=True):
        assert [each["label"] for each in one] == [each["label"] for each in other]
        assert [each["score"] for each in one] == pytest.approx([each["score"] for each in other], abs=1e-6)
    assert found.tokens == sum(len(row.ids) for row in clf.model.tokenize(checked(TEXTS)).rows)
    assert (none.results, none.tokens) == ([], 0)


def test_a_group_enters_a_full_queue_whole_or_not(clf: Classifier, held: threading.Event) -> None:
    async def ask() -> tuple[int, int]:
        async with Batcher(clf, workers=1, max_queue=6) as batcher:
            first = asyncio.create_task(batcher.classify("the movie"))
            await running(batcher, 1)
            four = asyncio.create_task(batcher.run(checked(TEXTS[:4]), form_of(clf)))
            await asyncio.sleep(0.01)
            with pytest.raises(OverloadError, match="4 texts wait already, and 3 more"):
                await batcher.run(checked(TEXTS[:3]), form_of(clf))
            waiting = batcher.stats.waiting
            two = asyncio.create_task(batcher.run(checked(TEXTS[:2]), form_of(clf)))
            await asyncio.sleep(0.01)
            with pytest.raises(OverloadError, match="7 texts are more than may wait"):
                await batcher.run(checked([*TEXTS, "a", "b"]), form_of(clf))
            held.set()
            await asyncio.gather(first, four, two)
            return waiting, batcher.stats.refused

    assert asyncio.run(ask()) == (4, 10)


def test_the_error_of_a_text_is_that_of_its_group_and_of_no_other(clf: Classifier, held: threading.Event) -> None:
    async def ask() -> tuple[Any, int]:
        async with Batcher(clf, workers=1) as batcher:
            first = asyncio.create_task(batcher.classify("the movie"))
            await running(batcher, 1)
            tight = form_of(clf, truncation=False)
            broken = asyncio.create_task(batcher.run(checked(["long " * 600, *TEXTS * 3]), tight))
            sound = asyncio.create_task(batcher.run(checked(TEXTS), tight))
            await asyncio.sleep(0.01)
            held.set()
            end = time.monotonic() + 20
            while (batcher.stats.running or batcher.stats.waiting) and time.monotonic() < end:
                time.sleep(0.001)  # the event loop is busy: it reads the error after the last run
            with pytest.raises(InputError, match="text 0"):
                await broken
            results = (await sound).results
            await first
            return results, batcher.stats.cancelled

    results, cancelled = asyncio.run(ask())
    assert [each[0]["label"] for each in results] == clf.predict(TEXTS)
    assert cancelled == len(TEXTS) * 3  # the others of the group were not run


def test_a_group_whose_coroutine_has_gone_is_not_run(clf: Classifier, held: threading.Event) -> None:
    """Neither what waits nor what a worker has taken for a later batch."""

    async def ask() -> tuple[int, int]:
        async with Batcher(clf, workers=1, max_tokens=16) as batcher:
            taken = asyncio.create_task(batcher.run(checked(["good movie"] * 40), form_of(clf)))
            await running(batcher, 10)
            waits = asyncio.create_task(batcher.run(checked(["good movie"] * 30), form_of(clf)))
            await asyncio.sleep(0.01)
            for task in (taken, waits):
                task.cancel()
            await asyncio.gather(taken, waits, return_exceptions=True)
            held.set()
            while batcher.stats.running:
                await asyncio.sleep(0.001)
            return batcher.stats.answered, batcher.stats.cancelled

    answered, cancelled = asyncio.run(ask())
    assert answered < 10 and answered + cancelled == 70


def test_a_group_that_waits_too_long_fails_whole(clf: Classifier, held: threading.Event) -> None:
    async def ask() -> int:
        async with Batcher(clf, workers=1) as batcher:
            first = asyncio.create_task(batcher.classify("the movie"))
            await running(batcher, 1)
            with pytest.raises(DeadlineError):
                await batcher.run(checked(TEXTS), form_of(clf), timeout=0.02)
            held.set()
            await first
            return batcher.stats.expired

    assert asyncio.run(ask()) == len(TEXTS)


def test_a_group_is_freed_with_its_answers(clf: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not by a garbage collection, which large texts do not bring about."""
    made: list[Any] = []

    class Watched(Group):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            made.append(weakref.ref(self))

    monkeypatch.setattr("fusedbert.engine.server.batcher.Group", Watched)

    async def ask() -> Answers:
        async with Batcher(clf) as batcher:
            return await batcher.run(checked(TEXTS), form_of(clf), timeout=60)

    gc.collect()
    gc.disable()
    try:
        assert len(asyncio.run(ask()).results) == len(TEXTS) and made[0]() is None
    finally:
        gc.enable()
