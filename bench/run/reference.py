"""The check of every engine before it is timed: its logits are compared with a reference.

The texts are those that an export is checked with, in batches of mixed lengths, so that an ignored mask shows, and random
texts in the shapes that are timed. The reference is the exporter's float64 forward pass, or without a checkpoint fusedbert's
fp32 graph, which the export compared with it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusedbert.engine.errors import FusedBertError
from fusedbert.engine.hardware.storage import read_cached, write_cached
from fusedbert.engine.text.tokenizer import Row

from ..engines.base import Tolerance
from ..engines.batches import Shape, TextBatches, random_batch, read_vocabulary
from ..engines.environments import bench_folder
from ..engines.registry import spec_of
from .interleave import EngineProcess, Run, Status
from .process import Worker
from .setup import BenchmarkModel

FLOAT64, OURS = "float64, NumPy", "fusedbert-fp32"
MULTI_LABEL, REGRESSION, SINGLE_LABEL = "multi_label_classification", "regression", "single_label_classification"
SIZES = (1, 3, 12, 16)  # texts of a batch, over and over; 12 is also the number of heads of a base model
MOST_TOKENS = 1024  # of a random batch, as far as the reference computes it
SEED = 4711
SMALLEST = 0.05  # the smallest largest logit that a tolerance is derived from
LEAST_SPREAD = 0.01  # of a value's size: the smallest spread that a tolerance is derived from, for outputs without a unit
# As a share of the reference's largest logit, how far a logit may be off; and the share of labels that must agree where the
# reference is clear. Random weights give small logits, and accordingly small limits.
LIMITS = {Tolerance.FP32: (0.001, 1.0), Tolerance.REDUCED: (0.15, 0.99), Tolerance.INT8: (0.5, 0.97)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checks:
    """Token ids that every engine has to compute, and their logits.

    A regression, or a single logit, predicts no labels: each output is then compared relative to its own spread.
    """

    batches: tuple[dict[str, Any], ...]  # ids and types of each row
    counted: tuple[int, ...]  # rows of each batch that are compared, from the first on
    pad: int  # the id that fills shorter rows
    reference: NDArray[np.float64]  # logits of the counted rows, [rows, labels]
    computed_by: str  # FLOAT64 or OURS
    problem_type: str = SINGLE_LABEL
    whole: NDArray[np.float64] | None = None  # of the checks that these are a part of, the reference, for the same tolerance

    @classmethod
    def of_logits(cls, logits: Any, problem_type: str) -> Checks:
        """Take fusedbert's fp32 logits [texts, labels] of texts as the reference for the same texts."""
        found = np.asarray(logits, dtype=np.float64)
        return cls(batches=(), counted=(len(found),), pad=0, reference=found, computed_by=OURS, problem_type=problem_type)

    def of_shape(self, shape: Shape) -> Checks:
        """Return those of a process that runs one of the shapes only, without padding: the texts of its length.

        The last batch is filled up by repetition.
        """
        rows = [
            (ids, types)
            for batch, counted in zip(self.batches, self.counted, strict=True)
            for ids, types in zip(batch["ids"][:counted], batch["types"][:counted], strict=True)
        ]
        chosen = [index for index, (ids, _) in enumerate(rows) if len(ids) == shape.tokens]
        parts = [chosen[start : start + shape.batch] for start in range(0, len(chosen), shape.batch)]
        filled = [list(itertools.islice(itertools.cycle(part), shape.batch)) for part in parts]
        return dataclasses.replace(
            self,
            batches=tuple({"ids": [rows[i][0] for i in part], "types": [rows[i][1] for i in part]} for part in filled),
            counted=tuple(map(len, parts)),
            reference=self.reference[chosen],
            whole=self.reference,
        )

    def count(self, logits: Sequence[Sequence[Sequence[float]]]) -> list[Sequence[float]]:
        """Return the rows that count among the logits of each batch."""
        return [row for rows, counted in zip(logits, self.counted, strict=True) for row in rows[:counted]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """The result of comparing an engine's logits with the reference."""

    texts: int  # rows that were compared
    max_abs_logit: float  # largest difference of a logit
    tolerance: float  # the allowed one
    label_agreement: float  # share of the rows with the reference's label, among those where it is clear
    why: str  # empty if the engine may be timed

    @property
    def right(self) -> bool:
        """True if the engine may be timed."""
        return not self.why


def judge(found: Sequence[Sequence[Sequence[float]]], checks: Checks, kind: Tolerance) -> Verdict:
    """Compare an engine's logits, a list of rows for each batch, with the reference."""
    rows, reference = checks.count(found), checks.reference
    share, least = LIMITS[kind]
    ordered = checks.problem_type == REGRESSION or reference.shape[1] == 1
    whole = reference if checks.whole is None else checks.whole
    scale = max(SMALLEST, float(np.abs(whole).max()))
    by_output = _spreads(whole) if ordered else np.full(reference.shape[1], scale)  # [outputs]
    tolerance = share * float(by_output.max())
    off, agreement, wrong = 0.0, 0.0, []
    if any(len(row) != reference.shape[1] for row in rows):
        wrong.append(f"{len(rows[0])} logits a text, the model has {reference.shape[1]} labels")
    elif not np.isfinite(logits := np.array(rows, dtype=np.float64)).all():  # [rows, labels]
        wrong.append("NaN or infinity among its logits")
    else:
        ratios = np.abs(logits - reference).max(axis=0) / by_output  # [outputs]
        off = float(ratios.max() * by_output.max())  # the worst output's, on the scale of the largest
        agreement = 1.0 if ordered else _agreement(logits, reference, min(0.1, share) * scale, checks.problem_type)
        if off > tolerance:
            wrong.append(f"a logit is {off:.3g} off the reference, {tolerance:.3g} is allowed")
        if agreement < least:
            wrong.append(f"{agreement:.1%} of the labels agree with the reference, {least:.0%} must")
    why = "; ".join(wrong)
    return Verdict(texts=len(rows), max_abs_logit=off, tolerance=tolerance, label_agreement=agreement, why=why)


def _spreads(reference: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the range of each output ``[outputs]``; for one text, or equal ones, a share of the output's size."""
    least = (1.0 if len(reference) == 1 else LEAST_SPREAD) * np.abs(reference).max(axis=0)
    return np.asarray(np.maximum(np.maximum(np.ptp(reference, axis=0), least), np.finfo(np.float32).tiny))


def _agreement(logits: NDArray[np.float64], reference: NDArray[np.float64], doubt: float, problem_type: str) -> float:
    """Return the share of equal labels among rows whose reference differs by more than ``doubt``; 1 without such rows."""
    if problem_type == MULTI_LABEL:
        clear, same = np.abs(reference) > doubt, (logits > 0) == (reference > 0)  # [rows, labels]
    else:
        first, second = np.sort(reference, axis=1)[:, :-3:-1].T
        clear, same = first - second > doubt, logits.argmax(axis=1) == reference.argmax(axis=1)  # [rows]
    return float(same[clear].mean()) if clear.any() else 1.0


def check(run: Run, checks: Checks) -> None:
    """Compare every running engine with the reference; a wrong one is stopped."""
    for process in run.running:
        run.progress.step(f"checking {process.title}")
        its = checks if process.shape is None else checks.of_shape(process.shape)
        result = process.call("check", timeout=run.settings.patience.check, batches=its.batches, pad=its.pad)
        if result is not None:
            verdict = dataclasses.asdict(judge(result["logits"], its, process.spec.tolerance))
            why = verdict.pop("why")
            process.check = {**verdict, "reference": its.computed_by}
            if why:
                process.end(Status.WRONG, why)
        run.report(process)


def check_answer(process: EngineProcess, logits: Any, checks: Checks, where: str) -> bool:
    """Compare an engine's logits of texts with a reference; a wrong engine is stopped. Return whether it is right."""
    verdict = judge([logits], checks, process.spec.tolerance)
    if not verdict.right:
        process.end(Status.WRONG, f"{where}{verdict.why}")
    return verdict.right


def find_reference(model: BenchmarkModel, shapes: Sequence[Shape], run: Run) -> Checks:
    """Draw the texts of the check, and random ones in the shapes that are timed; compute their reference.

    Raises:
        EngineFailedError: fusedbert's fp32 graph was needed, and failed.
    """
    checks = draw(model, shapes)
    exact = float64_reference(model, checks)
    if exact is not None:
        return exact
    with open_ours(run) as worker:
        found = worker.call("check", timeout=run.settings.patience.check, batches=checks.batches, pad=checks.pad)
    return dataclasses.replace(checks, reference=np.array(checks.count(found["logits"]), dtype=np.float64), computed_by=OURS)


@contextlib.contextmanager
def open_ours(run: Run) -> Iterator[Worker]:
    """Open fusedbert's fp32 graph on the CPU, in a separate process."""
    settings, patience = run.settings, run.settings.patience
    job = {**settings.job.to_json(), "device": "cpu"}
    with Worker(None, run.variables(spec_of(OURS))) as worker:
        worker.call("prepare", timeout=patience.prepare, engine=OURS, job=job)
        worker.call("open", timeout=patience.load, tokenizer=str(settings.job.artifact))
        yield worker


def draw(model: BenchmarkModel, shapes: Sequence[Shape]) -> Checks:
    """Lay out the batches, without a reference yet."""
    from fusedbert.export.parity.texts import CHECK_TEXTS, ROUNDING_TEXTS

    texts = TextBatches.read(model.artifact)
    rows = iter(texts.encode([*CHECK_TEXTS, *ROUNDING_TEXTS], max_length=model.manifest.max_length))
    sizes, batches, counted = itertools.cycle(SIZES), [], []
    while part := list(itertools.islice(rows, next(sizes))):
        batches.append({"ids": [row.ids for row in part], "types": [row.type_ids for row in part]})
        counted.append(len(part))
    vocabulary = read_vocabulary(model.artifact)
    for index, shape in enumerate(shapes):
        batch = random_batch(shape, vocabulary, np.random.default_rng([SEED, index]))
        batches.append({"ids": batch.input_ids.tolist(), "types": batch.token_type_ids.tolist()})
        counted.append(min(shape.batch, max(1, MOST_TOKENS // shape.tokens)))
    return Checks(
        batches=tuple(batches),
        counted=tuple(counted),
        pad=texts.pad_id,
        reference=np.zeros((0, len(model.manifest.labels))),
        computed_by="",
        problem_type=model.manifest.problem_type,
    )


def float64_reference(model: BenchmarkModel, checks: Checks) -> Checks | None:
    """Compute the reference, or read it from an earlier run; None if the checkpoint cannot be used."""
    if model.checkpoint is None:
        return None
    key = hashlib.sha256(json.dumps([dict(model.manifest.source.sha256), checks.batches, checks.counted]).encode())
    file = bench_folder() / "reference" / f"{key.hexdigest()[:32]}.json"
    match read_cached(file):
        case {"logits": list(logits)}:
            pass
        case _:
            try:
                logits = _compute(model.checkpoint, checks).tolist()
            except FusedBertError:  # the exporter is not installed, or does not build this family itself
                return None
            write_cached(file, {"logits": logits})
    return dataclasses.replace(checks, reference=np.array(logits, dtype=np.float64), computed_by=FLOAT64)


def _compute(checkpoint: Path, checks: Checks) -> NDArray[np.float64]:
    from fusedbert.export.checkpoint.modules import read_parts
    from fusedbert.export.parity.reference import forward

    parts = read_parts(checkpoint)
    architecture, layout = parts.describe()
    texts = [
        Row(ids=ids, types=types)
        for batch, counted in zip(checks.batches, checks.counted, strict=True)
        for ids, types in zip(batch["ids"][:counted], batch["types"][:counted], strict=True)
    ]
    return forward(architecture, parts.weights(architecture, layout), texts)
