"""What a user sees while it runs: one line on a terminal, written over; elsewhere a line for each slow step."""

from __future__ import annotations

import shutil
import sys
import time
from typing import IO

SLOW = 4.0  # seconds of a round, below which nothing is said where stderr is no terminal
LONG = 30.0  # the same for what comes before the rounds


class Progress:
    """A progress line on stderr.

    Args:
        stream: Where to write; None for stderr.
    """

    def __init__(self, stream: IO[str] | None = None) -> None:
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty()
        self._last = time.monotonic()
        self._shown = False

    def tell(self, text: str, *, left: float | None = None) -> None:
        """Say what runs now, and how many seconds are left; on a terminal alone."""
        if not self._live:
            return
        line = text if left is None else f"{text}, {duration(left)} left"
        width = shutil.get_terminal_size().columns - 1
        self._write(f"\r\x1b[K{line[:width]}")
        self._shown = True

    def begin(self) -> None:
        """Begin to count the time that ``step`` goes by."""
        self._last = time.monotonic()

    def step(self, text: str, *, left: float | None = None, after: float = LONG) -> None:
        """Say that something begins: as ``tell`` on a terminal, elsewhere as a line where the last one is a while ago."""
        if self._live:
            self.tell(text, left=left)
        elif time.monotonic() - self._last >= after:
            self._write(text if left is None else f"{text}, {duration(left)} left")
            self._write("\n")
            self._last = time.monotonic()

    def say(self, text: str) -> None:
        """Write a line that stays."""
        self.clear()
        self._write(text + "\n")

    def clear(self) -> None:
        """Take the line away."""
        if self._shown:
            self._write("\r\x1b[K")
            self._shown = False

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def duration(seconds: float) -> str:
    """Write a duration in words.

    Example:
        >>> duration(42.4), duration(600)
        ('42 s', '10 min')
    """
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
