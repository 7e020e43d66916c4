"""``fusedbert bench corpus``: a file of texts, from texts to logits, tokenizing included; engines side by side."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import click
import numpy as np
from numpy.typing import NDArray

from fusedbert.engine.text.inputs import check_items
from fusedbert.engine.text.tokenizer import TextTokenizer

from ..cli.benchmark import FILE, Benchmark, Round, execute
from ..engines.base import EngineSpec
from ..engines.registry import RANKERS
from ..report.text import PERCENTILES, engine_table, milliseconds, per_second, render_document
from ..run.interleave import EngineProcess, Run
from ..run.reference import MULTI_LABEL, OURS, REGRESSION, Checks, check_answer, open_ours
from ..run.setup import Lineup, Shared, shared_options
from ..run.stats import name_some, noise
from .texts import Corpus, accuracy, gold, length_blocks, read_corpus

SEED = 0
ALONE, AGAINST = 3, 5  # rounds
SIZES = {"cpu": (1, 2, 4, 8, 16, 32, 64), "cuda": (8, 16, 32, 64, 128, 256, 512)}
BLOCKS = 4  # of the sample on which batch sizes are tried
TRIAL_SECONDS = 2.0  # of a run of the sample, at most
SINGLES, SINGLE_WARM, SINGLE_SECONDS = 100, 3, 5.0  # one text at a time, in a round
PATIENT = 120.0  # seconds of timed runs, after which an engine sits out later rounds
SLACK = 10.0  # a run that takes this many times the expected time counts as hung
AS_DOCUMENTED = {"transformers-pipeline": 8}  # engines that run with the batch size of their documentation
INPUT = "all texts of the file in its order in every round; one at a time: a draw of them, another in every round"
TIMED = "from texts in memory to logits in memory, tokenizing included"
COLUMNS = ("texts/s", "batch", "p50 ms", "p90 ms", "p99 ms", "accuracy", "as fp32")
NOTES = (
    "p50, p90, p99: one text at a time. batch: the best, found by trial; own: it plans its own batches. "
    "as fp32: texts with the label of fusedbert-fp32."
)
Logits: TypeAlias = "NDArray[np.float32]"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """The plan of a run."""

    corpus: Corpus
    tokens: int  # of all texts after cutting
    max_length: int  # tokens at which texts are cut
    rounds: int
    device: str  # cpu or cuda
    seconds: float = 1.0  # of a turn, at least: a corpus that takes less runs several times
    batch_size: int | None = None  # of the other engines; None for the best of each
    problem_type: str = "single_label_classification"  # the model's
    labels: NDArray[np.int64] | None = None  # number of each text's label, -1 without one, [texts]; None: no accuracy

    def sizes(self, spec: EngineSpec) -> tuple[int, ...]:
        """Return the batch sizes to try: one if the engine plans its own batches or its documentation names a size."""
        if spec.is_fusedbert:
            return (32,)
        if spec.name in AS_DOCUMENTED:
            return (AS_DOCUMENTED[spec.name],)
        return SIZES[self.device] if self.batch_size is None else (self.batch_size,)


@dataclasses.dataclass
class Record:
    """The measurements of an engine so far."""

    batch_size: int | None = None  # None if it plans its own batches
    rates: dict[str, float] = dataclasses.field(default_factory=dict)  # texts per second on the sample, by batch size
    seconds: dict[int, float] = dataclasses.field(default_factory=dict)  # of all texts, by round; the median of several runs
    others: dict[int, float | None] = dataclasses.field(default_factory=dict)  # other processes' share of the CPUs, by round
    single: list[float] = dataclasses.field(default_factory=list)  # seconds of single texts, of all rounds
    spent: float = 0.0  # seconds of all runs of all texts
    logits: Logits | None = None  # of all texts


@click.command()
@click.argument("file", type=FILE)
@shared_options(rounds=f"{ALONE}, or {AGAINST} with --against")
@click.option("--text-column", metavar="NAME", help="Column of the texts; default: text, another usual name, or the first.")
@click.option("--label-column", metavar="NAME", help="Column of the labels, for the accuracy; default: label, if it exists.")
@click.option("--max-length", type=click.IntRange(3), help="Tokens at which texts are cut; default: the model's maximum.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Only the first N texts.")
@click.option("--batch-size", type=click.IntRange(1, 4096), help="Of the other engines; default: the best of each, by trial.")
def corpus(shared: Shared, file: Path, max_length: int | None, batch_size: int | None, **reading: Any) -> None:
    """Time the texts of FILE (.tsv, .csv, .jsonl, .parquet, or .txt with one a line) from text to labels.

    Texts per second over the whole file, the latency of one text at a time, the accuracy if the file has labels, and the
    share of texts with the same label as fusedbert's fp32. With --against, engines are interleaved, each in a process of its
    own and at its own best batch size, after their answers were checked.
    """
    shared.options()  # a wrong value is reported before the file is read
    texts = read_corpus(file, **reading)

    def make(lineup: Lineup) -> CorpusBenchmark:
        manifest = lineup.model.manifest
        most = max_length or manifest.max_length
        about = describe(texts, lineup.model.artifact, most)
        without = manifest.problem_type in (MULTI_LABEL, REGRESSION)  # an accuracy has no single meaning for these
        plan = Plan(
            corpus=texts,
            tokens=about["tokens"],
            max_length=most,
            rounds=shared.rounds or (AGAINST if shared.against else ALONE),
            device=lineup.model.device,
            batch_size=batch_size,
            problem_type=manifest.problem_type,
            labels=None if without else gold(texts.labels, manifest.labels),
        )
        return CorpusBenchmark(lineup, plan, about)

    execute(shared, make, render, max_length=max_length, without=RANKERS)


class CorpusBenchmark(Benchmark):
    """The benchmark ``corpus``."""

    kind, item = "corpus", "corpus"

    def __init__(self, lineup: Lineup, plan: Plan, about: Mapping[str, Any]) -> None:
        super().__init__(lineup, plan.rounds)
        self.plan, self.about = plan, about
        self.records: dict[str, Record] = {}
        self.reference: Logits | None = None

    def measure(self, run: Run) -> None:
        """Compute fusedbert's fp32 answers, find every engine's batch size, check it on the sample, and time all interleaved.

        Raises:
            EngineFailedError: fusedbert's fp32 graph failed.
        """
        with tempfile.TemporaryDirectory(prefix="fusedbert-corpus-") as name:
            texts = Path(name) / "texts.json"
            texts.write_text(json.dumps(self.plan.corpus.texts), encoding="utf-8")
            run.progress.step(f"{OURS}: the answers that all are compared with")
            self.reference = reference_logits(run, self.plan, texts)
            for process in run.running:
                self._open(run, process, texts, self.reference)
            self._time(run, Path(name))

    def _open(self, run: Run, process: EngineProcess, texts: Path, reference: Logits) -> None:
        """Open an engine's texts, try batch sizes, and compare its answers with fusedbert's fp32."""
        plan, patience, sizes = self.plan, run.settings.patience, self.plan.sizes(process.spec)
        record = self.records[process.name] = Record()
        run.progress.step(f"{process.name}: {'warming up' if len(sizes) == 1 else 'looking for its best batch size'}")
        if process.call("corpus-open", timeout=patience.load, path=str(texts), max_length=plan.max_length) is not None:
            blocks = length_blocks(plan.corpus.texts, max(sizes), BLOCKS)
            request = {"blocks": blocks, "sizes": sizes, "seconds": TRIAL_SECONDS}
            found = process.call("corpus-trial", timeout=patience.visit * len(sizes), **request)
            if found is not None:
                record.rates = found["rates"]
                record.batch_size = None if process.spec.is_fusedbert else found["batch_size"]
                checks = Checks.of_logits(reference[found["indices"]], plan.problem_type)
                check_answer(process, found["logits"], checks, "on the corpus, ")
        run.report(process)

    def _time(self, run: Run, folder: Path) -> None:
        """Go round after round; the first one brings the logits too."""
        plan, random, count = self.plan, np.random.default_rng(SEED), len(self.plan.corpus.texts)
        drawn = [_draw(random, count) for _ in range(plan.rounds)]

        def visit(process: EngineProcess, _item: str, number: int) -> None:
            record = self.records[process.name]
            if record.spent > PATIENT:
                return
            file = folder / f"{list(self.records).index(process.name)}.npy" if record.logits is None else None
            timeout = run.settings.patience.visit + SLACK * count / max(record.rates.values(), default=1.0)
            request = {"batch_size": record.batch_size or 32, "least": plan.seconds, "logits": file and str(file)}
            sample = run.sample(process, "corpus-run", timeout=timeout, **request)
            if sample is None:
                return
            record.seconds[number], record.others[number] = float(np.median(sample.result["seconds"])), sample.others
            record.spent += sum(sample.result["seconds"])
            if file is not None:
                record.logits = np.load(file, allow_pickle=False)
            single = run.sample(process, "corpus-single", indices=drawn[number], warm=SINGLE_WARM, limit=SINGLE_SECONDS)
            if single is not None:
                record.single += single.result["seconds"]

        run.interleave([plan.corpus.name], plan.rounds, visit)

    def settings(self) -> dict[str, Any]:
        """Return the plan."""
        plan = self.plan
        limits = {"seconds": plan.seconds, "max_length": plan.max_length, "batch_size": plan.batch_size}
        return {**limits, "seed": SEED, "input": INPUT, "timed": TIMED}

    def entry(self, process: EngineProcess) -> dict[str, Any]:
        """Return an engine's results; none if it has run nothing to the end."""
        record = self.records.get(process.name, Record())
        return {"results": [self.result(record)] if record.seconds else []}

    def result(self, record: Record) -> dict[str, Any]:
        """Return the document's result of an engine."""
        plan, count, rounds = self.plan, len(self.plan.corpus.texts), sorted(record.seconds)
        rates = [count / record.seconds[number] for number in rounds]
        others = [record.others[number] for number in rounds]
        middle = float(np.median(rates))
        times = [1e3 * seconds for seconds in record.single]
        single = np.percentile(times, [50, 90, 99]).tolist() if times else [None] * 3
        return {
            "corpus": plan.corpus.name,
            "texts": count,
            "batch_size": record.batch_size,
            "texts_per_second": middle,
            "tokens_per_second": middle * plan.tokens / count,
            **dict(zip(PERCENTILES, single, strict=True)),
            "samples": len(record.single),
            "accuracy": accuracy(record.logits, plan.labels),
            **agreement(record.logits, self.reference, multi_label=plan.problem_type == MULTI_LABEL),
            "tried": record.rates if record.batch_size is not None else {},
            "spent_s": record.spent,
            "rounds": rates,
            "round_numbers": rounds,
            "others": others,
            "noisy": noise([1.0 / rate for rate in rates], others),
        }

    def rounds_of(self, result: Mapping[str, Any]) -> Iterator[Round]:
        """Yield the seconds a text of each round."""
        return zip(result["round_numbers"], (1.0 / rate for rate in result["rounds"]), result["noisy"], strict=True)

    def more(self) -> dict[str, Any]:
        """Return the description of the corpus."""
        return {"corpus": self.about}

    def cautions(self, document: Mapping[str, Any]) -> list[str]:
        """Name rows and rounds that were left out, a missing accuracy, and noisy rounds."""
        about, rounds, found = document["corpus"], document["settings"]["rounds"], []
        results = [(each["name"], result) for each in document["contenders"] for result in each["results"]]
        if about["skipped"]:
            found.append(f"{about['skipped']} rows without a usable text were left out.")
        if about["label_column"] is not None and results and all(result["accuracy"] is None for _, result in results):
            found.append(f"No accuracy: the values of {about['label_column']!r} are not the model's labels.")
        found += super().cautions(document)
        late = [(name, len(result["rounds"])) for name, result in results if result["spent_s"] > PATIENT]
        if slow := [f"{name} ({count})" for name, count in late if count < rounds]:
            found.append(f"Fewer rounds than {rounds}, because {PATIENT:.0f} s of them were spent: {name_some(slow)}.")
        return found


def reference_logits(run: Run, plan: Plan, texts: Path) -> Logits:
    """Run all texts through fusedbert's fp32 graph, in a separate process, on the CPU; float32 [texts, labels]."""
    patience, file = run.settings.patience, texts.with_name("reference.npy")
    with open_ours(run) as worker:
        worker.call("corpus-open", timeout=patience.load, path=str(texts), max_length=plan.max_length)
        timeout = patience.visit + len(plan.corpus.texts)  # a second a text is slower than any machine
        worker.call("corpus-run", timeout=timeout, batch_size=8, least=0.0, logits=str(file))
    logits: Logits = np.load(file, allow_pickle=False)
    return logits


def _draw(random: np.random.Generator, count: int) -> list[int]:
    """Draw the texts that run one at a time in a round, the same for every engine; others in every round."""
    wanted = SINGLES + SINGLE_WARM
    drawn = random.permutation(count)[:wanted] if count >= wanted else random.integers(0, count, wanted)
    return [int(index) for index in drawn]


def agreement(logits: Logits | None, reference: Logits | None, *, multi_label: bool) -> Mapping[str, float | None]:
    """Compare with fusedbert's fp32: the share of texts with the same label, and the largest difference of a logit."""
    if logits is None or reference is None or logits.shape != reference.shape:
        return {"label_agreement": None, "max_abs_logit": None}
    same = ((logits > 0) == (reference > 0)).all(axis=1) if multi_label else logits.argmax(axis=1) == reference.argmax(axis=1)
    return {"label_agreement": float(same.mean()), "max_abs_logit": float(np.abs(logits - reference).max())}


def describe(corpus: Corpus, artifact: Path, max_length: int) -> dict[str, Any]:
    """Return the document's ``corpus``: the number of texts and tokens, and of texts that are cut."""
    rows = TextTokenizer.load(artifact, max_length).encode(check_items(corpus.texts))
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


def render(document: Mapping[str, Any]) -> str:
    """Write a document of kind ``corpus`` as text."""
    about = document["corpus"]
    line = (
        f"corpus   {about['name']}: {about['texts']} texts, {about['tokens']} tokens (median {about['tokens_median']:.0f}, "
        f"most {about['tokens_most']}), {about['truncated']} cut at {document['settings']['max_length']}"
    )
    return render_document(document, engine_table(document, COLUMNS, _cells, notes=NOTES, time="for the file"), line)


def _cells(result: Mapping[str, Any]) -> list[str]:
    return [
        per_second(result["texts_per_second"]),
        str(result["batch_size"] or "own"),
        *(milliseconds(result[name]) for name in PERCENTILES),
        *("-" if result[name] is None else f"{result[name]:.2%}" for name in ("accuracy", "label_agreement")),
    ]
