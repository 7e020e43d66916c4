"""Looking for the rate that a server holds: rising rates until its latency leaves the budget, then nearer and nearer."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

LADDER = (0.3, 0.5, 0.7, 0.85, 1.0)  # of the rate at which it answers when it is never idle
RISES = (1.2, 1.5, 2.0, 2.0, 2.0, 2.0)  # steps where the whole ladder was held: the estimate was far too low
HALVINGS = 3  # where the lowest rate was too much already
NEAR = 1.04  # two rates this close need none in between


@dataclasses.dataclass(frozen=True, kw_only=True)
class Capacity:
    """What was found.

    Attributes:
        rate: The highest rate that was held, below which none was not; None where there was none.
        beyond: The lowest rate that was not held; None where all were.
    """

    rate: float | None
    beyond: float | None


class Search:
    """One search: ask for the ``next`` rate, try it, ``record`` whether it was held.

    Args:
        saturated: Estimate of the rate at which the server answers when it is never idle, requests a second.
        rates: Rates to try instead, rising, each of them and none in between; a search like that ends early where two
            in a row were not held.
        refine: Steps of bisection at most.

    Example:
        >>> search = Search(saturated=100.0)
        >>> while (rate := search.next()) is not None:
        ...     search.record(rate, held=rate <= 77)
        >>> round(search.capacity.rate), round(search.capacity.beyond)
        (76, 78)
    """

    def __init__(self, saturated: float, *, rates: Sequence[float] = (), refine: int = 3) -> None:
        self._given = bool(rates)
        self._ladder = sorted(rates) if rates else [share * saturated for share in LADDER]
        self._refine = self._most_refined = 0 if rates else refine
        self._lowered = 0
        self._raised = 0
        self._held: dict[float, bool] = {}

    @property
    def most(self) -> int:
        """Rates that the search tries at most."""
        return len(self._ladder) if self._given else len(LADDER) + max(HALVINGS, len(RISES)) + self._most_refined

    @property
    def capacity(self) -> Capacity:
        """What is known so far."""
        beyond = min((rate for rate, held in self._held.items() if not held), default=None)
        below = [rate for rate, held in self._held.items() if held and (beyond is None or rate < beyond)]
        return Capacity(rate=max(below, default=None), beyond=beyond)

    def record(self, rate: float, *, held: bool) -> None:
        """Note how a rate went."""
        self._held[rate] = held

    def next(self) -> float | None:
        """Return the next rate to try, or None at the end."""
        found = self.capacity
        if self._given:
            last_two = [self._held[rate] for rate in self._ladder if rate in self._held][-2:]
            ended = last_two == [False, False]
            return None if ended else next((rate for rate in self._ladder if rate not in self._held), None)
        if found.beyond is None:
            return self._rise()
        if found.rate is None:
            if self._lowered >= HALVINGS:
                return None
            self._lowered += 1
            return found.beyond / 2.0
        if self._refine == 0 or found.beyond <= NEAR * found.rate:
            return None
        self._refine -= 1
        return float((found.rate * found.beyond) ** 0.5)

    def _rise(self) -> float | None:
        for rate in self._ladder:
            if rate not in self._held:
                return rate
        if self._raised >= len(RISES):
            return None
        self._raised += 1
        return RISES[self._raised - 1] * max(self._held)
