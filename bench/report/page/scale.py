"""From values to places on an axis, linear or logarithmic: its ends, its ticks, and how numbers are written."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence

MISSING = "–"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scale:
    """An axis between two values.

    Attributes:
        low: Value at the start of the axis.
        high: Value at its end; above ``low``.
        log: Whether equal distances are equal ratios.
        fixed: Ticks to use in place of round numbers.
    """

    low: float
    high: float
    log: bool = False
    fixed: tuple[float, ...] = ()

    def place(self, value: float, start: float, end: float) -> float:
        """Return where a value lies when the axis runs from ``start`` to ``end``.

        Example:
            >>> Scale(low=1, high=100, log=True).place(10, 0, 300)
            150.0
        """
        if self.log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return start + share * (end - start)

    def shows(self, value: object) -> bool:
        """Tell whether a value has a place on this axis."""
        found = number(value)
        return found is not None and (found > 0 or not self.log) and self.low <= found <= self.high

    def ticks(self, most: int) -> list[float]:
        """Return about ``most`` round values at most, two where the axis allows, in rising order."""
        if self.fixed:
            return [value for value in self.fixed if self.low <= value <= self.high]
        most = max(most, 2)
        if self.log:
            found = self._decades(most)
            if found:
                return found
        return [value for value in _round_steps(self.low, self.high, most) if self.shows(value)]

    def _decades(self, most: int) -> list[float]:
        """Return ticks that go by powers of ten, as many as fit; none where the axis is too short for those."""
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        least = 3 if self.high < 30 * self.low else 2
        finer = [((1, 2, 3, 5, 7), 1), ((1, 2, 5), 1), ((1, 3), 1)]
        for steps, every in (*finer, *(((1,), every) for every in range(1, len(decades)))):
            found = [float(f"{step}e{decade}") for decade in decades if decade % every == 0 for step in steps]
            found = [value for value in found if self.low <= value <= self.high]
            if least <= len(found) <= most:
                return found
        return []


def _round_steps(low: float, high: float, most: int) -> list[float]:
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(index * step, 12) for index in range(first, math.floor(high / step + 1e-9) + 1)]


def number(value: object) -> float | None:
    """Return a finite number, or None for all else: None, NaN, an infinity, a text, a boolean."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def finite(values: Iterable[object]) -> list[float]:
    """Return those of the values that are finite numbers."""
    return [found for found in map(number, values) if found is not None]


def log_scale(values: Iterable[object], *, least: float = 1.6, pad: float = 0.06, fixed: Sequence[float] = ()) -> Scale | None:
    """Make a logarithmic axis that holds all positive values.

    Args:
        values: What it must hold; what is not a positive number is left out.
        least: Ratio of its ends at least, so that two equal values do not fill the plot.
        pad: Room at each end, as a share of the axis.
        fixed: Ticks to use.

    Returns:
        None where no value is positive.
    """
    positive = [value for value in finite(values) if value > 0]
    if not positive:
        return None
    low, high = math.log(min(positive)), math.log(max(positive))
    short = max(0.0, math.log(least) - (high - low)) / 2
    low, high = low - short, high + short
    room = pad * (high - low)
    return Scale(low=math.exp(low - room), high=math.exp(high + room), log=True, fixed=tuple(sorted(set(fixed))))


def linear_scale(values: Iterable[object]) -> Scale | None:
    """Make an axis from 0 that holds all values; None where there is none above 0."""
    positive = [value for value in finite(values) if value > 0]
    return Scale(low=0.0, high=max(positive) * 1.04) if positive else None


def tick_text(value: float) -> str:
    """Write a tick's value: short, thousands as ``k``."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= 10 * size or (abs(value) >= size and value % size == 0):
            return f"{value / size:g}{letter}"
    return f"{value:.6g}"


def figure(value: object, unit: str = "") -> str:
    """Write a measured value in three digits, or a dash where there is none.

    Example:
        >>> figure(12.345), figure(0.98765), figure(1234.5), figure(None)
        ('12.3', '0.988', '1,234', '–')
    """
    found = number(value)
    if found is None:
        return MISSING
    size = abs(found)
    places = 0 if size >= 99.95 or isinstance(value, int) else 1 if size >= 9.995 else 2 if size >= 0.9995 else 3
    shown = f"{found:,.{places}f}" if size >= 0.1 or not found else f"{found:.3g}"
    return f"{shown} {unit}" if unit else shown


def share(value: object) -> str:
    """Write a share as a percentage."""
    found = number(value)
    return MISSING if found is None else f"{100 * found:.1f} %"
