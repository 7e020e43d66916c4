"""``fusedbert bench load``: latency of single texts that arrive at rising rates, and the rate that a latency budget allows."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..cli.benchmark import Benchmark
from ..corpus.texts import Corpus
from ..report.text import PERCENTILES, format_table, milliseconds, per_second, render_document
from ..run.interleave import EngineProcess, Run, Sample, duration, round_robin
from ..run.setup import Lineup
from ..run.stats import BUSY, name_some
from .open_loop import Outcome, pool
from .sweep import RatePoint, RateSweep

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

    alone_ms: float  # median time of a text while nothing else runs; over HTTP, of the smallest request
    callers: int  # threads that call it in plain mode
    one_caller: str = ""  # why there is only one, or empty
    sweeps: dict[str, RateSweep] = dataclasses.field(default_factory=dict)  # by mode
    alone: dict[str, float] = dataclasses.field(default_factory=dict)  # over HTTP: as alone_ms, by mode


class Load(Benchmark):
    """The benchmark ``load``."""

    kind = "load"
    timed: ClassVar[str] = TIMED
    again: ClassVar[int] = 0  # runs at a rate that are thrown away if it was not held, on a quiet machine too

    def __init__(self, lineup: Lineup, plan: Plan) -> None:
        super().__init__(lineup, plan.rounds)
        self.plan = plan
        self.records: dict[str, Record] = {}

    def measure(self, run: Run) -> None:
        """Open the texts in every engine, find its saturation, then try rates, interleaved."""
        with tempfile.TemporaryDirectory(prefix="fusedbert-load-") as folder:
            texts = Path(folder) / "texts.json"
            texts.write_text(json.dumps(self.plan.corpus.texts), encoding="utf-8")
            for process in run.running:
                self._open(run, process, texts)
        self.search(run)

    def search(self, run: Run) -> None:
        """Try rates until every sweep is at its end."""
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
        sizes = {"max_length": plan.max_length, "callers": plan.callers}
        opened = process.call("load-open", timeout=patience.load, path=str(texts), **sizes)
        if opened is not None:
            record = Record(alone_ms=opened["alone_ms"], callers=plan.callers)
            for mode in (mode for mode in plan.modes if mode in opened["modes"]):
                timeout = patience.visit + SATURATE_SECONDS
                found = process.call("load-saturate", timeout=timeout, mode=mode, seconds=SATURATE_SECONDS)
                if found is None:
                    break
                record.callers, record.one_caller = found["callers"], found["why"]
                record.sweeps[mode] = RateSweep(found["rate"], rates=plan.rates)
            else:
                self.records[process.name] = record
        run.report(process)

    def _step(self, run: Run, turn: int) -> bool:
        """Try the next rate of every sweep, round after round; return whether there was any."""
        trials = []
        for process, mode, sweep in self._sweeps(run, turn):
            if (point := sweep.next()) is not None:
                trials.append((process, mode, sweep, point))
        for number in range(self.rounds):
            for process, mode, _, point in trials:
                run.progress.step(f"{process.name} {mode}, {point.rate:.3g} a second", left=self._left(run))
                self._try(run, process, mode, point, [SEED, turn, number])
        for *_, sweep, point in trials:
            if point.outcomes:
                point.held = pool(point.outcomes).within(self.plan.budget)
            else:  # the engine failed
                sweep.points.remove(point)
        return bool(trials) and bool(run.running)

    def _sweeps(self, run: Run, turn: int) -> Iterator[tuple[EngineProcess, str, RateSweep]]:
        """Yield each running engine with its modes and their sweeps, in an order that rotates."""
        for process in round_robin([process for process in run.running if process.name in self.records], turn):
            for mode, sweep in self.records[process.name].sweeps.items():
                yield process, mode, sweep

    def _try(self, run: Run, process: EngineProcess, mode: str, point: RatePoint, seed: list[int]) -> None:
        """Run a rate once; again if it was not held while other processes kept the machine busy."""
        plan = self.plan
        while True:
            sample = self.sample(run, process, mode, point.rate, seed)
            if sample is None:
                return
            outcome = self.outcome({**sample.result, "latencies": np.array(sample.result["latencies"], dtype=np.float64)})
            most = RETRIES if (sample.others or 0.0) > BUSY else self.again
            if outcome.within(plan.budget) or point.dropped >= most:
                break
            point.dropped += 1
            seed = [*seed, point.dropped]
        point.outcomes.append(outcome)
        point.others.append(sample.others)

    def sample(self, run: Run, process: EngineProcess, mode: str, rate: float, seed: list[int]) -> Sample | None:
        """Run a rate in the engine's process; None if the engine failed."""
        plan = self.plan
        limits = {"seconds": plan.seconds, "grace": plan.grace, "give_up": plan.grace + LATE * plan.budget}
        timeout = run.settings.patience.visit + plan.run_seconds
        return run.sample(process, "load-run", timeout=timeout, mode=mode, rate=rate, seed=seed, **limits)

    def outcome(self, fields: dict[str, Any]) -> Outcome:
        """Make the outcome of a run of its fields."""
        return Outcome(**fields)

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
        return {"budget_ms": 1e3 * plan.budget, **sizes, **lists, "input": texts, "timed": self.timed}

    def entry(self, process: EngineProcess) -> dict[str, Any]:
        """Return an engine's results by mode and rising rate, and the rate that it held by mode."""
        record = self.records.get(process.name)
        if record is None:
            return {"results": [], "capacity": None}
        results, search = [], {}
        for mode, sweep in record.sweeps.items():
            rising = sorted(sweep.points, key=lambda point: point.rate)
            results += [self.result(mode, point) for point in rising if point.outcomes]
            search[mode] = {"rate": sweep.bounds.rate, "beyond": sweep.bounds.beyond, "saturated": sweep.saturated}
            search[mode] |= {"alone_ms": record.alone[mode]} if mode in record.alone else {}
        capacity = {mode: found["rate"] for mode, found in search.items()}
        about = {"alone_ms": record.alone_ms, "callers": record.callers, "one_caller": record.one_caller}
        return {"results": results, "capacity": capacity, "search": search, **about}

    def result(self, mode: str, point: RatePoint) -> dict[str, Any]:
        """Return the document's entry of a rate."""
        pooled = pool(point.outcomes)
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
        """Name engines with one caller, and rates with few arrivals, a late sender, or busy other processes."""
        found, engines = [], document["contenders"]
        points = [(f"{each['name']} {one['mode']} at {one['rate']:.3g}/s", one) for each in engines for one in each["results"]]
        if single := [f"{each['name']} ({each['one_caller']})" for each in engines if each.get("one_caller")]:
            found.append(f"Called from one thread, because it does not take several: {name_some(single)}.")
        if few := sum(point["arrivals"] < FEW for _, point in points):
            shares = f"{few} of {len(points)} rates had fewer than {FEW} arrivals"
            found.append(f"{shares}, so their 99th percentile rests on a few of them.")
        limit = LATE_SHARE * document["settings"]["budget_ms"]
        if late := [f"{name} ({point['late_p99_ms']:.0f} ms)" for name, point in points if point["late_p99_ms"] > limit]:
            found.append(f"The sender itself was late (its 99th percentile, part of the latency): {name_some(late)}.")
        if noisy := [name for name, point in points if any((share or 0.0) > BUSY for share in point["others"])]:
            found.append(f"Other processes had more than {BUSY:.0%} of the CPUs: {name_some(noisy)}.")
        return found


def render(document: Mapping[str, Any]) -> str:
    """Write a document of kind ``load`` as text."""
    settings, measured = document["settings"], [each for each in document["contenders"] if each["results"]]
    about = f"load     {settings['input']}; {settings['seconds']:g} s a run, {settings['callers']} callers"
    held, points = [], []
    for each in measured:
        for mode, found in each["search"].items():
            rates = (per_second(found[name]) for name in ("saturated", "rate", "beyond"))
            held.append([f"{each['name']} {mode}", milliseconds(found.get("alone_ms", each["alone_ms"])), *rates])
        for entry in each["results"]:
            rates = (per_second(entry[name]) for name in ("rate", "achieved"))
            times = (milliseconds(entry[name]) for name in PERCENTILES)
            lost = (str(entry[name]) for name in ("errors", "unfinished"))
            kept = "yes" if entry["within_budget"] else "no"
            points.append([f"{each['name']} {entry['mode']}", *rates, *times, *lost, kept])
    tables = [
        f"{settings.get('unit', 'texts')} per second with 99 % of them answered within {settings['budget_ms']:g} ms",
        format_table(["", "idle ms", "never idle/s", "held/s", "not held/s"], held),
        format_table(["", "rate/s", "answered/s", "p50 ms", "p90 ms", "p99 ms", "errors", "given up", "held"], points),
    ]
    return render_document(document, tables if measured else [], about)
