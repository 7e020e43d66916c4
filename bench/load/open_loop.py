"""Load as services see it: requests that arrive when they arrive, whether or not the last ones are answered.

Arrivals are a Poisson process. A request's latency counts from the moment at which it was meant to arrive, also where the
one that sends it was late: what waits in front of a server that falls behind is part of what its users see (leaving it out
is known as coordinated omission).
"""

from __future__ import annotations

import dataclasses
import math
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

PERCENTILE = 99.0  # the one that is held against the budget
Floats = NDArray[np.float64]


class Clock(Protocol):
    """Time in seconds, and a way to wait for it."""

    def now(self) -> float:
        """Return the time."""
        ...

    def wait_until(self, moment: float) -> None:
        """Return at that time, or at once where it is past."""
        ...


class WallClock:
    """The real clock. It sleeps and never spins: the cores belong to the server; how late it wakes is in the record."""

    def now(self) -> float:
        """Return the time of ``time.perf_counter``."""
        return time.perf_counter()

    def wait_until(self, moment: float) -> None:
        """Sleep."""
        while (left := moment - time.perf_counter()) > 0:
            time.sleep(left)


class Log:
    """What became of each request; written from any thread, until it is closed.

    Attributes:
        sent: When it was given to the server, float64 [requests]; NaN before.
        ended: When its answer was there, float64 [requests]; NaN where it is not, or is an error.
        errors: Number of errors by their kind.
    """

    def __init__(self, count: int) -> None:
        self.sent: Floats = np.full(count, np.nan)
        self.ended: Floats = np.full(count, np.nan)
        self.errors: dict[str, int] = {}
        self._failed = np.zeros(count, dtype=bool)
        self._open = count
        self._closed = False
        self._condition = threading.Condition()

    def answer(self, index: int, at: float) -> None:
        """Note an answer."""
        with self._condition:
            if not self._closed:
                self.ended[index] = at
                self._settle()

    def fail(self, index: int, kind: str) -> None:
        """Note an error."""
        with self._condition:
            if not self._closed:
                self._failed[index] = True
                self.errors[kind] = self.errors.get(kind, 0) + 1
                self._settle()

    def wait(self, seconds: float) -> bool:
        """Wait until every request is settled, for so long at most; return whether they are."""
        with self._condition:
            return self._condition.wait_for(lambda: self._open == 0, timeout=seconds)

    def close(self) -> None:
        """Take note of nothing more."""
        with self._condition:
            self._closed = True

    @property
    def failed(self) -> NDArray[np.bool_]:
        """Whether each request ended with an error, bool [requests]."""
        return self._failed

    def _settle(self) -> None:
        self._open -= 1
        if self._open == 0:
            self._condition.notify_all()


class Server(Protocol):
    """What requests are given to."""

    def submit(self, index: int, log: Log) -> None:
        """Take request ``index`` without waiting for its answer; note that in the log when it is there."""
        ...

    def drain(self, log: Log, seconds: float) -> None:
        """Wait until all are answered, for so long at most, and let go of the rest."""
        ...


def poisson_schedule(rate: float, seconds: float, random: np.random.Generator) -> Floats:
    """Draw arrivals of a Poisson process: their times from 0 on, ascending, below ``seconds``, one at least.

    Args:
        rate: Arrivals a second on average.
        seconds: Length of the schedule.
        random: Where they are drawn from.
    """
    expected = rate * seconds
    count = math.ceil(expected + 6.0 * math.sqrt(expected) + 16.0)  # more than enough, but for one case in 10^9
    times = np.cumsum(random.exponential(1.0 / rate, size=count))
    return times[: max(1, int(np.searchsorted(times, seconds)))]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """One run at one rate.

    Attributes:
        rate: Arrivals a second that were meant.
        arrivals: Number of requests.
        achieved: Answers a second, from the first arrival to the last answer.
        latencies: Seconds from a request's intended arrival to its answer, ascending, float64 [arrivals - errors]; a request
            that was given up stands with the time that it had waited by then.
        errors: Requests that ended with an error.
        kinds: Number of errors by their kind.
        unfinished: Requests that were given up when the time after the last arrival was over.
        late_ms: 99th percentile of how late the sender was, in milliseconds; it is part of the latencies.
    """

    rate: float
    arrivals: int
    achieved: float
    latencies: Floats
    errors: int
    kinds: dict[str, int]
    unfinished: int
    late_ms: float

    def within(self, budget: float) -> bool:
        """Tell whether 99 % of the arrivals were answered within ``budget`` seconds; an error is no answer."""
        fast = int((self.latencies <= budget).sum()) - (self.unfinished if self.unfinished else 0)
        return fast >= PERCENTILE / 100.0 * self.arrivals

    def figures(self) -> dict[str, Any]:
        """Return plain values for JSON; milliseconds, None where there was no answer at all."""
        milliseconds = 1e3 * self.latencies
        p50, p90, p99 = np.percentile(milliseconds, [50, 90, 99]).tolist() if len(milliseconds) else (None, None, None)
        return {
            "rate": self.rate,
            "achieved": self.achieved,
            "arrivals": self.arrivals,
            "p50_ms": p50,
            "p90_ms": p90,
            "p99_ms": p99,
            "errors": self.errors,
            "error_kinds": dict(self.kinds),
            "unfinished": self.unfinished,
            "late_p99_ms": self.late_ms,
        }


def drive(offsets: Floats, server: Server, clock: Clock, *, rate: float, grace: float, give_up: float) -> Outcome:
    """Send requests by a schedule and wait for their answers.

    Args:
        offsets: When each arrives, seconds from the start, ascending, float64 [requests].
        server: Where they go.
        clock: What time it is.
        rate: The rate that the schedule was drawn for.
        grace: Seconds that answers may take after the last arrival.
        give_up: Seconds that the sender may fall behind; then it stops, and those not sent count as given up.
    """
    log = Log(len(offsets))
    start = clock.now()
    for index, offset in enumerate(offsets.tolist()):
        clock.wait_until(start + offset)
        now = clock.now()
        if now - start - offset > give_up:
            break
        log.sent[index] = now
        server.submit(index, log)
    server.drain(log, grace)
    log.close()
    return _outcome(offsets, log, start, clock.now(), rate)


def _outcome(offsets: Floats, log: Log, start: float, end: float, rate: float) -> Outcome:
    intended = start + offsets  # [requests]
    answered = ~np.isnan(log.ended)  # [requests]
    open_still = ~answered & ~log.failed
    latencies = np.where(answered, log.ended, max(end, start)) - intended
    last = float(np.nanmax(log.ended)) if answered.any() else end
    late = (log.sent - intended)[~np.isnan(log.sent)]
    return Outcome(
        rate=rate,
        arrivals=len(offsets),
        achieved=float(answered.sum() / max(last - start, float(offsets[-1]), 1e-9)),
        latencies=np.sort(np.maximum(latencies[~log.failed], 0.0)),
        errors=int(log.failed.sum()),
        kinds=dict(log.errors),
        unfinished=int(open_still.sum()),
        late_ms=float(1e3 * np.percentile(late, 99)) if len(late) else 0.0,
    )


def pool(outcomes: Sequence[Outcome]) -> Outcome:
    """Join the runs of one rate into one."""
    kinds: dict[str, int] = {}
    for outcome in outcomes:
        for kind, count in outcome.kinds.items():
            kinds[kind] = kinds.get(kind, 0) + count
    return Outcome(
        rate=outcomes[0].rate,
        arrivals=sum(outcome.arrivals for outcome in outcomes),
        achieved=float(np.mean([outcome.achieved for outcome in outcomes])),
        latencies=np.sort(np.concatenate([outcome.latencies for outcome in outcomes])),
        errors=sum(outcome.errors for outcome in outcomes),
        kinds=kinds,
        unfinished=sum(outcome.unfinished for outcome in outcomes),
        late_ms=max(outcome.late_ms for outcome in outcomes),
    )


class PoolServer:
    """Threads that each take a request, call a function with it, and take the next; requests wait in one queue.

    Args:
        call: Answers request ``index``; what it raises is that request's error.
        callers: Number of threads.
        clock: What time it is.

    It is used for one run and has no thread left after ``drain``, but for those whose call does not return.
    """

    def __init__(self, call: Callable[[int], object], *, callers: int, clock: Clock) -> None:
        self._call, self._clock = call, clock
        self._waiting: queue.SimpleQueue[tuple[int, Log] | None] = queue.SimpleQueue()
        self._dropping = False
        self._threads = [threading.Thread(target=self._work, name=f"caller-{n}", daemon=True) for n in range(callers)]
        for thread in self._threads:
            thread.start()

    def submit(self, index: int, log: Log) -> None:
        """Put a request into the queue."""
        self._waiting.put((index, log))

    def drain(self, log: Log, seconds: float) -> None:
        """Wait for the answers, then end the threads."""
        self._dropping = not log.wait(seconds)
        if self._dropping:
            log.close()  # what still runs is too late
        for _ in self._threads:
            self._waiting.put(None)
        for thread in self._threads:
            thread.join(timeout=seconds + 1.0)

    def _work(self) -> None:
        while (item := self._waiting.get()) is not None:
            if self._dropping:
                continue
            index, log = item
            try:
                self._call(index)
            except Exception as error:  # a request's own; the others go on
                log.fail(index, type(error).__name__)
            else:
                log.answer(index, self._clock.now())
