"""Axes with lines over two scales: how a figure moves with the batch, the length, the rate."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from .figure import SIZE, SMALL
from .scale import Scale, tick_text
from .svg import element, fit, marker, path, text, text_width

DASHES = ("", "7 3", "2 3", "9 3 2 3", "5 2 1 2", "1 2")
_TOP, _BOTTOM, _LEFT = 48.0, 44.0, 44.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
    """A measured point; ``hollow`` where it counts for less."""

    x: float
    y: float
    says: str
    hollow: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Line:
    """Points of one contender, from left to right.

    Attributes:
        name: Whose.
        points: The points; those that do not fit the axes are left out.
        colour: Class of the colour.
        kind: Number of the marker, and of the dash.
        dash: Another dash than the marker's.
        wide: Width of the line.
    """

    name: str
    points: tuple[Point, ...]
    colour: str
    kind: int = 0
    dash: str | None = None
    wide: float = 1.8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Guide:
    """A straight line that the points are held against, with its name.

    Attributes:
        text: What it says.
        x: Where it stands upright, or where it begins.
        y: Where it lies; None for an upright one.
        colour: Class of its colour; None for ink.
    """

    text: str
    x: float | None = None
    y: float | None = None
    colour: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class LinePanel:
    """Lines over common axes.

    Attributes:
        title: What stands above.
        x_unit: What the horizontal axis says.
        y_unit: What the vertical axis says; it stands above the axis.
        x: The horizontal scale.
        y: The vertical scale.
        lines: The lines, the lowest layer first.
        guides: Lines to hold them against.
        tall: Height of the drawing itself.
    """

    title: str
    x_unit: str
    y_unit: str
    x: Scale
    y: Scale
    lines: tuple[Line, ...]
    guides: tuple[Guide, ...] = ()
    tall: float = 230.0

    def height(self, width: float) -> float:
        """Return how tall it is."""
        return _TOP + self.tall + _BOTTOM

    def draw(self, x: float, y: float, width: float) -> str:
        """Draw it with its upper left corner at a point."""
        box = (x + _LEFT, x + width - 6, y + _TOP, y + _TOP + self.tall)
        parts = [
            text(fit(self.title, 1.18 * (SIZE + 1), width), x, y + 14, font_size=SIZE + 1, class_="strong"),
            text(fit(self.y_unit, SMALL, width), x, y + 34, font_size=SMALL, class_="quiet"),
            self._axes(box),
            *(self._guide(guide, box) for guide in self.guides),
            *(self._line(line, box) for line in self.lines),
            *(self._name(guide, box) for guide in self.guides),
        ]
        return element("g", *parts, class_="panel", data_panel=self.title)

    def _axes(self, box: tuple[float, float, float, float]) -> str:
        left, right, top, bottom = box
        across, free = [], -1e9
        for value in self.x.ticks(int((right - left) // 38)):
            at, label = self.x.place(value, left, right), tick_text(value)
            half = text_width(label, SMALL) / 2
            across.append(element("line", x1=at, x2=at, y1=bottom, y2=bottom + 4, class_="axis"))
            if at - half > free:
                across.append(text(label, at, bottom + 17, font_size=SMALL, text_anchor="middle", class_="quiet tick"))
                free = at + half + 4
        up = []
        for value in self.y.ticks(int((bottom - top) // 26)):
            at = self.y.place(value, bottom, top)
            up.append(element("line", x1=left, x2=right, y1=at, y2=at, class_="rule"))
            up.append(text(tick_text(value), left - 7, at + 4, font_size=SMALL, text_anchor="end", class_="quiet tick"))
        across.append(element("line", x1=left, x2=right, y1=bottom, y2=bottom, class_="axis"))
        unit = fit(self.x_unit, SMALL, right - left)
        across.append(text(unit, right, bottom + 35, font_size=SMALL, text_anchor="end", class_="quiet"))
        return element("g", *up, class_="y-axis") + element("g", *across, class_="x-axis")

    def _guide(self, guide: Guide, box: tuple[float, float, float, float]) -> str:
        left, right, top, bottom = box
        if guide.y is not None and self.y.shows(guide.y):
            at = self.y.place(guide.y, bottom, top)
            start = left if guide.x is None else self.x.place(max(guide.x, self.x.low), left, right)
            ends = {"x1": start, "x2": right, "y1": at, "y2": at}
        elif guide.y is None and guide.x is not None and self.x.shows(guide.x):
            at = self.x.place(guide.x, left, right)
            ends = {"x1": at, "x2": at, "y1": top, "y2": bottom}
        else:
            return ""
        ink = "currentColor" if guide.colour else None
        classes = "guide" if guide.colour else "guide strong-line"
        line = element(
            "line", **ends, stroke=ink, stroke_width=1.8, stroke_dasharray="0.1 4", stroke_linecap="round", class_=classes
        )
        return element("g", line, class_=guide.colour)

    def _name(self, guide: Guide, box: tuple[float, float, float, float]) -> str:
        """Write a guide's name over the lines: at the left of a level one, where load is low, beside an upright one."""
        left, right, top, bottom = box
        if not guide.text:
            return ""
        if guide.y is not None:
            at = self.y.place(guide.y, bottom, top)
            return text(guide.text, left + 6, at - 6, font_size=SMALL, class_="halo quiet") if self.y.shows(guide.y) else ""
        if guide.x is None or not self.x.shows(guide.x):
            return ""
        at = self.x.place(guide.x, left, right)
        anchor, shift = ("start", 6) if at + text_width(guide.text, SMALL) + 8 < right else ("end", -6)
        return text(guide.text, at + shift, top + 12, font_size=SMALL, text_anchor=anchor, class_="halo quiet")

    def _line(self, line: Line, box: tuple[float, float, float, float]) -> str:
        left, right, top, bottom = box
        seen = [point for point in line.points if self.x.shows(point.x) and self.y.shows(point.y)]
        places = [(self.x.place(point.x, left, right), self.y.place(point.y, bottom, top)) for point in seen]
        dash = DASHES[line.kind % len(DASHES)] if line.dash is None else line.dash
        drawn = []
        if len(places) > 1:
            drawn.append(
                element(
                    "path",
                    d=path(places),
                    fill="none",
                    stroke="currentColor",
                    stroke_width=line.wide,
                    stroke_dasharray=dash or None,
                    stroke_linejoin="round",
                    class_="line",
                )
            )
        for point, (at, height) in zip(seen, places, strict=True):
            title = f"{line.name}: {point.says}"
            drawn.append(marker(line.kind, at, height, 3.8, hollow=point.hollow, title=title))
        return element("g", *drawn, class_=f"series {line.colour}", data_contender=line.name)


def measured_ticks(values: Sequence[float]) -> tuple[float, ...]:
    """Return the measured values as ticks where they are few enough to be read, else none: round ones serve then."""
    found = sorted(set(values))
    return tuple(found) if len(found) <= 12 else ()
