"""The report of a benchmark: the document, a page that loads nothing and needs no script, and its plots as SVG files.

``python -m fusedbert.bench.report.page RESULT.json FOLDER`` writes the report of a document again.
"""

from __future__ import annotations

import html
import importlib.resources
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fusedbert.engine.explain.page import csp_hash, fill_template
from fusedbert.engine.hardware.storage import write_whole

from .plots import Plot, plots
from .svg import clean, drawing, svg_file, to_svg
from .text import MISSING, check_document, number, percent, read_document

_TITLES = {
    "latency": "Latency of",
    "corpus": "Texts to labels by",
    "rank": "Ranking by",
    "load": "Latency under load of",
    "startup": "Start-up of",
}
_RECORD = ("machine", "model", "settings", "ceiling", "overhead")
_STATUS = {"measured": "good", "wrong": "bad", "failed": "bad"}
_CHECKED = (
    "Each ran in its own process, and its logits were compared with the reference before it was timed: the largest difference, "
    "out of what its precision is allowed, and the share of texts with the same label."
)
_SUMMARY = "Geometric mean of the ratios of our time to the peer's, in paired rounds. Below 1, fusedbert is faster."


def write_report(document: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write ``results.json``, ``index.html`` and ``NAME.svg`` for each plot into a folder; return the files in this order.

    The folder is created, files are replaced as a whole, and others stay. Engines that were not measured are not drawn.

    Raises:
        InputError: The document is of another schema or kind.
        MissingDependencyError: Matplotlib is not installed.
        StorageError: A file cannot be written; the message names it.
    """
    check_document(document)
    with drawing():
        drawn = [(plot, to_svg(plot.figure, plot.key, plot.title, plot.caption)) for plot in plots(document)]
    files = {"results.json": json.dumps(document, indent=1, allow_nan=False) + "\n", "index.html": render(document, drawn)}
    files |= {f"{plot.key}.svg": svg_file(svg) for plot, svg in drawn}
    for name, content in files.items():
        write_whole(folder / name, content.encode("utf-8"))
    return [folder / name for name in files]


def render(document: Mapping[str, Any], drawn: Sequence[tuple[Plot, str]]) -> str:
    """Write the page of a document with its plots."""
    folder = importlib.resources.files("fusedbert.bench.report") / "template"
    style = (folder / "style.css").read_text(encoding="utf-8")
    cautions = "".join(f"<li>{escape(each)}</li>" for each in document["cautions"])
    parts = {
        "policy": f"default-src 'none'; img-src data:; style-src {csp_hash(style)}; base-uri 'none'; form-action 'none'",
        "title": escape(f"{_TITLES[document['kind']]} {clean(document['model']['name'])[:80]}"),
        "lead": _lead(document),
        "style": style,
        "summary": _summary(document["summary"]),
        "cautions": f'<aside class="cautions"><h2>Read with care</h2><ul>{cautions}</ul></aside>' if cautions else "",
        "plots": "\n".join(_plot(*each) for each in drawn) or '<p class="quiet">No engine has figures to show.</p>',
        "engines": _engines(document["contenders"]),
        "record": _record(document),
    }
    return fill_template((folder / "page.html").read_text(encoding="utf-8"), parts)


def escape(text: object) -> str:
    """Return a text that can stand in an element or an attribute."""
    return html.escape(clean(text))


def _lead(document: Mapping[str, Any]) -> str:
    machine, seconds = document["machine"], document["seconds"]
    gpus = [str(gpu["name"]) for gpu in machine.get("gpus", [])]
    started = f"{document['started'][:16].replace('T', ' ')} UTC"
    parts = [machine["cpu"], *gpus, f"{machine['cores']} cores", started, f"measured for {max(seconds / 60, 0.1):.1f} minutes"]
    return escape(" · ".join(parts))


def _summary(summary: Iterable[Mapping[str, Any]]) -> str:
    rows = []
    for each in summary:
        mean, low, high = each["geometric_mean"], each["low"], each["high"]
        verdict = f"{1 / mean:.2f} x as fast" if mean < 1 else f"{mean:.2f} x the time"
        verdict = "no difference shown" if low <= 1 <= high else verdict
        worst = escape(" at ".join(filter(None, (number(each["worst"]["median"]), each["worst"].get("shape")))))
        rows.append((*map(escape, (each["ours"], each["peer"])), verdict, number(mean), f"{low:.3f} to {high:.3f}", worst))
    head = ("engine", "peer", "verdict", "time ÷ peer's", "95 % interval", "worst")
    return _section("summary", "Summary", f'<p class="quiet">{_SUMMARY}</p>{_table(head, rows)}') if rows else ""


def _plot(plot: Plot, svg: str) -> str:
    table = _table(plot.head, [[escape(cell) for cell in row] for row in plot.rows])
    file = f'<p class="quiet small">This plot as a file: <a href="{plot.key}.svg">{plot.key}.svg</a></p>'
    drawn = f'<figcaption>{escape(plot.caption)}</figcaption><div class="drawing" tabindex="0">{svg}</div>'
    numbers = f"<details><summary>The numbers as a table</summary>{table}{file}</details>"
    return _section(plot.key, plot.title, f"<figure>{drawn}{numbers}</figure>")


def _section(ident: str, title: str, body: str) -> str:
    return f'<section aria-labelledby="{ident}"><h2 id="{ident}">{escape(title)}</h2>{body}</section>'


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a table of markup; columns whose cells all begin with a digit, or are empty, are aligned to the right."""
    kinds = [' class="n"' if all(re.match(r"\d|–|$", cell) for cell in column) else "" for column in zip(*rows, strict=True)]
    heads = "".join(f'<th scope="col"{kind}>{escape(name)}</th>' for name, kind in zip(head, kinds, strict=True))
    body = ""
    for first, *rest in rows:
        cells = "".join(f"<td{kind}>{cell}</td>" for cell, kind in zip(rest, kinds[1:], strict=True))
        body += f'<tr><th scope="row">{first}</th>{cells}</tr>\n'
    table = f"<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="scroll" tabindex="0" role="region" aria-label="Table">{table}</div>'


def _engines(contenders: Iterable[Mapping[str, Any]]) -> str:
    rows = []
    for each in contenders:
        check, status = each["check"] or {}, each["status"]
        name = f'<span class="strong">{escape(each["name"])}</span><span class="quiet small">{escape(each["title"])}</span>'
        verdict = f'<span class="status {_STATUS.get(status, "quiet")}">{escape(status)}</span> {escape(each["why"])}'
        how = " · ".join(str(each[key]) for key in ("precision", "device") if each[key] is not None)
        off = f"{check['max_abs_logit']:.3g} of {check['tolerance']:.3g}" if check.get("tolerance") else MISSING
        versions = ", ".join(f"{package} {version}" for package, version in each["versions"].items())
        cells = [how, number(each["threads"]), off, percent(check.get("label_agreement")), versions]
        rows.append([name, verdict, *map(escape, cells)])
    head = ("engine", "status", "precision", "threads", "logits off by", "same label", "versions")
    return f'<p class="quiet">{_CHECKED}</p>{_table(head, rows)}'


def _record(document: Mapping[str, Any]) -> str:
    """Write the command, and each value of the record next to its name."""
    parts = [f'<h3>Command</h3><pre tabindex="0"><code>{escape(" ".join(document["command"]))}</code></pre>']
    for name in _RECORD:
        pairs = _leaves(document.get(name))
        leaves = "".join(f"<div><dt>{escape(key)}</dt><dd>{escape(value)}</dd></div>" for key, value in pairs)
        if leaves:
            parts.append(f"<h3>{name.capitalize()}</h3><dl>{leaves}</dl>")
    return "".join(parts)


def _leaves(value: Any, name: str = "") -> list[tuple[str, str]]:
    """Return the values of nested mappings with their paths."""
    if isinstance(value, Mapping):
        return [leaf for key, each in value.items() for leaf in _leaves(each, f"{name} {key}".strip().replace("_", " "))]
    if value in (None, [], {}):
        return []
    if isinstance(value, list):
        items = (" ".join(map(str, each.values())) if isinstance(each, Mapping) else str(each) for each in value)
        return [(name, ", ".join(items))]
    return [(name, f"{value:.6g}" if isinstance(value, float) else str(value))]


if __name__ == "__main__":
    write_report(read_document(Path(sys.argv[1])), Path(sys.argv[2]))
