"""From the rounds of every contender to what is compared: ratios of ours to each peer, their mean, and the doubts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..run.activity import BUSY
from .statistics import geometric_mean, off_the_median, paired_ratio

Series = Mapping[str, Sequence[float | None]]  # item -> the time of each round; None where there was none
MOST_NAMED = 8


def compare(
    times: Mapping[str, Series], ours: Sequence[str], noisy: Mapping[str, Mapping[str, Sequence[bool]]], *, item: str = "shape"
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Hold each of ours against each of the others.

    Args:
        times: For each contender, item and round a time; any unit, the same for all of an item.
        ours: Which of them are ours.
        noisy: For each contender and item which rounds are in doubt.
        item: What the document calls an item: ``shape`` or ``corpus``.

    Returns:
        The document's ``ratios`` and its ``summary``.
    """
    ratios: list[dict[str, Any]] = []
    summary: list[dict[str, Any]] = []
    for our in (name for name in ours if name in times):
        for peer in (name for name in times if name not in ours):
            found: list[dict[str, Any]] = []
            for place in times[our]:
                other = times[peer].get(place, ())
                ratio = paired_ratio(times[our][place], other)
                if ratio is None:
                    continue
                doubts = zip(_flags(noisy, our, place), _flags(noisy, peer, place), strict=False)
                entry = {"median": ratio.median, "low": ratio.low, "high": ratio.high, "pairs": ratio.pairs}
                found.append({"ours": our, "peer": peer, item: place, **entry, "noisy": sum(map(any, doubts))})
            mean = geometric_mean([(times[our][each[item]], times[peer][each[item]]) for each in found])
            if mean is not None:
                worst = max(found, key=lambda each: each["median"])
                summary.append(
                    {
                        "ours": our,
                        "peer": peer,
                        "geometric_mean": mean.median,
                        "low": mean.low,
                        "high": mean.high,
                        "worst": {item: worst[item], "median": worst["median"]},
                    }
                )
            ratios += found
    return ratios, summary


def _flags(noisy: Mapping[str, Mapping[str, Sequence[bool]]], name: str, item: str) -> Sequence[bool]:
    return noisy.get(name, {}).get(item, ())


def doubts(medians: Sequence[float], others: Sequence[float | None]) -> list[str | None]:
    """Say for each round why it is to be doubted, or None.

    Args:
        medians: The median of each round.
        others: Share of the CPUs that other processes had during it; None where it is not known.

    Example:
        >>> doubts([1.0, 1.0, 1.5], [0.0, 0.2, None])
        [None, 'other processes had 20 % of the CPUs', '50 % above its median']
    """
    reasons = []
    for off, share in zip(off_the_median(medians), others, strict=True):
        parts = []
        if off:
            parts.append(f"{abs(off):.0%} {'above' if off > 0 else 'below'} its median".replace("%", " %"))
        if share is not None and share > BUSY:
            parts.append(f"other processes had {share:.0%} of the CPUs".replace("%", " %"))
        reasons.append(", ".join(parts) or None)
    return reasons


def name_some(parts: Sequence[str], most: int = MOST_NAMED) -> str:
    """List a few of many.

    Example:
        >>> name_some(["a", "b", "c"], most=2)
        'a; b; and 1 more'
    """
    shown = [*parts[:most], *([f"and {len(parts) - most} more"] if len(parts) > most else [])]
    return "; ".join(shown)
