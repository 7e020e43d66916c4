"""Reading plots back, by what a reader sees: panels, rows, marks, and the axis that its own ticks make."""

import math
import xml.etree.ElementTree as ET

import pytest

SVG = "{http://www.w3.org/2000/svg}"
PIXELS = 0.02  # coordinates are written in hundredths


def parse(path):
    return ET.fromstring(path.read_text(encoding="utf-8"))


def classed(root, name):
    return [each for each in root.iter() if name in each.get("class", "").split()]


def title(mark):
    return mark.findtext(f"{SVG}title")


def unticked(text):
    factor = {"k": 1e3, "M": 1e6}.get(text[-1], 1.0)
    return float(text.rstrip("kM")) * factor


class Axis:
    """An axis as its reader sees it: from the ticks that are written on it."""

    def __init__(self, group, side):
        ticks = [(unticked(each.text), float(each.get(side))) for each in classed(group, "tick")]
        # Labels of a vertical axis stand a little below their line.
        self.ticks = [(value, place - (4 if side == "y" else 0)) for value, place in ticks]
        assert len(self.ticks) >= 2

    def place(self, value, log):
        (low, start), (high, end) = self.ticks[0], self.ticks[-1]
        if log:
            value, low, high = math.log(value), math.log(low), math.log(high)
        return start + (value - low) / (high - low) * (end - start)


def panels(path):
    return {each.get("data-panel"): each for each in classed(parse(path), "panel")}


def axis(panel, side="x"):
    return Axis(classed(panel, f"{side}-axis")[0], side)


def rows(panel):
    return {each.get("data-contender"): each for each in classed(panel, "row")}


def dots(group):
    return [each for each in classed(group, "mark") if each.get("data-x")]


def near(place, mark, key):
    return float(mark.get(key)) == pytest.approx(place, abs=3 * PIXELS)
