"""Matplotlib figures as SVG for a page: text stays text, ink is ``currentColor``, and nothing has an inline style.

So one drawing reads on light and dark pages, and a content security policy without ``unsafe-inline`` shows it.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
import unicodedata
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from typing import Any

from ..run.machine import need

DRAW = "draw the plots of a report"
INK = "#000001"  # written as currentColor; no other colour in a plot is nearly black
WIDTH = 920  # user units; so are all sizes below, because matplotlib writes one unit a point
_FILE_STYLE = "svg{color:#22252a;background:#fff}@media(prefers-color-scheme:dark){svg{color:#e6e4df;background:#1b1e23}}"
_SVG = "{http://www.w3.org/2000/svg}"
_LINK = "{http://www.w3.org/1999/xlink}href"
_BIDI = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_SETTINGS: Any = {  # of matplotlib
    "svg.fonttype": "none",
    "svg.hashsalt": "fusedbert",
    "font.family": "DejaVu Sans",  # comes with matplotlib, and is wider than the fonts that readers have
    "font.size": 12,
    "figure.constrained_layout.h_pad": 0.09,
    "figure.constrained_layout.w_pad": 0.09,
    "axes.titlesize": 13,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.axisbelow": True,
    "grid.color": INK,
    "grid.alpha": 0.15,
    "legend.handlelength": 3.0,
    "lines.markersize": 7.5,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "axes.titlecolor", "xtick.color", "ytick.color"), INK),
    **dict.fromkeys(("axes.facecolor", "figure.facecolor"), "none"),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon"), False),
    "text.parse_math": False,  # a name may hold a dollar sign
}


@contextlib.contextmanager
def drawing() -> Iterator[None]:
    """Draw with fixed settings: the user's ``matplotlibrc`` changes nothing, and nothing is written to stderr.

    Raises:
        MissingDependencyError: Matplotlib is not installed.
    """
    need("matplotlib", DRAW)
    log = logging.getLogger("matplotlib")  # reports, for example, that the home folder cannot be written
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        import matplotlib

        with matplotlib.rc_context(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # letters that the font lacks: the reader's fonts have them
            matplotlib.rcdefaults()
            matplotlib.rcParams.update(_SETTINGS)
            yield
    finally:
        log.setLevel(level)


def to_svg(figure: Any, key: str, title: str, description: str) -> str:
    """Write a matplotlib figure as an ``svg`` element, the same bytes each time, with an accessible title and description.

    ``key`` is the prefix of its ids, which makes them unique on a page: letters, digits, hyphens.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    root = ET.fromstring(buffer.getvalue())
    for node in list(root.iter()):
        for child in [each for each in node if each.tag in (f"{_SVG}metadata", f"{_SVG}style")]:
            node.remove(child)
        node.tag = node.tag.removeprefix(_SVG)
        node.attrib = dict(_attributes(node, key))
    _, _, width, height = root.attrib["viewBox"].split()
    root.attrib |= {"width": width, "height": height, "class": "plot", "role": "img", "stroke-linejoin": "round"}
    root.attrib |= {"font-family": "system-ui, sans-serif", "aria-labelledby": f"{key}-title {key}-desc"}
    for name, text in (("desc", description), ("title", title)):
        root.insert(0, ET.Element(name, id=f"{key}-{name}"))
        root[0].text = clean(text)
    return ET.tostring(root, encoding="unicode")


def svg_file(svg: str) -> str:
    """Make a file of an ``svg`` element, with colours for light and dark readers."""
    start, inner = svg.split(">", 1)
    return f'{start} xmlns="http://www.w3.org/2000/svg"><style>{_FILE_STYLE}</style>{inner}\n'


def _attributes(node: ET.Element, key: str) -> Iterator[tuple[str, str]]:
    """Yield an element's attributes, those of its inline style included, with prefixed ids."""
    style = (part.split(":", 1) for part in node.get("style", "").split(";") if part)
    for name, value in (*node.items(), *((name.strip(), value.strip()) for name, value in style)):
        if name == "font":  # matplotlib below 3.10: weight, size and family in one
            yield "font-size", re.findall(r"[\d.]+px", value)[0]
            yield "font-weight", re.findall(r"^\d+(?= )|$", value)[0] or "normal"
        elif name in ("id", _LINK):
            yield name.rpartition("}")[2], f"{'#' * (name == _LINK)}{key}-{value.removeprefix('#')}"
        elif name not in ("style", "version", "font-family"):
            yield name, value.replace("url(#", f"url(#{key}-").replace(INK, "currentColor")


def clean(text: object) -> str:
    r"""Show letters that XML cannot hold, or that change the writing direction, by code point; join lines.

    Example:
        >>> clean("a\x00b\nc")
        'a⟨U+0000⟩b c'
    """

    def shown(letter: str) -> str:
        strange = unicodedata.category(letter) in ("Cc", "Cs") or letter in _BIDI or ord(letter) & 0xFFFE == 0xFFFE
        return f"⟨U+{ord(letter):04X}⟩" if strange else letter

    return "".join(map(shown, re.sub(r"[\n\r\t]", " ", str(text))))
