"""Counts of a run, its summary, and its progress."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

_STAGES = ("read", "tokenize", "run", "write")


@dataclasses.dataclass(kw_only=True)
class Counts:
    """Counts of rows: of a part, and summed up."""

    rows: int = 0  # of the input
    errors: int = 0  # rows that could not be scored
    written: int = 0  # rows of the output
    run: int = 0  # texts that the model ran: those that differ within their chunk
    truncated: int = 0  # rows whose text was cut
    tokens: int = 0  # of the texts that ran
    padded: int = 0  # the same with padding
    labels: Counter[str] = dataclasses.field(default_factory=Counter)  # rows by label
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)  # by stage; the stages overlap

    @property
    def padding(self) -> float:
        """Share of the tokens run that were padding."""
        return round(1 - self.tokens / self.padded, 4) if self.padded else 0.0

    def add(self, other: Counts) -> None:
        """Add the counts of other rows."""
        for field in dataclasses.fields(self):
            mine, others = getattr(self, field.name), getattr(other, field.name)
            if isinstance(mine, dict):
                mine |= {key: mine.get(key, 0) + value for key, value in others.items()}
            else:
                setattr(self, field.name, mine + others)

    def document(self) -> dict[str, Any]:
        """Return the counts for JSON."""
        return vars(self) | {
            "labels": dict(sorted(self.labels.items())),
            "seconds": {stage: round(value, 3) for stage, value in self.seconds.items()},
        }

    @classmethod
    def of(cls, document: dict[str, Any]) -> Counts:
        """Read a ``document``; ValueError if it is not one."""
        tables, names = ("labels", "seconds"), {field.name for field in dataclasses.fields(cls)}
        numbers = [value for name, value in document.items() if name not in tables]
        if document.keys() != names or not all(type(value) is int and value >= 0 for value in numbers):
            raise ValueError("the counts of a part are not numbers")
        for name, kinds in zip(tables, ((int,), (int, float)), strict=True):
            table = document[name]
            if not isinstance(table, dict) or not all(
                type(value) in kinds and 0 <= value < float("inf") for value in table.values()
            ):
                raise ValueError(f"the {name} of a part are not numbers")
        return cls(**{**document, "labels": Counter(document["labels"])})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Summary:
    """The result of a run. Counts and stages include those of a resumed run.

    Attributes:
        output: The file that was written.
        finished_before: Whether it was finished already, and nothing was done.
        rows: Rows of the input.
        written: Rows of the output.
        errors: Rows that could not be scored.
        error_file: The file that lists them, the first of several, or None.
        resumed: Rows that an earlier run had committed.
        distinct: Share of the rows scored whose text ran; equal ones of a chunk run once.
        truncated: Rows whose text was cut.
        padding: Share of the tokens run that were padding.
        labels: Rows by label; a multi-label row counts for each of its labels.
        seconds: Of this run.
        rows_per_second: Of this run.
        stages: Seconds by stage, which overlap.
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
    def of(cls, counts: Counts, *, output: str, error_file: str | None, resumed: int, seconds: float) -> Summary:
        """Return the summary for a run's counts; ``error_file`` lists rows that could not be scored, if there is one."""
        return cls(
            output=output,
            rows=counts.rows,
            written=counts.written,
            errors=counts.errors,
            error_file=error_file if counts.errors else None,
            resumed=resumed,
            distinct=round(counts.run / max(1, counts.rows - counts.errors), 4),
            truncated=counts.truncated,
            padding=counts.padding,
            labels=dict(counts.labels.most_common()),
            seconds=round(seconds, 3),
            rows_per_second=round((counts.rows - resumed) / max(seconds, 1e-9), 1),
            stages={stage: round(counts.seconds.get(stage, 0.0), 3) for stage in _STAGES},
        )

    @classmethod
    def sum(cls, summaries: Sequence[Summary], *, output: str, seconds: float) -> Summary:
        """Add up the summaries of several outputs in a folder; shares are weighted by rows."""
        rows, resumed = (sum(getattr(each, name) for each in summaries) for name in ("rows", "resumed"))
        labels: Counter[str] = Counter()
        for each in summaries:
            labels.update(each.labels)

        def mean(name: str) -> float:
            return float(round(sum(getattr(each, name) * each.rows for each in summaries) / max(1, rows), 4))

        return cls(
            output=output,
            finished_before=all(each.finished_before for each in summaries),
            rows=rows,
            written=sum(each.written for each in summaries),
            errors=sum(each.errors for each in summaries),
            error_file=next((each.error_file for each in summaries if each.error_file), None),
            resumed=resumed,
            distinct=mean("distinct"),
            truncated=sum(each.truncated for each in summaries),
            padding=mean("padding"),
            labels=dict(labels.most_common()),
            seconds=round(seconds, 3),
            rows_per_second=round((rows - resumed) / max(seconds, 1e-9), 1),
            stages={stage: round(sum(each.stages.get(stage, 0.0) for each in summaries), 3) for stage in _STAGES},
        )

    def document(self) -> dict[str, Any]:
        """Return the summary for JSON."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Progress:
    """Progress of a run, passed to the callback of ``score_file``."""

    rows: int  # done, including those of an earlier run
    total: int | None  # estimated rows of the input
    padding: float  # share of the tokens run so far
