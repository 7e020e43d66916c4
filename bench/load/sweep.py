"""A sweep of rates: rising until the latency leaves the budget, then closer and closer to the limit."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from fusedbert.engine.errors import OptionError

from .open_loop import Outcome

LADDER = (0.3, 0.5, 0.7, 0.85, 1.0)  # of the rate of answers when the server is never idle
RISES = (1.2, 1.5, 2.0, 2.0, 2.0, 2.0)  # steps if the whole ladder was held: the estimate was far too low
HALVINGS = 3  # if the lowest rate was too much already
REFINEMENTS = 3  # steps of bisection
NEAR = 1.04  # two rates this close need none in between


class Bounds(NamedTuple):
    """The highest ``rate`` that was held, with none below it that was not, and the lowest rate ``beyond`` it; None if none."""

    rate: float | None
    beyond: float | None


@dataclasses.dataclass
class RatePoint:
    """One rate of a sweep, with a run for each round."""

    rate: float  # arrivals a second
    held: bool | None = None  # None until it was tried
    outcomes: list[Outcome] = dataclasses.field(default_factory=list)
    others: list[float | None] = dataclasses.field(default_factory=list)  # share of the CPUs that other processes had
    dropped: int = 0  # runs thrown away because other processes had the CPUs


class RateSweep:
    """Search for the highest rate within the budget: ask for the ``next`` point, try it, and set whether it was ``held``.

    Args:
        saturated: Estimate of the rate of answers when the server is never idle, requests a second.
        rates: Rates to try instead, rising, and none in between; the search then ends early after two in a row that were not
            held.

    Example:
        >>> sweep = RateSweep(saturated=100.0)
        >>> while (point := sweep.next()) is not None:
        ...     point.held = point.rate <= 77
        >>> round(sweep.bounds.rate), round(sweep.bounds.beyond)
        (75, 77)
    """

    def __init__(self, saturated: float, *, rates: Sequence[float] = ()) -> None:
        self.saturated = saturated
        self.most = len(rates) or len(LADDER) + max(HALVINGS, len(RISES)) + REFINEMENTS  # rates that are tried at most
        self.points: list[RatePoint] = []  # in the order in which they are tried
        self._rates = self._fixed(sorted(rates)) if rates else self._search(max(saturated, 0.1))

    @property
    def bounds(self) -> Bounds:
        """The result so far."""
        beyond = min((point.rate for point in self.points if point.held is False), default=None)
        below = [point.rate for point in self.points if point.held and (beyond is None or point.rate < beyond)]
        return Bounds(rate=max(below, default=None), beyond=beyond)

    def next(self) -> RatePoint | None:
        """Add the next point to try, and return it; None at the end."""
        for rate in self._rates:
            self.points.append(RatePoint(rate=rate))
            return self.points[-1]
        return None

    def _fixed(self, rates: Sequence[float]) -> Iterator[float]:
        for rate in rates:
            yield rate
            if [point.held for point in self.points[-2:]] == [False, False]:
                return

    def _search(self, saturated: float) -> Iterator[float]:
        for share in LADDER:
            yield share * saturated
            if self.bounds.beyond is not None:
                break
        for rise in RISES:
            if self.bounds.beyond is None:
                yield rise * self.points[-1].rate
        for _ in range(HALVINGS):
            rate, beyond = self.bounds
            if rate is None and beyond is not None:
                yield beyond / 2.0
        for _ in range(REFINEMENTS):
            rate, beyond = self.bounds
            if rate is not None and beyond is not None and beyond > NEAR * rate:
                yield float((rate * beyond) ** 0.5)


def parse_rates(text: str) -> tuple[float, ...]:
    """Parse a list of rates with commas between; sorted.

    Raises:
        OptionError: A part is not a number above 0; the message names it.

    Example:
        >>> parse_rates("200, 50,100")
        (50.0, 100.0, 200.0)
    """
    rates = set()
    for part in filter(None, (part.strip() for part in text.split(","))):
        try:
            rate = float(part)
        except ValueError:
            rate = 0.0
        if not 0.0 < rate < 1e6:
            raise OptionError(f"rate {part!r} is not between 0 and 1000000: give arrivals a second, like 50,100,200")
        rates.add(rate)
    return tuple(sorted(rates))
