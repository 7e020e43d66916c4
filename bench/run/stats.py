"""Timing and statistics: warm-up, samples, paired ratios with their bootstrap intervals, noisy rounds.

A slow spell of the machine hits both engines of a round, so their ratio hardly moves. Its median over the rounds counts, with a
95 % bootstrap interval (Efron 1979): how the median would scatter if other rounds had been drawn.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000
LEVEL = 0.95
SEED = 0  # the same figures give the same interval
NOISY = 0.10  # a round this far off the median of all rounds is reported
BUSY = 0.10  # as is one in which other processes had more than this share of the CPUs
MOST_NAMED = 8

WINDOW = 5  # iterations whose median is compared with that of the window before
TOLERANCE = 0.05  # warm when two windows in a row differ by less than this share
WARM_UP_SECONDS = 5.0  # give up waiting after that

Rounds = Mapping[int, tuple[float, bool]]  # round number -> its time, and whether it is noisy


@dataclasses.dataclass(frozen=True, kw_only=True)
class WarmUp:
    """Record of a warm-up."""

    iterations: int
    seconds: float  # of all iterations
    converged: bool  # whether the times settled before the limit


def warm_up(run: Callable[[], float], *, cap: float = WARM_UP_SECONDS) -> WarmUp:
    """Run until the medians of two windows in a row differ by less than ``TOLERANCE``, or ``cap`` seconds are spent.

    Clocks, threads, arenas and pages need some time, not some number of iterations. ``run`` performs one iteration on fresh
    input and returns its seconds; only these count as time.
    """
    times: list[float] = []
    spent = 0.0
    converged = False
    while spent < cap and not converged:
        times.append(run())
        spent += times[-1]
        if len(times) >= 2 * WINDOW and len(times) % WINDOW == 0:
            before, now = np.median(times[-2 * WINDOW : -WINDOW]), np.median(times[-WINDOW:])
            converged = bool(abs(now - before) <= TOLERANCE * before)
    return WarmUp(iterations=len(times), seconds=spent, converged=converged)


def sample(run: Callable[[], float], *, least_samples: int, least_seconds: float, most_seconds: float) -> list[float]:
    """Return at least ``least_samples`` times, in order, over at least ``least_seconds``, but stop after ``most_seconds``."""
    times = [run()]
    spent = times[0]
    while spent < most_seconds and (len(times) < least_samples or spent < least_seconds):
        times.append(run())
        spent += times[-1]
    return times


@dataclasses.dataclass(frozen=True, kw_only=True)
class Summary:
    """Latency of a batch in milliseconds, and the sequences per second that it amounts to."""

    samples: int
    p50_ms: float
    p90_ms: float
    p99_ms: float  # interpolated; with fewer than 100 samples it rests on the slowest one
    mean_ms: float
    sequences_per_second: float  # the batch size divided by the mean latency


def summarize(seconds: Sequence[float], *, batch: int) -> Summary:
    """Summarize the times of a shape.

    Example:
        >>> summarize([0.001, 0.002, 0.003], batch=8).p50_ms
        2.0
    """
    milliseconds = 1e3 * np.asarray(seconds)  # [samples]
    p50, p90, p99 = np.percentile(milliseconds, [50, 90, 99]).tolist()
    mean = float(milliseconds.mean())
    rate = 1e3 * batch / mean
    return Summary(samples=len(milliseconds), p50_ms=p50, p90_ms=p90, p99_ms=p99, mean_ms=mean, sequences_per_second=rate)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ratio:
    """fusedbert's time divided by another engine's (below 1, fusedbert is faster), and its 95 % interval, over some pairs."""

    median: float
    low: float
    high: float
    pairs: int


def summarize_ratios(samples: Sequence[Sequence[float]]) -> Ratio:
    """Return the median of the ratios of paired rounds; over several shapes, the geometric mean of their medians.

    ``samples`` has for each shape the ratio of each round; the interval comes from resampling the rounds of every shape.

    Example:
        >>> summarize_ratios([[0.5, 0.5, 0.5]])
        Ratio(median=0.5, low=0.5, high=0.5, pairs=3)
    """
    from scipy.stats import bootstrap, gmean

    def statistic(*each: NDArray[np.float64], axis: int) -> Any:
        medians = [np.median(ratios, axis=axis) for ratios in each]
        return gmean(medians, axis=0) if len(medians) > 1 else medians[0]

    usable = [np.repeat(each, 2) if len(each) == 1 else np.array(each) for each in samples]  # scipy refuses a sample of one
    found = bootstrap(
        usable, statistic, n_resamples=RESAMPLES, confidence_level=LEVEL, method="percentile", vectorized=True, rng=SEED
    )
    low, high = map(float, found.confidence_interval)
    return Ratio(median=float(statistic(*usable, axis=0)), low=low, high=high, pairs=sum(map(len, samples)))


def compare(
    rounds: Mapping[str, Mapping[str, Rounds]], own: Sequence[str], *, item: str = "shape"
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Compare each of fusedbert's entries with each of the other engines, in the rounds that both have.

    ``rounds`` are by engine and item, in any unit, the same for all of an item; ``own`` names fusedbert's entries; ``item`` is
    the document's name of an item: ``shape`` or ``corpus``. Returns the document's ``ratios`` and its ``summary``.
    """
    all_ratios: list[dict[str, Any]] = []
    summary: list[dict[str, Any]] = []
    ours, peers = [name for name in own if name in rounds], [name for name in rounds if name not in own]
    for our, peer in itertools.product(ours, peers):
        names, entries, samples = {"ours": our, "peer": peer}, [], []
        for place, made in rounds[our].items():
            theirs = rounds[peer].get(place, {})
            pairs = [(made[number], theirs[number]) for number in made if number in theirs]
            if pairs:
                samples.append([time / other for (time, _), (other, _) in pairs])
                noisy = sum(one or another for (_, one), (_, another) in pairs)
                entries.append({**names, item: place, **dataclasses.asdict(summarize_ratios(samples[-1:])), "noisy": noisy})
        if entries:
            mean = summarize_ratios(samples)
            worst = max(entries, key=lambda each: each["median"])
            total = {"geometric_mean": mean.median, "low": mean.low, "high": mean.high}
            summary.append({**names, **total, "worst": {item: worst[item], "median": worst["median"]}})
        all_ratios += entries
    return all_ratios, summary


def noise(medians: Sequence[float], others: Sequence[float | None]) -> list[str | None]:
    """Return for each round why it is noisy, or None: its median, or the share of the CPUs that other processes had.

    Example:
        >>> noise([1.0, 1.0, 1.5], [0.0, 0.2, None])
        [None, 'other processes had 20 % of the CPUs', '50 % above its median']
    """
    reasons = []
    for median, share in zip(medians, others, strict=True):
        parts = []
        off = median / float(np.median(medians)) - 1.0
        if abs(off) > NOISY:
            parts.append(f"{100 * abs(off):.0f} % {'above' if off > 0 else 'below'} its median")
        if share is not None and share > BUSY:
            parts.append(f"other processes had {100 * share:.0f} % of the CPUs")
        reasons.append(", ".join(parts) or None)
    return reasons


def name_some(parts: Sequence[str]) -> str:
    """List the first ``MOST_NAMED`` of many, and the number of the others."""
    more = [f"and {len(parts) - MOST_NAMED} more"] if len(parts) > MOST_NAMED else []
    return "; ".join([*parts[:MOST_NAMED], *more])
