"""The forest plot: our time over each peer's, with its interval, and the line at 1."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from .document import Entry, mappings, positive, shape_title
from .figure import Figure, Table
from .palette import colour_of
from .rows import Dot, Row, RowPanel, Span, aligned
from .scale import Scale, figure, log_scale, number

_DIAMOND = 3
_OVER_ALL = "geometric mean"
_ALL = "all"
_WHAT = ("shape", "corpus", "start", "rate")  # the field of a ratio that says what was timed


def figures(document: Mapping[str, Any], contenders: Sequence[Entry]) -> list[Figure]:
    """Return a plot for each of our contenders that was held against a peer."""
    ratios = [ratio for ratio in mappings(document.get("ratios")) if positive(ratio.get("median")) is not None]
    made: list[Figure] = []
    for ours in dict.fromkeys(str(ratio.get("ours")) for ratio in ratios):
        own = [ratio for ratio in ratios if str(ratio.get("ours")) == ours]
        means = {str(mean.get("peer")): mean for mean in mappings(document.get("summary")) if str(mean.get("ours")) == ours}
        key = _key(ours, {each.key for each in made})
        made.append(_figure(ours, key, own, means, {entry.name: entry for entry in contenders}))
    return made


def _key(ours: str, taken: set[str]) -> str:
    """Make the name of a file out of a contender's."""
    base = "ratio-" + (re.sub(r"[^a-z0-9]+", "-", ours.lower()).strip("-")[:40] or "ours")
    return next(key for key in (base, *(f"{base}-{number}" for number in range(2, 1000))) if key not in taken)


def _figure(
    ours: str,
    key: str,
    ratios: Sequence[Mapping[str, Any]],
    means: Mapping[str, Mapping[str, Any]],
    known: Mapping[str, Entry],
) -> Figure:
    peers = list(dict.fromkeys(str(ratio.get("peer")) for ratio in ratios))
    peers.sort(key=lambda peer: list(known).index(peer) if peer in known else len(known))
    rows = {
        peer: [_row(ratio, _what(ratio), known.get(peer)) for ratio in ratios if str(ratio.get("peer")) == peer]
        for peer in peers
    }
    unit = "time ÷ the peer's time, log scale"
    if all(len(each) == 1 for each in rows.values()):
        only = {peer: _row(ratio, peer, known.get(peer)) for ratio in ratios for peer in [str(ratio.get("peer"))]}
        timed = {_what(ratio) for ratio in ratios} - {_ALL}
        title = timed.pop() if len(timed) == 1 else "each peer"
        panels = [RowPanel(title=title, unit=unit, scale=_scale(ratios), rows=tuple(only[peer] for peer in peers), line=1.0)]
    else:
        panels = []
        for peer in peers:
            mean = [_mean_row(means[peer], known.get(peer))] if peer in means else []
            # A scale of its own: what matters is where the interval lies to 1, and that a far peer would squeeze.
            scale = _scale([*(ratio for ratio in ratios if str(ratio.get("peer")) == peer), means.get(peer, {})])
            panels.append(RowPanel(title=f"against {peer}", unit=unit, scale=scale, rows=(*rows[peer], *mean), line=1.0))
    return Figure(
        key=key,
        title=f"Time of {ours} over that of each peer",
        caption=f"Left of the line at 1, {ours} is faster. Marker: median of the ratios of paired visits; line: its 95 % "
        "interval. Hollow: more than half of the pairs come from noisy rounds."
        + (" Each panel has its own scale." if len(panels) > 1 else ""),
        summary=" ".join(_sentence(ours, mean) for mean in means.values()),
        panels=aligned(panels),
        table=_table(ratios, means),
        columns=2 if len(panels) > 1 else 1,
    )


def _scale(shown: Sequence[Mapping[str, Any]]) -> Scale | None:
    names = ("median", "low", "high", "geometric_mean")
    return log_scale([1.0, *(each.get(name) for each in shown for name in names)], least=1.25)


def _noise(ratio: Mapping[str, Any]) -> str:
    noisy = ratio.get("noisy")
    return ("all noisy" if noisy else "") if isinstance(noisy, bool) or noisy is None else f"{noisy} noisy"


def _doubtful(ratio: Mapping[str, Any]) -> bool:
    noisy, pairs = number(ratio.get("noisy")), positive(ratio.get("pairs"))
    return ratio.get("noisy") is True if noisy is None or pairs is None else noisy * 2 > pairs


def _what(ratio: Mapping[str, Any]) -> str:
    return next((str(ratio[name]) for name in _WHAT if ratio.get(name) is not None), _ALL)


def _row(ratio: Mapping[str, Any], name: str, peer: Entry | None) -> Row:
    return _interval(ratio, "median", name, peer, hollow=_doubtful(ratio))


def _mean_row(mean: Mapping[str, Any], peer: Entry | None) -> Row:
    return _interval(mean, "geometric_mean", _OVER_ALL, peer, strong=True)


def _interval(
    each: Mapping[str, Any], field: str, name: str, peer: Entry | None, *, hollow: bool = False, strong: bool = False
) -> Row:
    middle, low, high = (positive(each.get(key)) for key in (field, "low", "high"))
    marks: list[Dot | Span] = []
    if low is not None and high is not None and low <= high:
        marks.append(Span(low=low, high=high, says=f"{figure(low)} to {figure(high)}", thick=True))
    if middle is not None:
        marks.append(Dot(value=middle, says=figure(middle), hollow=hollow, radius=2.8))
    shown = f"{_two(middle)}\u2002{_two(low)}–{_two(high)}" if low is not None and high is not None else _two(middle)
    return Row(
        name=name,
        shown=shown,
        colour=peer.colour if peer else colour_of(""),
        kind=_DIAMOND if strong else 0,
        strong=strong,
        marks=tuple(marks),
    )


def _two(value: float | None) -> str:
    return figure(value) if value is None or not 0.01 <= value < 10 else f"{value:.2f}"


def _sentence(ours: str, mean: Mapping[str, Any]) -> str:
    return f"{ours} takes {figure(mean.get('geometric_mean'))} x the time of {mean.get('peer')} in the geometric mean."


def _table(ratios: Sequence[Mapping[str, Any]], means: Mapping[str, Mapping[str, Any]]) -> Table:
    rows = [
        (
            str(ratio.get("peer")),
            shape_title(_what(ratio)),
            *(figure(ratio.get(name)) for name in ("median", "low", "high", "pairs")),
            _noise(ratio),
        )
        for ratio in ratios
    ]
    rows += [
        (peer, _OVER_ALL, *(figure(mean.get(name)) for name in ("geometric_mean", "low", "high")), "", "")
        for peer, mean in means.items()
    ]
    return Table(header=("peer", "timed", "ratio", "low", "high", "pairs", "rounds"), rows=tuple(rows), words=2)
