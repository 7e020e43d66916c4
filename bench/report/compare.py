"""``fusedbert bench compare``: what moved between two documents, beyond what their own rounds scatter by.

The two were not measured in turns, so their rounds are no pairs. Each one's median over rounds has a bootstrap interval;
the ratio of the medians is drawn from both, and a change counts where its 95 % interval does not contain 1.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from fusedbert.engine.errors import InputError

from ..stats.statistics import LEVEL, RESAMPLES, SEED
from .table import format_table, milliseconds
from .text import SCHEMA

REGRESSED = 1  # exit status
# What is compared, by kind: the result's name of its item, of its rounds' figures, and whether more is better.
FIGURES: Mapping[str, tuple[str, str, bool]] = {
    "latency": ("shape", "p50_ms", False),
    "corpus": ("corpus", "texts_per_second", True),
    "load": ("mode", "capacity", True),
    "startup": ("", "total_s", False),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Change:
    """A figure in two documents.

    Attributes:
        contender: Whose.
        item: Shape, corpus or the like.
        before: The first document's median over rounds, as time, or as rate where more is better.
        after: The second's.
        change: How much worse the second is, as a share: 0.1 is 10 % slower, -0.1 is 10 % faster.
        low: Lower end of the change's 95 % interval.
        high: Its upper end.
    """

    contender: str
    item: str
    before: float
    after: float
    change: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """``slower``, ``faster``, or ``same`` where the interval contains no change at all."""
        return "slower" if self.low > 0 else "faster" if self.high < 0 else "same"


@click.command()
@click.argument("first", metavar="A.json", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("second", metavar="B.json", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--fail-above", type=click.FloatRange(0), metavar="PERCENT", help="Leave with 1 where it got slower by more.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
def compare(first: Path, second: Path, fail_above: float | None, as_json: bool) -> None:
    """Show what moved from one document to another, beyond what their rounds scatter by.

    A.json and B.json are what --json printed, or results.json of a report. With --fail-above, a change counts as a
    regression where the figure is worse by more than PERCENT and the whole of its interval says slower.
    """
    before, after = read_document(first), read_document(second)
    if before["kind"] != after["kind"]:
        raise InputError(f"{first} is of kind {before['kind']}, {second} of {after['kind']}: compare two of a kind")
    changes = list(find_changes(before, after))
    if not changes:
        raise InputError(f"{first} and {second} have no contender and {FIGURES[before['kind']][0] or 'result'} in common")
    regressions = [
        each for each in changes if fail_above is not None and each.verdict == "slower" and 100 * each.change > fail_above
    ]
    differences = list(differing(before, after))
    if as_json:
        rows = [{**dataclasses.asdict(each), "verdict": each.verdict, "regression": each in regressions} for each in changes]
        click.echo(json.dumps({"kind": before["kind"], "differing": differences, "changes": rows}, indent=2))
    else:
        click.echo(render(changes, before["kind"], differences, regressions, fail_above))
    if regressions:
        raise click.exceptions.Exit(REGRESSED)


def read_document(path: Path) -> dict[str, Any]:
    """Read a document of ``fusedbert.bench.report.text``.

    Raises:
        InputError: It is none, or of a schema that this version does not know.
    """
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as JSON ({error}): give what --json printed") from None
    schema = document.get("schema") if isinstance(document, dict) else None
    if schema != SCHEMA or document.get("kind") not in FIGURES:
        raise InputError(f"{path} has the schema {schema!r}, expected {SCHEMA!r}: measure it again with this version")
    return dict(document)


def find_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Change]:
    """Compare every figure that both documents have."""
    item, _, more_is_better = FIGURES[before["kind"]]
    first, second = figures(before), figures(after)
    for key in first:
        if key not in second:
            continue
        a, b = (np.array(rounds, dtype=np.float64) for rounds in (first[key], second[key]))
        # As a ratio of times: above 1 is slower.
        random = np.random.default_rng(SEED)  # one for both, so that the two are drawn apart
        drawn = _medians(a, random), _medians(b, random)
        ratios = drawn[0] / drawn[1] if more_is_better else drawn[1] / drawn[0]
        low, high = np.percentile(ratios, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
        middle = np.median(a) / np.median(b) if more_is_better else np.median(b) / np.median(a)
        yield Change(
            contender=key[0],
            item=key[1] if item else "",
            before=float(np.median(a)),
            after=float(np.median(b)),
            change=float(middle) - 1,
            low=float(low) - 1,
            high=float(high) - 1,
        )


def figures(document: Mapping[str, Any]) -> dict[tuple[str, str], list[float]]:
    """Take from a document the figure of every round, by contender and item."""
    item, figure, _ = FIGURES[document["kind"]]
    found: dict[tuple[str, str], list[float]] = {}
    for contender in document["contenders"]:
        for result in contender["results"]:
            rounds = result.get("rounds") or [result]
            values = [each if isinstance(each, int | float) else each.get(figure) for each in rounds]
            usable = [float(value) for value in values if isinstance(value, int | float) and math.isfinite(value) and value > 0]
            if usable:
                found.setdefault((contender["name"], str(result.get(item, ""))), usable)
        capacity = contender.get(figure)
        if not contender["results"] or document["kind"] != "load":
            continue
        for mode, value in capacity.items() if isinstance(capacity, Mapping) else [("", capacity)]:
            if isinstance(value, int | float) and value > 0:
                found[contender["name"], str(mode)] = [float(value)]
    return found


def differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    """Name what makes two documents hard to compare: another machine, model, number of threads, or version."""
    for what, name in (("machine", "cpu"), ("machine", "cores"), ("model", "source"), ("settings", "threads")):
        a, b = (document.get(what, {}).get(name) for document in (before, after))
        if a != b:
            yield f"{what} {name}: {a} and {b}"
    a, b = (document.get("machine", {}).get("versions", {}) for document in (before, after))
    yield from (f"{name}: {a.get(name)} and {b.get(name)}" for name in sorted({*a, *b}) if a.get(name) != b.get(name))


def render(
    changes: Sequence[Change], kind: str, differences: Sequence[str], regressions: Sequence[Change], limit: float | None
) -> str:
    """Write the changes as a table."""
    _, figure, _ = FIGURES[kind]
    rows = [
        [
            " ".join(filter(None, (each.contender, each.item))),
            *(milliseconds(value) for value in (each.before, each.after)),
            f"{each.change:+.1%}",
            f"{each.low:+.1%} to {each.high:+.1%}",
            each.verdict,
        ]
        for each in changes
    ]
    lines = [format_table(["", f"A {figure}", f"B {figure}", "time", "95 % interval", "B is"], rows)]
    if differences:
        lines += ["", f"The two differ in more than time: {'; '.join(differences)}."]
    if limit is not None:
        names = ", ".join(" ".join(filter(None, (each.contender, each.item))) for each in regressions)
        lines += ["", f"slower by more than {limit:g} %: {names or 'nothing'}"]
    return "\n".join(lines)


def _medians(values: Any, random: np.random.Generator) -> Any:
    """Draw the rounds anew, with repetition: ``[resamples]``."""
    drawn = random.integers(0, len(values), size=(RESAMPLES, len(values)))
    return np.median(values[drawn], axis=1)
