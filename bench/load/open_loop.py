"""Open-loop load: requests arrive by a Poisson process, whether or not the previous ones are answered.

A request's latency counts from its intended arrival, even if the sender was late: users of a server that falls behind wait too
(leaving that out is known as coordinated omission).
"""

from __future__ import annotations

import dataclasses
import functools
import math
import queue
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np
from numpy.typing import NDArray

PERCENTILE = 99.0  # the one that the budget limits
Floats = NDArray[np.float64]
End = tuple[int, float, str]  # index of a request, the time at which it ended, and the kind of its error; empty if answered


class Clock:
    """The real clock. It sleeps and never spins, because the cores belong to the server; its lateness is recorded."""

    def now(self) -> float:
        """Return the time in seconds."""
        return time.perf_counter()

    def wait_until(self, moment: float) -> None:
        """Sleep until that time; return at once if it is past."""
        while (left := moment - time.perf_counter()) > 0:
            time.sleep(left)


class Server:
    """A server of futures: a pool of threads, or fusedbert's ``Batcher``.

    ``start`` starts request ``index``; an exception, as of a full queue, is its error. ``stop`` drops the requests that wait.
    """

    def __init__(self, start: Callable[[int], Future[Any]], stop: Callable[[], object], clock: Clock) -> None:
        self._start, self._stop, self._clock = start, stop, clock
        self._ends: queue.SimpleQueue[End] = queue.SimpleQueue()  # filled from any thread

    def submit(self, index: int) -> None:
        """Start a request."""
        try:
            future = self._start(index)
        except Exception as error:  # of this request only
            future = Future()
            future.set_exception(error)
        future.add_done_callback(functools.partial(self._record, index))

    def ends(self, count: int, seconds: float) -> Iterator[End]:
        """Yield the ends of ``count`` requests, as they come within ``seconds``, and drop the rest."""
        until = self._clock.now() + seconds
        for _ in range(count):
            try:
                yield self._ends.get(timeout=max(0.0, until - self._clock.now()))
            except queue.Empty:
                self._stop()
                return

    def _record(self, index: int, future: Future[Any]) -> None:
        if not future.cancelled():  # by stop
            error = future.exception()
            self._ends.put((index, self._clock.now(), "" if error is None else type(error).__name__))


def poisson_schedule(rate: float, seconds: float, random: np.random.Generator) -> Floats:
    """Draw the times of ``rate`` arrivals a second on average, ascending from 0 to below ``seconds``; at least one."""
    expected = rate * seconds
    count = math.ceil(expected + 6.0 * math.sqrt(expected) + 16.0)  # enough except in one case of 10^9
    times = np.cumsum(random.exponential(1.0 / rate, size=count))
    return times[: max(1, int(np.searchsorted(times, seconds)))]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """One run at one rate.

    ``latencies`` are the seconds from a request's intended arrival to its answer, ascending, float64 [arrivals - errors]; a
    request that was given up counts with the time that it had waited. The sender's own lateness is part of them.
    """

    arrivals: int  # number of requests
    achieved: float  # answers a second, from the first arrival to the last answer
    latencies: Floats
    kinds: dict[str, int]  # number of errors by kind
    unfinished: int  # requests given up when the time after the last arrival was over
    late_ms: float  # 99th percentile of how late the sender was

    def within(self, budget: float) -> bool:
        """Return whether 99 % of the arrivals were answered within ``budget`` seconds; an error is not an answer."""
        fast = int((self.latencies <= budget).sum()) - self.unfinished
        return fast >= PERCENTILE / 100.0 * self.arrivals

    def figures(self) -> dict[str, Any]:
        """Return plain values for JSON; milliseconds, None without any answer."""
        milliseconds = 1e3 * self.latencies
        p50, p90, p99 = np.percentile(milliseconds, [50, 90, 99]).tolist() if len(milliseconds) else (None, None, None)
        return {
            "achieved": self.achieved,
            "arrivals": self.arrivals,
            "p50_ms": p50,
            "p90_ms": p90,
            "p99_ms": p99,
            "errors": sum(self.kinds.values()),
            "error_kinds": dict(self.kinds),
            "unfinished": self.unfinished,
            "late_p99_ms": self.late_ms,
        }


def drive(offsets: Floats, server: Server, clock: Clock, *, grace: float, give_up: float) -> Outcome:
    """Send requests by a schedule and wait for their answers.

    ``offsets`` are the seconds from the start to each arrival, ascending, float64 [requests]. After the last one, answers may
    take ``grace`` seconds. The sender stops when it is ``give_up`` seconds behind; those not sent count as given up.
    """
    sent, ended = (np.full(len(offsets), np.nan) for _ in range(2))  # time of sending, and of the end, [requests]
    kinds = [""] * len(offsets)
    start = clock.now()
    for index, offset in enumerate(offsets.tolist()):
        clock.wait_until(start + offset)
        now = clock.now()
        if now - start - offset > give_up:
            break
        sent[index] = now
        server.submit(index)
    for index, at, kind in server.ends(len(offsets), grace):
        ended[index], kinds[index] = at, kind
    return summarize(start + offsets, sent, ended, kinds, start=start, end=clock.now())


def summarize(intended: Floats, sent: Floats, ended: Floats, kinds: Sequence[str], *, start: float, end: float) -> Outcome:
    """Make the outcome of a run that went from ``start`` to ``end``.

    Of each request there is the time of its intended arrival, of sending and of its end, NaN if there was none, and the kind
    of its error, empty if it was answered.
    """
    failed = np.array([bool(kind) for kind in kinds])  # [requests]
    answered = ~np.isnan(ended) & ~failed
    latencies = np.where(answered, ended, end) - intended
    last = float(ended[answered].max()) if answered.any() else end
    late = (sent - intended)[~np.isnan(sent)]
    return Outcome(
        arrivals=len(intended),
        achieved=float(answered.sum() / max(last - start, float(intended[-1]) - start, 1e-9)),
        latencies=np.sort(np.maximum(latencies[~failed], 0.0)),
        kinds=dict(Counter(filter(None, kinds))),
        unfinished=int((~answered & ~failed).sum()),
        late_ms=float(1e3 * np.percentile(late, 99)) if len(late) else 0.0,
    )


def pool(outcomes: Sequence[Outcome]) -> Outcome:
    """Join the runs of one rate into one."""
    return Outcome(
        arrivals=sum(each.arrivals for each in outcomes),
        achieved=float(np.mean([each.achieved for each in outcomes])),
        latencies=np.sort(np.concatenate([each.latencies for each in outcomes])),
        kinds=dict(sum((Counter(each.kinds) for each in outcomes), Counter[str]())),
        unfinished=sum(each.unfinished for each in outcomes),
        late_ms=max(each.late_ms for each in outcomes),
    )
