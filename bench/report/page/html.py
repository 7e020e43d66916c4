"""The page: what was found, the plots, who took part, and the record of how it was measured. It needs no script."""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
import json
from collections.abc import Mapping, Sequence
from typing import Any

from .document import Entry, entries, mapping, mappings
from .figure import NARROW, WIDE, Figure, Table
from .palette import page_variables, plot_rules
from .scale import MISSING, figure, number, share
from .svg import clean, element, escape

_TITLES = {
    "latency": "Latency of",
    "corpus": "From text to label with",
    "load": "Latency under load of",
    "startup": "Start-up of",
}
_LONGEST = 80
_RECORD = ("machine", "model", "settings", "ceiling", "overhead")
_DEEPEST = 4


def render(document: Mapping[str, Any], plots: Sequence[Figure]) -> str:
    """Write the page of a document with its plots, in one file that loads nothing."""
    folder = importlib.resources.files("fusedbert.bench.report.page") / "template"
    style = "\n".join([page_variables(), (folder / "style.css").read_text(encoding="utf-8"), plot_rules()])
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode("ascii")
    parts = {
        "policy": f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'",
        "title": _title(document),
        "lead": _lead(document),
        "style": style,
        "found": _found(document),
        "cautions": _cautions(document),
        "plots": "\n".join(_plot(plot) for plot in plots) or element("p", "No contender has figures to show.", class_="quiet"),
        "contenders": _contenders(entries(document)),
        "record": _record(document),
    }
    head, *rest = (folder / "page.html").read_text(encoding="utf-8").split("{{")
    return head + "".join(parts[name] + tail for name, tail in (piece.split("}}", 1) for piece in rest))


def _title(document: Mapping[str, Any]) -> str:
    kind = str(document.get("kind"))
    name = clean(mapping(document.get("model")).get("name") or "a model")
    return escape(f"{_TITLES.get(kind, kind)} {name if len(name) <= _LONGEST else name[:_LONGEST] + '…'}")


def _lead(document: Mapping[str, Any]) -> str:
    machine = mapping(document.get("machine"))
    started = str(document.get("started") or "")[:16].replace("T", " ")
    seconds = number(document.get("seconds"))
    parts = [
        machine.get("cpu"),
        machine.get("gpu") if isinstance(machine.get("gpu"), str) else None,
        f"{machine['cores']} cores" if machine.get("cores") is not None else None,
        f"{started} UTC" if started else None,
        f"{max(seconds / 60, 0.1):.1f} minutes of measuring" if seconds else None,
    ]
    return escape(" · ".join(str(part) for part in parts if part))


def _found(document: Mapping[str, Any]) -> str:
    """Write the summary: each of ours against each peer, over all that was timed."""
    rows = []
    for each in mappings(document.get("summary")):
        mean, worst = number(each.get("geometric_mean")), mapping(each.get("worst"))
        low, high = number(each.get("low")), number(each.get("high"))
        between = MISSING if low is None or high is None else f"{low:.3f} to {high:.3f}"
        what = worst.get("shape") or worst.get("corpus")
        where = figure(worst.get("median")) + (f" at {what}" if what else "")
        rows.append((str(each.get("ours")), str(each.get("peer")), _verdict(mean, low, high), figure(mean), between, where))
    if not rows:
        return ""
    header = ("ours", "peer", "verdict", "time ÷ peer's", "95 % interval", "worst")
    note = "Geometric mean of the ratios of our time to the peer's, in visits that lie side by side. Below 1, ours is faster."
    return _section(
        "found", "What was found", element("p", note, class_="quiet") + _table(Table(header=header, rows=tuple(rows), words=3))
    )


def _verdict(mean: float | None, low: float | None, high: float | None) -> str:
    if mean is None or mean <= 0:
        return MISSING
    if low is not None and high is not None and low <= 1 <= high:
        return "no difference shown"
    return f"{1 / mean:.2f} x as fast" if mean < 1 else f"{mean:.2f} x the time"


def _cautions(document: Mapping[str, Any]) -> str:
    given = document.get("cautions")
    found = [str(each) for each in given] if isinstance(given, Sequence) and not isinstance(given, str) else []
    if not found:
        return ""
    items = "".join(element("li", escape(each)) for each in found)
    return element("aside", element("h2", "Read with care"), element("ul", items), class_="cautions")


def _plot(plot: Figure) -> str:
    numbers = element("summary", "The numbers as a table")
    caption = element("figcaption", escape(plot.caption))
    name = element("h2", escape(plot.title), id=plot.key)
    drawn = plot.inline(WIDE) + plot.inline(NARROW)
    file = element("a", f"{plot.key}.svg", href=f"{plot.key}.svg")
    body = (
        caption
        + element("div", drawn, class_="drawing")
        + element("details", numbers, _table(plot.table), element("p", f"This plot as a file: {file}", class_="quiet small"))
    )
    return element("section", name, element("figure", body), aria_labelledby=plot.key)


def _table(table: Table) -> str:
    head = "".join(
        element("th", escape(name), scope="col", class_=None if i < table.words else "n") for i, name in enumerate(table.header)
    )
    body = "".join(element("tr", *(_cell(text, i, table.words) for i, text in enumerate(row))) for row in table.rows)
    inner = element("table", element("thead", element("tr", head)), element("tbody", body or ""))
    return element("div", inner, class_="scroll", tabindex=0, role="region", aria_label="Table")


def _cell(text: str, index: int, words: int) -> str:
    if index == 0:
        return element("th", escape(text), scope="row")
    return element("td", escape(text), class_=None if index < words else "n")


def _contenders(found: Sequence[Entry]) -> str:
    rows = []
    for entry in found:
        fields, check = entry.fields, mapping(entry.fields.get("check"))
        name = element("span", escape(entry.name), class_="strong")
        title = element("span", escape(fields["title"]), class_="quiet small") if fields.get("title") else ""
        versions = ", ".join(f"{package} {version}" for package, version in mapping(fields.get("versions")).items())
        how = " · ".join(str(fields[key]) for key in ("precision", "device") if fields.get(key) is not None)
        threads = figure(fields.get("threads"))
        deviation = figure(check.get("max_abs_logit"))
        if number(check.get("tolerance")) is not None:
            deviation += f" of {figure(check['tolerance'])}"
        rows.append(
            element("th", name, title, scope="row")
            + element(
                "td", element("span", escape(entry.status), class_=f"status {_status_class(entry.status)}"), escape(_why(entry))
            )
            + element("td", escape(how), class_="short")
            + "".join(
                element("td", escape(cell), class_="n") for cell in (threads, deviation, share(check.get("label_agreement")))
            )
            + element("td", escape(versions), class_="small")
        )
    names = ("contender", "status", "precision", "threads", "logits off by", "same label", "versions")
    head = "".join(element("th", name, scope="col", class_="n" if 3 <= i <= 5 else None) for i, name in enumerate(names))
    inner = element(
        "table", element("thead", element("tr", head)), element("tbody", "".join(element("tr", row) for row in rows) or "")
    )
    note = (
        "Each ran in a process of its own, and its logits were held against the reference before it was timed: the largest "
        "difference, of what its precision is allowed, and the share of texts with the same label."
    )
    return element("p", note, class_="quiet") + element(
        "div", inner, class_="scroll", tabindex=0, role="region", aria_label="Contenders"
    )


def _status_class(status: str) -> str:
    return {"measured": "good", "wrong": "bad", "failed": "bad"}.get(status, "quiet")


def _why(entry: Entry) -> str:
    why = entry.fields.get("why")
    return f" {why}" if why else ""


def _record(document: Mapping[str, Any]) -> str:
    """Write what else the document says, whatever it is: each leaf beside its name."""
    parts = []
    command = document.get("command")
    if isinstance(command, Sequence) and not isinstance(command, str):
        parts.append(
            element("h3", "Command") + element("pre", element("code", escape(" ".join(map(str, command)))), tabindex=0)
        )
    for name in _RECORD:
        pairs = _leaves(document.get(name), "", 0)
        if pairs:
            listed = "".join(element("div", element("dt", escape(key)), element("dd", escape(value))) for key, value in pairs)
            parts.append(element("h3", name.capitalize()) + element("dl", listed))
    return "".join(parts)


def _leaves(value: object, name: str, depth: int) -> list[tuple[str, str]]:
    if isinstance(value, Mapping) and depth < _DEEPEST:
        return [
            pair for key, each in value.items() for pair in _leaves(each, f"{name} {key}".strip().replace("_", " "), depth + 1)
        ]
    if value is None or value == [] or value == {}:
        return []
    if isinstance(value, (list, tuple)) and all(not isinstance(each, (Mapping, list, tuple)) for each in value):
        return [(name, ", ".join(map(str, value)))]
    if isinstance(value, float):
        return [(name, f"{value:.6g}")]
    return [(name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=True, default=str))]


def _section(ident: str, title: str, body: str) -> str:
    return element("section", element("h2", title, id=ident), body, aria_labelledby=ident)
