"""What a run costs however little is in it, learnt from the runs themselves."""

from __future__ import annotations

import dataclasses

_MEMORY = 0.98  # of what is known stays after each run: the last fifty count


@dataclasses.dataclass(slots=True)
class Cost:
    """A straight line through (tokens, seconds) of the last runs, by least squares.

    Example:
        >>> cost = Cost()
        >>> for tokens in (16, 64, 256):
        ...     cost.observe(tokens, 0.002 + 0.0001 * tokens)
        >>> round(cost.fixed, 6)
        0.002
    """

    runs: float = 0.0
    tokens: float = 0.0
    seconds: float = 0.0
    squares: float = 0.0
    products: float = 0.0

    def observe(self, tokens: int, seconds: float) -> None:
        """Add a run; a race between two threads may lose one, which does no harm."""
        self.runs = _MEMORY * self.runs + 1
        self.tokens = _MEMORY * self.tokens + tokens
        self.seconds = _MEMORY * self.seconds + seconds
        self.squares = _MEMORY * self.squares + tokens * tokens
        self.products = _MEMORY * self.products + tokens * seconds

    @property
    def fixed(self) -> float:
        """Seconds of a run of no tokens; 0 where that cannot be told yet."""
        spread = self.runs * self.squares - self.tokens**2
        if spread <= 0.01 * self.tokens**2:  # runs alike in size
            return 0.0
        slope = (self.runs * self.products - self.tokens * self.seconds) / spread
        return max(0.0, (self.seconds - max(0.0, slope) * self.tokens) / self.runs)
