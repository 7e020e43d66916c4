"""``Batcher``: many callers, one classifier, and batches made of what they ask at the same time."""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import time
import weakref
from concurrent.futures import Future
from types import TracebackType
from typing import Any

from ..classifier import Classifier
from ..errors import ClosedError, DeadlineError, ForkError, InputError, OptionError
from ..hardware.cpu import inspect_machine
from ..text.inputs import Item, check_item
from ..text.outputs import UNSET, Default, check_top_k
from .model import Model
from .queue import BatcherStats, Queue
from .request import Ask, Job, LoopJob, ThreadJob, deliver
from .worker import LATE, work

_BATCHES = 8  # taken together at most, so that each finds texts alike in length


class Batcher:
    """Gathers texts that arrive at the same time, from threads and coroutines, and runs them together.

    Each caller gets its own result, or its own error. It is safe to share between threads and event loops, and is a
    context manager; its threads end with ``close``. The classifier stays the caller's, and stays open.

    Args:
        clf: The classifier. For many callers on the CPU load it with ``threads=1``: several texts run at once then, each on a
            core of its own, which is faster than one after the other on all cores.
        window_ms: Milliseconds that a text may wait for others at most. Only where others were there a moment ago, and never
            longer than running it with them saves: a lone caller waits for nobody.
        max_tokens: Tokens of a batch at most, padding included; None for what the device takes best.
        max_queue: Texts that may wait; one more is refused with ``OverloadError`` at once.
        workers: Threads that run batches; None for as many as keep the cores busy, at least 2 (one tokenizes while
            another one's graph runs).

    Raises:
        OptionError: A number is out of its range.
        ClosedError: The classifier was closed.

    Example:
        >>> from fusedbert.engine import Batcher, Classifier
        >>> clf = Classifier.from_pretrained(threads=1)
        >>> with Batcher(clf) as batcher:
        ...     futures = [batcher.submit(text) for text in ("I really loved this movie.", "A waste of time.")]
        ...     [future.result()[0]["label"] for future in futures]
        ['POSITIVE', 'NEGATIVE']
    """

    def __init__(
        self,
        clf: Classifier,
        *,
        window_ms: float = 2.0,
        max_tokens: int | None = None,
        max_queue: int = 1024,
        workers: int | None = None,
    ) -> None:
        _check(window_ms=window_ms, max_tokens=max_tokens, max_queue=max_queue, workers=workers)
        model = Model.of(clf, max_tokens)
        count = workers or _workers(clf)
        self._model = model
        tokens = _BATCHES * model.budget.tokens
        self._queue = Queue(limit=max_queue, tokens=tokens, window=window_ms / 1e3, workers=count)
        self._asks: dict[tuple[object, ...], Ask] = {}
        self._process = os.getpid()
        self._threads = [
            threading.Thread(target=work, args=(self._queue, model), name=f"fusedbert-batcher-{number}", daemon=True)
            for number in range(count)
        ]
        for thread in self._threads:
            thread.start()
        # The threads know the queue and not the batcher. One that nobody has any more finishes what it was given.
        weakref.finalize(self, _abandon, self._queue, self._process).atexit = False
        # Daemon threads must not run on while the interpreter goes down; a normal end of the program closes before that.
        self._at_exit = _AtExit(self._queue, self._threads, self._process)
        atexit.register(self._at_exit)

    def submit(
        self,
        text: Item,
        *,
        timeout: float | None = None,
        top_k: int | Default | None = UNSET,
        function_to_apply: str | None = None,
        truncation: bool | None = None,
    ) -> Future[Any]:
        """Add a text to the queue, and return at once.

        Args:
            text: A text, or a pair as ``{"text", "text_pair"}`` or a tuple; one whose second text is empty is a pair, as in
                the lists that are run.
            timeout: Seconds within which its run must begin; later it is not run at all. None for no limit.
            top_k: As in ``Classifier.__call__``.
            function_to_apply: As in ``Classifier.__call__``.
            truncation: As in ``Classifier.__call__``.

        Returns:
            A future of what ``clf(text, ...)`` returns. It can be cancelled until its run begins. Its exception may be a
            ``DeadlineError``, or whatever ``clf(text, ...)`` raises.

        Raises:
            InputError: It is no text.
            OverloadError: ``max_queue`` texts wait already.
            ClosedError: The batcher was closed.
            ForkError: This process was forked after the batcher was made.
        """
        ask = self._ask(text, top_k, function_to_apply, truncation)
        job = ThreadJob(check_item(text, 0), ask, _deadline(timeout), self._queue.discard)
        self._put(job)
        return job

    async def classify(
        self,
        text: Item,
        *,
        timeout: float | None = None,
        top_k: int | Default | None = UNSET,
        function_to_apply: str | None = None,
        truncation: bool | None = None,
    ) -> Any:
        """Classify a text without holding up the event loop; any number of loops may share a batcher.

        A task that is cancelled gives up its place in the queue.

        Args:
            text: As in ``submit``.
            timeout: As in ``submit``.
            top_k: As in ``Classifier.__call__``.
            function_to_apply: As in ``Classifier.__call__``.
            truncation: As in ``Classifier.__call__``.

        Returns:
            What ``clf(text, ...)`` returns.

        Raises:
            DeadlineError: Its run did not begin within ``timeout``.
            FusedBertError: As ``submit``, and whatever ``clf(text, ...)`` raises.
        """
        ask = self._ask(text, top_k, function_to_apply, truncation)
        loop = asyncio.get_running_loop()
        job = LoopJob(check_item(text, 0), ask, _deadline(timeout), loop)
        self._put(job)
        alarm = None if timeout is None else loop.call_later(timeout, self._expire, job)
        try:
            return await job.future
        finally:
            if alarm is not None:
                alarm.cancel()
            if job.future.cancelled():
                self._queue.discard(job)

    @property
    def stats(self) -> BatcherStats:
        """Counts of texts and batches so far; the classifier's own are in ``clf.stats``.

        Raises:
            ForkError: As ``submit``.
        """
        self._check_process()
        return self._queue.stats()

    def close(self, *, drain: bool = True) -> None:
        """Take in no more texts, and wait until the threads have ended. Twice does no harm.

        Args:
            drain: Whether texts that wait are still run; else they fail with ``ClosedError``, all but those that run now.
        """
        if os.getpid() != self._process:  # of a forked child, which has no such threads
            return
        _stop(self._queue, drain=drain)
        if threading.current_thread() not in self._threads:  # a callback of a future may call this
            for thread in self._threads:
                thread.join()
        atexit.unregister(self._at_exit)

    async def aclose(self, *, drain: bool = True) -> None:
        """Do what ``close`` does without holding up the event loop."""
        await asyncio.to_thread(self.close, drain=drain)

    def __enter__(self) -> Batcher:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close(drain=kind is None)

    async def __aenter__(self) -> Batcher:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose(drain=kind is None)

    def __repr__(self) -> str:
        return f"Batcher({self._model.classifier!r}, workers={len(self._threads)})"

    def _put(self, job: Job) -> None:
        self._check_process()
        late = self._queue.put(job)
        if late:
            deliver((each, None, DeadlineError(LATE)) for each in late if each.claim())

    def _expire(self, job: LoopJob) -> None:
        """End the wait of a coroutine whose deadline has passed; where it runs already, its result is on the way."""
        if self._queue.discard(job, expired=True):
            job.settle(None, DeadlineError(LATE))

    def _check_process(self) -> None:
        if os.getpid() != self._process:
            raise ForkError(
                f"this Batcher was made in process {self._process}, and its threads did not come along when {os.getpid()} was "
                "forked: make one in each process, after the fork"
            )

    def _ask(self, text: Any, top_k: Any, function_to_apply: Any, truncation: Any) -> Ask:
        """Check what is asked for; the few combinations that a service uses are checked once."""
        single = isinstance(text, str)
        key = (top_k, type(top_k), function_to_apply, truncation, type(truncation), single)  # True equals 1
        try:
            found = self._asks.get(key)
        except TypeError:  # something that cannot be hashed, and so is wrong too
            found = None
        if found is not None:
            return found
        if isinstance(text, list):
            raise InputError("a Batcher takes one text at a time, found a list: submit each, or use clf(texts)")
        checked = check_top_k(top_k)
        if truncation is not None and not isinstance(truncation, bool):
            raise OptionError(f"truncation is {truncation!r}: give True or False")
        function = self._model.function(function_to_apply)
        ask = Ask(function=function, top_k=checked, truncation=truncation, in_list=single and checked is UNSET)
        if len(self._asks) < 64:
            self._asks[key] = ask
        return ask


class _AtExit:
    """Ends the threads of a batcher that was not closed, when the program ends."""

    def __init__(self, queue: Queue, threads: list[threading.Thread], process: int) -> None:
        self._queue = queue
        self._threads = threads
        self._process = process

    def __call__(self) -> None:
        if os.getpid() == self._process:
            _stop(self._queue, drain=False)
            for thread in self._threads:
                thread.join()


def _stop(queue: Queue, *, drain: bool) -> None:
    dropped = queue.close(drain=drain)
    error = "the Batcher was closed before the text's turn came: it was not run"
    deliver((job, None, ClosedError(error)) for job in dropped if job.claim())


def _abandon(queue: Queue, process: int) -> None:
    if os.getpid() == process:
        queue.close(drain=True)


def _deadline(timeout: float | None) -> float | None:
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout >= 0:
        raise OptionError(f"timeout is {timeout!r}: give seconds, or None")
    return time.monotonic() + timeout


def _workers(clf: Classifier) -> int:
    if clf.runtime.device != "cpu":
        return 2
    return max(2, inspect_machine().cores // max(1, clf.runtime.threads))


def _check(*, window_ms: Any, **integers: Any) -> None:
    if isinstance(window_ms, bool) or not isinstance(window_ms, (int, float)) or not 0 <= window_ms < float("inf"):
        raise OptionError(f"window_ms is {window_ms!r}: give milliseconds from 0 up")
    for name, value in integers.items():
        if value is None and name != "max_queue":
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise OptionError(f"{name} is {value!r}: give an integer from 1 up")
