"""The skeleton of every benchmark: open the lineup, check, measure, compare, and print the document."""

from __future__ import annotations

import abc
import datetime
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import click

from fusedbert.engine.cli.options import messages_on_stderr

from ..engines.batches import Shape
from ..report.svg import DRAW
from ..report.text import SCHEMA, busy_before
from ..run.interleave import EngineProcess, Progress, Run, RunSettings, open_run, start
from ..run.machine import load_average, need, record_machine
from ..run.parts import by_engine, entry
from ..run.reference import check, find_reference
from ..run.setup import Lineup, Shared, open_lineup
from ..run.stats import Rounds, compare, name_some

INTERRUPTED, FAILED = 130, 1
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)  # an argument that names a file
Render = Callable[[Mapping[str, Any]], str]
Round = tuple[int, float, str | None]  # number, time, why it is noisy


class Benchmark(abc.ABC):
    """One kind of measurement of a lineup."""

    kind: ClassVar[str]
    item: ClassVar[str] = ""  # the document's name of what a ratio is about; empty without ratios
    only: ClassVar[str] = ""  # the item of all results, if they do not have it
    shapes: Sequence[Shape] = ()
    checks_logits: ClassVar[bool] = True  # before anything is measured; else the benchmark checks answers itself

    def __init__(self, lineup: Lineup, rounds: int) -> None:
        self.lineup, self.rounds = lineup, rounds

    def run_settings(self) -> RunSettings:
        """Return the settings of the engines' processes."""
        return RunSettings(job=self.lineup.job)

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
        """Return an engine's ``results``, and whatever else its part of the document has; of several processes by the first."""

    def rounds_of(self, result: Mapping[str, Any]) -> Iterator[Round]:
        """Yield the rounds of a result: number, time in any unit, and why it is noisy or None."""
        yield from zip(result["round_numbers"], result["rounds"], result["noisy"], strict=True)

    def more(self) -> dict[str, Any]:
        """Return further fields of the document."""
        return {}

    def cautions(self, document: Mapping[str, Any]) -> list[str]:
        """Return sentences on what a reader should be careful about: here the noisy rounds."""
        noisy = [
            f"{' '.join(filter(None, (engine['name'], result.get('shape'))))} round {number + 1} ({why})"
            for engine in document["contenders"]
            for result in engine["results"]
            for number, _, why in self.rounds_of(result)
            if why is not None
        ]
        return [f"{len(noisy)} noisy rounds: {name_some(noisy)}."] if noisy else []

    def rounds_by_engine(self, engines: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Rounds]]:
        """Return the rounds of each engine that has results, by item; nothing without ratios."""
        return {
            engine["name"]: {
                result.get(self.item, self.only): {
                    number: (time, why is not None) for number, time, why in self.rounds_of(result)
                }
                for result in engine["results"]
            }
            for engine in engines
            if engine["results"] and self.item
        }


def run_benchmark(benchmark: Benchmark, progress: Progress) -> tuple[dict[str, Any], bool]:
    """Measure, and return the document and whether Ctrl-C ended it."""
    lineup, interrupted, reference = benchmark.lineup, False, ""
    started, load = datetime.datetime.now(datetime.UTC), load_average()
    with open_run((*lineup.own, *lineup.peers), benchmark.run_settings(), progress) as run:
        try:
            benchmark.before(run)
            checks = None
            if benchmark.checks_logits:
                progress.step("computing the reference")
                checks = find_reference(lineup.model, benchmark.shapes, run)
                reference = checks.computed_by
            start(run)
            if checks is not None:
                check(run, checks)
            benchmark.measure(run)
        except KeyboardInterrupt:
            interrupted = True
            progress.clear()
    engines = [{**entry(processes), **benchmark.entry(processes[0])} for processes in by_engine(run.processes)]
    ratios, summary = compare(benchmark.rounds_by_engine(engines), [spec.name for spec in lineup.own], item=benchmark.item)
    common = {"threads": lineup.model.threads, "device": lineup.model.device, "reference": reference}
    document = {
        "schema": SCHEMA,
        "kind": benchmark.kind,
        "command": ["fusedbert", *sys.argv[1:]],
        "started": started.isoformat(timespec="seconds"),
        "seconds": round((datetime.datetime.now(datetime.UTC) - started).total_seconds(), 1),
        "machine": {**record_machine(), "load_average": {"before": load, "after": load_average()}},
        "model": lineup.model.describe(),
        "settings": {"rounds": benchmark.rounds, **benchmark.settings(), **common},
        "ceiling": None,
        "contenders": engines,
        "ratios": ratios,
        "summary": summary,
        **benchmark.more(),
    }
    return {**document, "cautions": [*benchmark.cautions(document), *busy_before(document)]}, interrupted


def execute(shared: Shared, make: Callable[[Lineup], Benchmark], render: Render, **options: Any) -> None:
    """Run a benchmark as a command: ``make`` it of a lineup, which is opened with ``options``, and ``deliver`` its document.

    Raises:
        click.exceptions.Exit: See ``deliver``.
        FusedBertError: The lineup cannot be opened, or a report is wanted and matplotlib is missing.
    """
    shared.options()  # a wrong value is reported before anything is exported
    if shared.report is not None:
        need("matplotlib", DRAW)
    with messages_on_stderr():
        document, interrupted = run_benchmark(make(open_lineup(shared, **options)), Progress())
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

        write_report(document, shared.report)
        click.echo(f"fusedbert: report in {shared.report / 'index.html'}", err=True)
    if interrupted:
        click.echo("fusedbert: interrupted, these are the results so far", err=True)
        raise click.exceptions.Exit(INTERRUPTED)
    ours = [each for each in document["contenders"] if each["engine"] == "fusedbert"]
    if ours and not any(each["status"] == "measured" for each in ours):
        raise click.exceptions.Exit(FAILED)
