"""``fusedbert bench load``: latency under arrivals at rising rates, and the rate that a latency budget allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from fusedbert.engine.cli.streams import messages_on_stderr
from fusedbert.engine.errors import OptionError

from ..cli.options import Shared, shared_options
from ..cli.output import deliver
from ..corpus.texts import built_in, read_corpus
from ..report.table import format_table, milliseconds
from ..report.text import Clock, busy_before, render_absent, render_head
from ..run.activity import BUSY
from ..run.contest import Contest, open_contest
from ..run.interleave import Setting, check, open_field, start
from ..run.progress import Progress
from ..run.standard import find_reference
from ..stats.comparison import name_some
from .measure import SEED, Plan, Records, capacities, measure, results

TIMED = "from a text's intended arrival to its answer, Poisson arrivals, tokenizing and waiting included"
MODES = ("plain", "batcher")
FEW = 1000  # arrivals, below which a 99th percentile rests on fewer than ten of them
LATE_SHARE = 0.1  # of the budget: a sender that is later than that is named


@click.command("load")
@shared_options(rounds="1, runs at each rate")
@click.option(
    "--budget-ms", type=click.FloatRange(0.1, 60_000), default=50.0, show_default=True, help="For the 99th percentile."
)
@click.option("--seconds", type=click.FloatRange(0.1, 600), default=5.0, show_default=True, help="Of arrivals, in a run.")
@click.option("--rates", metavar="LIST", default="", help="Arrivals a second, with commas between; left out, the search's own.")
@click.option("--callers", type=click.IntRange(1, 512), default=16, show_default=True, help="Threads that call in plain mode.")
@click.option("--mode", "modes", type=click.Choice(MODES), multiple=True, help="How ours is called; left out, both ways.")
@click.option(
    "--corpus", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="File of texts; else built-in ones."
)
@click.option("--text-column", metavar="NAME", help="Column of the texts.")
@click.option("--max-length", type=click.IntRange(3), help="Tokens at which texts are cut; left out, what the model takes.")
def load(
    shared: Shared,
    budget_ms: float,
    seconds: float,
    rates: str,
    callers: int,
    modes: tuple[str, ...],
    corpus: Path | None,
    text_column: str | None,
    max_length: int | None,
) -> None:
    """Send single texts at rising rates, and find the rate at which 99 of 100 are still answered within the budget.

    Texts arrive at random (Poisson) whether or not the last ones are answered, and a latency counts from the intended
    arrival. Ours is called in two ways: plain, from a pool of threads, and through Batcher; other engines in plain mode.
    """
    shared.options()  # a wrong value is said before anything is read or exported
    wanted = parse_rates(rates)
    texts = built_in() if corpus is None else read_corpus(corpus, text_column=text_column)
    with messages_on_stderr():
        contest = open_contest(shared, max_length=max_length)
        most = contest.subject.manifest.max_length
        if max_length is not None and max_length > most:
            raise OptionError(f"--max-length is {max_length}, the model takes at most {most}: give that or less")
        plan = Plan(
            corpus=texts,
            max_length=max_length or most,
            budget=budget_ms / 1e3,
            seconds=seconds,
            rounds=shared.rounds or 1,
            callers=callers,
            modes=modes or MODES,
            rates=wanted,
        )
        document, interrupted = run(contest, plan, Progress())
    deliver(document, shared, render, interrupted=interrupted)


def parse_rates(text: str) -> tuple[float, ...]:
    """Read a list of rates with commas between, rising.

    Raises:
        OptionError: A part is no number above 0; the message names it.

    Example:
        >>> parse_rates("200, 50,100")
        (50.0, 100.0, 200.0)
    """
    found = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        try:
            rate = float(part)
        except ValueError:
            rate = 0.0
        if not 0.0 < rate < 1e6:
            raise OptionError(f"rate {part!r} is not between 0 and 1000000: give arrivals a second, like 50,100,200")
        found.append(rate)
    return tuple(sorted(set(found)))


def run(contest: Contest, plan: Plan, progress: Progress, setting: Setting | None = None) -> tuple[dict[str, Any], bool]:
    """Measure, and return the document of ``fusedbert.bench.report.text`` and whether Ctrl-C ended it.

    Args:
        contest: The model and who takes part.
        plan: What to measure.
        progress: Told about every step.
        setting: How contenders are run; None for the usual way.
    """
    clock, records, interrupted, computed_by = Clock(), Records(), False, ""
    with open_field(contest.everyone, setting or Setting(job=contest.job), progress) as field:
        try:
            field.progress.step("computing the reference")
            checks = find_reference(contest.subject, (), field)
            computed_by = checks.computed_by
            start(field)
            check(field, checks)
            measure(field, plan, records)
        except KeyboardInterrupt:
            interrupted = True
            progress.clear()
    contenders = []
    for lane in field.lanes:
        entry = {**lane.entry(), "results": [], "capacity": None}
        if (served := records.get(lane.name)) is not None:
            found = capacities(served)
            entry |= {
                "results": results(served, plan),
                "capacity": {mode: each["rate"] for mode, each in found.items()},
                "search": found,
                "alone_ms": served.alone_ms,
                "callers": served.callers,
                "one_caller": served.one_caller,
            }
        contenders.append(entry)
    document = {
        **clock.head("load", contest.subject, _settings(contest, plan, computed_by)),
        "ceiling": None,
        "contenders": contenders,
        "ratios": [],
        "summary": [],
    }
    return {**document, "cautions": cautions(document)}, interrupted


def _settings(contest: Contest, plan: Plan, computed_by: str) -> dict[str, Any]:
    return {
        "budget_ms": 1e3 * plan.budget,
        "seconds": plan.seconds,
        "rounds": plan.rounds,
        "rates": list(plan.rates),
        "callers": plan.callers,
        "modes": list(plan.modes),
        "max_length": plan.max_length,
        "threads": contest.subject.threads,
        "device": contest.subject.device,
        "seed": SEED,
        "reference": computed_by,
        "input": f"single texts, drawn from {plan.corpus.name} ({len(plan.corpus.texts)})",
        "timed": TIMED,
    }


def cautions(document: Mapping[str, Any]) -> list[str]:
    """Name what a reader should be careful about."""
    found = []
    levels = [
        (f"{each['name']} {entry['mode']} at {entry['rate']:.3g}/s", entry)
        for each in document["contenders"]
        for entry in each["results"]
    ]
    single = [f"{each['name']} ({each['one_caller']})" for each in document["contenders"] if each.get("one_caller")]
    if single:
        found.append(f"Called from one thread, because it did not stand several at once: {name_some(single)}.")
    few = sum(entry["arrivals"] < FEW for _, entry in levels)
    if few:
        found.append(
            f"{few} of {len(levels)} rates had fewer than {FEW} arrivals, so their 99th percentile rests on a few of them."
        )
    limit = LATE_SHARE * document["settings"]["budget_ms"]
    late = [f"{name} ({entry['late_p99_ms']:.0f} ms)" for name, entry in levels if entry["late_p99_ms"] > limit]
    if late:
        found.append(f"The sender itself was late (its 99th percentile, part of the latency): {name_some(late)}.")
    noisy = [name for name, entry in levels if any(share is not None and share > BUSY for share in entry["others"])]
    if noisy:
        found.append(f"Other processes had more than {BUSY:.0%} of the CPUs: {name_some(noisy)}.")
    return found + busy_before(document)


def render(document: Mapping[str, Any]) -> str:
    """Write a document of kind ``load`` as text."""
    settings = document["settings"]
    head = (
        f"{render_head(document)}\nload     {settings['input']}; {settings['seconds']:g} s a run, {settings['callers']} callers"
    )
    parts = [head]
    measured = [each for each in document["contenders"] if each["results"]]
    if measured:
        parts += [_capacities(measured, settings["budget_ms"]), _levels(measured)]
    return "\n\n".join([*parts, *render_absent(document), *document["cautions"]])


def _capacities(measured: Sequence[Mapping[str, Any]], budget: float) -> str:
    rows = [
        [
            f"{each['name']} {mode}",
            milliseconds(each["alone_ms"]),
            _rate(found["saturated"]),
            _rate(found["rate"]),
            _rate(found["beyond"]),
        ]
        for each in measured
        for mode, found in each["search"].items()
    ]
    title = f"texts per second with 99 % of them answered within {budget:g} ms"
    head = ["", "alone ms", "never idle/s", "held/s", "not held/s"]
    return f"{title}\n\n{format_table(head, rows)}"


def _levels(measured: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        [
            f"{each['name']} {entry['mode']}",
            _rate(entry["rate"]),
            _rate(entry["achieved"]),
            *("-" if entry[name] is None else milliseconds(entry[name]) for name in ("p50_ms", "p90_ms", "p99_ms")),
            str(entry["errors"]),
            str(entry["unfinished"]),
            "yes" if entry["within_budget"] else "no",
        ]
        for each in measured
        for entry in each["results"]
    ]
    return format_table(["", "rate/s", "answered/s", "p50 ms", "p90 ms", "p99 ms", "errors", "given up", "held"], rows)


def _rate(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}" if value < 100 else f"{value:.0f}"
