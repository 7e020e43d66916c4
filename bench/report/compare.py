"""``fusedbert bench compare``: changes between two documents beyond the scatter of each one's rounds.

Two runs were not interleaved, so their rounds are not pairs. Each one's median over rounds has a bootstrap interval; the
ratio of the medians is drawn from both, and a change counts if its 95 % interval does not contain 1.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from fusedbert.engine.errors import InputError

from ..run.stats import LEVEL, RESAMPLES, SEED
from .text import format_table, milliseconds, read_document

REGRESSED = 1  # exit status
# By kind: the name of a result's item, the name of the figure of its rounds, and whether more is better.
FIGURES: Mapping[str, tuple[str, str, bool]] = {
    "latency": ("shape", "p50_ms", False),
    "corpus": ("corpus", "texts_per_second", True),
    "rank": ("shape", "p50_ms", False),
    "load": ("mode", "capacity", True),
    "startup": ("", "total_s", False),
}


@dataclasses.dataclass(frozen=True)
class Change:
    """A figure in two documents, with the median over rounds of each: a time, or a rate if more is better."""

    contender: str
    item: str
    before: float
    after: float
    change: float  # how much worse the second is, as a share: 0.1 is 10 % slower, -0.1 is 10 % faster
    low: float  # of the change's 95 % interval
    high: float

    @property
    def name(self) -> str:
        """The engine and the item."""
        return f"{self.contender} {self.item}".strip()

    @property
    def verdict(self) -> str:
        """``slower``, ``faster``, or ``same`` if the interval contains 0."""
        return "slower" if self.low > 0 else "faster" if self.high < 0 else "same"


@click.command()
@click.argument("first", metavar="A.json", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("second", metavar="B.json", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--fail-above", type=click.FloatRange(0), metavar="PERCENT", help="Exit with 1 if something got slower by more.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
def compare(first: Path, second: Path, fail_above: float | None, as_json: bool) -> None:
    """Show changes between two documents that exceed the scatter of their rounds.

    A.json and B.json are what --json printed, or results.json of a report. With --fail-above, a change counts as a
    regression if the figure is worse by more than PERCENT and its whole interval says slower.
    """
    before, after = read_document(first), read_document(second)
    kind = before["kind"]
    if kind != after["kind"]:
        raise InputError(f"{first} is of kind {kind}, {second} of {after['kind']}: compare two of a kind")
    changes = list(find_changes(before, after))
    if not changes:
        raise InputError(f"{first} and {second} have no engine and {FIGURES[kind][0] or 'result'} in common")
    slower = [each for each in changes if each.verdict == "slower"]
    regressions = [] if fail_above is None else [each for each in slower if 100 * each.change > fail_above]
    differences = list(differing(before, after))
    if as_json:
        rows = [{**dataclasses.asdict(each), "verdict": each.verdict, "regression": each in regressions} for each in changes]
        click.echo(json.dumps({"kind": kind, "differing": differences, "changes": rows}, indent=2))
    else:
        click.echo(render(changes, kind, differences, regressions, fail_above))
    if regressions:
        raise click.exceptions.Exit(REGRESSED)


def find_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Change]:
    """Compare every figure that both documents have."""
    more_is_better = FIGURES[before["kind"]][2]
    first, second = figures(before), figures(after)
    for contender, item in (key for key in first if key in second):
        a, b = (np.array(rounds[contender, item], dtype=np.float64) for rounds in (first, second))
        random = np.random.default_rng(SEED)  # one generator, so that the two are drawn independently
        drawn = [np.median(rounds[random.integers(0, len(rounds), (RESAMPLES, len(rounds)))], axis=1) for rounds in (a, b)]
        medians = float(np.median(a)), float(np.median(b))
        old, new = (0, 1) if not more_is_better else (1, 0)  # as a ratio of times: above 1 is slower
        low, high = np.percentile(drawn[new] / drawn[old] - 1, [50 * (1 - LEVEL), 50 * (1 + LEVEL)]).tolist()
        yield Change(contender, item, *medians, change=medians[new] / medians[old] - 1, low=low, high=high)


def figures(document: Mapping[str, Any]) -> dict[tuple[str, str], list[float]]:
    """Return the compared figure of every round, by engine and item; for ``load``, the capacity by mode."""
    item, figure, _ = FIGURES[document["kind"]]
    rounds: dict[tuple[str, str], list[float]] = {}
    for contender in document["contenders"]:
        if document["kind"] == "load":
            rates = contender.get("capacity", {}) if contender["results"] else {}
            rounds |= {(contender["name"], mode): [rate] for mode, rate in rates.items() if rate}
            continue
        for result in contender["results"]:
            values = [each[figure] if isinstance(each, Mapping) else each for each in result["rounds"]]
            rounds.setdefault((contender["name"], result.get(item, "")), values)
    return rounds


def differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    """Name what makes two documents hard to compare: another machine, model, number of threads, way to compile, or version."""
    for what, name in (("machine", "cpu"), ("machine", "cores"), ("model", "source"), ("settings", "threads")):
        a, b = (document.get(what, {}).get(name) for document in (before, after))
        if a != b:
            yield f"{what} {name}: {a} and {b}"
    a, b = ({each["name"]: each.get("compiled") for each in document["contenders"]} for document in (before, after))
    yield from (f"{name} compiled: {a[name]} and {b[name]}" for name in a if name in b and a[name] != b[name])
    a, b = (document.get("machine", {}).get("versions", {}) for document in (before, after))
    yield from (f"{name}: {a.get(name)} and {b.get(name)}" for name in sorted({*a, *b}) if a.get(name) != b.get(name))


def render(
    changes: Sequence[Change], kind: str, differences: Sequence[str], regressions: Sequence[Change], limit: float | None
) -> str:
    """Write the changes as a table."""
    figure, rows = FIGURES[kind][1], []
    for each in changes:
        times, interval = (milliseconds(each.before), milliseconds(each.after)), f"{each.low:+.1%} to {each.high:+.1%}"
        rows.append([each.name, *times, f"{each.change:+.1%}", interval, each.verdict])
    lines = [format_table(["", f"A {figure}", f"B {figure}", "time", "95 % interval", "B is"], rows)]
    if differences:
        lines += ["", f"The two differ in more than time: {'; '.join(differences)}."]
    if limit is not None:
        lines += ["", f"slower by more than {limit:g} %: {', '.join(each.name for each in regressions) or 'nothing'}"]
    return "\n".join(lines)
