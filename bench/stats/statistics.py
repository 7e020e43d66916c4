"""Comparing two series of timings that were taken in turns: ratios of pairs, their median, and how sure it is.

Two engines that run one after the other on a machine that slows down and speeds up differ for reasons of the machine.
Taken in turns, a slow spell hits both, and the ratio of the two visits of one round hardly moves. So the figure that
counts is the median of the paired ratios, with a 95 % bootstrap interval (Efron 1979): how the median would scatter if
the rounds had fallen out otherwise.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000
LEVEL = 0.95
NOISY = 0.10  # a round this far off the median of all rounds is named
SEED = 0  # the same figures give the same interval


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ratio:
    """Ours over the peer's, of times: below 1 ours are shorter.

    Attributes:
        median: Median of the paired ratios.
        low: Lower end of the 95 % interval of the median; equal to ``median`` where there is one pair alone.
        high: Its upper end.
        pairs: Number of pairs.
    """

    median: float
    low: float
    high: float
    pairs: int


def paired_ratio(ours: Sequence[float | None], peers: Sequence[float | None]) -> Ratio | None:
    """Compare two series round by round; rounds that one of them lacks (None, or beyond its end) do not count.

    Example:
        >>> paired_ratio([1.0, 2.0, 3.0], [2.0, 4.0, 6.0])
        Ratio(median=0.5, low=0.5, high=0.5, pairs=3)
    """
    ratios = _ratios(ours, peers)
    if not len(ratios):
        return None
    low, high = _interval(_medians(ratios, np.random.default_rng(SEED)))
    return Ratio(median=float(np.median(ratios)), low=low, high=high, pairs=len(ratios))


def geometric_mean(series: Sequence[tuple[Sequence[float | None], Sequence[float | None]]]) -> Ratio | None:
    """Compare over several shapes: the geometric mean of their median ratios, each of equal weight.

    Args:
        series: For each shape ours and the peer's, as for ``paired_ratio``; a shape without pairs does not count.

    Returns:
        ``median`` is the geometric mean, the interval comes from drawing the rounds of every shape anew, and ``pairs``
        are those of all shapes. None where there are none.
    """
    ratios = [found for ours, peers in series if len(found := _ratios(ours, peers))]
    if not ratios:
        return None
    random = np.random.default_rng(SEED)
    drawn = np.mean([np.log(_medians(each, random)) for each in ratios], axis=0)  # [resamples]
    low, high = _interval(np.exp(drawn))
    mean = float(np.exp(np.mean([np.log(np.median(each)) for each in ratios])))
    return Ratio(median=mean, low=low, high=high, pairs=sum(map(len, ratios)))


def off_the_median(values: Sequence[float], tolerance: float = NOISY) -> list[float]:
    """Return for each round how far it is off the median of all, as a share; 0 where within the tolerance.

    Example:
        >>> off_the_median([1.0, 1.0, 1.5])
        [0.0, 0.0, 0.5]
    """
    middle = float(np.median(values)) if len(values) else 0.0
    shares = [value / middle - 1.0 if middle > 0 else 0.0 for value in values]
    return [share if abs(share) > tolerance else 0.0 for share in shares]


def _ratios(ours: Sequence[float | None], peers: Sequence[float | None]) -> NDArray[np.float64]:
    pairs = zip(ours, peers, strict=False)
    return np.array([a / b for a, b in pairs if a is not None and b is not None and a > 0 and b > 0], dtype=np.float64)


def _medians(ratios: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float64]:
    """Draw the rounds anew, with repetition, and return the median of each draw: ``[resamples]``."""
    drawn = random.integers(0, len(ratios), size=(RESAMPLES, len(ratios)))
    return np.asarray(np.median(ratios[drawn], axis=1))


def _interval(values: NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.percentile(values, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return float(low), float(high)
