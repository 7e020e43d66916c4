"""The README's tables of measurements, and those of other pages, generated from ``bench/results``.

The table of ``NAME.json``, with a folder as in ``http/serve``, stands between ``<!-- bench:NAME -->`` and
``<!-- /bench:NAME -->``:

    python -m fusedbert.bench.report.readme            writes the tables
    python -m fusedbert.bench.report.readme --check    exits with 1 if a table differs from its result
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from fusedbert.engine.errors import InputError

from .text import milliseconds, pivot, read_document

_BLOCK = re.compile(r"(?P<begin><!-- bench:(?P<name>[\w./-]+) -->\n)(?P<body>.*?)(?P<end><!-- /bench:(?P=name) -->)", re.DOTALL)
_Table = tuple[list[str], list[list[str]]]  # head and rows


def rewrite(page: str, results: Path) -> str:
    """Return a Markdown page with its tables generated from the results in a folder.

    Raises:
        InputError: A result is missing, or is not a document of ``fusedbert bench``.
    """
    return _BLOCK.sub(
        lambda block: block["begin"] + table(read_document(results / f"{block['name']}.json")) + block["end"], page
    )


def table(document: Mapping[str, Any]) -> str:
    """Write a document as a Markdown table, with a line that says where and how it was measured."""
    machine, settings = document["machine"], document["settings"]
    head, rows = {"latency": _latency, "rank": _latency, "corpus": _corpus, "load": _load, "startup": _startup}[
        document["kind"]
    ](document)
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    markdown = "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n" for cells in lines)
    threads, rounds = settings.get("threads", machine["cores"]), settings.get("rounds", 1)
    about = f"{machine['cpu']}, {threads} threads; {document['model']['name']}; {rounds} rounds; {document['started'][:10]}"
    return f"{markdown}\n{about}: `{' '.join(document['command'])}`\n"


def _measured(document: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the results of the measured engines with the engines' titles."""
    measured = (each for each in document["contenders"] if each["status"] == "measured")
    return [(each["title"], entry) for each in measured for entry in each["results"]]


def _latency(document: Mapping[str, Any]) -> _Table:
    titles = {each["name"]: each["title"] for each in document["contenders"] if each["status"] == "measured"}
    cells = {(title, entry["shape"]): milliseconds(entry["p50_ms"]) for title, entry in _measured(document)}
    for each in document["summary"]:
        if each["peer"] in titles:
            cells[titles[each["peer"]], f"{each['ours']} / this engine"] = f"{each['geometric_mean']:.2f}"
    columns, rows = pivot(cells, missing="")
    return ["p50, ms", *columns], rows


def _corpus(document: Mapping[str, Any]) -> _Table:
    rows = []
    for title, entry in _measured(document):
        times = ("" if entry[name] is None else milliseconds(entry[name]) for name in ("p50_ms", "p99_ms"))
        accuracy = "" if entry["accuracy"] is None else f"{entry['accuracy']:.1%}"
        rows.append([title, entry["corpus"], f"{entry['texts_per_second']:.0f}", *times, accuracy])
    return ["", "corpus", "texts/s", "one text, p50 ms", "p99 ms", "accuracy"], rows


def _rate(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"


def _load(document: Mapping[str, Any]) -> _Table:
    rates = ((each["title"], mode, rate) for each in document["contenders"] for mode, rate in each.get("capacity", {}).items())
    if "texts_per_request" in document["settings"]:  # over HTTP
        columns, rows = pivot(
            {(title, mode): "none" if rate is None else _rate(rate) for title, mode, rate in rates}, missing=""
        )
        return ["requests/s within the budget", *columns], rows
    rows = [[f"{title} {mode}", "" if rate is None else f"{rate:.0f}"] for title, mode, rate in rates]
    return ["", "texts/s within the budget"], rows


def _startup(document: Mapping[str, Any]) -> _Table:
    rows = [
        [title, f"{entry['total_s']:.2f}", f"{entry['peak_mb']:.0f}", f"{entry['installed_mb']:.0f}"]
        for title, entry in _measured(document)
    ]
    return ["", "first answer, s", "peak memory, MB", "installed, MB"], rows


@click.command()
@click.option("--page", type=click.Path(exists=True, dir_okay=False, path_type=Path), default="README.md", show_default=True)
@click.option("--results", type=click.Path(file_okay=False, path_type=Path), default="bench/results", show_default=True)
@click.option("--check", is_flag=True, help="Change nothing; exit with 1 if the page differs from the results.")
def main(page: Path, results: Path, check: bool) -> None:
    """Write the tables of a page from the results."""
    before = page.read_text(encoding="utf-8")
    try:
        after = rewrite(before, results)
    except InputError as error:
        raise click.ClickException(str(error)) from None
    if check and after != before:
        raise click.ClickException(f"{page} differs from {results}: run make readme")
    if after != before:
        page.write_text(after, encoding="utf-8")
        click.echo(f"{page} written", err=True)


if __name__ == "__main__":
    main()
