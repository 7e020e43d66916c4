"""Plots of latency results as curves: throughput against batch and length, time per token against tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from .document import Entry, lowest, positive, sizes, throughput
from .figure import Figure, Key, Table
from .lines import DASHES, Guide, Line, LinePanel, Point, measured_ticks
from .scale import figure, log_scale

FULL_WORK = 64  # tokens from which on the processor is busy, and the cost of a token should no longer move
WITHIN = 1.5
_PER_SECOND = "texts per second, log scale"

_Figure = Callable[[Mapping[str, Any]], float | None]


def throughputs(shown: Sequence[Entry]) -> Iterable[Figure | None]:
    """Plot the throughput against the batch, then against the length, each where it was measured at two or more."""
    for batches, key, what, moves in (
        (True, "throughput-by-batch", "batch size", "the batch grows, at one length"),
        (False, "throughput-by-length", "length", "the texts grow, at one batch size"),
    ):
        caption = f"Texts per second as {moves}. Both axes are logarithmic; higher is better."
        yield _curves(shown, batches=batches, key=key, title=f"Throughput against {what}", caption=caption)


def _curves(shown: Sequence[Entry], *, batches: bool, key: str, title: str, caption: str) -> Figure | None:
    """Plot a figure against batch or length, a panel for each value of the other at which it was measured twice or more."""
    panels, rows = [], []
    for fixed, across in groups(shown, batches=batches):
        lines = []
        for entry in shown:
            points = _points(entry, fixed, batches=batches, of=throughput)
            rows += [(entry.name, f"{fixed:g}", f"{x:g}", figure(y)) for x, y in points]
            said = tuple(Point(x=x, y=y, says=f"{x:g} {'texts' if batches else 'tokens'}, {figure(y)}/s") for x, y in points)
            lines.append(Line(name=entry.name, points=said, colour=entry.colour, kind=entry.kind))
        x_scale = log_scale(across, fixed=measured_ticks(across))
        y_scale = log_scale(point.y for line in lines for point in line.points)
        if x_scale is None or y_scale is None:
            continue
        heading = f"Texts of {fixed:g} tokens" if batches else f"{_count(fixed)} at a time"
        name = "texts in a batch" if batches else "tokens in each text"
        panels.append(
            LinePanel(title=heading, x_unit=name, y_unit=_PER_SECOND, x=x_scale, y=y_scale, lines=tuple(reversed(lines)))
        )
    if not panels:
        return None
    header = ("contender", "tokens" if batches else "batch", "batch" if batches else "tokens", "texts/s")
    best = _highest(panels)
    return Figure(
        key=key,
        title=title,
        caption=caption,
        summary=best,
        panels=panels,
        legend=legend(shown),
        table=Table(header=header, rows=tuple(rows)),
    )


def _count(batch: float) -> str:
    return "1 text" if batch == 1 else f"{batch:g} texts"


def _highest(panels: Iterable[LinePanel]) -> str:
    best = lowest((line.name, -point.y) for panel in panels for line in panel.lines for point in line.points)
    return "" if best is None else f"The highest is that of {best[0]}, {figure(-best[1])} texts per second."


def groups(shown: Sequence[Entry], *, batches: bool) -> list[tuple[float, list[float]]]:
    """Return the lengths that have several batch sizes, each with those; or the batch sizes that have several lengths."""
    found: dict[float, set[float]] = {}
    for entry in shown:
        for result in entry.results:
            both = sizes(result)
            if both is not None:
                batch, tokens = both
                found.setdefault(tokens if batches else batch, set()).add(batch if batches else tokens)
    return [(fixed, sorted(found[fixed])) for fixed in sorted(found) if len(found[fixed]) > 1]


def _points(entry: Entry, fixed: float, *, batches: bool, of: _Figure) -> list[tuple[float, float]]:
    found = []
    for result in entry.results:
        both, value = sizes(result), of(result)
        if both is not None and value is not None and both[1 if batches else 0] == fixed:
            found.append((both[0 if batches else 1], value))
    return sorted(found)


def legend(shown: Sequence[Entry]) -> tuple[Key, ...]:
    """Return the legend of lines."""
    return tuple(Key(text=e.name, colour=e.colour, kind=e.kind, dash=DASHES[e.kind % len(DASHES)]) for e in shown)


def _microseconds(result: Mapping[str, Any]) -> float | None:
    both, median = sizes(result), positive(result.get("p50_ms"))
    return None if both is None or median is None else 1e3 * median / (both[0] * both[1])


def per_token(shown: Sequence[Entry]) -> Figure | None:
    """Plot the median's time per token against the tokens of the batch: flat where the cost grows as the work."""
    panels, rows = [], []
    for batches in (False, True):
        for fixed, across in groups(shown, batches=batches):
            title = f"More texts of {fixed:g} tokens" if batches else f"{_count(fixed)}, longer and longer"
            panel, found = _token_panel(shown, fixed, across, batches=batches, title=title)
            rows += found
            panels += [panel] if panel is not None else []
    if not panels:
        return None
    return Figure(
        key="time-per-token",
        title="Time per token",
        caption=f"Median time of the batch divided by its tokens; level where the cost grows as the work. Dotted: {WITHIN:g} x "
        f"the best of fusedbert from {FULL_WORK} tokens up.",
        summary=" ".join(_spread(entry) for entry in shown if entry.ours),
        panels=panels,
        legend=legend(shown),
        table=Table(
            header=("contender", "batch", "tokens", "all tokens", "microseconds per token"), rows=tuple(dict.fromkeys(rows))
        ),
    )


def _token_panel(
    shown: Sequence[Entry], fixed: float, across: Sequence[float], *, batches: bool, title: str
) -> tuple[LinePanel | None, list[tuple[str, ...]]]:
    lines, rows, guides = [], [], []
    for entry in shown:
        found = [(x * fixed, x, y) for x, y in _points(entry, fixed, batches=batches, of=_microseconds)]
        rows += [
            (entry.name, *(f"{size:g}" for size in ((x, fixed) if batches else (fixed, x))), f"{all_:g}", figure(y))
            for all_, x, y in found
        ]
        points = tuple(Point(x=all_, y=y, says=f"{all_:g} tokens, {figure(y)} µs a token") for all_, _, y in found)
        lines.append(Line(name=entry.name, points=points, colour=entry.colour, kind=entry.kind))
        full = [y for all_, _, y in found if all_ >= FULL_WORK]
        if entry.ours and len(full) > 1:
            guides.append(Guide(text="", x=float(FULL_WORK), y=WITHIN * min(full), colour=entry.colour))
    ticks = [fixed * value for value in across]
    x_scale = log_scale(ticks, fixed=measured_ticks(ticks))
    y_scale = log_scale([point.y for line in lines for point in line.points] + [guide.y for guide in guides], least=4.0)
    if x_scale is None or y_scale is None:
        return None, rows
    drawn = tuple(reversed(lines))
    unit = "microseconds per token, log scale"
    panel = LinePanel(
        title=title, x_unit="tokens in the batch", y_unit=unit, x=x_scale, y=y_scale, lines=drawn, guides=tuple(guides)
    )
    return panel, rows


def _spread(entry: Entry) -> str:
    """Say how far a contender's time per token moves once the processor is busy."""
    found = []
    for result in entry.results:
        both, value = sizes(result), _microseconds(result)
        if both is not None and value is not None and both[0] * both[1] >= FULL_WORK:
            found.append(value)
    if len(found) < 2:
        return ""
    return (
        f"{entry.name}: from {FULL_WORK} tokens up, the dearest token costs {figure(max(found) / min(found))} x the cheapest."
    )
