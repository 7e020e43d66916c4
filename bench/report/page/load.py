"""Plots of ``bench load``: latency against the rate at which texts arrive, held against the budget."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from .document import Entry, mapping, measured, positive
from .figure import Figure, Key, Table
from .lines import DASHES, Guide, Line, LinePanel, Point
from .scale import MISSING, Scale, figure, linear_scale, log_scale, number

_UNIT = "milliseconds from the intended arrival, log scale"
_RATE = "texts arriving per second"
_PERCENTILES = (("p50_ms", "p50", "", 1.4), ("p90_ms", "p90", "7 3", 1.6), ("p99_ms", "p99", "2 3", 1.8))


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Served:
    """A contender in one of its modes."""

    name: str
    entry: Entry
    kind: int
    results: tuple[Mapping[str, Any], ...]
    capacity: float | None


def figures(document: Mapping[str, Any], contenders: Sequence[Entry]) -> list[Figure]:
    """Return the plots: the 99th percentile of all in one, then all percentiles of each by itself."""
    served = _served(measured(contenders))
    rates = linear_scale(result.get("rate") for each in served for result in each.results)
    found = [result.get(name) for each in served for result in each.results for name, *_ in _PERCENTILES]
    budget = _budget(document)
    times = log_scale([*found, budget], pad=0.08) if any(positive(value) for value in found) else None
    if rates is None or times is None:
        return []
    guide = () if budget is None else (Guide(text=f"budget {figure(budget, 'ms')}", y=budget),)
    return [_overview(served, rates, times, guide), _details(served, rates, times, guide)]


def _budget(document: Mapping[str, Any]) -> float | None:
    settings = mapping(document.get("settings"))
    return next((value for name in ("budget_ms", "budget") if (value := positive(settings.get(name))) is not None), None)


def _served(shown: Sequence[Entry]) -> list[_Served]:
    kinds: dict[str, int] = {}
    found = []
    for entry in shown:
        modes = list(dict.fromkeys(str(result.get("mode") or "") for result in entry.results))
        for mode in modes:
            results = [result for result in entry.results if str(result.get("mode") or "") == mode]
            results.sort(key=lambda result: positive(result.get("rate")) or 0.0)
            kinds[entry.colour] = kind = kinds.get(entry.colour, -1) + 1
            name = f"{entry.name}, {mode}" if mode else entry.name
            capacity = _capacity(entry, mode, results, len(modes) == 1)
            found.append(_Served(name=name, entry=entry, kind=kind, results=tuple(results), capacity=capacity))
    return found


def _capacity(entry: Entry, mode: str, results: Sequence[Mapping[str, Any]], alone: bool) -> float | None:
    """Return the capacity that the document gives, one number or one for each mode; else the highest rate within the budget."""
    given = entry.fields.get("capacity")
    found = positive(mapping(given).get(mode)) if isinstance(given, Mapping) else positive(given) if alone else None
    kept = [rate for result in results if result.get("within_budget") is True and (rate := positive(result.get("rate")))]
    return found or max(kept, default=None)


def _point(result: Mapping[str, Any], field: str, label: str) -> Point | None:
    rate, value = positive(result.get("rate")), positive(result.get(field))
    if rate is None or value is None:
        return None
    over = result.get("within_budget") is False
    return Point(x=rate, y=value, says=f"{label} {figure(value, 'ms')} at {figure(rate)}/s", hollow=over)


def _points(each: _Served, field: str, label: str) -> tuple[Point, ...]:
    return tuple(point for result in each.results if (point := _point(result, field, label)) is not None)


def _overview(served: Sequence[_Served], rates: Scale, times: Scale, guide: tuple[Guide, ...]) -> Figure:
    lines = [
        Line(name=each.name, points=_points(each, "p99_ms", "p99"), colour=each.entry.colour, kind=each.kind) for each in served
    ]
    panel = LinePanel(
        title="99th percentile",
        x_unit=_RATE,
        y_unit=_UNIT,
        x=rates,
        y=times,
        lines=tuple(reversed(lines)),
        guides=guide,
        tall=300.0,
    )
    keys = [
        Key(text=each.name, colour=each.entry.colour, kind=each.kind, dash=DASHES[each.kind % len(DASHES)]) for each in served
    ]
    return Figure(
        key="load",
        title="Latency under load",
        caption="Texts arrive at random, whether or not the ones before are done, and wait counts. Hollow: over the budget.",
        summary=" ".join(_sentence(each) for each in served),
        panels=[panel],
        legend=keys,
        table=_table(served),
        columns=1,
    )


def _details(served: Sequence[_Served], rates: Scale, times: Scale, guide: tuple[Guide, ...]) -> Figure:
    panels = []
    for each in served:
        lines = [
            Line(name=each.name, points=_points(each, field, label), colour=each.entry.colour, kind=kind, dash=dash, wide=wide)
            for kind, (field, label, dash, wide) in enumerate(_PERCENTILES)
        ]
        upright = () if each.capacity is None else (Guide(text=f"capacity {figure(each.capacity)}/s", x=each.capacity),)
        panels.append(
            LinePanel(
                title=each.name,
                x_unit=_RATE,
                y_unit=_UNIT,
                x=rates,
                y=times,
                lines=tuple(reversed(lines)),
                guides=(*guide, *upright),
            )
        )
    keys = [Key(text=label, colour="c6", kind=kind, dash=dash) for kind, (_, label, dash, _) in enumerate(_PERCENTILES)]
    return Figure(
        key="load-percentiles",
        title="Latency under load, each by itself",
        caption="Median, 90th and 99th percentile, on the same axes for all. Upright: the rate up to which p99 keeps the "
        "budget.",
        summary=" ".join(_sentence(each) for each in served),
        panels=panels,
        legend=keys,
        table=_table(served),
    )


def _sentence(each: _Served) -> str:
    return f"{each.name}: within the budget up to {figure(each.capacity)} texts per second." if each.capacity else ""


def _yes_no(value: object) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else MISSING


def _table(served: Sequence[_Served]) -> Table:
    names = ("rate", "achieved", *(name for name, *_ in _PERCENTILES))
    rows = [
        (
            each.name,
            *(figure(result.get(name)) for name in names),
            MISSING if number(result.get("errors")) is None else f"{number(result['errors']):g}",
            _yes_no(result.get("within_budget")),
        )
        for each in served
        for result in each.results
    ]
    header = ("contender", "rate /s", "achieved /s", "p50 ms", "p90 ms", "p99 ms", "errors", "in budget")
    return Table(header=header, rows=tuple(rows))
