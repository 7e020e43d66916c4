"""Plots as bars: the texts per second of ``bench corpus``; the seconds and the memory of ``bench startup``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .document import Entry, mapping, measured, positive, rounds_range, values_of
from .figure import Figure, Key, Table
from .latency import percentiles
from .rows import Bar, Dot, Row, RowPanel, Span, aligned
from .scale import MISSING, figure, linear_scale, number, share

PHASES = (
    ("interpreter_s", "interpreter", "p0"),
    ("import_s", "import", "p1"),
    ("load_s", "load", "p2"),
    ("first_s", "first answer", "p3"),
)


def corpus_figures(contenders: Sequence[Entry]) -> list[Figure]:
    """Return the plots of ``bench corpus``: texts per second, and the latency of one text at a time where it was taken."""
    shown = measured(contenders)
    made = [_corpus(shown), percentiles(shown, "corpus", "corpus-latency")]
    return [each for each in made if each is not None]


def _corpus(shown: Sequence[Entry]) -> Figure | None:
    panels, said = [], []
    for corpus in values_of(shown, "corpus"):
        best = [(entry, *_best(entry, corpus)) for entry in shown]
        ranges = [edge for _, result, _ in best for edge in rounds_range(result.get("rounds")) or ()]
        rates = [each.get("texts_per_second") for _, result, others in best for each in (result, *others)]
        scale = linear_scale([*rates, *ranges])
        if scale is None:
            continue
        accurate = any(number(result.get("accuracy")) is not None for _, result, _ in best)
        rows = tuple(_corpus_row(entry, result, others) for entry, result, others in best)
        unit = "texts per second" + (" · accuracy" if accurate else "")
        panels.append(RowPanel(title=corpus, unit=unit, scale=scale, rows=rows))
        entry, result, _ = max(best, key=lambda each: positive(each[1].get("texts_per_second")) or 0.0)
        said.append(f"{corpus}: {entry.name} has the most, {figure(result.get('texts_per_second'))} texts per second.")
    if not panels:
        return None
    return Figure(
        key="corpus",
        title="From text to label: texts per second",
        caption="Each contender at its own best batch size; higher is better. Line: from the slowest round to the fastest. "
        "Hollow markers: other batch sizes, tried on a sample.",
        summary=" ".join(said),
        panels=aligned(panels),
        table=_corpus_table(shown),
        columns=2 if len(panels) > 1 else 1,
    )


def _best(entry: Entry, corpus: str) -> tuple[Mapping[str, Any], list[Mapping[str, Any]]]:
    """Return the fastest of a contender's results on a corpus, and the rest, those tried on a sample included."""
    results = [result for result in entry.results if str(result.get("corpus")) == corpus]
    results.sort(key=lambda result: -(positive(result.get("texts_per_second")) or 0.0))
    if not results:
        return {}, []
    tried = [
        {"batch_size": size, "texts_per_second": rate}
        for size, rate in mapping(results[0].get("tried")).items()
        if str(size) != str(results[0].get("batch_size"))
    ]
    return results[0], [*results[1:], *tried]


def _corpus_row(entry: Entry, result: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> Row:
    rate = positive(result.get("texts_per_second"))
    marks: list[Bar | Span | Dot] = []
    for other in others:
        slower = positive(other.get("texts_per_second"))
        if slower is not None:
            marks.append(Dot(value=slower, says=f"{figure(slower)}/s{_batch(other)}", hollow=True, radius=3.4))
    if rate is not None:
        marks.insert(0, Bar(low=0.0, high=rate, says=f"{figure(rate)}/s{_batch(result)}"))
        both = rounds_range(result.get("rounds"))
        if both is not None:
            marks.append(Span(low=both[0], high=both[1], says=f"rounds {figure(both[0])} to {figure(both[1])}", edged=True))
    accuracy = number(result.get("accuracy"))
    shown = figure(rate) + ("" if accuracy is None else f" · {share(accuracy)}")
    return Row(name=entry.name, shown=shown, colour=entry.colour, kind=entry.kind, strong=entry.ours, marks=tuple(marks))


def _batch(result: Mapping[str, Any]) -> str:
    return "" if result.get("batch_size") is None else f" at {result['batch_size']} texts a batch"


def _corpus_table(shown: Sequence[Entry]) -> Table:
    rows = []
    for entry in shown:
        for result in entry.results:
            corpus = str(result.get("corpus", ""))
            batch = "its own plan" if result.get("batch_size") is None else figure(result["batch_size"])
            rates = figure(result.get("texts")), batch, figure(result.get("texts_per_second"))
            rows.append((entry.name, corpus, *rates, share(result.get("accuracy"))))
            tried = mapping(result.get("tried")).items()
            rows += [(entry.name, corpus, "a sample", str(size), figure(rate), MISSING) for size, rate in tried]
    return Table(header=("contender", "corpus", "texts", "batch", "texts/s", "accuracy"), rows=tuple(rows), words=2)


def startup_figures(contenders: Sequence[Entry]) -> list[Figure]:
    """Return the plot of ``bench startup``."""
    shown = [(entry, entry.results[0]) for entry in measured(contenders)]
    panels = []
    seconds = linear_scale([_total(result) for _, result in shown] + [_stacked(result) for _, result in shown])
    if seconds is not None:
        rows = tuple(_phases(entry, result) for entry, result in shown)
        panels.append(RowPanel(title="Fresh process to first answer", unit="seconds", scale=seconds, rows=rows))
    for field, title in (("peak_mb", "Peak memory"), ("installed_mb", "Installed size of the environment")):
        scale = linear_scale(result.get(field) for _, result in shown)
        if scale is not None:
            rows = tuple(_plain(entry, result.get(field)) for entry, result in shown)
            panels.append(RowPanel(title=title, unit="megabytes", scale=scale, rows=rows))
    if not panels:
        return []
    taken = {field for field, *_ in PHASES if any(positive(result.get(field)) is not None for _, result in shown)}
    names = (*(field for field, *_ in PHASES if field in taken), "total_s", "peak_mb", "installed_mb")
    table = Table(
        header=("contender", *(name.replace("_s", " s").replace("_mb", " MB") for name in names)),
        rows=tuple((entry.name, *(figure(result.get(name)) for name in names)) for entry, result in shown),
    )
    quickest = min(shown, key=lambda pair: _total(pair[1]) or float("inf"))
    return [
        Figure(
            key="startup",
            title="Start: time, memory, size",
            caption="A new process each time: starting Python, importing, loading the model, answering the first text. "
            "Shorter is better.",
            summary=f"{quickest[0].name} answers first, after {figure(_total(quickest[1]), 's')}.",
            panels=aligned(panels),
            legend=[Key(text=name, colour=colour) for field, name, colour in PHASES if field in taken],
            table=table,
        )
    ]


def _total(result: Mapping[str, Any]) -> float | None:
    return positive(result.get("total_s")) or _stacked(result)


def _stacked(result: Mapping[str, Any]) -> float | None:
    return sum(positive(result.get(field)) or 0.0 for field, _, _ in PHASES) or None


def _phases(entry: Entry, result: Mapping[str, Any]) -> Row:
    marks, end = [], 0.0
    for field, name, colour in PHASES:
        seconds = positive(result.get(field))
        if seconds is not None:
            marks.append(Bar(low=end, high=end + seconds, says=f"{name} {figure(seconds, 's')}", colour=colour))
            end += seconds
    return Row(name=entry.name, shown=figure(_total(result)), colour=entry.colour, strong=entry.ours, marks=tuple(marks))


def _plain(entry: Entry, value: object) -> Row:
    size = positive(value)
    marks = () if size is None else (Bar(low=0.0, high=size, says=figure(size, "MB")),)
    shown = MISSING if size is None else figure(size)
    return Row(name=entry.name, shown=shown, colour=entry.colour, strong=entry.ours, marks=marks)
