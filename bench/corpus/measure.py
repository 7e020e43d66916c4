"""Measuring contenders on a corpus: from texts to logits, tokenizing included, in turns."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..engines.registry import Kind, kind_of
from ..run.interleave import Field, Lane, Status, worker_variables
from ..run.process import Worker
from ..run.reference import OURS, Checks, judge
from .texts import Corpus, evenly

SEED = 0
SIZES = {"cpu": (1, 2, 4, 8, 16, 32, 64), "cuda": (8, 16, 32, 64, 128, 256, 512)}
BLOCKS = 4  # of the sample on which batch sizes are tried
TRIAL_SECONDS = 2.0  # of a run of the sample, at most
SINGLES, SINGLE_WARM, SINGLE_SECONDS = 100, 3, 5.0  # one text at a time, in a round
PATIENT = 120.0  # seconds of timed runs, after which a contender sits out later rounds
SLACK = 10.0  # a run that takes this many times as long as expected counts as hung
AS_DOCUMENTED = {"transformers-pipeline": 8}  # contenders that stand for how their documentation calls them
Logits: TypeAlias = "NDArray[np.float32]"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What to measure.

    Attributes:
        corpus: The texts.
        max_length: Tokens at which they are cut.
        rounds: How often it is each contender's turn.
        seconds: Of a turn, at least: where all texts take less, they run several times.
        device: ``cpu`` or ``cuda``.
        batch_size: The peers' batch size; None for the best of each.
        multi_label: Whether each logit is a decision of its own.
        by_order: Whether the model is a regression.
    """

    corpus: Corpus
    max_length: int
    rounds: int
    device: str
    seconds: float = 1.0
    batch_size: int | None = None
    multi_label: bool = False
    by_order: bool = False


@dataclasses.dataclass
class Run:
    """What a contender brought so far; filled as it goes.

    Attributes:
        batch_size: The one that it runs with; None where it plans its batches itself.
        rates: Texts per second on the sample, by batch size.
        seconds: Of all texts, by round: the median, where they ran several times in it.
        others: Share of the CPUs that other processes had meanwhile, by round.
        single: Seconds of single texts, of all rounds.
        spent: Seconds of all runs of all texts.
        logits: Of all texts.
    """

    batch_size: int | None = None
    rates: dict[str, float] = dataclasses.field(default_factory=dict)
    seconds: dict[int, float] = dataclasses.field(default_factory=dict)
    others: dict[int, float | None] = dataclasses.field(default_factory=dict)
    single: list[float] = dataclasses.field(default_factory=list)
    spent: float = 0.0
    logits: Logits | None = None


Runs = dict[str, Run]


def measure(field: Field, plan: Plan, runs: Runs, found: dict[str, Logits]) -> None:
    """Compute our fp32 answers, find every contender's batch size, check it on the sample, and time all in turns.

    Args:
        field: The contenders, started and checked.
        plan: What to measure.
        runs: Filled as it goes, so that a break leaves what there is.
        found: Gets ``reference``, the logits of our fp32 graph, float32 [texts, labels].

    Raises:
        ContenderFailedError: Our fp32 graph, against which all are held, failed.
    """
    with tempfile.TemporaryDirectory(prefix="fusedbert-corpus-") as name:
        folder = Path(name)
        texts = folder / "texts.json"
        texts.write_text(json.dumps(plan.corpus.texts), encoding="utf-8")
        field.progress.step(f"{OURS}: the answers that all are held against")
        reference = found["reference"] = reference_logits(field, plan, texts, folder / "reference.npy")
        for lane in field.running:
            _open(field, lane, plan, texts, reference, runs.setdefault(lane.name, Run()))
        _time(field, plan, runs, folder)


def reference_logits(field: Field, plan: Plan, texts: Path, file: Path) -> Logits:
    """Run all texts through our fp32 graph, in a process of its own, on the CPU."""
    setting, patience, kind = field.setting, field.setting.patience, kind_of(OURS)
    job = {**setting.job.to_json(), "device": "cpu"}
    with Worker.start(None, worker_variables(kind, setting, field.packages)) as worker:
        worker.call("prepare", timeout=patience.prepare, contender=OURS, job=job)
        worker.call("load", timeout=patience.load, tokenizer=str(setting.job.artifact))
        worker.call("corpus", timeout=patience.load, step="open", path=str(texts), max_length=plan.max_length)
        timeout = patience.visit + len(plan.corpus.texts)  # a second a text is slower than any machine
        worker.call("corpus", timeout=timeout, step="run", batch_size=8, least=0.0, logits=str(file))
    found: Logits = np.load(file, allow_pickle=False)
    return found


def _open(field: Field, lane: Lane, plan: Plan, texts: Path, reference: Logits, run: Run) -> None:
    """Give a contender its texts, try batch sizes, and hold what it answers against our fp32."""
    patience = field.setting.patience
    sizes = sizes_of(lane.kind, plan)
    field.progress.step(f"{lane.name}: warming up" if len(sizes) == 1 else f"{lane.name}: looking for its best batch size")
    opened = lane.call("corpus", timeout=patience.load, step="open", path=str(texts), max_length=plan.max_length)
    if opened is not None:
        blocks = length_blocks(plan.corpus.texts, max(sizes), BLOCKS)
        timeout = patience.visit * len(sizes)
        found = lane.call("corpus", timeout=timeout, step="trial", blocks=blocks, sizes=sizes, seconds=TRIAL_SECONDS)
        if found is not None:
            run.rates = found["rates"]
            run.batch_size = None if plans_itself(lane.kind) else found["batch_size"]
            verdict = judge([found["logits"]], _checks(reference[found["indices"]], plan), lane.kind.tolerance)
            if not verdict.right:
                lane.end(Status.WRONG, f"on the corpus, {verdict.why}")
    if not lane.running:
        field.progress.say(f"{lane.name} {lane.status}: {lane.why}")


def plans_itself(kind: Kind) -> bool:
    """Tell whether a contender cuts its batches itself, whatever size it is told: ours."""
    return kind.engine == "fusedbert"


def sizes_of(kind: Kind, plan: Plan) -> tuple[int, ...]:
    """Return the batch sizes to try: one, where a contender plans its own or its documentation names one."""
    if plans_itself(kind):
        return (32,)
    if kind.name in AS_DOCUMENTED:
        return (AS_DOCUMENTED[kind.name],)
    return (plan.batch_size,) if plan.batch_size is not None else SIZES[plan.device]


def length_blocks(texts: Sequence[str], size: int, count: int) -> list[list[int]]:
    """Take a sample of a corpus that sorts by length as the whole does: blocks of neighbours in length, evenly spread.

    A sample drawn text by text has greater steps in length between neighbours, so large batches of it have more padding
    than they have in the whole.

    Args:
        texts: The corpus.
        size: Texts of a block.
        count: Blocks at most.

    Returns:
        Indices of the texts of each block, shorter texts first.

    Example:
        >>> length_blocks(["ccc", "a", "dddd", "bb"], 2, 9)
        [[1, 3], [0, 2]]
    """
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    blocks = [order[start : start + size] for start in range(0, len(order), size)]
    whole = [block for block in blocks if len(block) == size] or blocks  # a last short one is too small a batch to learn from
    return [whole[index] for index in evenly(len(whole), count)]


def _time(field: Field, plan: Plan, runs: Runs, folder: Path) -> None:
    """Go round after round; the first brings the logits too."""
    singles = np.random.default_rng(SEED)
    chosen = [_draw(singles, len(plan.corpus.texts)) for _ in range(plan.rounds)]

    def visit(lane: Lane, _item: Corpus, number: int) -> None:
        run = runs[lane.name]
        if run.spent > PATIENT:
            return
        file = folder / f"{len(runs)}-{list(runs).index(lane.name)}.npy" if run.logits is None else None
        rate = max(run.rates.values(), default=1.0)
        timeout = field.setting.patience.visit + SLACK * len(plan.corpus.texts) / rate
        size = run.batch_size or 32
        asked = {"step": "run", "batch_size": size, "least": plan.seconds, "logits": file and str(file)}
        found = field.visit(lane, "corpus", timeout=timeout, **asked)
        if found is None:
            return
        run.seconds[number], run.others[number] = float(np.median(found.result["seconds"])), found.others
        run.spent += sum(found.result["seconds"])
        if file is not None:
            run.logits = np.load(file, allow_pickle=False)
        alone = field.visit(
            lane, "corpus", step="single", indices=chosen[number], warm=SINGLE_WARM, limit=SINGLE_SECONDS, timeout=None
        )
        if alone is not None:
            run.single += alone.result["seconds"]

    field.turns([plan.corpus], plan.rounds, visit)


def _draw(random: np.random.Generator, count: int) -> list[int]:
    """Draw the texts that run one at a time in a round, the same for every contender; other ones in every round."""
    wanted = SINGLES + SINGLE_WARM
    return [
        int(index) for index in (random.permutation(count)[:wanted] if count >= wanted else random.integers(0, count, wanted))
    ]


def _checks(reference: Logits, plan: Plan) -> Checks:
    """Wrap our fp32 logits as a reference."""
    return Checks(
        batches=(),
        counted=(len(reference),),
        pad=0,
        reference=reference.astype(np.float64),
        computed_by=OURS,
        multi_label=plan.multi_label,
        by_order=plan.by_order,
    )
