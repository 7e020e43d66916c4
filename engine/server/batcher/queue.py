"""The bounded queue of a ``Batcher``.

An idle worker takes the first text at once, so a lone caller does not wait. Texts that arrive during a run form the next batch,
so batches grow with the load. A worker waits for more only if several texts were taken last time, and no longer than a run's
fixed cost, which is all that sharing a run saves.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections import deque
from collections.abc import Sequence

from ...errors import ClosedError, OverloadError
from .request import Request, estimate

_TEXTS = 256  # taken together at most, however short, because the first of them are waiting
_LEAST_WAIT = 0.0002  # seconds; going to sleep and waking up costs about as much
_DECAY = 0.98  # weight of the past at each run: about the last fifty count


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatcherStats:
    """Counts of a ``Batcher``.

    Attributes:
        submitted: Texts that entered the queue.
        answered: Texts with a result.
        failed: Texts with an error: their own, their batch's, or that of closing.
        refused: Texts that found the queue full.
        expired: Texts whose deadline passed before their turn.
        cancelled: Texts that were cancelled before their turn; if a text of a group fails, the others are.
        batches: Runs of the graph.
        waiting: Texts in the queue now.
        running: Texts that workers have now.
    """

    submitted: int = 0
    answered: int = 0
    failed: int = 0
    refused: int = 0
    expired: int = 0
    cancelled: int = 0
    batches: int = 0
    waiting: int = 0
    running: int = 0


@dataclasses.dataclass(slots=True)
class RunCost:
    """The fixed cost of a run, by a least-squares line through (tokens, seconds) of the last runs.

    Example:
        >>> cost = RunCost()
        >>> for tokens in (16, 64, 256):
        ...     cost.observe(tokens, 0.002 + 0.0001 * tokens)
        >>> round(cost.fixed, 6)
        0.002
    """

    runs: float = 0.0
    tokens: float = 0.0
    seconds: float = 0.0
    squares: float = 0.0
    products: float = 0.0

    def observe(self, tokens: int, seconds: float) -> None:
        """Add a run; a race of threads may lose one."""
        self.runs = _DECAY * self.runs + 1
        self.tokens = _DECAY * self.tokens + tokens
        self.seconds = _DECAY * self.seconds + seconds
        self.squares = _DECAY * self.squares + tokens * tokens
        self.products = _DECAY * self.products + tokens * seconds

    @property
    def fixed(self) -> float:
        """Seconds of a run without tokens; 0 if unknown."""
        spread = self.runs * self.squares - self.tokens**2
        if spread <= 0.01 * self.tokens**2:  # runs of about one size
            return 0.0
        slope = (self.runs * self.products - self.tokens * self.seconds) / spread
        return max(0.0, (self.seconds - max(0.0, slope) * self.tokens) / self.runs)


class Queue:
    """A thread-safe queue, first in, first out.

    Args:
        limit: Texts that may wait.
        tokens: Approximate number of tokens to take together.
        max_wait: Maximum seconds to wait for more texts.
        workers: Number of threads that take.
    """

    def __init__(self, *, limit: int, tokens: int, max_wait: float, workers: int) -> None:
        self.cost = RunCost()
        self._limit, self._tokens = limit, tokens
        self._max_wait, self._workers = max_wait, workers
        # Reentrant, because a garbage collection under the lock may close an unreferenced batcher.
        self._lock = threading.RLock()
        self._arrived = threading.Condition(self._lock)
        self._requests: deque[Request] = deque()
        self._closed = False
        self._deadlines = False  # whether a request with a deadline may be waiting
        self._wanted = 0  # texts that a worker waits for
        self._last = 1  # number of texts that were taken last
        self._counts = {field.name: 0 for field in dataclasses.fields(BatcherStats)}

    def put(self, requests: Sequence[Request]) -> list[Request]:
        """Add requests at the end, all or none; return late requests that were dropped to make room.

        Raises:
            ClosedError: The batcher was closed.
            OverloadError: The queue has no room for them.
        """
        count = len(requests)
        with self._lock:
            if self._closed:
                raise ClosedError("this Batcher was closed: make another with Batcher(clf)")
            late = self._expired() if len(self._requests) + count > self._limit else []
            if len(self._requests) + count > self._limit:
                self._counts["refused"] += count
                raise OverloadError(self._refusal(count))
            self._requests.extend(requests)
            self._deadlines = self._deadlines or any(each.deadline is not None for each in requests)
            self._counts["submitted"] += count
            if len(self._requests) >= self._wanted:
                self._arrived.notify(count)
            return late

    def discard(self, requests: Sequence[Request], *, expired: bool = False) -> int:
        """Remove requests that are given up, and return how many had not been taken already."""
        gone = set(map(id, requests))
        with self._lock:
            before = len(self._requests)
            if before:
                self._requests = deque(each for each in self._requests if id(each) not in gone)
            found = before - len(self._requests)
            self._counts["expired" if expired else "cancelled"] += found
            return found

    def take(self) -> list[Request]:
        """Wait for requests and return those to run next; an empty list if the queue is closed."""
        with self._lock:
            while not self._requests:
                if self._closed:
                    return []
                self._arrived.wait()
                if self._requests:
                    self._wait_for_more()
            # A share for each worker: one that took all would run batch after batch while another is idle.
            most = min(_TEXTS, -(-len(self._requests) // self._workers))
            taken: list[Request] = []
            tokens = 0
            while len(taken) < most:
                tokens += estimate(self._requests[0].text)
                if taken and tokens > self._tokens:
                    break
                taken.append(self._requests.popleft())
            self._last = len(taken)
            self._counts["running"] += len(taken)
            return taken

    def done(self, *, taken: int, **counts: int) -> None:
        """Count the outcomes of requests that were taken."""
        with self._lock:
            self._counts["running"] -= taken
            for name, count in counts.items():
                self._counts[name] += count

    def close(self, *, drain: bool) -> list[Request]:
        """Refuse new requests; return those that will not run, none if ``drain``."""
        with self._lock:
            self._closed = True
            dropped = [] if drain else list(self._requests)
            if dropped:
                self._requests.clear()
                self._counts["failed"] += len(dropped)
            self._arrived.notify_all()
            return dropped

    def stats(self) -> BatcherStats:
        """Return a snapshot of the counts."""
        with self._lock:
            return BatcherStats(**self._counts | {"waiting": len(self._requests)})

    def _refusal(self, count: int) -> str:
        waiting = len(self._requests)
        if count == 1:
            return f"{waiting} texts wait already, which is max_queue: try again later"
        if count > self._limit:
            return f"{count} texts are more than may wait, max_queue {self._limit}: give fewer at a time"
        return f"{waiting} texts wait already, and {count} more would be above max_queue, {self._limit}: try again later"

    def _wait_for_more(self) -> None:
        """If several texts were taken last time, wait for as many, while that pays."""
        patience = min(self._max_wait, self.cost.fixed)
        if self._last == 1 or patience < _LEAST_WAIT or self._wanted:
            return
        end = time.monotonic() + patience
        self._wanted = self._last
        while len(self._requests) < self._wanted and not self._closed and (left := end - time.monotonic()) > 0:
            self._arrived.wait(left)
        self._wanted = 0

    def _expired(self) -> list[Request]:
        """Remove the requests whose deadline has passed."""
        if not self._deadlines:
            return []
        now = time.monotonic()
        late = [each for each in self._requests if each.deadline is not None and each.deadline < now]
        self._requests = deque(each for each in self._requests if each.deadline is None or each.deadline >= now)
        self._deadlines = any(each.deadline is not None for each in self._requests)
        self._counts["expired"] += len(late)
        return late
