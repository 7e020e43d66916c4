"""Colours of the page and its plots, light and dark.

The six of the engines were searched for under the simulated sight of protanopes, deuteranopes and tritanopes (Machado et
al. 2009) and keep their distance under each; a test holds this. No meaning rests on colour alone: every contender also has
a marker of its own, every row its name.
"""

from __future__ import annotations

FAMILIES = ("fusedbert", "openvino", "optimum", "transformers", "onnxruntime", "ctranslate2")

# name: (light, dark)
COLOURS: dict[str, tuple[str, str]] = {
    "paper": ("#fbfaf8", "#14161a"),
    "card": ("#ffffff", "#1b1e23"),
    "ink": ("#22252a", "#e6e4df"),
    "quiet": ("#5c6168", "#a3a9b1"),
    "rule": ("#e4e2dd", "#31353c"),
    "axis": ("#9a9ea5", "#6b727b"),
    "accent": ("#0c48d2", "#8fa8ff"),
    "good": ("#0b6b52", "#5fd0b0"),
    "bad": ("#a5300a", "#ff9068"),
    "c0": ("#0c48d2", "#5379fa"),
    "c1": ("#ad2e07", "#f9490f"),
    "c2": ("#079b8e", "#36cdad"),
    "c3": ("#252934", "#e4e8ed"),
    "c4": ("#7e3b79", "#be688d"),
    "c5": ("#bb7e11", "#eab51d"),
    "c6": ("#7a7f87", "#8b9199"),  # engines that this page does not know
    "p0": ("#8a8175", "#a79d90"),  # the phases of a start, one after the other
    "p1": ("#2c3a52", "#dfe5ef"),
    "p2": ("#4a8fe0", "#4677c4"),
    "p3": ("#bb7e11", "#eab51d"),
}

_PLOT = """\
.plot{font-family:system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;font-variant-numeric:tabular-nums}
.plot .strong{font-weight:650}
.plot .halo{paint-order:stroke;stroke-width:4px;stroke-linejoin:round}"""


def colour_of(family: str) -> str:
    """Return the class that gives the colour of an engine's family."""
    return f"c{FAMILIES.index(family)}" if family in FAMILIES else f"c{len(FAMILIES)}"


def plot_rules() -> str:
    """Return the style sheet that every plot needs, on the page or by itself."""
    return f"{_PLOT}\n{_rules(0)}\n@media (prefers-color-scheme: dark) {{\n{_rules(1)}\n}}"


def page_variables() -> str:
    """Return the page's custom properties, such as ``--ink``."""
    light, dark = (
        "".join(f"--{name}:{both[scheme]};" for name, both in COLOURS.items() if name[-1].isalpha()) for scheme in (0, 1)
    )
    return f":root{{color-scheme:light dark;{light}}}\n@media (prefers-color-scheme: dark) {{:root{{{dark}}}}}"


def _rules(scheme: int) -> str:
    # Plain values and not custom properties: more of the programs that draw an SVG understand them.
    shown = {name: both[scheme] for name, both in COLOURS.items()}
    return "\n".join(
        [
            f".plot text{{fill:{shown['ink']}}}.plot text.quiet{{fill:{shown['quiet']}}}",
            f".plot .card{{fill:{shown['card']}}}.plot .halo{{stroke:{shown['card']}}}",
            f".plot .rule{{stroke:{shown['rule']}}}.plot .axis{{stroke:{shown['axis']}}}",
            f".plot .strong-line{{stroke:{shown['ink']}}}",
            "".join(f".plot .{name}{{color:{value}}}" for name, value in shown.items() if name[-1].isdigit()),
        ]
    )
