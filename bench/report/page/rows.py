"""Axes with a row for each contender: its name to the left, its figure to the right, what was measured between.

Rows have room for long names, need no legend, and stay readable on a telephone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from .figure import SIZE, SMALL
from .scale import Scale, tick_text
from .svg import element, escape, fit, marker, text, text_width

_TITLE, _ROW, _AXIS = 26.0, 20.0, 40.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dot:
    """A marker at a value."""

    value: float
    says: str
    hollow: bool = False
    radius: float = 4.2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Span:
    """A line between two values: thin or thick, with a cap at its end where wanted; ``edged`` lies over a bar, in ink."""

    low: float
    high: float
    says: str
    thick: bool = False
    cap: bool = False
    edged: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bar:
    """A bar between two values; ``colour`` where it is not its row's."""

    low: float
    high: float
    says: str
    colour: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """A line of the panel.

    Attributes:
        name: Its label.
        shown: Its figure, as text.
        colour: Class of its colour.
        kind: Number of its marker.
        strong: Whether its name stands out.
        marks: What is drawn, the lowest layer first; what does not fit the axis is left out.
    """

    name: str
    shown: str
    colour: str
    kind: int = 0
    strong: bool = False
    marks: tuple[Dot | Span | Bar, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class RowPanel:
    """Rows over a common axis.

    Attributes:
        title: What stands above.
        unit: What the axis says.
        scale: The axis; None where there is nothing to draw, and the rows say so.
        rows: The rows, from the top.
        line: A value to draw a line at through all rows.
        names: Width for the names, 0 for as much as they need.
        figures: Width for the figures, 0 for as much as they need.
    """

    title: str
    unit: str
    scale: Scale | None
    rows: tuple[Row, ...]
    line: float | None = None
    names: float = 0.0
    figures: float = 0.0

    def height(self, width: float) -> float:
        """Return how tall it is."""
        return _TITLE + _ROW * len(self.rows) + _AXIS

    def draw(self, x: float, y: float, width: float) -> str:
        """Draw it with its upper left corner at a point."""
        names = min(self.names or needed(self.rows)[0], 0.42 * width)
        left, right = x + names + 14, x + width - (self.figures or needed(self.rows)[1]) - 10
        top, bottom = y + _TITLE, y + _TITLE + _ROW * len(self.rows)
        parts = [text(fit(self.title, 1.18 * (SIZE + 1), width), x, y + 14, font_size=SIZE + 1, class_="strong")]
        if self.scale is not None:
            parts += [self._axis(self.scale, left, right, top, bottom), self._line(self.scale, left, right, top, bottom)]
        for index, row in enumerate(self.rows):
            middle = top + _ROW * (index + 0.5)
            parts.append(
                text(
                    fit(row.name, SIZE * (1.15 if row.strong else 1.0), names),
                    x,
                    middle + 4,
                    font_size=SIZE,
                    class_="strong" if row.strong else None,
                )
            )
            parts.append(text(row.shown, x + width, middle + 4, font_size=SIZE, text_anchor="end"))
            if self.scale is not None:
                parts.append(_marks(row, self.scale, left, right, middle))
        return element("g", *parts, class_="panel", data_panel=self.title)

    def _axis(self, scale: Scale, left: float, right: float, top: float, bottom: float) -> str:
        drawn, free = [], -1e9
        for value in scale.ticks(int((right - left) // 38)):
            at, label = scale.place(value, left, right), tick_text(value)
            drawn.append(element("line", x1=at, x2=at, y1=top, y2=bottom + 4, class_="rule"))
            half = text_width(label, SMALL) / 2
            if at - half > free:
                drawn.append(text(label, at, bottom + 16, font_size=SMALL, text_anchor="middle", class_="quiet tick"))
                free = at + half + 4
        drawn.append(element("line", x1=left, x2=right, y1=bottom, y2=bottom, class_="axis"))
        drawn.append(text(self.unit, right, bottom + 32, font_size=SMALL, text_anchor="end", class_="quiet"))
        return element("g", *drawn, class_="x-axis")

    def _line(self, scale: Scale, left: float, right: float, top: float, bottom: float) -> str:
        if self.line is None or not scale.shows(self.line):
            return ""
        at = scale.place(self.line, left, right)
        return element("line", x1=at, x2=at, y1=top - 2, y2=bottom, class_="strong-line guide", stroke_width=1.4)


def _marks(row: Row, scale: Scale, left: float, right: float, y: float) -> str:
    def place(value: float) -> float:
        return scale.place(value, left, right)

    drawn = []
    for mark in row.marks:
        title = f"{row.name}: {mark.says}"
        if isinstance(mark, Dot):
            if scale.shows(mark.value):
                drawn.append(marker(row.kind, place(mark.value), y, mark.radius, hollow=mark.hollow, title=title))
        elif scale.shows(mark.low) and scale.shows(mark.high):
            drawn.append(_stretch(mark, title, place(mark.low), place(mark.high), y))
    return element("g", *drawn, class_=f"row {row.colour}", data_contender=row.name)


def _stretch(mark: Span | Bar, title: str, start: float, end: float, y: float) -> str:
    told = element("title", escape(title))
    if isinstance(mark, Bar):
        wide = max(end - start, 0.5)
        classes = "mark bar" + (f" {mark.colour}" if mark.colour else "")
        return element(
            "rect", told, x=start, y=y - 6, width=wide, height=12, fill="currentColor", fill_opacity=0.85, class_=classes
        )
    classes = "mark span strong-line" if mark.edged else "mark span"
    ink = None if mark.edged else "currentColor"
    faint, thick = (0.45, 6.0) if mark.thick else (None, 1.6)
    line = element("line", told, x1=start, x2=end, y1=y, y2=y, stroke=ink, stroke_width=thick, opacity=faint, class_=classes)
    ends = [start, end] if mark.edged else [end] if mark.cap else []
    caps = [
        element(
            "line", x1=at, x2=at, y1=y - 4, y2=y + 4, stroke=ink, stroke_width=1.6, class_="strong-line" if mark.edged else None
        )
        for at in ends
    ]
    return line + "".join(caps)


def needed(rows: Sequence[Row]) -> tuple[float, float]:
    """Return the widths that the longest name and the longest figure need."""
    names = max((text_width(row.name, SIZE) * (1.15 if row.strong else 1.0) for row in rows), default=0.0)
    return names, max((text_width(row.shown, SIZE) for row in rows), default=0.0)


def aligned(panels: Sequence[RowPanel]) -> tuple[RowPanel, ...]:
    """Give all panels of a figure the same margins, so that they can be compared down the page."""
    widths = [needed(panel.rows) for panel in panels]
    names, figures = (max((pair[side] for pair in widths), default=0.0) for side in (0, 1))
    return tuple(dataclasses.replace(panel, names=names, figures=figures) for panel in panels)
