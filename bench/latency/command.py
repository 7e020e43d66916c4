"""``fusedbert bench latency``: contenders side by side, by shape."""

from __future__ import annotations

from typing import Any

import click

from fusedbert.engine.cli.streams import messages_on_stderr

from ..cli.options import Shared, shared_options
from ..cli.output import deliver
from ..engines.shapes import DEFAULT_SHAPES, parse_shapes, refuse_longer
from ..report.text import INPUT, TIMED, Clock, cautions, render
from ..run.contest import Contest, open_contest
from ..run.interleave import Field, Setting, check, open_field, start, worker_variables
from ..run.process import ContenderFailedError, Worker
from ..run.progress import Progress
from ..run.standard import find_reference
from ..stats.comparison import compare
from .measure import SEED, Plan, Visits, measure, results, series
from .roofline import SECONDS, Ceiling, measure_ceiling

ALONE, AGAINST = (3, 1.0, 20), (9, 0.25, 3)  # rounds, seconds of a visit, iterations of a visit
TEXT_ONLY = ("transformers-pipeline",)  # begins with a text: `bench corpus`
OVERHEAD_TOKENS = 16


@click.command()
@shared_options(rounds="3, or 9 with --against")
@click.option("--shapes", default=DEFAULT_SHAPES, show_default=True, metavar="LIST", help="BATCHxTOKENS, with commas between.")
@click.option("--seconds", type=click.FloatRange(0.001, 60), help="Of a visit to a shape (1, or 0.25 with --against).")
def latency(shared: Shared, shapes: str, seconds: float | None) -> None:
    """Time the graph by shape, from token ids to logits, on new random tokens in every iteration.

    With --against, engines run in turns, each in a process of its own, after their logits were checked; the ratio of our
    time to theirs is the median of the rounds with its 95 % interval.
    """
    wanted = parse_shapes(shapes)
    rounds, usual, samples = AGAINST if shared.against else ALONE
    plan = Plan(shapes=wanted, rounds=shared.rounds or rounds, seconds=seconds or usual, samples=samples)
    shared.options()  # a wrong value is said before anything is exported
    with messages_on_stderr():
        contest = open_contest(shared, without=TEXT_ONLY)
        refuse_longer(wanted, contest.subject.manifest.max_length)
        document, interrupted = run(contest, plan, Progress())
    deliver(document, shared, render, interrupted=interrupted)


def run(contest: Contest, plan: Plan, progress: Progress, setting: Setting | None = None) -> tuple[dict[str, Any], bool]:
    """Measure, and return the document of ``fusedbert.bench.report.text`` and whether Ctrl-C ended it.

    Args:
        contest: The model and who takes part.
        plan: How long to measure.
        progress: Told about every step.
        setting: How contenders are run; None for the usual way.
    """
    setting = setting or Setting(job=contest.job)
    clock, visits, interrupted = Clock(), Visits(), False
    found: dict[str, Any] = {"ceiling": None, "overhead": None, "reference": ""}
    with open_field(contest.everyone, setting, progress) as field:
        try:
            _measure(contest, plan, field, visits, found)
        except KeyboardInterrupt:
            interrupted = True
            progress.clear()
    ceiling: Ceiling | None = found["ceiling"]
    contenders, times, noisy = [], {}, {}
    for lane in field.lanes:
        entries = results(visits.get(lane.name, {}), lane, ceiling, contest.subject.size)
        contenders.append({**lane.entry(), "results": entries})
        if entries:
            times[lane.name], noisy[lane.name] = series(entries, plan.rounds)
    ratios, summary = compare(times, contest.our_names, noisy)
    document = {
        **clock.head("latency", contest.subject, _settings(contest, plan, found["reference"])),
        "ceiling": None if ceiling is None else ceiling.entry(),
        "contenders": contenders,
        "ratios": ratios,
        "summary": summary,
        "overhead": found["overhead"],
    }
    return {**document, "cautions": cautions(document)}, interrupted


def _measure(contest: Contest, plan: Plan, field: Field, visits: Visits, found: dict[str, Any]) -> None:
    """Measure one thing after the other; what is done stands in ``visits`` and ``found`` when Ctrl-C comes."""
    ours = worker_variables(contest.ours[0], field.setting, field.packages)
    field.progress.step("measuring the ceiling")
    seconds = min(SECONDS, 2 * plan.seconds)
    device, threads = contest.subject.device, contest.subject.threads
    found["ceiling"] = measure_ceiling(device, threads, ours, seconds=seconds)
    field.progress.step("computing the reference")
    checks = find_reference(contest.subject, plan.shapes, field)
    found["reference"] = checks.computed_by
    start(field)
    check(field, checks)
    measure(field, plan, visits)
    if any(lane.name in contest.our_names and lane.running for lane in field.lanes):
        field.progress.step("measuring the ceiling again")
        found["ceiling"] = found["ceiling"].or_better(measure_ceiling(device, threads, ours, seconds=seconds))
        found["overhead"] = _overhead(contest, field, ours, min(2.0, 8 * plan.seconds))


def _overhead(contest: Contest, field: Field, variables: dict[str, str], seconds: float) -> dict[str, Any] | None:
    """Time a Classifier against its bare session, with the last of our contenders, the fastest; None where it failed."""
    field.progress.step("measuring the overhead of a Classifier")
    kind, subject = contest.ours[-1], contest.subject
    request = {
        "artifact": str(subject.artifact),
        "device": f"cuda:{subject.index}" if subject.device == "cuda" else "cpu",
        "precision": kind.precision,
        "threads": subject.threads,
        "tokens": OVERHEAD_TOKENS,
        "seconds": seconds,
    }
    try:
        with Worker.start(None, variables) as worker:
            return {"contender": kind.name, **worker.call("overhead", timeout=field.setting.patience.visit, **request)}
    except ContenderFailedError as error:
        field.progress.say(f"the overhead could not be measured: {error}")
        return None


def _settings(contest: Contest, plan: Plan, reference: str) -> dict[str, Any]:
    return {
        "shapes": [str(shape) for shape in plan.shapes],
        "rounds": plan.rounds,
        "seconds": plan.seconds,
        "samples": plan.samples,
        "threads": contest.subject.threads,
        "device": contest.subject.device,
        "seed": SEED,
        "reference": reference,
        "input": INPUT,
        "timed": TIMED,
    }
