"""How one shape is timed: warm up until the times hold still, then measure, then say what was seen.

Both steps take ``run``, which performs one iteration on fresh input and returns its seconds, and they keep time by the
sum of what ``run`` returns: drawing the input is not counted, and no clock is read here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

WINDOW = 5  # iterations whose median is compared with that of the window before
TOLERANCE = 0.05  # warm when two windows in a row differ by less than this share
WARM_UP_SECONDS = 5.0  # give up waiting after that
LEAST_SAMPLES = 20
LEAST_SECONDS = 1.0
MOST_SECONDS = 10.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class WarmUp:
    """What happened before the first sample.

    Attributes:
        iterations: Iterations run and thrown away.
        seconds: Time they took.
        converged: Whether the times held still; False means that the cap in time ended the warm-up.
    """

    iterations: int
    seconds: float
    converged: bool


def warm_up(run: Callable[[], float], *, cap: float = WARM_UP_SECONDS) -> WarmUp:
    """Run until the medians of two windows in a row differ by less than ``TOLERANCE``, or ``cap`` seconds are spent.

    A fixed count is too many for one shape and too few for another: clocks rise, threads wake, arenas grow and pages are
    touched over some time, not over some number of iterations.
    """
    times: list[float] = []
    spent = 0.0
    while spent < cap:
        times.append(run())
        spent += times[-1]
        if len(times) >= 2 * WINDOW and len(times) % WINDOW == 0:
            before, now = np.median(times[-2 * WINDOW : -WINDOW]), np.median(times[-WINDOW:])
            if abs(now - before) <= TOLERANCE * before:
                return WarmUp(iterations=len(times), seconds=spent, converged=True)
    return WarmUp(iterations=len(times), seconds=spent, converged=False)


def sample(
    run: Callable[[], float],
    *,
    least_samples: int = LEAST_SAMPLES,
    least_seconds: float = LEAST_SECONDS,
    most_seconds: float = MOST_SECONDS,
) -> list[float]:
    """Collect at least ``least_samples`` times over at least ``least_seconds``, but stop after ``most_seconds``.

    Returns:
        Seconds of each iteration, in the order in which they ran; one at least.
    """
    times = [run()]
    spent = times[0]
    while spent < most_seconds and (len(times) < least_samples or spent < least_seconds):
        times.append(run())
        spent += times[-1]
    return times


@dataclasses.dataclass(frozen=True, kw_only=True)
class Summary:
    """Latency of a batch in milliseconds, and what it means in sequences per second.

    Attributes:
        samples: Number of iterations behind the figures.
        p50_ms: Median.
        p90_ms: 90th percentile.
        p99_ms: 99th percentile, interpolated; with fewer than 100 samples it leans on the slowest alone.
        mean_ms: Mean.
        sequences_per_second: Batch size divided by the mean latency.
    """

    samples: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    mean_ms: float
    sequences_per_second: float


def summarize(seconds: Sequence[float], *, batch: int) -> Summary:
    """Summarize the times of a shape.

    Example:
        >>> summarize([0.001, 0.002, 0.003], batch=8).p50_ms
        2.0
    """
    milliseconds = 1e3 * np.asarray(seconds, dtype=np.float64)  # [samples]
    p50, p90, p99 = (float(value) for value in np.percentile(milliseconds, [50, 90, 99]))
    mean = float(milliseconds.mean())
    return Summary(
        samples=len(milliseconds),
        p50_ms=p50,
        p90_ms=p90,
        p99_ms=p99,
        mean_ms=mean,
        sequences_per_second=1e3 * batch / mean,
    )
