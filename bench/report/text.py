"""A benchmark's document as text: the machine, tables, and the cautions."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fusedbert.engine.errors import InputError

SCHEMA = "fusedbert.bench/2"
KINDS = ("latency", "corpus", "rank", "load", "startup")
PERCENTILES = ("p50_ms", "p90_ms", "p99_ms")
MISSING = "–"
CROWDED = 0.5  # load average per core above which the machine was busy before the run


def read_document(path: Path) -> dict[str, Any]:
    """Read a document from a file.

    Raises:
        InputError: It is not a document, or of another schema or kind.
    """
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as JSON ({error}): give what --json printed") from None
    check_document(document, str(path))
    return dict(document)


def check_document(document: object, name: str = "the document") -> None:
    """Check schema and kind of a document.

    Raises:
        InputError: One of them is not known to this version; the message has ``name``.
    """
    schema, kind = (document.get(key) if isinstance(document, Mapping) else None for key in ("schema", "kind"))
    if schema != SCHEMA:
        raise InputError(f"{name} has the schema {schema!r}, expected {SCHEMA!r}: measure it again with this version")
    if kind not in KINDS:
        raise InputError(
            f"{name} has the kind {kind!r}, expected one of {', '.join(KINDS)}: measure it again with this version"
        )


def busy_before(document: Mapping[str, Any]) -> list[str]:
    """Report whether the machine was busy before the run, for a document of any kind."""
    load, cores = document["machine"]["load_average"]["before"], document["machine"]["cores"]
    if load and load[0] > CROWDED * cores:
        return [f"The machine was busy before the run: load average {load[0]:g} on {cores} cores."]
    return []


def pivot(cells: Mapping[tuple[str, str], str], missing: str = "-") -> tuple[list[str], list[list[str]]]:
    """Arrange cells by the names of their row and column; return the names of the columns, and rows with their names first.

    Example:
        >>> pivot({("one", "1x16"): "0.5", ("two", "1x16"): "0.6", ("two", "8x128"): "14.2"})
        (['1x16', '8x128'], [['one', '0.5', '-'], ['two', '0.6', '14.2']])
    """
    names, columns = (list(dict.fromkeys(key[place] for key in cells)) for place in (0, 1))
    return columns, [[name, *(cells.get((name, column), missing) for column in columns)] for name in names]


def format_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Align the columns of a table, the first to the left and all others to the right.

    Example:
        >>> print(format_table(["shape", "p50"], [["1x16", "0.5"], ["8x128", "14.2"]]))
        shape   p50
        -----  ----
        1x16    0.5
        8x128  14.2
    """
    widths = [max(len(cell) for cell in column) for column in zip(head, *rows, strict=True)]
    lines = []
    for first, *rest in [head, ["-" * width for width in widths], *rows]:
        cells = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def milliseconds(value: float | None) -> str:
    """Write a time with about three digits: ``0.412``, ``8.31``, ``61.2``, ``433``; a dash for None."""
    if value is None:
        return "-"
    digits = 3 if value < 1 else 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{digits}f}"


def number(value: float | None, unit: str = "") -> str:
    """Write a value in three digits, or a dash for None.

    Example:
        >>> number(12.345), number(0.98765), number(1234.5), number(None)
        ('12.3', '0.988', '1,234', '–')
    """
    if value is None:
        return MISSING
    size = abs(value)
    places = 0 if size >= 99.95 or isinstance(value, int) else 1 if size >= 9.995 else 2 if size >= 0.9995 else 3
    shown = f"{value:,.{places}f}" if size >= 0.1 or not value else f"{value:.3g}"
    return f"{shown} {unit}" if unit else shown


def percent(share: float | None) -> str:
    """Write a share as a percentage, or a dash for None."""
    return MISSING if share is None else f"{100 * share:.1f} %"


def per_second(value: float | None) -> str:
    """Write a rate with about three digits: ``8.31``, ``433``; a dash for None."""
    return "-" if value is None else f"{value:.3g}" if value < 100 else f"{value:.0f}"


def interval(entry: Mapping[str, Any], name: str) -> str:
    """Write a ratio with its interval: ``0.74 (0.72-0.77)``."""
    return f"{entry[name]:.2f} ({entry['low']:.2f}-{entry['high']:.2f})"


def engine_table(
    document: Mapping[str, Any], head: Sequence[str], cells: Callable[[Mapping[str, Any]], list[str]], *, notes: str, time: str
) -> list[str]:
    """Write a row for the result of each engine, with a column for the ratio of each of fusedbert's entries to it.

    Each engine has one result, or none. ``head`` names its columns, which ``cells`` writes; ``notes`` stand below the table;
    the ratios are about ``time``. Nothing is returned without a result.
    """
    ours = list(dict.fromkeys(each["ours"] for each in document["summary"]))
    ratios = {(each["ours"], each["peer"]): interval(each, "geometric_mean") for each in document["summary"]}
    rows = [
        [each["name"], *cells(result), *(ratios.get((name, each["name"]), "") for name in ours)]
        for each in document["contenders"]
        for result in each["results"]
    ]
    if ours:
        notes += f"\ntime: fusedbert's over the other engine's {time}, median of paired rounds with its 95 % interval; "
        notes += "below 1 fusedbert is faster."
    return [f"{format_table(['', *head, *(f'{name}: time' for name in ours)], rows)}\n\n{notes}"] if rows else []


def render_document(document: Mapping[str, Any], tables: Sequence[str], about: str = "") -> str:
    """Write a document of any kind as text, with a line ``about`` its input.

    First come the machine, the model and what was timed; after the tables what engines were compiled for, those that were not
    measured to the end, with the reasons, and the cautions.
    """
    machine, model, settings = document["machine"], document["model"], document["settings"]
    quota = "no CPU quota" if machine["quota"] is None else f"CPU quota {machine['quota']:g}"
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    load = machine["load_average"]["before"]
    lines = [
        f"machine  {machine['cpu']}; {machine['cores']} cores, {quota}" + (f"; load average {load[0]:g}" if load else ""),
        f"         {versions}, Python {machine['python']}",
        f"model    {model['name']}, at most {model['max_length']} tokens",
        f"timed    {settings['timed']}; {settings['rounds']} round{'' if settings['rounds'] == 1 else 's'}",
    ]
    for gpu in machine.get("gpus", []):
        lines.insert(1, f"         {gpu['name']}, driver {gpu['driver']}")
    if ceiling := document.get("ceiling"):
        rates = ", ".join(f"{name} {rate:g} billion operations/s" for name, rate in ceiling["gemm"].items())
        memory = f"; memory {ceiling['bandwidth_gb_s']:g} GB/s" if ceiling["bandwidth_gb_s"] else ""
        lines.append(f"ceiling  {rates or ceiling['how']}{memory}")
    if about:
        lines.append(about)
    compiled = [each for each in document["contenders"] if each.get("compiled") and each["results"]]
    absent = [each for each in document["contenders"] if each["status"] != "measured"]
    notes = [f"{each['name']} was compiled {each['compiled']}" for each in compiled]
    notes += [f"{each['name']} {each['status']}: {each['why']}" for each in absent]
    return "\n\n".join(filter(None, ("\n".join(lines), *tables, "\n".join(notes), *document["cautions"])))
