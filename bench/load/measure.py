"""``fusedbert bench load``: latency of single texts that arrive at rising rates, and the rate that a latency budget allows."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np

from ..cli.benchmark import Benchmark, execute
from ..corpus.texts import Corpus, built_in, read_corpus
from ..report.text import busy_before, format_table, milliseconds, per_second, render_absent, render_head
from ..run.interleave import EngineProcess, Run, duration, round_robin
from ..run.setup import Lineup, Shared, shared_options
from ..run.stats import BUSY, name_some
from .open_loop import Outcome
from .sweep import RatePoint, RateSweep, parse_rates

SEED = 0
MODES = ("plain", "batcher")
SATURATE_SECONDS = 1.5
LEAST_GRACE = 1.0  # seconds that answers may take after the last arrival, or twice the budget
RETRIES = 2  # runs at a rate that are thrown away, if it was not held while other processes had the CPUs
LATE = 2.0  # budgets that the sender may fall behind before it stops, on top of the grace
FEW = 1000  # arrivals, below which a 99th percentile rests on fewer than ten of them
LATE_SHARE = 0.1  # of the budget: a sender that is later than that is reported
TIMED = "from a text's intended arrival to its answer, Poisson arrivals, tokenizing and waiting included"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """The plan of a run."""

    corpus: Corpus  # each arrival is a text drawn from it
    max_length: int  # tokens at which texts are cut
    budget: float  # seconds within which 99 % of the arrivals are to be answered
    seconds: float  # length of one run at one rate
    rounds: int  # runs at each rate
    callers: int  # threads that call in plain mode
    modes: tuple[str, ...]  # of MODES
    rates: tuple[float, ...] = ()  # arrivals a second to try; empty to search

    @property
    def grace(self) -> float:
        """Seconds that answers may take after the last arrival."""
        return max(LEAST_GRACE, 2.0 * self.budget)

    @property
    def run_seconds(self) -> float:
        """Seconds that a run takes at most."""
        return self.seconds + 2.0 * self.grace + LATE * self.budget


@dataclasses.dataclass
class Record:
    """The measurements of an engine so far."""

    alone_ms: float  # median time of a text while nothing else runs
    callers: int  # threads that call it in plain mode
    one_caller: str  # why there is only one, or empty
    sweeps: dict[str, RateSweep] = dataclasses.field(default_factory=dict)  # by mode


Trial = tuple[EngineProcess, str, RateSweep]  # engine, mode, sweep


@click.command("load")
@shared_options(rounds="1, runs at each rate")
@click.option(
    "--budget-ms",
    type=click.FloatRange(0.1, 60_000),
    default=50.0,
    show_default=True,
    help="Budget of the 99th percentile.",
)
@click.option("--seconds", type=click.FloatRange(0.1, 600), default=5.0, show_default=True, help="Length of a run.")
@click.option("--rates", metavar="LIST", default="", help="Arrivals a second, with commas between; default: by search.")
@click.option("--callers", type=click.IntRange(1, 512), default=16, show_default=True, help="Threads that call in plain mode.")
@click.option("--mode", "modes", type=click.Choice(MODES), multiple=True, help="How fusedbert is called; default: both ways.")
@click.option(
    "--corpus", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="File of texts; else built-in ones."
)
@click.option("--text-column", metavar="NAME", help="Column of the texts.")
@click.option("--max-length", type=click.IntRange(3), help="Tokens at which texts are cut; default: the model's maximum.")
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

    Texts arrive at random (Poisson) whether or not the previous ones are answered, and a latency counts from the intended
    arrival. fusedbert is called in two ways: plain, from a pool of threads, and through Batcher; other engines in plain mode.
    """
    shared.options()  # a wrong value is reported before anything is read
    wanted = parse_rates(rates)
    texts = built_in() if corpus is None else read_corpus(corpus, text_column=text_column)

    def make(lineup: Lineup) -> Load:
        plan = Plan(
            corpus=texts,
            max_length=max_length or lineup.model.manifest.max_length,
            budget=budget_ms / 1e3,
            seconds=seconds,
            rounds=shared.rounds or 1,
            callers=callers,
            modes=modes or MODES,
            rates=wanted,
        )
        return Load(lineup, plan)

    execute(shared, make, render, max_length=max_length)


class Load(Benchmark):
    """The benchmark ``load``."""

    kind = "load"

    def __init__(self, lineup: Lineup, plan: Plan) -> None:
        super().__init__(lineup)
        self.plan, self.rounds = plan, plan.rounds
        self.records: dict[str, Record] = {}

    def measure(self, run: Run) -> None:
        """Open the texts in every engine, find its saturation, then try rates, interleaved."""
        with tempfile.TemporaryDirectory(prefix="fusedbert-load-") as folder:
            texts = Path(folder) / "texts.json"
            texts.write_text(json.dumps(self.plan.corpus.texts), encoding="utf-8")
            for process in run.running:
                self._open(run, process, texts)
        run.progress.write(self.announce())
        turn = 0
        while self._step(run, turn):
            turn += 1
        run.complete()

    def announce(self) -> str:
        """Return a line that says how long the sweeps take at most."""
        sweeps = [sweep for record in self.records.values() for sweep in record.sweeps.values()]
        runs, seconds = self.plan.rounds * sum(sweep.most for sweep in sweeps), self.plan.seconds
        most = duration(runs * self.plan.run_seconds)
        return f"{len(sweeps)} sweeps, at most {runs} runs of {seconds:g} s of arrivals: at most {most}, usually half of it"

    def _open(self, run: Run, process: EngineProcess, texts: Path) -> None:
        """Open an engine's texts, and keep it busy for a moment in each mode, to know which rates to try."""
        plan, patience = self.plan, run.settings.patience
        run.progress.step(f"{process.name}: looking for its saturation")
        request = {"path": str(texts), "max_length": plan.max_length, "callers": plan.callers}
        opened = process.call("load-open", timeout=patience.load, **request)
        if opened is not None:
            record = Record(alone_ms=opened["alone_ms"], callers=opened["callers"], one_caller=opened["why"])
            for mode in (mode for mode in plan.modes if mode in opened["modes"]):
                timeout = patience.visit + SATURATE_SECONDS
                found = process.call("load-saturate", timeout=timeout, mode=mode, seconds=SATURATE_SECONDS)
                if found is None:
                    break
                record.callers, record.one_caller = found.get("callers", record.callers), found.get("why", record.one_caller)
                record.sweeps[mode] = RateSweep(found["rate"], rates=plan.rates)
            else:
                self.records[process.name] = record
        run.report(process)

    def _step(self, run: Run, turn: int) -> bool:
        """Try the next rate of every sweep, round after round; return whether there was any."""
        trials: list[tuple[Trial, RatePoint]] = []
        for trial in self._sweeps(run, turn):
            *_, sweep = trial
            rate = sweep.next()
            if rate is not None:
                sweep.points.append(RatePoint(rate=rate))
                trials.append((trial, sweep.points[-1]))
        for number in range(self.rounds):
            for (process, mode, _), point in trials:
                run.progress.step(f"{process.name} {mode}, {point.rate:.3g} a second", left=self._left(run))
                self._try(run, process, mode, point, [SEED, turn, number])
        for (*_, sweep), point in trials:
            if point.outcomes:
                sweep.record(point.rate, held=point.pooled.within(self.plan.budget))
            else:  # the engine failed
                sweep.points.remove(point)
        return bool(trials) and bool(run.running)

    def _sweeps(self, run: Run, turn: int) -> Iterator[Trial]:
        """Yield the sweeps of running engines, in an order that rotates."""
        for process in round_robin([process for process in run.running if process.name in self.records], turn):
            for mode, sweep in self.records[process.name].sweeps.items():
                yield process, mode, sweep

    def _try(self, run: Run, process: EngineProcess, mode: str, point: RatePoint, seed: list[int]) -> None:
        """Run a rate once; again if it was not held while other processes kept the machine busy."""
        plan = self.plan
        limits = {"seconds": plan.seconds, "grace": plan.grace, "give_up": plan.grace + LATE * plan.budget}
        timeout = run.settings.patience.visit + plan.run_seconds
        while True:
            request = {"mode": mode, "rate": point.rate, "seed": seed, **limits}
            sample = run.sample(process, "load-run", timeout=timeout, **request)
            if sample is None:
                return
            outcome = Outcome(**{**sample.result, "latencies": np.array(sample.result["latencies"], dtype=np.float64)})
            disturbed = sample.others is not None and sample.others > BUSY
            if not disturbed or outcome.within(plan.budget) or point.dropped == RETRIES:
                break
            point.dropped += 1
            seed = [*seed, point.dropped]
        point.outcomes.append(outcome)
        point.others.append(sample.others)

    def _left(self, run: Run) -> float:
        """Estimate the seconds left if every sweep went on as long as it can."""
        points = sum(max(0, sweep.most - len(sweep.points) + 1) for *_, sweep in self._sweeps(run, 0))
        return points * self.rounds * self.plan.seconds

    def settings(self) -> dict[str, Any]:
        """Return the plan."""
        plan = self.plan
        texts = f"single texts, drawn from {plan.corpus.name} ({len(plan.corpus.texts)})"
        sizes = {"seconds": plan.seconds, "callers": plan.callers, "max_length": plan.max_length, "seed": SEED}
        lists = {"rates": list(plan.rates), "modes": list(plan.modes)}
        return {"budget_ms": 1e3 * plan.budget, **sizes, **lists, "input": texts, "timed": TIMED}

    def entry(self, process: EngineProcess) -> dict[str, Any]:
        """Return an engine's results by mode and rising rate, and the rate that it held by mode."""
        record = self.records.get(process.name)
        if record is None:
            return {"results": [], "capacity": None}
        sweeps = record.sweeps.items()
        return {
            "results": [self._result(mode, point) for mode, sweep in sweeps for point in sweep.tried],
            "capacity": {mode: sweep.bounds.rate for mode, sweep in sweeps},
            "search": {
                mode: {"rate": sweep.bounds.rate, "beyond": sweep.bounds.beyond, "saturated": sweep.saturated}
                for mode, sweep in sweeps
            },
            "alone_ms": record.alone_ms,
            "callers": record.callers,
            "one_caller": record.one_caller,
        }

    def _result(self, mode: str, point: RatePoint) -> dict[str, Any]:
        pooled = point.pooled
        return {
            "mode": mode,
            "rate": point.rate,
            **pooled.figures(),
            "within_budget": pooled.within(self.plan.budget),
            "rounds": [float(1e3 * np.percentile(each.latencies, 99)) for each in point.outcomes if len(each.latencies)],
            "others": point.others,
            "dropped": point.dropped,
        }

    def cautions(self, document: Mapping[str, Any]) -> list[str]:
        """Name what a reader should be careful about."""
        found, engines = [], document["contenders"]
        points = [
            (f"{each['name']} {entry['mode']} at {entry['rate']:.3g}/s", entry) for each in engines for entry in each["results"]
        ]
        single = [f"{each['name']} ({each['one_caller']})" for each in engines if each.get("one_caller")]
        if single:
            found.append(f"Called from one thread, because it does not take several: {name_some(single)}.")
        few = sum(entry["arrivals"] < FEW for _, entry in points)
        if few:
            found.append(
                f"{few} of {len(points)} rates had fewer than {FEW} arrivals, so their 99th percentile rests on a few of them."
            )
        limit = LATE_SHARE * document["settings"]["budget_ms"]
        late = [f"{name} ({entry['late_p99_ms']:.0f} ms)" for name, entry in points if entry["late_p99_ms"] > limit]
        if late:
            found.append(f"The sender itself was late (its 99th percentile, part of the latency): {name_some(late)}.")
        noisy = [name for name, entry in points if any(share is not None and share > BUSY for share in entry["others"])]
        if noisy:
            found.append(f"Other processes had more than {BUSY:.0%} of the CPUs: {name_some(noisy)}.")
        return found + busy_before(document)


def render(document: Mapping[str, Any]) -> str:
    """Write a document of kind ``load`` as text."""
    settings, measured = document["settings"], [each for each in document["contenders"] if each["results"]]
    parts = [
        f"{render_head(document)}\nload     {settings['input']}; {settings['seconds']:g} s a run, {settings['callers']} callers"
    ]
    if measured:
        held = [
            [
                f"{each['name']} {mode}",
                milliseconds(each["alone_ms"]),
                *(per_second(found[name]) for name in ("saturated", "rate", "beyond")),
            ]
            for each in measured
            for mode, found in each["search"].items()
        ]
        points = [
            [
                f"{each['name']} {entry['mode']}",
                *(per_second(entry[name]) for name in ("rate", "achieved")),
                *(milliseconds(entry[name]) for name in ("p50_ms", "p90_ms", "p99_ms")),
                *(str(entry[name]) for name in ("errors", "unfinished")),
                "yes" if entry["within_budget"] else "no",
            ]
            for each in measured
            for entry in each["results"]
        ]
        times = ["rate/s", "answered/s", "p50 ms", "p90 ms", "p99 ms"]
        parts += [
            f"texts per second with 99 % of them answered within {settings['budget_ms']:g} ms",
            format_table(["", "idle ms", "never idle/s", "held/s", "not held/s"], held),
            format_table(["", *times, "errors", "given up", "held"], points),
        ]
    return "\n\n".join([*parts, *render_absent(document), *document["cautions"]])
