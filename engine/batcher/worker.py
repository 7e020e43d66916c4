"""The thread of a ``Batcher``: it takes what waits, tokenizes it, runs it batch by batch, and hands out the results."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from ..errors import DeadlineError, InferenceError
from ..text.outputs import Floats, Function, apply
from ..text.tokenizer import Row
from .model import Model
from .queue import Queue
from .request import Job, Outcome, deliver, own_copy

LATE = "the deadline passed before the text's turn came: it was not run"


def work(queue: Queue, model: Model) -> None:
    """Run what is in the queue until that is closed. Whatever goes wrong reaches the callers that it concerns."""
    while _turn(queue, model):
        pass


def _turn(queue: Queue, model: Model) -> bool:
    """Run what is taken together; a function of its own, so that an idle thread holds no texts."""
    jobs = queue.take()
    live = _claim(queue, jobs)
    if live:
        _answer(queue, model, live)
    return bool(jobs)


def _claim(queue: Queue, jobs: Sequence[Job]) -> list[Job]:
    """Begin with those that nobody has cancelled and whose deadline has not passed."""
    now = time.monotonic()
    live, late, cancelled = [], [], 0
    for job in jobs:
        if not job.claim():
            cancelled += 1
        elif job.deadline is not None and job.deadline < now:
            late.append(job)
        else:
            live.append(job)
    if late or cancelled:
        queue.done(taken=len(late) + cancelled, expired=len(late), cancelled=cancelled)
        deliver([(job, None, DeadlineError(LATE)) for job in late])
    return live


def _answer(queue: Queue, model: Model, jobs: list[Job]) -> None:
    """Tokenize and run, the short ones first."""
    read = _encode(queue, model, jobs)
    single = [(job, rows[0]) for job, rows in read if len(rows) == 1]
    try:
        batches = list(model.plan([row for _, row in single]))
    except BaseException as error:  # the classifier was closed
        _fail(queue, [job for job, _ in read], error)
        return
    for batch in batches:
        _run(queue, model, [single[i][0] for i in batch], [single[i][1] for i in batch])
    for job, rows in read:
        if len(rows) > 1:
            _run(queue, model, [job], rows)


def _encode(queue: Queue, model: Model, jobs: list[Job]) -> list[tuple[Job, list[Row]]]:
    """Tokenize; where that fails for all together, one by one, so that a text fails its own caller alone."""
    truncation = jobs[0].ask.truncation
    together = model.encodes_together and all(job.ask.truncation is truncation for job in jobs)
    if len(jobs) == 1 or together:
        try:
            return list(zip(jobs, model.encode([job.text for job in jobs], truncation), strict=True))
        except BaseException as error:
            if len(jobs) == 1:
                _fail(queue, jobs, error)
                return []
    return [pair for job in jobs for pair in _encode(queue, model, [job])]


def _run(queue: Queue, model: Model, jobs: list[Job], rows: list[Row]) -> None:
    """Run one batch; where the graph fails, its texts one by one, so that a text fails its own caller alone."""
    texts = [job.text for job in jobs]
    start = time.perf_counter()
    try:
        logits = model.logits(texts, rows) if len(jobs) == len(rows) else model.windowed(texts[0], rows)  # [jobs, labels]
        outcomes = _outcomes(jobs, logits, model.labels)
    except BaseException as error:
        if len(jobs) == 1 or not isinstance(error, InferenceError):
            _fail(queue, jobs, error)
            return
        for job, row in zip(jobs, rows, strict=True):
            _run(queue, model, [job], [row])
        return
    queue.cost.observe(len(rows) * max(len(row.ids) for row in rows), time.perf_counter() - start)
    queue.done(taken=len(jobs), answered=len(jobs), batches=1)
    deliver(outcomes)


def _outcomes(jobs: Sequence[Job], logits: Floats, labels: tuple[str, ...]) -> list[Outcome]:
    """Turn logits ``[jobs, labels]`` into what each caller asked for."""
    scores: dict[Function, Floats] = {}
    outcomes: list[tuple[Job, Any, BaseException | None]] = []
    for line, job in enumerate(jobs):
        function = job.ask.function
        if function not in scores:
            scores[function] = apply(function, logits)  # [jobs, labels]
        outcomes.append((job, job.ask.result(scores[function][line], labels), None))
    return outcomes


def _fail(queue: Queue, jobs: Sequence[Job], error: BaseException) -> None:
    queue.done(taken=len(jobs), failed=len(jobs))
    deliver([(job, None, own_copy(error) if len(jobs) > 1 else error) for job in jobs])
