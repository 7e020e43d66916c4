"""The tables of the README that hold measurements, made from ``bench/results/*.json``, so that none is typed by hand.

A result is a document of ``fusedbert bench ... --json`` under a name, ``bench/results/NAME.json``; it has the command that
made it. Its table stands in README.md between ``<!-- bench:NAME -->`` and ``<!-- /bench:NAME -->``:

    python -m fusedbert.bench.report.readme            writes the tables
    python -m fusedbert.bench.report.readme --check    leaves with 1 where a table is not what its result says
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from .table import milliseconds
from .text import SCHEMA

_BLOCK = re.compile(r"(?P<begin><!-- bench:(?P<name>[\w.-]+) -->\n)(?P<body>.*?)(?P<end><!-- /bench:(?P=name) -->)", re.DOTALL)


def rewrite(page: str, results: Path) -> str:
    """Return a page with its tables made anew; a page without markers comes back as it was.

    Args:
        page: Markdown.
        results: The folder of the results.

    Raises:
        FileNotFoundError: A marker names a result that is not there.
        ValueError: A result is no document of ``fusedbert bench``.
    """
    return _BLOCK.sub(lambda found: found["begin"] + table(read_result(results, found["name"])) + found["end"], page)


def read_result(results: Path, name: str) -> dict[str, Any]:
    """Read a result by name.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is no document of ``fusedbert bench``.
    """
    document = json.loads((results / f"{name}.json").read_text(encoding="utf-8"))
    if document.get("schema") != SCHEMA:
        raise ValueError(f"{name}.json has the schema {document.get('schema')!r}, expected {SCHEMA!r}")
    return dict(document)


def table(document: Mapping[str, Any]) -> str:
    """Write a document as a Markdown table, with a line that says where and how it was measured."""
    machine, settings = document["machine"], document["settings"]
    when = document["started"][:10]
    threads, rounds = settings.get("threads", machine["cores"]), settings.get("rounds", 1)
    about = f"{machine['cpu']}, {threads} threads; {document['model']['name']}; {rounds} rounds; {when}"
    return f"{_TABLES[document['kind']](document)}\n{about}: `{_command(document)}`\n"


def _command(document: Mapping[str, Any]) -> str:
    command = document["command"]
    return command if isinstance(command, str) else " ".join(command)


def _markdown(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n" for cells in lines)


def _latency(document: Mapping[str, Any]) -> str:
    """p50 by shape, and for each of ours the geometric mean of its ratios to that peer."""
    measured = [each for each in document["contenders"] if each["status"] == "measured"]
    shapes = list(dict.fromkeys(entry["shape"] for each in measured for entry in each["results"]))
    totals = {(each["ours"], each["peer"]): each for each in document["summary"]}
    ours = list(dict.fromkeys(each["ours"] for each in document["summary"]))
    rows = []
    for each in measured:
        found = {entry["shape"]: milliseconds(entry["p50_ms"]) for entry in each["results"]}
        ratios = [totals.get((our, each["name"])) for our in ours]
        cells = ["" if ratio is None else f"{ratio['geometric_mean']:.2f}" for ratio in ratios]
        rows.append([each["title"], *(found.get(shape, "") for shape in shapes), *cells])
    return _markdown(["p50, ms", *shapes, *(f"{our} takes, of its time" for our in ours)], rows)


def _corpus(document: Mapping[str, Any]) -> str:
    """Texts per second, latency of a single text, accuracy."""
    rows = []
    for each in document["contenders"]:
        if each["status"] == "measured":
            for entry in each["results"]:
                accuracy = entry.get("accuracy")
                cells = [f"{entry['texts_per_second']:.0f}", *(_time(entry.get(name)) for name in ("p50_ms", "p99_ms"))]
                rows.append([each["title"], str(entry["corpus"]), *cells, "" if accuracy is None else f"{accuracy:.1%}"])
    return _markdown(["", "corpus", "texts/s", "one text, p50 ms", "p99 ms", "accuracy"], rows)


def _load(document: Mapping[str, Any]) -> str:
    """The rate that the budget allows."""
    rows = []
    for each in document["contenders"]:
        capacity = each.get("capacity")
        for mode, rate in (capacity.items() if isinstance(capacity, Mapping) else [("", capacity)]) if capacity else []:
            rows.append([" ".join(filter(None, (each["title"], str(mode)))), "" if rate is None else f"{float(rate):.0f}"])
    return _markdown(["", "texts/s within the budget"], rows)


def _startup(document: Mapping[str, Any]) -> str:
    """Time to the first answer, memory, installed size."""
    rows = []
    for each in document["contenders"]:
        for entry in each["results"] if each["status"] == "measured" else []:
            figures = [f"{entry['total_s']:.2f}", *(f"{entry[name]:.0f}" for name in ("peak_mb", "installed_mb"))]
            rows.append([each["title"], *figures])
    return _markdown(["", "first answer, s", "peak memory, MB", "installed, MB"], rows)


def _time(value: float | None) -> str:
    return "" if value is None else milliseconds(value)


_TABLES = {"latency": _latency, "corpus": _corpus, "load": _load, "startup": _startup}


@click.command()
@click.option("--page", type=click.Path(exists=True, dir_okay=False, path_type=Path), default="README.md", show_default=True)
@click.option("--results", type=click.Path(file_okay=False, path_type=Path), default="bench/results", show_default=True)
@click.option("--check", is_flag=True, help="Change nothing; leave with 1 where the page is not what the results say.")
def main(page: Path, results: Path, check: bool) -> None:
    """Write the tables of a page from the results."""
    before = page.read_text(encoding="utf-8")
    try:
        after = rewrite(before, results)
    except (FileNotFoundError, ValueError) as error:
        raise click.ClickException(str(error)) from None
    if check and after != before:
        raise click.ClickException(f"{page} is not what {results} says: run make readme")
    if after != before:
        page.write_text(after, encoding="utf-8")
        click.echo(f"{page} written", err=True)


if __name__ == "__main__":
    main()
