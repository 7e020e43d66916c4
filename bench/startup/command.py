"""``fusedbert bench startup``: fresh processes up to their first answer, contenders side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from fusedbert.engine.cli.streams import messages_on_stderr

from ..cli.options import Shared, shared_options
from ..cli.output import deliver
from ..report.table import format_table
from ..report.text import Clock, busy_before, interval, noisy_rounds, render_absent, render_head
from ..run.contest import Contest, open_contest
from ..run.interleave import Setting, check, open_field, start
from ..run.progress import Progress
from ..run.standard import find_reference
from ..stats.comparison import compare
from .measure import TEXT, Launch, Records, measure, results

ROUNDS = 9
ITEM, PLACE = "start", "first answer"
TIMED = "from the start of a process to its first answer, files in the page cache, one start before that is not counted"
INSTALLED = "the distributions that the process imported something of, and all that these require"


@click.command()
@shared_options(rounds=f"{ROUNDS}")
def startup(shared: Shared) -> None:
    """Start a fresh process, import, load, answer one text; time, peak memory, and size on disk.

    With --against, processes of all engines start in turns, one at a time.
    """
    shared.options()  # a wrong value is said before anything is exported
    with messages_on_stderr():
        contest = open_contest(shared)
        document, interrupted = run(contest, shared.rounds or ROUNDS, Progress())
    deliver(document, shared, render, interrupted=interrupted)


def run(
    contest: Contest, rounds: int, progress: Progress, setting: Setting | None = None, launch: Launch | None = None
) -> tuple[dict[str, Any], bool]:
    """Measure, and return the document of ``fusedbert.bench.report.text`` and whether Ctrl-C ended it.

    Args:
        contest: The model and who takes part.
        rounds: Starts of each contender.
        progress: Told about every step.
        setting: How contenders are run; None for the usual way.
        launch: Starts a process; None for the usual way.
    """
    clock, records, interrupted, computed_by = Clock(), Records(), False, ""
    problem_type = contest.subject.manifest.problem_type
    multi_label, by_order = problem_type == "multi_label_classification", problem_type == "regression"
    with open_field(contest.everyone, setting or Setting(job=contest.job), progress) as field:
        try:
            field.progress.step("computing the reference")
            checks = find_reference(contest.subject, (), field)
            computed_by = checks.computed_by
            start(field)
            check(field, checks)
            measure(field, rounds, multi_label, records, launch, by_order=by_order)
        except KeyboardInterrupt:
            interrupted = True
            progress.clear()
    contenders = []
    times: dict[str, dict[str, list[float | None]]] = {}
    noisy: dict[str, dict[str, list[bool]]] = {}
    for lane in field.lanes:
        found = results(records[lane.name]) if lane.name in records else []
        contenders.append({**lane.entry(), "results": found})
        for entry in found:
            by_round = dict(zip(entry["round_numbers"], zip(entry["rounds"], entry["noisy"], strict=True), strict=True))
            times[lane.name] = {PLACE: [by_round.get(number, (None, None))[0] for number in range(rounds)]}
            noisy[lane.name] = {PLACE: [by_round.get(number, (None, None))[1] is not None for number in range(rounds)]}
    ratios, summary = compare(times, contest.our_names, noisy, item=ITEM)
    settings = {
        "rounds": rounds,
        "threads": contest.subject.threads,
        "device": contest.subject.device,
        "reference": computed_by,
        "input": TEXT,
        "timed": TIMED,
        "installed": INSTALLED,
    }
    document = {
        **clock.head("startup", contest.subject, settings),
        "ceiling": None,
        "contenders": contenders,
        "ratios": ratios,
        "summary": summary,
    }
    return {**document, "cautions": cautions(document)}, interrupted


def cautions(document: Mapping[str, Any]) -> list[str]:
    """Name what a reader should be careful about."""
    return noisy_rounds(document) + busy_before(document)


def render(document: Mapping[str, Any]) -> str:
    """Write a document of kind ``startup`` as text."""
    parts = [render_head(document)]
    measured = [each for each in document["contenders"] if each["results"]]
    if measured:
        parts.append(_table(measured, document["summary"]))
    return "\n\n".join([*parts, *render_absent(document), *document["cautions"]])


def _table(measured: Sequence[Mapping[str, Any]], summary: Sequence[Mapping[str, Any]]) -> str:
    ours = list(dict.fromkeys(each["ours"] for each in summary))
    ratios = {(each["ours"], each["peer"]): interval(each, "geometric_mean") for each in summary}
    head = ["", "total s", "python", "import", "load", "first", "peak MB", "installed MB", *(f"{name}: time" for name in ours)]
    rows = []
    for each in measured:
        (entry,) = each["results"]
        rows.append(
            [
                each["name"],
                *(f"{entry[name]:.3f}" for name in ("total_s", "interpreter_s", "import_s", "load_s", "first_s")),
                *("-" if entry[name] is None else f"{entry[name]:.0f}" for name in ("peak_mb", "installed_mb")),
                *(ratios.get((name, each["name"]), "") for name in ours),
            ]
        )
    notes = f"installed MB: {INSTALLED}."
    if ours:
        notes += "\ntime: ours over the peer's total, median of paired rounds with its 95 % interval; below 1 ours is faster."
    return f"{format_table(head, rows)}\n\n{notes}"
