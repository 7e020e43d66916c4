"""A figure: panels in a grid, a legend below, and above it a title where it stands by itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Protocol

from .palette import plot_rules
from .svg import element, escape, fit, marker, text, text_width, wrap

WIDE, NARROW = 920, 350  # user units; a page shows the one that fits its window
SIZE, SMALL = 12.5, 11.5  # of letters
_GAP_X, _GAP_Y = 36.0, 24.0
_MARGIN = 20.0


class Panel(Protocol):
    """One set of axes."""

    def height(self, width: float) -> float:
        """Return how tall it is."""
        ...

    def draw(self, x: float, y: float, width: float) -> str:
        """Draw it with its upper left corner at a point."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Key:
    """An entry of the legend.

    Attributes:
        text: What it says.
        colour: Class of its colour.
        kind: Number of its marker; None for a filled square.
        dash: Its line; None for no line.
    """

    text: str
    colour: str
    kind: int | None = None
    dash: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """The numbers of a figure, for those who cannot see it, or do not trust it.

    Attributes:
        header: Names of the columns.
        rows: Cells as they are shown.
        words: How many columns, from the first, hold words and not numbers.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: int = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Figure:
    """All that makes one plot.

    Attributes:
        key: Name of its file, without the suffix: letters, digits and hyphens.
        title: What it shows.
        caption: How it is to be read.
        summary: What is to be seen in it, in words, for its description.
        panels: Its axes.
        legend: Its legend.
        table: Its numbers.
        columns: Panels side by side where there is room.
    """

    key: str
    title: str
    caption: str
    summary: str
    panels: Sequence[Panel]
    table: Table
    legend: Sequence[Key] = ()
    columns: int = 2

    def inline(self, width: int) -> str:
        """Draw it for a page that has the style sheet and prints the title."""
        body, height = self._body(0.0, 0.0, float(width))
        return self._frame(width, height, body, f"{self.key}-{width}", "plot wide" if width == WIDE else "plot narrow")

    def standalone(self) -> str:
        """Draw it as a file: with its title, a background that follows the reader's scheme, and its style inside."""
        inner = WIDE - 2 * _MARGIN
        y = _MARGIN + 16
        lines = [text(fit(self.title, 19, inner), _MARGIN, y, font_size=17, class_="strong")]
        for line in wrap(self.caption, SIZE, inner):
            y += 18
            lines.append(text(line, _MARGIN, y, font_size=SIZE, class_="quiet"))
        body, height = self._body(_MARGIN, y + 18, inner)
        total = y + 18 + height + _MARGIN
        card = element("rect", x=0.5, y=0.5, width=WIDE - 1, height=total - 1, rx=10, class_="card rule")
        style = element("style", plot_rules())
        return self._frame(WIDE, total, style + card + "".join(lines) + body, self.key, "plot", alone=True)

    def _frame(self, width: int, height: float, body: str, ident: str, classes: str, alone: bool = False) -> str:
        named = element("title", escape(self.title), id=f"{ident}-title")
        described = element("desc", escape(f"{self.caption} {self.summary}"), id=f"{ident}-desc")
        return element(
            "svg",
            named + described + body,
            xmlns="http://www.w3.org/2000/svg" if alone else None,
            viewBox=f"0 0 {width} {height:.0f}",
            width=width,
            height=f"{height:.0f}",
            class_=classes,
            role="img",
            aria_labelledby=f"{ident}-title {ident}-desc",
            font_family="system-ui, sans-serif" if alone else None,
        )

    def _body(self, x: float, y: float, width: float) -> tuple[str, float]:
        """Draw panels and legend; return the markup and its height."""
        columns = min(self.columns, len(self.panels)) if width > 2 * NARROW else 1
        each = (width - _GAP_X * (columns - 1)) / max(columns, 1)
        drawn: list[str] = []
        top = y
        for first in range(0, len(self.panels), columns or 1):
            row = self.panels[first : first + columns]
            drawn += [panel.draw(x + index * (each + _GAP_X), top, each) for index, panel in enumerate(row)]
            top += max(panel.height(each) for panel in row) + _GAP_Y
        keys, height = _legend(self.legend, x, top - _GAP_Y + 14, width)
        bottom = top - _GAP_Y + (14 + height if self.legend else 0.0)
        return "".join(drawn) + keys, bottom - y + 4


def _legend(keys: Sequence[Key], x: float, y: float, width: float) -> tuple[str, float]:
    """Draw the legend's entries in columns of one width, row by row."""
    if not keys:
        return "", 0.0
    longest = max(text_width(key.text, SIZE) for key in keys) + 50
    columns = max(1, min(len(keys), int(width // longest)))
    each = width / columns if columns > 1 and longest * columns > 0.8 * width else min(longest, width)
    drawn = []
    for index, key in enumerate(keys):
        left, middle = x + (index % columns) * each, y + 10 + 20 * (index // columns)
        drawn.append(element("g", _key(key, left, middle, each - 40), class_=f"key {key.colour}"))
    return "".join(drawn), 20.0 * -(-len(keys) // columns)


def _key(key: Key, x: float, y: float, width: float) -> str:
    label = text(fit(key.text, SIZE, width), x + 32, y + 4, font_size=SIZE)
    if key.kind is None and key.dash is None:
        return element("rect", x=x + 6, y=y - 6, width=14, height=12, fill="currentColor") + label
    line = "" if key.dash is None else _stroke(x, y, key.dash)
    sign = "" if key.kind is None else marker(key.kind, x + 13, y, 4.2).replace('class="mark', 'class="sign')
    return line + sign + label


def _stroke(x: float, y: float, dash: str) -> str:
    return element("line", x1=x, y1=y, x2=x + 26, y2=y, stroke="currentColor", stroke_width=2, stroke_dasharray=dash or None)
