"""``Batcher``: the front for many callers of one classifier."""

from __future__ import annotations

import asyncio
import atexit
import functools
import os
import threading
import time
import weakref
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from typing import Any, Unpack, cast

from ...artifact import TEXTS
from ...errors import ClosedError, DeadlineError, ForkError, InputError, OptionError, OverloadError, check_integer, shown
from ...hardware.cpu import inspect_machine
from ...load.task import check_task
from ...tasks.classifier import Classifier
from ...tasks.heads import MultiHeadClassifier
from ...tasks.loaded import Loaded
from ...tasks.rank import PairArguments, Ranked, RankOptions, check_documents, check_top
from ...tasks.token_classifier import TokenClassifier
from ...tasks.tokens.call import TagArguments
from ...tasks.zero_shot import ZeroShot
from ...text.call import CallArguments
from ...text.inputs import Item, Text, check_item
from .queue import BatcherStats, Queue
from .rank import RankingFuture
from .request import Answers, Form, Group, Request, ThreadRequest, resolve_all
from .worker import LATE, TagWorker, TextWorker, Worker, run_budget

__all__ = ["Answers", "Batcher", "BatcherStats", "Form"]

_FOREVER = 1e9  # seconds; Python's integers can be larger than its clocks take
_BATCHES = 8  # taken together at most, enough to group texts of similar length


class SubmitArguments(CallArguments, TagArguments, total=False):
    """The keywords of a classifier's call, and those of a token classifier's."""


class Batcher:
    """Dynamic batching of texts that arrive at the same time, from threads and coroutines.

    Each caller gets its own result or error. Threads and event loops can share a batcher. As a context manager it is closed at
    the end; the classifier stays open.

    Args:
        clf: The classifier, of texts or of tokens. For many callers on the CPU load it with ``threads=1``: several texts at
            once, each on one core, are faster than one after the other on all cores.
        window_ms: Maximum milliseconds that a text waits for others, and no longer than sharing a run saves; a lone caller
            does not wait.
        max_tokens: Maximum tokens of a batch, padding included; None for the device's optimum.
        max_queue: Texts that may wait; more are refused with ``OverloadError``.
        workers: Threads that run batches; None for enough to keep the cores busy, at least 2.

    Raises:
        OptionError: A number is out of range, or ``clf`` is none of these.
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
        clf: Classifier | MultiHeadClassifier | TokenClassifier,
        *,
        window_ms: float = 2.0,
        max_tokens: int | None = None,
        max_queue: int = 1024,
        workers: int | None = None,
    ) -> None:
        if not isinstance(clf, Loaded):
            kinds = "a Classifier, a MultiHeadClassifier or a TokenClassifier"
            way_out = ": a service calls a ZeroShot itself, which threads share" if isinstance(clf, ZeroShot) else ""
            raise OptionError(f"Batcher takes {kinds}, found a {type(clf).__name__}{way_out}")
        if isinstance(window_ms, bool) or not isinstance(window_ms, (int, float)) or not 0 <= window_ms < float("inf"):
            raise OptionError(f"window_ms is {shown(window_ms)}: give milliseconds from 0 up")
        check_integer("max_tokens", max_tokens, optional=True)
        check_integer("max_queue", max_queue)
        check_integer("workers", workers, optional=True)
        self._classifier, self._max_queue = clf, max_queue
        budget = run_budget(clf.model, max_tokens)
        count = workers or _default_workers(clf)
        max_wait = min(window_ms, _FOREVER) / 1e3
        self._queue = Queue(limit=max_queue, tokens=_BATCHES * budget.tokens, max_wait=max_wait, workers=count)
        self._process = os.getpid()
        worker: Worker[Any] = (
            TagWorker(queue=self._queue, model=clf.model, budget=budget, tagger=clf.tagger)
            if isinstance(clf, TokenClassifier)
            else TextWorker(queue=self._queue, model=clf.model, budget=budget)
        )
        work = worker.work
        self._threads = [threading.Thread(target=work, name=f"fusedbert-batcher-{i}", daemon=True) for i in range(count)]
        for thread in self._threads:
            thread.start()
        # The threads do not hold the batcher: when it is collected, they finish the queue and end.
        weakref.finalize(self, _abandon, self._queue, self._process).atexit = False
        # Daemon threads must not run while the interpreter shuts down.
        self._at_exit = functools.partial(_close, self._queue, self._threads, self._process, drain=False)
        atexit.register(self._at_exit)

    def submit(
        self, text: Item | list[str], *, timeout: float | None = None, **arguments: Unpack[SubmitArguments]
    ) -> Future[Any]:
        """Add a text to the queue, and return at once.

        Args:
            text: A text, or a pair as ``{"text", "text_pair"}`` or a tuple, even with an empty second text.
            timeout: Seconds until its run must begin, or it is not run; None for no limit.
            **arguments: As in the classifier's call.

        Returns:
            A future of the result of ``clf(text, ...)``, which can be cancelled until its run begins. Its exception is a
            ``DeadlineError``, or one of ``clf(text, ...)``.

        Raises:
            InputError: ``text`` is not a text.
            OptionError: An argument is not valid.
            OverloadError: ``max_queue`` texts are waiting.
            ClosedError: The batcher was closed.
            ForkError: The batcher was made before this process was forked.
        """
        checked, form = self._form(text, arguments)
        request = ThreadRequest(checked, form, _deadline(timeout), self._queue.discard)
        self._put([request])
        return request

    async def classify(
        self, text: Item | list[str], *, timeout: float | None = None, **arguments: Unpack[SubmitArguments]
    ) -> Any:
        """Classify a text without blocking the event loop, with the arguments of ``submit``.

        A cancelled task gives up its place in the queue.

        Returns:
            The result of ``clf(text, ...)``.

        Raises:
            DeadlineError: Its run did not begin within ``timeout``.
            FusedBertError: As ``submit`` and ``clf(text, ...)``.
        """
        checked, form = self._form(text, arguments)
        return (await self.run([checked], form, timeout=timeout)).results[0]

    async def run(self, texts: Sequence[Text], form: Form, *, timeout: float | None = None) -> Answers:
        """Run checked texts that one coroutine awaits together; they take their places in the queue all, or none does.

        The first error of a text is that of all, and those that wait then are not run. Errors are those of ``classify``.
        """
        group = Group(texts, form, _deadline(timeout), asyncio.get_running_loop())
        if not texts:
            return group.answers()
        self._put(group.requests)
        alarm = None if timeout is None else group.loop.call_later(min(timeout, _FOREVER), self._expire, group)
        try:
            await group.future
            return group.answers()
        except BaseException:
            self._queue.discard(group.requests)
            raise
        finally:
            if alarm is not None:
                alarm.cancel()
            group.requests.clear()  # a cycle would keep the texts until the next garbage collection

    def rank(
        self,
        query: str,
        documents: Iterable[str],
        top_k: int | None = None,
        return_documents: bool = False,
        *,
        label: str | int | None = None,
        timeout: float | None = None,
        **arguments: Unpack[PairArguments],
    ) -> Future[list[Ranked]]:
        """Add the documents of ``clf.rank(query, documents, ...)`` to the queue, each as a text; return its future at once.

        Errors are those of ``submit``; a coroutine awaits ``asyncio.wrap_future(batcher.rank(...))``.
        """
        model = self._classifier.model
        check_task(model.source.manifest, TEXTS, several="make a Batcher of one of them, Batcher(clf.heads[NAME])")
        form = Form(call=RankOptions.of(model, label, arguments), in_list=False)
        top_k, texts, deadline = check_top(top_k), check_documents(query, documents), _deadline(timeout)
        if len(texts) > self._max_queue:
            way_out = "give Batcher a larger max_queue, or use clf.rank"
            raise OverloadError(f"{len(texts)} documents are more than max_queue, {self._max_queue}: {way_out}")
        model.keep([query])  # whose tokens all documents share
        future = RankingFuture(
            [ThreadRequest(text, form, deadline, self._queue.discard) for text in texts], top_k, return_documents
        )
        self._put(future.requests)
        return future

    @property
    def stats(self) -> BatcherStats:
        """Counts of texts and batches; ``clf.stats`` has the classifier's.

        Raises:
            ForkError: As ``submit``.
        """
        self._check_process()
        return self._queue.stats()

    def close(self, *, drain: bool = True) -> None:
        """Refuse new texts, and wait for the threads to end. A second call does nothing.

        Args:
            drain: Whether to run the texts that wait; if not, they fail with ``ClosedError``.
        """
        _close(self._queue, self._threads, self._process, drain=drain)
        atexit.unregister(self._at_exit)

    async def aclose(self, *, drain: bool = True) -> None:
        """Close without blocking the event loop."""
        await asyncio.to_thread(self.close, drain=drain)

    def __enter__(self) -> Batcher:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(drain=kind is None)

    async def __aenter__(self) -> Batcher:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        await self.aclose(drain=kind is None)

    def __repr__(self) -> str:
        return f"Batcher({self._classifier!r}, workers={len(self._threads)})"

    def _put(self, requests: Sequence[Request]) -> None:
        self._check_process()
        late = self._queue.put(requests)
        resolve_all((each, None, DeadlineError(LATE)) for each in late if each.start())

    def _expire(self, group: Group) -> None:
        """Fail a coroutine's texts at their deadline, if one of them is not running."""
        if self._queue.discard(group.requests, expired=True) and not group.future.done():
            group.future.set_exception(DeadlineError(LATE))

    def _check_process(self) -> None:
        if os.getpid() != self._process:
            raise ForkError(
                f"this Batcher was made in process {self._process}, and its threads did not come along when {os.getpid()} was "
                "forked: make one in each process, after the fork"
            )

    def _form(self, text: Any, arguments: SubmitArguments) -> tuple[Text, Form]:
        """Check a text, and the keywords of its call."""
        tagging = (
            self._classifier.parse(cast(TagArguments, arguments)) if isinstance(self._classifier, TokenClassifier) else None
        )
        if isinstance(text, list) and (tagging is None or tagging.delimiter is None):
            raise InputError("a Batcher takes one text at a time, found a list: submit each, or use clf(texts)")
        if tagging is not None:
            return tagging.check([text])[0], Form(call=tagging)
        call = self._classifier.model.call(cast(CallArguments, arguments))
        return check_item(text, 0), Form(call=call, in_list=call.best_only and isinstance(text, str))


def _close(queue: Queue, threads: list[threading.Thread], process: int, *, drain: bool) -> None:
    if os.getpid() != process:  # a forked child does not have these threads
        return
    dropped = queue.close(drain=drain)
    error = "the Batcher was closed before the text's turn came: it was not run"
    resolve_all((request, None, ClosedError(error)) for request in dropped if request.start())
    if threading.current_thread() not in threads:  # a callback of a future may call this
        for thread in threads:
            thread.join()


def _abandon(queue: Queue, process: int) -> None:
    if os.getpid() == process:
        queue.close(drain=True)


def _deadline(timeout: float | None) -> float | None:
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout >= 0:
        raise OptionError(f"timeout is {shown(timeout)}: give seconds, or None")
    return time.monotonic() + min(timeout, _FOREVER)


def _default_workers(clf: Classifier | MultiHeadClassifier | TokenClassifier) -> int:
    if clf.runtime.device != "cpu":
        return 2
    return max(2, inspect_machine().cores // max(1, clf.runtime.threads))
