"""Batcher from coroutines: results, loops that stay free, cancellation, deadlines, several loops."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from fusedbert.engine import Batcher, Classifier
from fusedbert.engine.errors import ClosedError, DeadlineError, InputError, OverloadError

TEXTS = ["good movie", "", "bad " * 20, "very dull plot", "fine"]


async def occupied(batcher: Batcher) -> asyncio.Task[Any]:
    """Give the one worker a text that it is held up with."""
    task = asyncio.create_task(batcher.classify("the movie"))
    while not batcher.stats.running:
        await asyncio.sleep(0.001)
    return task


def test_classify_gives_the_results_of_the_classifier(clf: Classifier) -> None:
    async def ask() -> list[Any]:
        async with Batcher(clf) as batcher:
            return await asyncio.gather(*(batcher.classify(text, top_k=None) for text in TEXTS * 20))

    for found, text in zip(asyncio.run(ask()), TEXTS * 20, strict=True):
        for one, other in zip(found, clf(text, top_k=None), strict=True):
            assert one["label"] == other["label"] and one["score"] == pytest.approx(other["score"], abs=1e-6)


def test_the_event_loop_is_not_blocked(clf: Classifier, held: threading.Event) -> None:
    async def ask() -> int:
        ticks = 0
        async with Batcher(clf) as batcher:
            tasks = [asyncio.create_task(batcher.classify(text)) for text in TEXTS]
            for _ in range(20):  # the graph is held up all the while
                await asyncio.sleep(0)
                ticks += 1
            assert not any(task.done() for task in tasks)
            held.set()
            await asyncio.gather(*tasks)
        return ticks

    assert asyncio.run(ask()) == 20


def test_one_batcher_serves_several_loops_at_once(clf: Classifier) -> None:
    results: list[list[Any]] = []
    with Batcher(clf) as batcher:

        async def ask() -> list[Any]:
            return await asyncio.gather(*(batcher.classify(text) for text in TEXTS * 10))

        threads = [threading.Thread(target=lambda: results.append(asyncio.run(ask()))) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    expected = [clf(text)[0]["label"] for text in TEXTS * 10]
    assert [[found[0]["label"] for found in each] for each in results] == [expected] * 3


def test_a_cancelled_task_gives_up_its_place(clf: Classifier, held: threading.Event) -> None:
    async def ask() -> None:
        batcher = Batcher(clf, workers=1, max_queue=1)
        first = await occupied(batcher)
        waiting = asyncio.create_task(batcher.classify("bad"))
        await asyncio.sleep(0)
        with pytest.raises(OverloadError):
            await batcher.classify("good")
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert batcher.stats.cancelled == 1 and batcher.stats.waiting == 0
        other = asyncio.create_task(batcher.classify("good"))
        first.cancel()  # runs already: its result is dropped without harm
        held.set()
        assert await other == clf("good")
        await batcher.aclose()
        assert first.cancelled()

    asyncio.run(ask())


def test_a_passed_deadline_is_reported_at_once(clf: Classifier, held: threading.Event) -> None:
    async def ask() -> None:
        async with Batcher(clf, workers=1) as batcher:
            first = await occupied(batcher)
            with pytest.raises(DeadlineError):
                await batcher.classify("bad", timeout=0.01)  # the worker is still held up
            assert batcher.stats.expired == 1
            held.set()
            assert await first == clf("the movie")
            assert await batcher.classify("good", timeout=20) == clf("good")

    asyncio.run(ask())


def test_bad_input_and_a_closed_batcher_are_refused(clf: Classifier, held: threading.Event) -> None:
    async def ask() -> None:
        batcher = Batcher(clf, workers=1)
        with pytest.raises(InputError):
            await batcher.classify(None)  # type: ignore[arg-type]
        first = await occupied(batcher)
        second = asyncio.create_task(batcher.classify("bad"))
        await asyncio.sleep(0)
        closing = asyncio.create_task(batcher.aclose(drain=False))
        with pytest.raises(ClosedError, match="was not run"):
            await second
        held.set()
        await closing
        assert await first == clf("the movie")
        with pytest.raises(ClosedError):
            await batcher.classify("good")

    asyncio.run(ask())


def test_a_loop_closed_before_its_results_does_no_harm(clf: Classifier, held: threading.Event) -> None:
    with Batcher(clf, workers=1) as batcher:

        async def leave() -> None:
            await occupied(batcher)

        loop = asyncio.new_event_loop()
        loop.run_until_complete(leave())
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        held.set()
        start = time.monotonic()
        assert batcher.submit("good").result(20) == clf("good")
        assert time.monotonic() - start < 20
