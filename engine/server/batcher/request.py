"""Requests: one text of one caller in a ``Batcher``, from a thread or an event loop."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import Any, Protocol, TypeAlias

from ...errors import FusedBertError
from ...tasks.tokens.call import Tagging
from ...text.inputs import Text
from ...text.outputs import CallOptions

_log = logging.getLogger("fusedbert.engine.server.batcher")
_CHARACTERS_PER_TOKEN = 4  # English; only decides how many texts are taken, batches are cut by their real tokens


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Form:
    """The checked options of a request."""

    call: CallOptions | Tagging  # the latter of a token classifier
    in_list: bool = False  # the best label in a list, as the pipeline returns it for a single text


class Request(Protocol):
    """A text that waits for its turn."""

    text: Text
    form: Form
    deadline: float | None  # of the monotonic clock; the run must begin before
    tokens: int  # that were read for it, once it was tokenized

    @property
    def gone(self) -> bool:
        """True if its caller no longer waits, though it was started."""
        ...

    def start(self) -> bool:
        """Mark it as running; False if it was cancelled."""
        ...

    def resolve(self, result: Any, error: BaseException | None) -> None:
        """Pass its result or error to the caller; once, and after ``start``."""
        ...


Outcome: TypeAlias = "tuple[Request, Any, BaseException | None]"


class ThreadRequest(Future[Any]):
    """A text from a thread; the request is also the caller's future."""

    def __init__(self, text: Text, form: Form, deadline: float | None, discard: Callable[[Sequence[Request]], int]) -> None:
        super().__init__()
        self.text, self.form, self.deadline, self.tokens = text, form, deadline, 0
        self._discard = discard

    def cancel(self) -> bool:
        """Cancel it unless it is running, and free its place in the queue."""
        cancelled = super().cancel()
        if cancelled:
            self._discard([self])
        return cancelled

    @property
    def gone(self) -> bool:
        """False: a future that runs cannot be cancelled."""
        return False

    def start(self) -> bool:
        """Mark it as running; False if cancelled."""
        return self.set_running_or_notify_cancel()

    def resolve(self, result: Any, error: BaseException | None) -> None:
        """Wake the caller."""
        if error is None:
            self.set_result(result)
        else:
            self.set_exception(error)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Answers:
    """The results of texts that ran for one coroutine, in their order, and the tokens that were read for them."""

    results: list[Any]
    tokens: int


class Group:
    """The texts that a coroutine awaits together: all results, or the first error; then the others are not run."""

    __slots__ = ("failed", "future", "left", "loop", "requests", "results")

    def __init__(self, texts: Sequence[Text], form: Form, deadline: float | None, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.future: asyncio.Future[list[Any]] = loop.create_future()
        self.failed = False  # set by a worker: the next run may begin before the loop has read the error
        self.left, self.results = len(texts), [None] * len(texts)
        self.requests = [LoopRequest(text, form, deadline, self, index) for index, text in enumerate(texts)]

    def answers(self) -> Answers:
        """Return the results, once they are there."""
        return Answers(results=self.results, tokens=sum(request.tokens for request in self.requests))


class LoopRequest:
    """A text that a coroutine awaits, by itself or with others."""

    __slots__ = ("deadline", "form", "group", "index", "text", "tokens")

    def __init__(self, text: Text, form: Form, deadline: float | None, group: Group, index: int) -> None:
        self.text, self.form, self.deadline, self.group, self.index = text, form, deadline, group, index
        self.tokens = 0

    @property
    def gone(self) -> bool:
        """True if the coroutine has gone, or has the error of another text."""
        return self.group.failed or self.group.future.done()

    def start(self) -> bool:
        """Return whether the coroutine still waits."""
        return not self.gone

    def resolve(self, result: Any, error: BaseException | None) -> None:
        """Give the group its result or error; call this in its loop's thread."""
        group = self.group
        if group.future.done():  # cancelled or failed since ``start``
            return
        if error is not None:
            group.future.set_exception(error)
            return
        group.results[self.index] = result
        group.left -= 1
        if not group.left:
            group.future.set_result(group.results)


def resolve_all(outcomes: Iterable[Outcome]) -> None:
    """Pass results and errors to the callers; each event loop is woken once."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Outcome]] = {}
    for outcome in outcomes:
        request = outcome[0]
        if isinstance(request, LoopRequest):
            if outcome[2] is not None:
                request.group.failed = True
            by_loop.setdefault(request.group.loop, []).append(outcome)
            continue
        try:
            request.resolve(outcome[1], outcome[2])
        except BaseException:  # from a callback, or from a future that the caller has set: the others still get results
            _log.exception("the result of a request could not be delivered")
    for loop, its_outcomes in by_loop.items():
        with contextlib.suppress(RuntimeError):  # the loop was closed, so its callers do not wait any more
            loop.call_soon_threadsafe(_resolve, its_outcomes)


def _resolve(outcomes: list[Outcome]) -> None:
    for request, result, error in outcomes:
        request.resolve(result, error)


def own_copy(error: BaseException) -> BaseException:
    """Copy an error for one of several callers; a shared one would collect the tracebacks of all their threads."""
    if not isinstance(error, FusedBertError):
        return error
    copy = type(error)(*error.args)
    copy.__cause__ = error
    return copy


def estimate(text: Text) -> int:
    """Estimate the number of tokens of a text before it is tokenized."""
    return (len(text.text) + len(text.pair or "")) // _CHARACTERS_PER_TOKEN + 3
