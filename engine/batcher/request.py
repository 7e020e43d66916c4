"""One text of one caller on its way through a ``Batcher``, and how its answer gets back: to a thread or to an event loop."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any, Protocol, TypeAlias

from ..errors import FusedBertError
from ..text.inputs import Text
from ..text.outputs import Default, Floats, Function, Scored, scored

_log = logging.getLogger("fusedbert.engine.batcher")
_CHARACTERS_A_TOKEN = 4  # English; only how much is gathered depends on it, batches are cut by the real tokens


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Ask:
    """What a caller wants of a text.

    Attributes:
        function: What turns logits into scores.
        top_k: Labels to return, None for all, UNSET for the best one.
        truncation: Whether a long text may be cut; None for what the classifier does.
        in_list: Whether the best label comes in a list, as the pipeline gives it for a single text.
    """

    function: Function
    top_k: int | Default | None
    truncation: bool | None
    in_list: bool

    def result(self, scores: Floats, labels: tuple[str, ...]) -> Any:
        """Return what the caller gets for the scores ``[labels]`` of its text."""
        found: Scored | list[Scored] = scored(scores, labels, self.top_k)
        return [found] if self.in_list else found


class Job(Protocol):
    """A text that waits for its turn."""

    text: Text
    ask: Ask
    deadline: float | None  # by the monotonic clock; it must have begun by then

    def claim(self) -> bool:
        """Begin with it; False where the caller has cancelled it."""

    def settle(self, result: Any, error: BaseException | None) -> None:
        """Hand over its result, or its error where there is one; once, and after ``claim``."""


Outcome: TypeAlias = "tuple[Job, Any, BaseException | None]"


class ThreadJob(Future[Any]):
    """A text that was submitted from a thread; the future that its caller holds is the job itself."""

    def __init__(self, text: Text, ask: Ask, deadline: float | None, discard: Callable[[Job], bool]) -> None:
        super().__init__()
        self.text = text
        self.ask = ask
        self.deadline = deadline
        self._discard = discard

    def cancel(self) -> bool:
        """Cancel it unless it runs already, and give its place in the queue to others."""
        cancelled = super().cancel()
        if cancelled:
            self._discard(self)
        return cancelled

    def claim(self) -> bool:
        """Begin with it; False where the caller has cancelled it."""
        return self.set_running_or_notify_cancel()

    def settle(self, result: Any, error: BaseException | None) -> None:
        """Wake the caller."""
        if error is None:
            self.set_result(result)
        else:
            self.set_exception(error)


class LoopJob:
    """A text that a coroutine awaits."""

    __slots__ = ("ask", "deadline", "future", "loop", "text")

    def __init__(self, text: Text, ask: Ask, deadline: float | None, loop: asyncio.AbstractEventLoop) -> None:
        self.text = text
        self.ask = ask
        self.deadline = deadline
        self.loop = loop
        self.future: asyncio.Future[Any] = loop.create_future()

    def claim(self) -> bool:
        """Begin with it; the look at the loop's future from another thread only saves work, ``settle`` decides."""
        return not self.future.done()

    def settle(self, result: Any, error: BaseException | None) -> None:
        """Wake the coroutine, from its own loop's thread."""
        if self.future.done():  # cancelled meanwhile
            return
        if error is None:
            self.future.set_result(result)
        else:
            self.future.set_exception(error)


def deliver(outcomes: Iterable[Outcome]) -> None:
    """Hand over results and errors; every event loop is woken once, however many of its coroutines wait."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Outcome]] = {}
    for outcome in outcomes:
        job = outcome[0]
        if isinstance(job, LoopJob):
            by_loop.setdefault(job.loop, []).append(outcome)
            continue
        try:
            job.settle(outcome[1], outcome[2])
        except BaseException:  # of a callback, or the caller has set its future: the others get theirs nevertheless
            _log.exception("a future's caller could not be told")
    for loop, mine in by_loop.items():
        try:
            loop.call_soon_threadsafe(_settle, mine)
        except RuntimeError:  # the loop was closed: nobody awaits any more
            continue


def _settle(outcomes: list[Outcome]) -> None:
    for job, result, error in outcomes:
        job.settle(result, error)


def own_copy(error: BaseException) -> BaseException:
    """Return an error for one caller of several: raised in many threads, one object would collect all their tracebacks."""
    if isinstance(error, FusedBertError):
        copy = type(error)(*error.args)
        copy.__cause__ = error
        return copy
    return error


def estimate(text: Text) -> int:
    """Guess the tokens of a text before it is tokenized."""
    return (len(text.text) + len(text.pair or "")) // _CHARACTERS_A_TOKEN + 3
