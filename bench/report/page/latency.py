"""Plots of ``bench latency``; the percentiles of its rows serve ``bench corpus`` too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .curves import per_token, throughputs
from .document import Entry, lowest, measured, positive, result_of, shape_title, throughput, values_of
from .figure import Figure, Table
from .rows import Dot, Row, RowPanel, Span, aligned
from .scale import figure, log_scale, share

PERCENTILES = ("p50_ms", "p90_ms", "p99_ms")


def figures(contenders: Sequence[Entry]) -> list[Figure]:
    """Return the plots that the results allow."""
    shown = measured(contenders)
    made = [percentiles(shown, "shape", "latency"), *throughputs(shown), per_token(shown)]
    return [each for each in made if each is not None]


def percentiles(shown: Sequence[Entry], field: str, key: str) -> Figure | None:
    """Plot the percentiles of the latency, a panel for each value of a field of the results."""
    panels, best = [], []
    for value in values_of(shown, field):
        results = [(entry, result_of(entry, field, value)) for entry in shown]
        scale = log_scale(result.get(name) for _, result in results for name in PERCENTILES)
        if scale is None:
            continue
        rows = tuple(percentile_row(entry, result) for entry, result in results)
        title = shape_title(value) if field == "shape" else value
        panels.append(RowPanel(title=title, unit="milliseconds, log scale", scale=scale, rows=rows))
        first = lowest((entry.name, result.get("p50_ms")) for entry, result in results)
        if first is not None:
            best.append(f"{value}: the lowest median is that of {first[0]}, {figure(first[1], 'ms')}.")
    if not panels:
        return None
    of = "by shape" if field == "shape" else "of one text at a time"
    return Figure(
        key=key,
        title=f"Latency {of}",
        caption="Marker: median, with its value to the right. Thick line: up to the 90th percentile; thin line: up to the 99th."
        + (" Each panel has its own scale." if len(panels) > 1 else ""),
        summary=" ".join(best),
        panels=aligned(panels),
        table=_percentile_table(shown, field),
        columns=2 if len(panels) > 1 else 1,
    )


def percentile_row(entry: Entry, result: Mapping[str, Any]) -> Row:
    """Return the row of a contender: median, 90th and 99th percentile."""
    p50, p90, p99 = (positive(result.get(name)) for name in PERCENTILES)
    marks: list[Dot | Span] = []
    if p50 is not None and p99 is not None and p99 >= p50:
        marks.append(Span(low=p50, high=p99, says=f"p99 {figure(p99, 'ms')}", cap=True))
    if p50 is not None and p90 is not None and p90 >= p50:
        marks.append(Span(low=p50, high=p90, says=f"p90 {figure(p90, 'ms')}", thick=True))
    if p50 is not None:
        marks.append(Dot(value=p50, says=f"p50 {figure(p50, 'ms')}"))
    return Row(name=entry.name, shown=figure(p50), colour=entry.colour, kind=entry.kind, strong=entry.ours, marks=tuple(marks))


def _percentile_table(shown: Sequence[Entry], field: str) -> Table:
    rows = [
        (
            entry.name,
            str(result.get(field, "")),
            *(figure(result.get(name)) for name in PERCENTILES),
            figure(throughput(result) if field == "shape" else result.get("texts_per_second")),
            share(result.get("share_of_ceiling")),
            figure(result.get("samples")),
        )
        for entry in shown
        for result in entry.results
    ]
    header = ("contender", field, "p50 ms", "p90 ms", "p99 ms", "texts/s", "share of ceiling", "samples")
    return _without_empty(Table(header=header, rows=tuple(rows), words=2))


def _without_empty(table: Table) -> Table:
    """Leave out the columns in which no row has a number."""
    kept = [index for index in range(len(table.header)) if index < table.words or any(row[index] != "–" for row in table.rows)]
    rows = tuple(tuple(row[index] for index in kept) for row in table.rows)
    return Table(header=tuple(table.header[index] for index in kept), rows=rows, words=table.words)
