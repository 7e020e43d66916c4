"""Elements of SVG and HTML as text: escaping, numbers, and how wide a text will be.

The plots are written by hand in these few functions, and not by a plotting library: the page must stand alone and follow
the reader's light or dark scheme, and matplotlib would be the largest thing in the environment.
"""

from __future__ import annotations

import html
import math
import unicodedata
from collections.abc import Iterable

_NARROW = frozenset("iljtfrI.,:;'|!()[]{}-· ")
_BROAD = frozenset("mwMW@%÷×⟨⟩…")
# Marks that turn the direction of what follows them; shown by name, so that a name cannot disturb its neighbours.
_TURNING = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def clean(text: object) -> str:
    r"""Show what XML cannot hold, or what would turn the text around, by its code point; one line of what remains.

    Example:
        >>> clean("a\x00b\nc")
        'a⟨U+0000⟩b c'
    """
    return "".join(_clean(letter) for letter in str(text))


def _clean(letter: str) -> str:
    if letter in "\n\r\t":
        return " "
    code = ord(letter)
    if unicodedata.category(letter) in ("Cc", "Cs") or letter in _TURNING or code & 0xFFFE == 0xFFFE:
        return f"⟨U+{code:04X}⟩"
    return letter


def escape(text: object) -> str:
    """Return a text that can stand in an element or an attribute, of HTML or XML."""
    return html.escape(clean(text))


def element(name: str, *children: str, **attributes: object) -> str:
    """Write an element; ``None`` leaves an attribute out.

    Args:
        name: Its name.
        *children: Its content, already markup.
        **attributes: ``_`` in a name stands for ``-``, and one at the end is dropped (``class_``). Floats are cut to
            hundredths, texts are escaped.

    Example:
        >>> element("line", x1=0, x2=10.5, class_="rule")
        '<line x1="0" x2="10.5" class="rule"/>'
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_attribute(value)}"' for key, value in attributes.items() if value is not None
    )
    return f"<{name}{written}>{''.join(children)}</{name}>" if children else f"<{name}{written}/>"


def _attribute(value: object) -> str:
    return shorten(value) if isinstance(value, float) else escape(value)


def shorten(value: float) -> str:
    """Write a coordinate in at most two places behind the point."""
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def text(content: object, x: float, y: float, **attributes: object) -> str:
    """Write a line of text with its baseline at ``y``."""
    return element("text", escape(content), x=float(x), y=float(y), **attributes)


def text_width(content: object, size: float) -> float:
    """Estimate how wide a text is in a proportional font of this size; rather too much than too little."""
    return size * sum(_advance(letter) for letter in clean(content))


def _advance(letter: str) -> float:
    if letter in _NARROW:
        return 0.34
    if letter in _BROAD:
        return 1.02
    if letter.isupper():
        return 0.72
    if unicodedata.combining(letter):
        return 0.0
    return 1.05 if unicodedata.east_asian_width(letter) in "WF" else 0.58


def fit(content: object, size: float, width: float) -> str:
    """Cut a text in its middle, where its end tells more than what is left out, so that it fits."""
    full = clean(content)
    if text_width(full, size) <= width:
        return full
    for keep in range(len(full) - 1, 1, -1):
        tail = keep // 3
        cut = full[: keep - tail] + "…" + (full[-tail:] if tail else "")
        if text_width(cut, size) <= width:
            return cut
    return "…"


def wrap(content: object, size: float, width: float) -> list[str]:
    """Break a text at its spaces into lines that fit."""
    lines: list[str] = []
    for word in clean(content).split():
        if lines and text_width(f"{lines[-1]} {word}", size) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def path(points: Iterable[tuple[float, float]]) -> str:
    """Return the ``d`` of straight lines through points."""
    return "M" + "L".join(f"{shorten(x)} {shorten(y)}" for x, y in points)


_SQUARE, _TRIANGLE, _DIAMOND = 0.89, 1.2, 1.25  # half sizes that look as large as a circle of radius 1


def marker(number: int, x: float, y: float, radius: float, *, hollow: bool = False, title: str = "", **data: object) -> str:
    """Draw the ``number``-th kind of marker around a point, in the current colour.

    Five outlines, filled first and then hollow; ``hollow`` asks for an empty one by itself.
    """
    empty = hollow or number % 10 >= 5
    ink: dict[str, object] = {
        "class_": "mark card" if empty else "mark",
        "stroke": "currentColor",
        "stroke_width": 1.6 if empty else 0.8,
        "fill": None if empty else "currentColor",
        "data_x": float(x),
        "data_y": float(y),
        **data,
    }
    inner = (element("title", escape(title)),) if title else ()
    if number % 5 == 0:
        return element("circle", *inner, cx=float(x), cy=float(y), r=float(radius), **ink)
    return element("path", *inner, d=path(_outline(number % 5, x, y, radius)) + "Z", **ink)


def _outline(kind: int, x: float, y: float, radius: float) -> list[tuple[float, float]]:
    if kind == 1:
        r = radius * _SQUARE
        return [(x - r, y - r), (x + r, y - r), (x + r, y + r), (x - r, y + r)]
    if kind == 3:
        r = radius * _DIAMOND
        return [(x, y - r), (x + r, y), (x, y + r), (x - r, y)]
    r = radius * _TRIANGLE
    turn = -math.pi / 2 if kind == 2 else math.pi / 2
    angles = [turn + third * 2 * math.pi / 3 for third in range(3)]
    return [(x + r * math.cos(angle), y + r * math.sin(angle)) for angle in angles]
