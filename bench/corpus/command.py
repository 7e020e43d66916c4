"""``fusedbert bench corpus``: a file of texts, from text to labels, contenders side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from fusedbert.engine.cli.streams import messages_on_stderr
from fusedbert.engine.errors import OptionError
from fusedbert.engine.text.inputs import check_items
from fusedbert.engine.text.tokenizer import TextTokenizer

from ..cli.options import Shared, shared_options
from ..cli.output import deliver
from ..report.table import format_table, milliseconds
from ..report.text import Clock, busy_before, interval, noisy_rounds, render_absent, render_head
from ..run.contest import Contest, open_contest
from ..run.interleave import Setting, check, open_field, start
from ..run.progress import Progress
from ..run.standard import find_reference
from ..stats.comparison import compare, name_some
from .measure import PATIENT, SEED, Logits, Plan, Runs, measure
from .results import results, series
from .texts import gold, read_corpus

ALONE, AGAINST = 3, 5  # rounds
INPUT = "all texts of the file in its order in every round; one at a time: a draw of them, another in every round"
TIMED = "from texts in memory to logits in memory, tokenizing included"
NO_ACCURACY = "multi_label_classification", "regression"  # problem types for which an accuracy has no one meaning


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@shared_options(rounds=f"{ALONE}, or {AGAINST} with --against")
@click.option("--text-column", metavar="NAME", help="Column of the texts; left out: text, another usual name, or the first.")
@click.option("--label-column", metavar="NAME", help="Column of the labels, for the accuracy; left out: label, if there.")
@click.option("--max-length", type=click.IntRange(3), help="Tokens at which texts are cut; left out, what the model takes.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="The first N texts alone.")
@click.option("--batch-size", type=click.IntRange(1, 4096), help="Of every peer; left out, the best of each, found by trial.")
def corpus(
    shared: Shared,
    file: Path,
    text_column: str | None,
    label_column: str | None,
    max_length: int | None,
    limit: int | None,
    batch_size: int | None,
) -> None:
    """Time the texts of FILE (.tsv, .csv, .jsonl, .parquet, or .txt with one a line) from text to labels.

    Texts per second over the whole file, the latency of one text at a time, the accuracy where the file has labels, and the
    share of texts with the same label as our fp32. With --against, engines run in turns, each in a process of its own and at
    its own best batch size, after their answers were checked.
    """
    shared.options()  # a wrong value is said before anything is read or exported
    texts = read_corpus(file, text_column=text_column, label_column=label_column, limit=limit)
    with messages_on_stderr():
        contest = open_contest(shared, max_length=max_length)
        manifest = contest.subject.manifest
        if max_length is not None and max_length > manifest.max_length:
            raise OptionError(f"--max-length is {max_length}, the model takes at most {manifest.max_length}: give that or less")
        plan = Plan(
            corpus=texts,
            max_length=max_length or manifest.max_length,
            rounds=shared.rounds or (AGAINST if shared.against else ALONE),
            device=contest.subject.device,
            batch_size=batch_size,
            multi_label=manifest.problem_type == "multi_label_classification",
            by_order=manifest.problem_type == "regression",
        )
        document, interrupted = run(contest, plan, Progress())
    deliver(document, shared, render, interrupted=interrupted)


def run(contest: Contest, plan: Plan, progress: Progress, setting: Setting | None = None) -> tuple[dict[str, Any], bool]:
    """Measure, and return the document of ``fusedbert.bench.report.text`` and whether Ctrl-C ended it.

    Args:
        contest: The model and who takes part.
        plan: What to measure.
        progress: Told about every step.
        setting: How contenders are run; None for the usual way.
    """
    clock, runs, interrupted = Clock(), Runs(), False
    answers: dict[str, Logits] = {}
    computed_by = ""
    about = describe(plan, contest)
    with open_field(contest.everyone, setting or Setting(job=contest.job), progress) as field:
        try:
            field.progress.step("computing the reference")
            checks = find_reference(contest.subject, (), field)
            computed_by = checks.computed_by
            start(field)
            check(field, checks)
            measure(field, plan, runs, answers)
        except KeyboardInterrupt:
            interrupted = True
            progress.clear()
    labels = contest.subject.manifest.labels
    right = None if contest.subject.manifest.problem_type in NO_ACCURACY else gold(plan.corpus.labels, labels)
    contenders = []
    for lane in field.lanes:
        found = results(runs[lane.name], plan, answers.get("reference"), right, about["tokens"]) if lane.name in runs else []
        contenders.append({**lane.entry(), "results": found})
    times, noisy = series(runs, plan)
    ratios, summary = compare(times, contest.our_names, noisy, item="corpus")
    document = {
        **clock.head("corpus", contest.subject, _settings(contest, plan, computed_by)),
        "ceiling": None,
        "corpus": about,
        "contenders": contenders,
        "ratios": ratios,
        "summary": summary,
    }
    return {**document, "cautions": cautions(document)}, interrupted


def describe(plan: Plan, contest: Contest) -> dict[str, Any]:
    """Return the document's ``corpus``: how many texts and tokens, and how many texts are cut."""
    corpus = plan.corpus
    rows = TextTokenizer.load(contest.subject.artifact, plan.max_length).encode(check_items(corpus.texts))
    lengths = np.array([len(row.ids) for row in rows])
    return {
        "name": corpus.name,
        "texts": len(corpus.texts),
        "tokens": int(lengths.sum()),
        "tokens_median": float(np.median(lengths)),
        "tokens_most": int(lengths.max()),
        "truncated": int(sum(row.truncated for row in rows)),
        "skipped": corpus.skipped,
        "text_column": corpus.text_column,
        "label_column": corpus.label_column,
    }


def _settings(contest: Contest, plan: Plan, computed_by: str) -> dict[str, Any]:
    return {
        "rounds": plan.rounds,
        "seconds": plan.seconds,
        "max_length": plan.max_length,
        "batch_size": plan.batch_size,
        "threads": contest.subject.threads,
        "device": contest.subject.device,
        "seed": SEED,
        "reference": computed_by,
        "input": INPUT,
        "timed": TIMED,
    }


def cautions(document: Mapping[str, Any]) -> list[str]:
    """Name what a reader should be careful about."""
    found = []
    about = document["corpus"]
    if about["skipped"]:
        found.append(f"{about['skipped']} rows without a usable text were left out.")
    measured = [(each["name"], entry) for each in document["contenders"] for entry in each["results"]]
    if about["label_column"] is not None and measured and all(entry["accuracy"] is None for _, entry in measured):
        found.append(f"No accuracy: the values of {about['label_column']!r} are not the model's labels.")
    found += noisy_rounds(document)
    rounds = document["settings"]["rounds"]
    slow = [
        f"{name} ({len(entry['rounds'])})"
        for name, entry in measured
        if len(entry["rounds"]) < rounds and entry["spent_s"] > PATIENT
    ]
    if slow:
        found.append(f"Fewer rounds than {rounds}, because {PATIENT:.0f} s of them were spent: {name_some(slow)}.")
    return found + busy_before(document)


def render(document: Mapping[str, Any]) -> str:
    """Write a document of kind ``corpus`` as text."""
    about = document["corpus"]
    lines = [
        render_head(document),
        f"corpus   {about['name']}: {about['texts']} texts, {about['tokens']} tokens (median {about['tokens_median']:.0f}, "
        f"most {about['tokens_most']}), {about['truncated']} cut at {document['settings']['max_length']}",
    ]
    parts = ["\n".join(lines)]
    measured = [each for each in document["contenders"] if each["results"]]
    if measured:
        parts.append(_table(measured, document["summary"]))
    return "\n\n".join([*parts, *render_absent(document), *document["cautions"]])


def _table(measured: Sequence[Mapping[str, Any]], summary: Sequence[Mapping[str, Any]]) -> str:
    """Write a row for each contender; where there are peers, a column with the ratio of each of ours to it."""
    ours = list(dict.fromkeys(each["ours"] for each in summary))
    ratios = {(each["ours"], each["peer"]): interval(each, "geometric_mean") for each in summary}
    head = [
        "",
        "texts/s",
        "batch",
        "p50 ms",
        "p90 ms",
        "p99 ms",
        "accuracy",
        "as our fp32",
        *(f"{name}: time" for name in ours),
    ]
    rows = []
    for each in measured:
        (entry,) = each["results"]
        rows.append(
            [
                each["name"],
                f"{entry['texts_per_second']:.3g}" if entry["texts_per_second"] < 100 else f"{entry['texts_per_second']:.0f}",
                "own" if entry["batch_size"] is None else str(entry["batch_size"]),
                *("-" if entry[name] is None else milliseconds(entry[name]) for name in ("p50_ms", "p90_ms", "p99_ms")),
                *("-" if entry[name] is None else f"{entry[name]:.2%}" for name in ("accuracy", "label_agreement")),
                *(ratios.get((name, each["name"]), "") for name in ours),
            ]
        )
    notes = "p50, p90, p99: one text at a time. batch: its best, found by trial; own: it plans its batches itself."
    if ours:
        notes += (
            "\ntime: ours over the peer's for the file, median of paired rounds with its 95 % interval; below 1 ours is faster."
        )
    return f"{format_table(head, rows)}\n\n{notes}"
