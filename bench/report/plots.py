"""Plots of a benchmark's document by matplotlib, with their numbers as tables.

The engines' colours were searched for with the simulated sight of protanopes, deuteranopes and tritanopes (Machado et al.
2009): they are distinguishable under each, on light and on dark pages. Markers, dashes and row names repeat what colours say.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from .svg import INK, WIDTH, clean
from .text import MISSING, PERCENTILES, number, percent

COLOURS = {
    "fusedbert": "#3490ff",
    "openvino": "#c63032",
    "optimum": "#1d7974",
    "transformers": INK,
    "onnxruntime": "#8350be",
    "ctranslate2": "#da760c",
}
OTHER = "#858a91"  # any other engine
PHASES = {"interpreter_s": "#8a8175", "import_s": INK, "load_s": "#4a8fe0", "first_s": "#bb7e11"}
FULL_WORK, WITHIN = 64, 1.5  # from this many tokens on, a token should cost at most this times the cheapest
MEAN = "geometric mean"
_LONGEST = 30  # letters of a name in a plot
_MARKERS = "os^Dv"
_DASHES = ("-", "--", ":", "-.", (0, (5, 2, 1, 2)), (0, (1, 2)))
_THICK = {"linewidth": 6, "alpha": 0.45, "solid_capstyle": "butt"}

Entry = Mapping[str, Any]
Row = tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plot:
    """A figure of matplotlib, how to read it, and a table of its numbers; ``key`` names its file: letters, digits, hyphens."""

    key: str
    title: str
    caption: str
    figure: Any
    head: Row
    rows: Sequence[Row]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Series:
    """An engine's results and its look in every plot; ``kind`` is its number among the series of the engine.

    For ``load`` there is one for each mode, with the ``capacity`` in it.
    """

    name: str
    engine: str
    kind: int
    results: Sequence[Entry]
    capacity: float | None = None

    @property
    def colour(self) -> str:
        """Colour of the engine."""
        return COLOURS.get(self.engine, OTHER)

    def style(self) -> dict[str, Any]:
        """Return matplotlib's keywords for its lines and markers."""
        face = self.colour if self.kind % 10 < len(_MARKERS) else "none"
        look = {"marker": _MARKERS[self.kind % len(_MARKERS)], "linestyle": _DASHES[self.kind % len(_DASHES)]}
        return {"color": self.colour, "markerfacecolor": face, "label": self.name, **look}


def plots(document: Entry) -> list[Plot]:
    """Draw a document, within ``svg.drawing()``: the main plot, the ratios to the peers, then the others."""
    shown: list[Series] = []
    usable = [each for each in document["contenders"] if each["status"] in ("measured", "interrupted")]  # others do not hold
    for each in usable:
        for mode in dict.fromkeys(entry.get("mode") for entry in each["results"]):  # None except for load
            name, engine = shorten(each["name"]) + (f", {mode}" if mode else ""), each["engine"]
            results = [entry for entry in each["results"] if entry.get("mode") == mode]
            kind, capacity = sum(other.engine == engine for other in shown), each.get("capacity", {}).get(mode)
            shown.append(Series(name=name, engine=engine, kind=kind, results=results, capacity=capacity))
    if not shown:
        return []
    if document["kind"] == "load":
        return list(_load(document, shown))
    first, *rest = {"latency": _latency, "rank": _latency, "corpus": _corpus, "startup": _startup}[document["kind"]](shown)
    return [first, *_ratios(document, shown), *rest]


def shorten(name: str) -> str:
    """Cut a long name in its middle."""
    text = clean(name)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 9]}…{text[-8:]}"


def shape_title(shape: str) -> str:
    """Describe a shape: ``8x128`` are 8 texts of 128 tokens."""
    batch, _, tokens = shape.partition("x")
    return f"{_texts(batch)} of {tokens} tokens" if tokens.isdigit() else shape


def _texts(count: object) -> str:
    return f"{count} {'text' if str(count) == '1' else 'texts'}"


def _table(entries: Iterable[Entry], *fields: str) -> dict[str, Any]:
    """Return the fields of ``Plot`` that hold a table: a row for each entry, a column for each field."""
    head = tuple(name.replace("_mb", " MB").replace("_", " ") for name in fields)
    return {"head": head, "rows": [tuple(_cell(name, each.get(name, "")) for name in fields) for each in entries]}


def _cell(name: str, value: Any) -> str:
    if isinstance(value, str | bool):
        return value if isinstance(value, str) else "yes" if value else "no"
    return percent(value) if name in ("accuracy", "share_of_ceiling") else number(value)


def _entries(shown: Iterable[Series]) -> list[Entry]:
    return [{**entry, "engine": each.name} for each in shown for entry in each.results]


def _axes(count: int, height: float, columns: int = 2, **shared: Any) -> tuple[Any, list[Any]]:
    """Return a figure and its axes, side by side, each ``height`` units high."""
    from matplotlib.figure import Figure

    columns = min(columns, count)
    down = -(-count // columns)
    figure = Figure((WIDTH / 72, down * height / 72), layout="constrained")
    grid = list(figure.subplots(down, columns, squeeze=False, **shared).flat)
    for spare in grid[count:]:
        spare.remove()
    return figure, grid[:count]


def _row_axes(titles: Sequence[str], rows: Sequence[Series | str], columns: int = 2) -> tuple[Any, list[Any]]:
    """Return axes with a title each, all with the same named rows."""
    names = [row.name if isinstance(row, Series) else shorten(row) for row in rows]
    figure, grid = _axes(len(titles), 80 + 20 * len(names), columns, sharey=True)
    for axes, title in zip(grid, titles, strict=True):
        axes.set(title=title, ylim=(len(names) - 0.4, -0.6))
        axes.set_yticks(range(len(names)), names)
        axes.tick_params(left=False)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x")
        for label, row in zip(axes.get_yticklabels(), rows, strict=False):  # the second column has none
            strong = row.engine == "fusedbert" if isinstance(row, Series) else row == MEAN
            label.set_fontweight("bold" if strong else "normal")
    return figure, grid


def _note(axes: Any, row: int, text: str) -> None:
    axes.text(1.03, row, text, transform=axes.get_yaxis_transform(), va="center")


def _log(axes: Any, which: str, label: str, least: float = 1.6, at: Iterable[float] = ()) -> None:
    """Make an axis logarithmic, from end to end a factor of ``least`` or more, with a few round ticks or those given."""
    from matplotlib.ticker import MaxNLocator

    axes.set(**{f"{which}scale": "log", f"{which}label": label})
    low, high = getattr(axes, f"get_{which}lim")()
    room = max(1.0, least * low / high) ** 0.5
    low, high = low / room, high * room
    ticks = sorted(set(at))
    if not 1 < len(ticks) <= 12:
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        for steps in ((1, 1.5, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,)):
            ticks = [value for power in powers for step in steps if low <= (value := step * 10.0**power) <= high]
            if len(ticks) <= 6:
                break
        if len(ticks) < 3:
            even = MaxNLocator(4, steps=[1, 2, 5, 10]).tick_values(low, high)
            ticks = [float(value) for value in even if low <= value <= high]
    axis = getattr(axes, f"{which}axis")
    axis.set_ticks(ticks, [f"{value:,.6g}" for value in ticks])
    axis.set_ticks([], minor=True)
    axes.set(**{f"{which}lim": (low, high)})


def _legend(figure: Any, grid: Iterable[Any]) -> None:
    """Write the legend of some axes below all of them, in added room."""
    handles = {label: line for axes in grid for line, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower left", ncols=3)
    figure.set_figheight(figure.get_figheight() + (20 + 20 * math.ceil(len(handles) / 3)) / 72)


def _percentiles(shown: Sequence[Series], item: str, key: str, *fields: str) -> Plot:
    """Draw median, 90th and 99th percentile of the latency, an axis for each value of ``item``."""
    values = list(dict.fromkeys(entry[item] for each in shown for entry in each.results))
    titles = [shape_title(value) if item == "shape" else shorten(value) for value in values]
    figure, grid = _row_axes(titles, shown)
    for axes, value in zip(grid, values, strict=True):
        for row, each in enumerate(shown):
            for p50, p90, p99 in ([entry[name] for name in PERCENTILES] for entry in each.results if entry[item] == value):
                axes.plot([p50, p99], [row, row], color=each.colour, linewidth=1.6)
                axes.plot([p50, p90], [row, row], color=each.colour, **_THICK)
                axes.plot(p50, row, **each.style())
                _note(axes, row, number(p50))
        _log(axes, "x", "milliseconds, log scale")
    caption = "Marker: median, with its value to the right. Thick line: to the 90th percentile; thin line: to the 99th."
    caption += " Each panel has its own scale." if len(values) > 1 else ""
    title = "Latency by shape" if item == "shape" else "Latency of one text at a time"
    table = _table(_entries(shown), "engine", item, *PERCENTILES, *fields, "samples")
    return Plot(key=key, title=title, caption=caption, figure=figure, **table)


def _latency(shown: Sequence[Series]) -> Iterator[Plot]:
    yield _percentiles(shown, "shape", "latency", "sequences_per_second", "share_of_ceiling")
    for fixed, across, what in (("tokens", "batch", "batch size"), ("batch", "tokens", "length")):
        key, title = f"throughput-by-{what.split()[0]}", f"Throughput against {what}"
        caption = "Sequences per second. Both axes are logarithmic; higher is better."
        yield from _curves(shown, [fixed], across, "sequences_per_second", key=key, title=title, caption=caption)
    costs = []
    for each in shown:
        sizes = [(entry, entry["batch"] * entry["tokens"]) for entry in each.results]
        results = [{**entry, "tokens_in_all": n, "µs_per_token": 1e3 * entry["p50_ms"] / n} for entry, n in sizes]
        costs.append(dataclasses.replace(each, results=results))
    caption = "Median time of the batch divided by its tokens; level if the cost grows with the work. Dotted: "
    caption += f"{WITHIN:g} x the best of fusedbert from {FULL_WORK} tokens up."
    about = {"key": "time-per-token", "title": "Time per token", "caption": caption}
    yield from _curves(costs, ["batch", "tokens"], "tokens_in_all", "µs_per_token", **about)


def _curves(shown: Sequence[Series], fixes: Sequence[str], size: str, value: str, **about: Any) -> Iterator[Plot]:
    """Draw a value against a size, an axis for each batch or length with several sizes; nothing if there is none."""
    entries = _entries(shown)
    groups: dict[tuple[str, int], set[int]] = {}
    for fixed in fixes:
        for entry in sorted(entries, key=lambda entry: entry[fixed]):
            groups.setdefault((fixed, entry[fixed]), set()).add(entry[size])
    groups = {group: sizes for group, sizes in groups.items() if len(sizes) > 1}
    if not groups:
        return
    figure, grid = _axes(len(groups), 280)
    for axes, ((fixed, at), sizes) in zip(grid, groups.items(), strict=True):
        for each in shown:
            line = sorted((entry for entry in each.results if entry[fixed] == at), key=lambda entry: entry[size])
            axes.plot([entry[size] for entry in line], [entry[value] for entry in line], **each.style())
            full = [entry[value] for entry in line if entry[size] >= FULL_WORK]
            if value == "µs_per_token" and each.engine == "fusedbert" and len(full) > 1:
                axes.plot([FULL_WORK, line[-1][size]], [WITHIN * min(full)] * 2, ":", color=each.colour)
        axes.set_title(f"Batches of {_texts(at)}" if fixed == "batch" else f"Texts of {at} tokens")
        axes.grid()
        unit = {"batch": "texts in a batch", "tokens": "tokens in a text"}.get(size, "tokens in a batch")
        _log(axes, "x", unit, at=sizes)
        _log(axes, "y", f"{value.replace('_', ' ')}, log scale", least=3.0)
    _legend(figure, grid)
    fields = dict.fromkeys(("engine", "batch", "tokens", size, value))
    yield Plot(**about, figure=figure, **_table(entries, *fields))


def _ratios(document: Entry, shown: Sequence[Series]) -> Iterator[Plot]:
    """Draw a forest plot for each of our engines: its time over each peer's, with the interval, and a line at 1."""
    colours = {each.name: each.colour for each in shown}
    item = {"corpus": "corpus", "startup": "start"}.get(document["kind"], "shape")
    for ours in dict.fromkeys(ratio["ours"] for ratio in document["ratios"]):
        ratios = [ratio for ratio in document["ratios"] if ratio["ours"] == ours]
        means = [{**each, "median": each["geometric_mean"], item: MEAN} for each in document["summary"] if each["ours"] == ours]
        peers, items = (list(dict.fromkeys(ratio[name] for ratio in ratios)) for name in ("peer", item))
        by_peer = len(items) > 1  # a panel for each peer with a row for each item, else one panel with a row for each peer
        panel, row, names = ("peer", item, [*items, MEAN]) if by_peer else (item, "peer", peers)
        figure, grid = _row_axes([f"against {shorten(peer)}" for peer in peers] if by_peer else [shorten(items[0])], names)
        for axes, place in zip(grid, peers if by_peer else items, strict=True):
            for each in (each for each in (*ratios, *means) if each[panel] == place):
                y, colour = names.index(each[row]), colours.get(shorten(each["peer"]), OTHER)
                face = "none" if 2 * each.get("noisy", 0) > each.get("pairs", 0) else colour
                axes.plot([each["low"], each["high"]], [y, y], color=colour, **_THICK)
                axes.plot(each["median"], y, "D" if each[item] == MEAN else "o", color=colour, markerfacecolor=face)
                _note(axes, y, f"{each['median']:.2f}\u2002{each['low']:.2f}–{each['high']:.2f}")
            axes.axvline(1, color=INK, linewidth=1.4)
            _log(axes, "x", "time ÷ the peer's time, log scale", least=1.25)
        caption = f"Left of the line at 1, {ours} is faster. Marker: median of the ratios of paired rounds; line: its 95 % "
        caption += "interval. Hollow: more than half of the pairs are noisy."
        caption += " Each panel has its own scale." if by_peer else ""
        key = f"ratio-{re.sub('[^a-z0-9]+', '-', ours.lower()).strip('-')[:40]}"
        table = _table([*ratios, *means], "peer", item, "median", "low", "high", "pairs", "noisy")
        yield Plot(key=key, title=f"Time of {ours} over that of each peer", caption=caption, figure=figure, **table)


def _load(document: Entry, shown: Sequence[Series]) -> Iterator[Plot]:
    budget, entries = document["settings"]["budget_ms"], _entries(shown)
    overview, (first,) = _axes(1, 340)
    details, panels = _axes(len(shown), 280, sharey=True)
    first.set_title("99th percentile")
    for axes, each in zip(panels, shown, strict=True):
        _rates(first, each, "p99_ms", each.style())
        for kind, name in enumerate(PERCENTILES):
            _rates(axes, each, name, dataclasses.replace(each, kind=kind, name=name[:3]).style())
        axes.set_title(each.name)
        if each.capacity is not None:
            axes.axvline(each.capacity, color=INK, linestyle=":")
            axes.text(each.capacity, 0.02, f" {number(each.capacity)}/s", transform=axes.get_xaxis_transform())
    for axes in (first, *panels):
        axes.axhline(budget, color=INK, linestyle=":")
        axes.set(
            xlabel=f"{document['settings'].get('unit', 'texts')} arriving per second",
            xlim=(0, 1.05 * max(entry["rate"] for entry in entries)),
        )
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.grid()
        _log(axes, "y", "ms from the intended arrival, log scale")
    _legend(overview, [first])
    _legend(details, panels)
    table = _table(entries, "engine", "rate", "achieved", *PERCENTILES, "errors", "within_budget")
    caption = "Texts arrive at random, whether or not earlier ones are done, and the wait counts. Dotted: the budget of "
    caption += f"{number(budget, 'ms')}. Hollow: over the budget."
    yield Plot(key="load", title="Latency under load", caption=caption, figure=overview, **table)
    caption = "50th, 90th and 99th percentile, on the same axes for all. Dotted: the budget, and the highest rate in it."
    yield Plot(key="load-percentiles", title="Latency under load, engine by engine", caption=caption, figure=details, **table)


def _rates(axes: Any, each: Series, name: str, style: Mapping[str, Any]) -> None:
    """Draw a percentile against the arrival rate; hollow markers are over the budget."""
    answered = [entry for entry in each.results if entry[name] is not None]
    kept = [entry for entry in answered if entry["within_budget"]]
    filled = {"markerfacecolor": style["color"], "linestyle": "none", "label": None}
    for entries, more in ((answered, {"markerfacecolor": "none"}), (kept, filled)):
        axes.plot([entry["rate"] for entry in entries], [entry[name] for entry in entries], **{**style, **more})


def _corpus(shown: Sequence[Series]) -> Iterator[Plot]:
    figure, (axes,) = _row_axes([shorten(shown[0].results[0]["corpus"])], shown)
    rows = []
    for row, each in enumerate(shown):
        (entry,) = each.results
        rate = entry["texts_per_second"]
        slowest, fastest = min(rate, *entry["rounds"]), max(rate, *entry["rounds"])  # the rounds may be rounded
        axes.barh(row, rate, height=0.6, color=each.colour, alpha=0.6)
        axes.errorbar(rate, row, xerr=[[rate - slowest], [fastest - rate]], color=INK, capsize=4)
        others = [value for size, value in entry["tried"].items() if size != str(entry["batch_size"])]
        axes.plot(others, [row] * len(others), "o", color=INK, markerfacecolor="none", markersize=6)
        _note(axes, row, number(rate) + ("" if entry["accuracy"] is None else f" · {percent(entry['accuracy'])}"))
        rows.append({**entry, "engine": each.name, "batch_size": str(entry["batch_size"] or "its own plan")})
        tried = ({"batch_size": size, "texts_per_second": value, "texts": "a sample"} for size, value in entry["tried"].items())
        rows += [{"engine": each.name, **more, "accuracy": MISSING} for more in tried]
    axes.set_xlabel("texts per second" + (" · accuracy" if any(row["accuracy"] not in (None, MISSING) for row in rows) else ""))
    caption = "Each engine at its own best batch size; higher is better. Line: from the slowest round to the fastest. Hollow "
    caption += "markers: other batch sizes, tried on a sample."
    table = _table(rows, "engine", "batch_size", "texts", "texts_per_second", "accuracy")
    yield Plot(key="corpus", title="From text to label: texts per second", caption=caption, figure=figure, **table)
    if timed := [each for each in shown if each.results[0]["p50_ms"] is not None]:
        yield _percentiles(timed, "corpus", "corpus-latency", "texts_per_second")


def _startup(shown: Sequence[Series]) -> Iterator[Plot]:
    fields = {"total_s": "seconds", "peak_mb": "megabytes", "installed_mb": "megabytes"}
    figure, grid = _row_axes(["Fresh process to first answer", "Peak memory", "Installed size"], shown, columns=1)
    for axes, (name, unit) in zip(grid, fields.items(), strict=True):
        axes.set_xlabel(unit)
        for row, each in enumerate(shown):
            (entry,) = each.results
            _note(axes, row, number(entry[name]))
            start = 0.0
            for part, colour in PHASES.items() if name == "total_s" else [(name, each.colour)]:
                axes.barh(row, entry[part] or 0.0, left=start, height=0.6, color=colour, label=part.removesuffix("_s"))
                start += entry[part] or 0.0
    _legend(figure, grid[:1])
    caption = "A new process each time: start of Python, imports, load of the model, first answer. Shorter is better."
    table = _table(_entries(shown), "engine", *PHASES, *fields)
    yield Plot(key="startup", title="Start: time, memory, size", caption=caption, figure=figure, **table)
