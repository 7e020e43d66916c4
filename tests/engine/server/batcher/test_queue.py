"""The queue's policy without a model: shares, budgets, waiting for other callers, and the cost that it learns."""

from __future__ import annotations

import random
import threading
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusedbert.engine.errors import OverloadError
from fusedbert.engine.server.batcher.queue import Queue, RunCost
from fusedbert.engine.server.batcher.request import Form, ThreadRequest, estimate
from fusedbert.engine.text.inputs import Text
from fusedbert.engine.text.outputs import CallOptions, Function

FORM = Form(call=CallOptions(function=Function.SOFTMAX), in_list=True)


def make_queue(**options: Any) -> Queue:
    return Queue(**{"limit": 1000, "tokens": 4096, "max_wait": 0.0, "workers": 1} | options)


def put(queue: Queue, text: str = "a", deadline: float | None = None) -> ThreadRequest:
    job = ThreadRequest(Text(text=text, index=0), FORM, deadline, queue.discard)
    queue.put([job])
    return job


def test_a_worker_takes_its_share_in_order_of_arrival() -> None:
    queue = make_queue(workers=3)
    jobs = [put(queue) for _ in range(10)]
    assert queue.take() == jobs[:4] and queue.take() == jobs[4:6]
    assert queue.stats().running == 6 and queue.stats().waiting == 4


@settings(deadline=None)
@given(sizes=st.lists(st.integers(0, 3000), min_size=1, max_size=40), tokens=st.integers(1, 2000), workers=st.integers(1, 4))
def test_each_text_is_taken_once_and_within_the_budget(sizes: list[int], tokens: int, workers: int) -> None:
    queue = make_queue(tokens=tokens, workers=workers)
    jobs = [put(queue, "a" * size) for size in sizes]
    taken = []
    while queue.stats().waiting:
        part = queue.take()
        assert len(part) == 1 or sum(estimate(job.text) for job in part) <= tokens
        taken += part
    assert taken == jobs


def test_a_single_caller_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    queue = make_queue(max_wait=3600.0)
    for tokens in (10, 1000):
        queue.cost.observe(tokens, 7200.0)  # a wait would pay if there were other callers
    for _ in range(3):
        threading.Timer(0.01, put, [queue]).start()
        assert len(queue.take()) == 1


def test_a_worker_waits_for_as_many_callers_as_before() -> None:
    queue = make_queue(max_wait=3600.0)
    for tokens in (10, 1000):
        queue.cost.observe(tokens, 7200.0)
    for _ in range(3):
        put(queue)
    assert len(queue.take()) == 3
    found: list[int] = []
    taker = threading.Thread(target=lambda: found.append(len(queue.take())))
    taker.start()
    for _ in range(3):
        time.sleep(0.005)
        put(queue)
    taker.join(20)
    assert found == [3]


@pytest.mark.parametrize(("max_wait", "fixed"), [(0.0, 7200.0), (3600.0, 0.0), (0.01, 7200.0), (3600.0, 0.01)])
def test_a_wait_ends_after_the_allowed_time_or_the_time_it_saves(max_wait: float, fixed: float) -> None:
    queue = make_queue(max_wait=max_wait)
    for tokens in (10, 1000):
        queue.cost.observe(tokens, fixed + tokens * 1e-6)
    put(queue)
    put(queue)
    assert len(queue.take()) == 2
    threading.Timer(0.01, put, [queue]).start()
    assert len(queue.take()) == 1  # an hour's wait would exceed the time limit of the tests


def test_closing_ends_a_wait() -> None:
    queue = make_queue()
    taken: list[Any] = []
    taker = threading.Thread(target=lambda: taken.append(queue.take()))
    taker.start()
    assert queue.close(drain=True) == []
    taker.join(20)
    assert taken == [[]]


def test_counts_add_up_under_many_threads() -> None:
    queue = make_queue(limit=50)

    def work() -> None:
        while jobs := queue.take():
            gone = sum(not job.start() for job in jobs)
            queue.done(taken=len(jobs), answered=len(jobs) - gone, cancelled=gone)

    def call(seed: int) -> None:
        dice = random.Random(seed)
        for _ in range(400):
            try:
                job = put(queue)
            except OverloadError:
                time.sleep(0.0001)
                continue
            if dice.random() < 0.3:
                job.cancel()

    workers = [threading.Thread(target=work) for _ in range(2)]
    callers = [threading.Thread(target=call, args=(seed,)) for seed in range(6)]
    for thread in workers + callers:
        thread.start()
    for thread in callers:
        thread.join(60)
    queue.close(drain=True)
    for thread in workers:
        thread.join(60)
    stats = queue.stats()
    assert stats.submitted + stats.refused == 2400
    assert stats.answered + stats.cancelled == stats.submitted and stats.waiting == stats.running == 0


@given(fixed=st.floats(0, 1), slope=st.floats(1e-6, 1e-2), tokens=st.lists(st.integers(1, 4096), min_size=2, max_size=80))
def test_the_fixed_cost_of_a_run_is_estimated(fixed: float, slope: float, tokens: list[int]) -> None:
    cost = RunCost()
    for count in (*tokens, 3, 300):
        cost.observe(count, fixed + slope * count)
    assert cost.fixed == pytest.approx(fixed, abs=1e-4 * (1 + slope * 4096))


def test_the_fixed_cost_is_not_estimated_from_too_little() -> None:
    cost = RunCost()
    assert cost.fixed == 0
    for _ in range(100):
        cost.observe(64, 0.5)
    assert cost.fixed == 0
    for tokens in (10, 1000):
        cost.observe(tokens, -tokens)  # nonsense
    assert cost.fixed >= 0
