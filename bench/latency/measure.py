"""``fusedbert bench latency``: the latency of engines by shape, from token ids to logits."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from ..cli.benchmark import Benchmark, Round, execute
from ..engines.batches import DEFAULT_SHAPES, Shape, parse_shapes, refuse_longer
from ..engines.registry import RANKERS
from ..report.text import PERCENTILES, format_table, interval, milliseconds, pivot, render_document
from ..run.interleave import EngineProcess, Run, RunSettings
from ..run.parts import not_measured
from ..run.process import EngineFailedError, Worker
from ..run.setup import Lineup, Shared, Size, shared_options
from ..run.stats import name_some, noise, summarize
from .roofline import SECONDS, Roofline, measure_roofline

SEED = 0
ALONE, AGAINST = (3, 1.0, 20), (9, 0.25, 3)  # rounds, seconds of a visit, iterations of a visit
TEXT_ONLY = ("transformers-pipeline",)  # begins with a text: `bench corpus`
OVERHEAD_TOKENS = 16
INPUT = "random word pieces of the model's vocabulary between [CLS] and [SEP], new in every iteration, no padding"
TIMED = "from token ids in memory to logits in memory"
_PER_SHAPE = 4.0  # a visit that takes this many times its share or more counts as hung
_PER_TOKEN = 0.05  # seconds more for each token of a batch: one of 8,192 may take half a minute


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """Duration of the measurement."""

    shapes: tuple[Shape, ...]  # in the order of every round
    rounds: int  # visits to each shape
    seconds: float  # of a visit, at least
    samples: int  # iterations of a visit, at least; a slow engine may have fewer


@dataclasses.dataclass(frozen=True, kw_only=True)
class Visit:
    """One visit of an engine to a shape."""

    number: int  # of the round, from 0
    seconds: Sequence[float]  # of each sample
    warm_up: dict[str, Any]
    others: float | None  # share of the CPUs that other processes had; None if unknown


@click.command()
@shared_options(rounds="3, or 9 with --against")
@click.option("--shapes", default=DEFAULT_SHAPES, show_default=True, metavar="LIST", help="BATCHxTOKENS, with commas between.")
@click.option("--seconds", type=click.FloatRange(0.001, 60), help="Seconds for a visit to a shape (1, or 0.25 with --against).")
def latency(shared: Shared, shapes: str, seconds: float | None) -> None:
    """Time the graph by shape, from token ids to logits, on new random tokens in every iteration.

    With --against, engines are interleaved, each in its own process, after their logits were checked; the ratio of
    fusedbert's time to another engine's is the median of the rounds with its 95 % interval.
    """
    wanted = parse_shapes(shapes)
    rounds, usual, samples = AGAINST if shared.against else ALONE
    plan = Plan(shapes=wanted, rounds=shared.rounds or rounds, seconds=seconds or usual, samples=samples)

    def make(lineup: Lineup) -> Latency:
        refuse_longer(wanted, lineup.model.manifest.max_length)
        return Latency(lineup, plan)

    execute(shared, make, render, without=(*TEXT_ONLY, *RANKERS))


class Latency(Benchmark):
    """The benchmark ``latency``, with the roofline before and after it, and the overhead of a ``Classifier``."""

    kind, item = "latency", "shape"
    task = "latency"  # of the engine's process
    input, timed = INPUT, TIMED

    def __init__(self, lineup: Lineup, plan: Plan) -> None:
        super().__init__(lineup, plan.rounds)
        self.plan, self.shapes = plan, plan.shapes
        self.visits: dict[str, dict[Shape, list[Visit]]] = {}  # by engine and shape
        self._roofline: Roofline | None = None
        self._overhead: dict[str, Any] | None = None

    def run_settings(self) -> RunSettings:
        """Name the shapes, for engines that have a process for each."""
        return dataclasses.replace(super().run_settings(), shapes=tuple(self.shapes))

    def before(self, run: Run) -> None:
        """Measure the roofline."""
        run.progress.step("measuring the roofline")
        self._roofline = self._measure_roofline(run)

    def measure(self, run: Run) -> None:
        """Visit every shape with every engine; then measure the roofline again, and the overhead."""
        plan, places = self.plan, {shape: index for index, shape in enumerate(self.plan.shapes)}

        def visit(process: EngineProcess, shape: Shape, number: int) -> None:
            request = {"seed": [SEED, number, places[shape]], "seconds": plan.seconds, "samples": plan.samples}
            tokens = shape.batch * shape.tokens
            timeout = run.settings.patience.visit + _PER_SHAPE * plan.seconds + _PER_TOKEN * tokens
            sample = run.sample(process, self.task, timeout=timeout, **dataclasses.asdict(shape), **request, **self.request())
            if sample is not None:
                made = Visit(number=number, others=sample.others, **sample.result)
                self.visits.setdefault(process.name, {}).setdefault(shape, []).append(made)

        run.interleave(plan.shapes, plan.rounds, visit)
        if any(process.spec.is_fusedbert for process in run.running) and self._roofline is not None:
            run.progress.step("measuring the roofline again")
            self._roofline = self._roofline.or_better(self._measure_roofline(run))
            self._overhead = self._measure_overhead(run)

    def request(self) -> dict[str, Any]:
        """Return what else the task needs."""
        return {}

    def settings(self) -> dict[str, Any]:
        """Return the plan."""
        plan = self.plan
        durations = {"seconds": plan.seconds, "samples": plan.samples, "seed": SEED}
        return {"shapes": [str(shape) for shape in plan.shapes], **durations, "input": self.input, "timed": self.timed}

    def entry(self, process: EngineProcess) -> dict[str, Any]:
        """Return an engine's results by shape."""
        size = self.lineup.model.size
        return {"results": results(self.visits.get(process.name, {}), process.spec.precision, self._roofline, size)}

    def rounds_of(self, result: Mapping[str, Any]) -> Iterator[Round]:
        """Yield the median of each round."""
        return ((visit["round"], visit["p50_ms"], visit["noisy"]) for visit in result["rounds"])

    def more(self) -> dict[str, Any]:
        """Return the roofline and the overhead."""
        return {"ceiling": None if self._roofline is None else self._roofline.entry(), "overhead": self._overhead}

    def cautions(self, document: Mapping[str, Any]) -> list[str]:
        """Name shapes that failed or whose warm-up did not settle, noisy rounds, and shares of the ceiling above 100 %."""
        restless, above = [], []
        entries = [(f"{each['name']} {entry['shape']}", entry) for each in document["contenders"] for entry in each["results"]]
        for name, entry in entries:
            if not all(visit["warm_up"]["converged"] for visit in entry["rounds"]):
                restless.append(name)
            if (entry["share_of_ceiling"] or 0) > 1:
                above.append(f"{name} ({entry['share_of_ceiling']:.0%})")
        found = super().cautions(document)
        if restless:
            found.insert(0, f"Still changing when the warm-up ran out of time, so read with care: {name_some(restless)}.")
        for absent in (each for engine in document["contenders"] for each in not_measured(engine)):
            found.insert(0, f"Not measured to the end: {absent}.")
        if above:
            found.append(f"Above the measured ceiling: work was left out, or the ceiling is too low: {name_some(above)}.")
        return found

    def _measure_roofline(self, run: Run) -> Roofline:
        model, seconds = self.lineup.model, min(SECONDS, 2 * self.plan.seconds)
        return measure_roofline(model.device, model.threads, run.variables(self.lineup.own[0]), seconds=seconds)

    def _measure_overhead(self, run: Run) -> dict[str, Any] | None:
        """Time a Classifier against its bare session, in fusedbert's last entry, the fastest; None if that failed."""
        run.progress.step("measuring the overhead of a Classifier")
        spec, model = self.lineup.own[-1], self.lineup.model
        options = {"device": model.device, "precision": spec.precision, "threads": model.threads}
        request = {"artifact": str(model.artifact), "tokens": OVERHEAD_TOKENS, "seconds": min(2.0, 8 * self.plan.seconds)}
        timeout = run.settings.patience.visit
        try:
            with Worker(None, run.variables(self.lineup.own[0])) as worker:
                return {"contender": spec.name, **worker.call("overhead", timeout=timeout, **options, **request)}
        except EngineFailedError as error:
            run.progress.write(f"the overhead could not be measured: {error}")
            return None


def results(
    visits: Mapping[Shape, list[Visit]], precision: str, roofline: Roofline | None, size: Size | None
) -> list[dict[str, Any]]:
    """Return an engine's ``results``: for each shape the figures over the samples of all rounds, and each round's."""
    entries = []
    for shape, made in visits.items():
        total = summarize([each for visit in made for each in visit.seconds], batch=shape.batch)
        single = [summarize(visit.seconds, batch=shape.batch) for visit in made]
        reasons = noise([each.p50_ms for each in single], [visit.others for visit in made])
        share = None if roofline is None or size is None else roofline.share(size.flops(shape), total.p50_ms / 1e3, precision)
        rounds = [
            {"round": visit.number, **dataclasses.asdict(each), "warm_up": visit.warm_up, "others": visit.others, "noisy": why}
            for visit, each, why in zip(made, single, reasons, strict=True)
        ]
        figures = {**dataclasses.asdict(shape), **dataclasses.asdict(total), "share_of_ceiling": share}
        entries.append({"shape": str(shape), **figures, "rounds": rounds})
    return entries


def render(document: Mapping[str, Any]) -> str:
    """Write a document of kind ``latency`` as text."""
    parts = []
    measured = [each for each in document["contenders"] if each["results"]]
    if len(measured) == 1 and len(document["contenders"]) == 1:
        parts.append(_alone(measured[0]))
    elif measured:
        parts.append(_side_by_side(document, measured))
        parts += [_against(document, ours) for ours in dict.fromkeys(each["ours"] for each in document["ratios"])]
    if overhead := document.get("overhead"):
        parts.append(
            f"one text of {overhead['tokens']} tokens, {overhead['contender']}: Classifier {overhead['text_us']:.0f} us, bare "
            f"session {overhead['session_us']:.0f} us, overhead {overhead['overhead_us']:.0f} us with tokenizing"
        )
    return render_document(document, parts)


def _alone(contender: Mapping[str, Any]) -> str:
    about = f"{contender['name']}: {contender['precision']} on {contender['device']}, {contender['threads']} threads"
    about += f"\n({contender['why']})" if contender["why"] else ""
    rows = []
    for entry in contender["results"]:
        times = (milliseconds(entry[name]) for name in PERCENTILES)
        rate, share = f"{entry['sequences_per_second']:.0f}", _percent(entry["share_of_ceiling"])
        rows.append([entry["shape"], *times, rate, share, str(entry["samples"])])
    table = format_table(["shape", "p50 ms", "p90 ms", "p99 ms", "seq/s", "ceiling", "samples"], rows)
    return f"{about}\n\n{table}"


def _side_by_side(document: Mapping[str, Any], measured: Sequence[Mapping[str, Any]]) -> str:
    cells = {
        (each["name"], entry["shape"]): f"{milliseconds(entry['p50_ms'])} {_percent(entry['share_of_ceiling']):>4}"
        for each in measured
        for entry in each["results"]
    }
    shapes, rows = pivot(cells)
    title = f"p50 in ms, and the share of the ceiling of its precision; {document['settings']['threads']} threads each"
    return f"{title}\n\n{format_table(['', *shapes], rows)}"


def _against(document: Mapping[str, Any], ours: str) -> str:
    ratios = {(each["peer"], each["shape"]): interval(each, "median") for each in document["ratios"] if each["ours"] == ours}
    summary = [each for each in document["summary"] if each["ours"] == ours]
    columns, rows = pivot(ratios | {(each["peer"], "geometric mean"): interval(each, "geometric_mean") for each in summary})
    title = f"{ours} over each peer: time ratio, median of paired rounds with its 95 % interval (below 1: {ours} is faster)"
    return f"{title}\n\n{format_table(['', *columns], rows)}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"
