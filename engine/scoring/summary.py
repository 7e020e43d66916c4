"""What a run came to, and how far one is."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from .tally import Tally

_STAGES = ("read", "tokenize", "run", "write")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Summary:
    """What a run came to. Counts are of the whole output, those of a run that was resumed included.

    Attributes:
        output: The file that was written.
        finished_before: Whether it was there already, and nothing was done.
        rows: Rows of the input.
        written: Rows of the output.
        errors: Rows that could not be scored.
        error_file: Where these are listed, or None.
        resumed: Rows that an earlier run had committed.
        distinct: Share of the rows whose text differed from all others of its window, so that the model ran it.
        truncated: Rows whose text was cut.
        padding: Share of the tokens that the model ran which were padding.
        labels: Rows by label; for a multi-label model a row counts for each of its labels.
        seconds: Of this run, from its start to its end.
        rows_per_second: Of this run.
        stages: Seconds by stage, which overlap; those of a run that was resumed included.
    """

    output: str
    finished_before: bool = False
    rows: int = 0
    written: int = 0
    errors: int = 0
    error_file: str | None = None
    resumed: int = 0
    distinct: float = 0.0
    truncated: int = 0
    padding: float = 0.0
    labels: Mapping[str, int] = dataclasses.field(default_factory=dict)
    seconds: float = 0.0
    rows_per_second: float = 0.0
    stages: Mapping[str, float] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, tally: Tally, *, output: str, error_file: str, resumed: int, seconds: float) -> Summary:
        """Make one from the counts of all parts."""
        return cls(
            output=output,
            rows=tally.rows,
            written=tally.written,
            errors=tally.errors,
            error_file=error_file if tally.errors else None,
            resumed=resumed,
            distinct=round(tally.run / max(1, tally.rows - tally.errors), 4),
            truncated=tally.truncated,
            padding=padding(tally),
            labels=dict(tally.labels.most_common()),
            seconds=round(seconds, 3),
            rows_per_second=round((tally.rows - resumed) / max(seconds, 1e-9), 1),
            stages={stage: round(tally.seconds.get(stage, 0.0), 3) for stage in _STAGES},
        )

    def document(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run is; given to ``score_file``'s ``progress`` after each window.

    Attributes:
        rows: Rows done, those of a run that was resumed included.
        total: Rows of the input as far as can be told from the share of it that was read, or None.
        padding: Share of the tokens run so far which were padding.
    """

    rows: int
    total: int | None
    padding: float


def padding(tally: Tally) -> float:
    """Return the share of the tokens run that were padding."""
    return round(1 - tally.tokens / tally.padded, 4) if tally.padded else 0.0
