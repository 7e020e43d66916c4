"""The skeleton of every benchmark: open the lineup, check, measure, compare, and print the document."""

from __future__ import annotations

import abc
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import click

from fusedbert.engine.cli.options import messages_on_stderr

from ..engines.batches import Shape
from ..report.svg import DRAW
from ..report.text import Clock
from ..run.interleave import EngineProcess, Progress, Run, RunSettings, open_run, start
from ..run.machine import need
from ..run.reference import check, find_reference
from ..run.setup import Lineup, Shared, open_lineup
from ..run.stats import Rounds, compare

INTERRUPTED, FAILED = 130, 1
Render = Callable[[Mapping[str, Any]], str]
Round = tuple[int, float, str | None]  # number, time, why it is noisy


class Benchmark(abc.ABC):
    """One kind of measurement of a lineup; ``item`` is the document's name of what a ratio is about, empty without ratios."""

    kind: ClassVar[str]
    item: ClassVar[str] = ""
    shapes: Sequence[Shape] = ()
    rounds: int

    def __init__(self, lineup: Lineup) -> None:
        self.lineup = lineup

    def before(self, run: Run) -> None:  # noqa: B027  # most have nothing to do
        """Measure what comes before the engines start."""

    @abc.abstractmethod
    def measure(self, run: Run) -> None:
        """Measure the engines, which are started and checked; records are filled on the way, so Ctrl-C keeps them."""

    @abc.abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return the document's ``settings``, without those of every benchmark."""

    @abc.abstractmethod
    def entry(self, process: EngineProcess) -> dict[str, Any]:
        """Return an engine's ``results``, and whatever else its part of the document has."""

    def rounds_of(self, result: Mapping[str, Any]) -> Iterator[Round]:
        """Yield the rounds of a result: number, time in any unit, and why it is noisy or None."""
        yield from ()

    def place_of(self, result: Mapping[str, Any]) -> str:
        """Return the item of a result."""
        return str(result[self.item])

    def more(self) -> dict[str, Any]:
        """Return further fields of the document."""
        return {}

    @abc.abstractmethod
    def cautions(self, document: Mapping[str, Any]) -> list[str]:
        """Return sentences on what a reader should be careful about."""


def run_benchmark(benchmark: Benchmark, progress: Progress) -> tuple[dict[str, Any], bool]:
    """Measure, and return the document of ``fusedbert.bench.report.text`` and whether Ctrl-C ended it."""
    lineup, clock, interrupted, reference = benchmark.lineup, Clock(), False, ""
    with open_run((*lineup.own, *lineup.peers), RunSettings(job=lineup.job), progress) as run:
        try:
            benchmark.before(run)
            progress.step("computing the reference")
            checks = find_reference(lineup.model, benchmark.shapes, run)
            reference = checks.computed_by
            start(run)
            check(run, checks)
            benchmark.measure(run)
        except KeyboardInterrupt:
            interrupted = True
            progress.clear()
    engines = [{**process.entry(), **benchmark.entry(process)} for process in run.processes]
    rounds = rounds_by_engine(benchmark, engines) if benchmark.item else {}
    ratios, summary = compare(rounds, [spec.name for spec in lineup.own], item=benchmark.item)
    common = {"threads": lineup.model.threads, "device": lineup.model.device, "reference": reference}
    document = {
        **clock.head(benchmark.kind, lineup.model, {"rounds": benchmark.rounds, **benchmark.settings(), **common}),
        "ceiling": None,
        "contenders": engines,
        "ratios": ratios,
        "summary": summary,
        **benchmark.more(),
    }
    return {**document, "cautions": benchmark.cautions(document)}, interrupted


def rounds_by_engine(benchmark: Benchmark, engines: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Rounds]]:
    """Return the rounds of each engine that has results, by item."""
    return {
        engine["name"]: {
            benchmark.place_of(result): {number: (time, why is not None) for number, time, why in benchmark.rounds_of(result)}
            for result in engine["results"]
        }
        for engine in engines
        if engine["results"]
    }


def execute(
    shared: Shared,
    make: Callable[[Lineup], Benchmark],
    render: Render,
    *,
    max_length: int | None = None,
    without: Sequence[str] = (),
) -> None:
    """Run a benchmark as a command: ``make`` it of a lineup (see ``open_lineup``), and ``deliver`` its document.

    Raises:
        click.exceptions.Exit: See ``deliver``.
        FusedBertError: The lineup cannot be opened, or a report is wanted and matplotlib is missing.
    """
    shared.options()  # a wrong value is reported before anything is exported
    if shared.report is not None:
        need("matplotlib", DRAW)
    with messages_on_stderr():
        benchmark = make(open_lineup(shared, max_length=max_length, without=without))
        document, interrupted = run_benchmark(benchmark, Progress())
    deliver(document, shared, render, interrupted=interrupted)


def deliver(document: Mapping[str, Any], shared: Shared, render: Render, *, interrupted: bool = False) -> None:
    """Print a document, write its report if one is wanted, and exit with the status that fits.

    Raises:
        StorageError: The report's folder cannot be written.
        click.exceptions.Exit: With status 130 after Ctrl-C, 1 if no entry of fusedbert's was measured.
    """
    if shared.as_json:
        click.echo(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False))
    else:
        click.echo(render(document))
    if shared.report is not None:
        from ..report.page import write_report

        for path in write_report(document, shared.report):
            if path.suffix == ".html":
                click.echo(f"fusedbert: report in {path}", err=True)
    if interrupted:
        click.echo("fusedbert: interrupted, these are the results so far", err=True)
        raise click.exceptions.Exit(INTERRUPTED)
    ours = [each for each in document["contenders"] if each["engine"] == "fusedbert"]
    if ours and not any(each["status"] == "measured" for each in ours):
        raise click.exceptions.Exit(FAILED)
