"""The bounded queue of a ``Batcher``: what waits, what is taken together, and what is refused.

A worker that is idle takes the first text at once: a lone caller waits for nobody. What arrives while a batch runs makes the
next one, and that alone makes batches grow with the load. A worker waits for more only where others were there a moment
ago, and no longer than a run's fixed cost, because that is all that a text saves by running with another.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections import deque
from collections.abc import Iterable

from ..errors import ClosedError, OverloadError
from .cost import Cost
from .request import Job, estimate

_TEXTS = 256  # taken together at most, however short: the first of them are waiting
_LEAST_WAIT = 0.0002  # seconds; going to sleep and waking up costs about as much


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatcherStats:
    """Counts of a ``Batcher`` since it was made.

    Attributes:
        submitted: Texts that were taken into the queue.
        answered: Texts that got a result.
        failed: Texts that got an error: their own, that of their batch, or that of closing.
        refused: Texts that found the queue full.
        expired: Texts whose deadline passed before their turn.
        cancelled: Texts that their callers cancelled before their turn.
        batches: Runs of the graph.
        waiting: Texts in the queue now.
        running: Texts that a worker has now.
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


class Queue:
    """First in, first out; safe to use from any thread.

    Args:
        limit: Texts that may wait.
        tokens: Tokens to take together, about.
        window: Seconds to wait for more texts at most.
        workers: Threads that take.
    """

    def __init__(self, *, limit: int, tokens: int, window: float, workers: int) -> None:
        self.cost = Cost()
        self._limit = limit
        self._tokens = tokens
        self._window = window
        self._workers = workers
        # Reentrant: a garbage collection while the lock is held may close a batcher that nobody has any more.
        self._lock = threading.RLock()
        self._arrived = threading.Condition(self._lock)
        self._jobs: deque[Job] = deque()
        self._closed = False
        self._deadlines = False  # whether a job with a deadline was put in since they were last looked through
        self._wanted = 0  # texts that a worker waits for, beside the first one
        self._last = 1  # texts that were taken together last
        self._counts = {field.name: 0 for field in dataclasses.fields(BatcherStats)}

    def put(self, job: Job) -> list[Job]:
        """Add a text at the end.

        Returns:
            Texts whose deadline has passed and which gave it their places.

        Raises:
            ClosedError: The batcher was closed.
            OverloadError: The queue is full.
        """
        with self._lock:
            if self._closed:
                raise ClosedError("this Batcher was closed: make another with Batcher(clf)")
            late = self._expired() if len(self._jobs) >= self._limit else []
            if len(self._jobs) >= self._limit:
                self._counts["refused"] += 1
                raise OverloadError(f"{self._limit} texts wait already, which is max_queue: try again later")
            self._jobs.append(job)
            self._deadlines = self._deadlines or job.deadline is not None
            self._counts["submitted"] += 1
            if len(self._jobs) >= self._wanted:
                self._arrived.notify()
            return late

    def discard(self, job: Job, *, expired: bool = False) -> bool:
        """Take out a text that its caller has given up; False where its turn had come."""
        with self._lock:
            try:
                self._jobs.remove(job)
            except ValueError:
                return False
            self._counts["expired" if expired else "cancelled"] += 1
            return True

    def take(self) -> list[Job]:
        """Wait for texts and return those that run next; an empty list says that the batcher is closed."""
        with self._lock:
            while not self._jobs:
                if self._closed:
                    return []
                self._arrived.wait()
                if self._jobs:
                    self._wait_for_more()
            # A share for each worker: what one took whole would run batch after batch while another one has nothing.
            most = min(_TEXTS, -(-len(self._jobs) // self._workers))
            taken: list[Job] = []
            tokens = 0
            while len(taken) < most:
                tokens += estimate(self._jobs[0].text)
                if taken and tokens > self._tokens:
                    break
                taken.append(self._jobs.popleft())
            self._last = len(taken)
            self._counts["running"] += len(taken)
            return taken

    def done(self, *, taken: int, **counts: int) -> None:
        """Count what became of texts that were taken."""
        with self._lock:
            self._counts["running"] -= taken
            for name, count in counts.items():
                self._counts[name] += count

    def close(self, *, drain: bool) -> list[Job]:
        """Take in no more; return those that will not run, none where the queue is to be drained."""
        with self._lock:
            self._closed = True
            dropped = [] if drain else list(self._jobs)
            if dropped:
                self._jobs.clear()
                self._counts["failed"] += len(dropped)
            self._arrived.notify_all()
            return dropped

    def stats(self) -> BatcherStats:
        """Return the counts of one moment."""
        with self._lock:
            return BatcherStats(**self._counts | {"waiting": len(self._jobs)})

    def _wait_for_more(self) -> None:
        """Gather, where there were others a moment ago, until as many are here again or the wait has paid for itself."""
        patience = min(self._window, self.cost.fixed)
        if self._last == 1 or patience < _LEAST_WAIT or self._wanted:
            return
        end = time.monotonic() + patience
        self._wanted = self._last
        while len(self._jobs) < self._wanted and not self._closed and (left := end - time.monotonic()) > 0:
            self._arrived.wait(left)
        self._wanted = 0

    def _expired(self) -> list[Job]:
        """Take out the texts whose deadline has passed: a full queue should not be full of them."""
        if not self._deadlines:
            return []
        now = time.monotonic()
        late = [job for job in self._jobs if job.deadline is not None and job.deadline < now]
        self._keep(job for job in self._jobs if job.deadline is None or job.deadline >= now)
        self._counts["expired"] += len(late)
        return late

    def _keep(self, jobs: Iterable[Job]) -> None:
        self._jobs = deque(jobs)
        self._deadlines = any(job.deadline is not None for job in self._jobs)
