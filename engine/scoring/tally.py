"""Counts of what was done: kept for each part in the journal, and added up for the summary."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any


@dataclasses.dataclass(kw_only=True)
class Tally:
    """What some rows came to.

    Attributes:
        rows: Rows of the input.
        errors: Rows that could not be scored; with ``--on-error skip`` they are not in the output.
        written: Rows of the output.
        run: Texts that the model ran: those that differ within their window.
        truncated: Rows whose text was cut.
        tokens: Tokens of the texts that ran.
        padded: The same with padding.
        labels: Rows by label.
        seconds: Time by stage; the stages overlap.
    """

    rows: int = 0
    errors: int = 0
    written: int = 0
    run: int = 0
    truncated: int = 0
    tokens: int = 0
    padded: int = 0
    labels: Counter[str] = dataclasses.field(default_factory=Counter)
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)

    def add(self, other: Tally) -> None:
        """Add the counts of other rows to these."""
        for field in dataclasses.fields(self):
            mine, theirs = getattr(self, field.name), getattr(other, field.name)
            if isinstance(mine, dict):
                mine |= {key: mine.get(key, 0) + value for key, value in theirs.items()}
            else:
                setattr(self, field.name, mine + theirs)

    def document(self) -> dict[str, Any]:
        """Return the counts as JSON takes them."""
        return vars(self) | {
            "labels": dict(sorted(self.labels.items())),
            "seconds": {stage: round(value, 3) for stage, value in self.seconds.items()},
        }

    @classmethod
    def of(cls, document: dict[str, Any]) -> Tally:
        """Read what ``document`` gave."""
        return cls(**document | {"labels": Counter(document["labels"])})
