"""The reference that every contender is held against before it is timed, and the verdict.

The texts are those that an export is checked on, in batches of mixed lengths, so that a mask that is not respected shows;
beside them random texts in the very shapes that are timed. The reference is the exporter's float64 forward pass where
the checkpoint is at hand, else our fp32 graph, which the export held against it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusedbert.engine.errors import FusedBertError
from fusedbert.engine.load.cache import write_whole
from fusedbert.engine.text.inputs import check_items
from fusedbert.engine.text.tokenizer import TextTokenizer

from ..engines.batches import random_batch, read_vocabulary
from ..engines.environments import bench_folder
from ..engines.registry import Tolerance
from ..engines.shapes import Shape
from .subject import Subject

FLOAT64, OURS = "float64, NumPy", "fusedbert-fp32"
SIZES = (1, 3, 12, 16)  # texts of a batch, over and over; 12 is also the number of heads of a base model
MOST_TOKENS = 1024  # of a random batch, as far as the reference computes it
SEED = 4711
SMALLEST = 0.05  # largest logit that a tolerance is made from at least
# As a share of the reference's largest logit, how far a logit may be off; and the share of labels that have to be kept
# where the reference itself leaves no doubt. Random weights give small logits, and a limit of theirs then.
LEAST_SPREAD = 0.01  # of a value's size, that a tolerance is made from at least where outputs have no unit
LIMITS = {Tolerance.FP32: (0.001, 1.0), Tolerance.REDUCED: (0.15, 0.99), Tolerance.INT8: (0.5, 0.97)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checks:
    """Token ids that every contender has to compute, and what comes out.

    Attributes:
        batches: ``ids`` and ``types`` of each row of each batch.
        counted: Rows of each batch that are compared, from the first on.
        pad: The id that fills shorter rows.
        reference: Logits of the counted rows, float64 [rows, labels].
        computed_by: ``FLOAT64`` or ``OURS``.
        multi_label: Whether each logit is a decision of its own.
        by_order: Whether the model is a regression, or has a single logit. Such a model predicts no labels, so each output is
            compared relative to its own spread. One output says so by itself; this flag is for several.
    """

    batches: tuple[dict[str, Any], ...]
    counted: tuple[int, ...]
    pad: int
    reference: NDArray[np.float64]
    computed_by: str
    multi_label: bool
    by_order: bool = False

    def request(self) -> dict[str, Any]:
        """Return what the task ``check`` takes."""
        return {"batches": list(self.batches), "pad": self.pad}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """A contender's logits against the reference.

    Attributes:
        texts: Rows that were compared.
        max_abs_logit: Largest difference of a logit.
        tolerance: What it may be.
        label_agreement: Share of the rows with the reference's label, of those where it is clear.
        right: Whether the contender may be timed.
        why: What is wrong with it, or empty.
    """

    texts: int
    max_abs_logit: float
    tolerance: float
    label_agreement: float
    right: bool
    why: str

    def entry(self) -> dict[str, Any]:
        """Return the document's ``check``."""
        return {name: getattr(self, name) for name in ("texts", "max_abs_logit", "tolerance", "label_agreement")}


def judge(found: Sequence[Sequence[Sequence[float]]], checks: Checks, kind: Tolerance) -> Verdict:
    """Compare logits with the reference.

    Args:
        found: For each batch, a list of rows of logits.
        checks: What was asked.
        kind: How exact the contender has to be.
    """
    rows = [row for logits, counted in zip(found, checks.counted, strict=True) for row in logits[:counted]]
    share, least = LIMITS[kind]
    reference = checks.reference
    ordered = checks.by_order or reference.shape[1] == 1
    scale = max(SMALLEST, float(np.abs(reference).max()))
    by_output = _spreads(reference) if ordered else np.full(reference.shape[1], scale)  # [outputs]
    tolerance = share * float(by_output.max())
    if any(len(row) != reference.shape[1] for row in rows):
        count = len(rows[0])
        why = f"{count} logits a text, the model has {reference.shape[1]} labels"
        return Verdict(texts=len(rows), max_abs_logit=0.0, tolerance=tolerance, label_agreement=0.0, right=False, why=why)
    logits = np.array(rows, dtype=np.float64)  # [rows, labels]
    if not np.isfinite(logits).all():
        why = "NaN or infinity among its logits"
        return Verdict(texts=len(rows), max_abs_logit=0.0, tolerance=tolerance, label_agreement=0.0, right=False, why=why)
    ratios = np.abs(logits - reference).max(axis=0) / by_output  # [outputs]
    off = float(ratios.max() * by_output.max())  # of several outputs the worst one's, brought to the scale of the largest
    agreement = 1.0 if ordered else _agreement(logits, reference, min(0.1, share) * scale, multi_label=checks.multi_label)
    wrong = []
    if off > tolerance:
        wrong.append(f"a logit is {off:.3g} off the reference, {tolerance:.3g} is allowed")
    if agreement < least:
        wrong.append(f"{agreement:.1%} of the labels agree with the reference, {least:.0%} must")
    return Verdict(
        texts=len(rows),
        max_abs_logit=off,
        tolerance=tolerance,
        label_agreement=agreement,
        right=not wrong,
        why="; ".join(wrong),
    )


def _spreads(reference: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return from the least to the largest of each output ``[outputs]``; of few texts, or equal ones, a share of its size."""
    least = (1.0 if len(reference) == 1 else LEAST_SPREAD) * np.abs(reference).max(axis=0)
    return np.asarray(np.maximum(np.maximum(np.ptp(reference, axis=0), least), np.finfo(np.float32).tiny))


def _agreement(logits: NDArray[np.float64], reference: NDArray[np.float64], doubt: float, *, multi_label: bool) -> float:
    """Return the share of equal labels among rows whose reference is not within ``doubt`` of another; 1 where there is none."""
    if multi_label:
        clear = np.abs(reference) > doubt
        return float(((logits > 0) == (reference > 0))[clear].mean()) if clear.any() else 1.0
    if reference.shape[1] == 1:
        return 1.0
    ordered = np.sort(reference, axis=1)
    clear = ordered[:, -1] - ordered[:, -2] > doubt  # [rows]
    same = logits.argmax(axis=1) == reference.argmax(axis=1)
    return float(same[clear].mean()) if clear.any() else 1.0


def draw(subject: Subject, shapes: Sequence[Shape]) -> Checks:
    """Lay out the batches, without a reference yet."""
    from fusedbert.export.parity.texts import CHECK_TEXTS, ROUNDING_TEXTS

    tokenizer = TextTokenizer.load(subject.artifact, subject.manifest.max_length)
    rows = tokenizer.encode(check_items([*CHECK_TEXTS, *ROUNDING_TEXTS]))
    batches, start, turn = [], 0, 0
    while start < len(rows):
        part = rows[start : start + SIZES[turn % len(SIZES)]]
        batches.append({"ids": [row.ids for row in part], "types": [row.types for row in part]})
        start, turn = start + len(part), turn + 1
    counted = [len(batch["ids"]) for batch in batches]
    vocabulary = read_vocabulary(subject.artifact)
    for index, shape in enumerate(shapes):
        batch = random_batch(shape, vocabulary, np.random.default_rng([SEED, index]))
        batches.append({"ids": batch.input_ids.tolist(), "types": batch.token_type_ids.tolist()})
        counted.append(min(shape.batch, max(1, MOST_TOKENS // shape.tokens)))
    return Checks(
        batches=tuple(batches),
        counted=tuple(counted),
        pad=tokenizer.pad_id,
        reference=np.zeros((0, len(subject.manifest.labels))),
        computed_by="",
        multi_label=subject.manifest.problem_type == "multi_label_classification",
        by_order=subject.manifest.problem_type == "regression",
    )


def float64_reference(subject: Subject, checks: Checks) -> Checks | None:
    """Compute the reference from the checkpoint, or read it where that was done before; None where it cannot be had."""
    if subject.checkpoint is None:
        return None
    key = hashlib.sha256(json.dumps([dict(subject.manifest.source.sha256), checks.batches, checks.counted]).encode())
    file = bench_folder() / "reference" / f"{key.hexdigest()[:32]}.json"
    logits = _read(file)
    if logits is None:
        try:
            logits = _compute(subject.checkpoint, checks)
        except FusedBertError:  # the exporter is not installed, or a family that it does not build itself
            return None
        with contextlib.suppress(OSError):  # it only costs the computing
            write_whole(file, json.dumps(logits.tolist()).encode())
    return dataclasses.replace(checks, reference=logits, computed_by=FLOAT64)


def _read(file: Path) -> NDArray[np.float64] | None:
    try:
        return np.array(json.loads(file.read_bytes()), dtype=np.float64)
    except (OSError, ValueError):
        return None


def _compute(checkpoint: Path, checks: Checks) -> NDArray[np.float64]:
    from fusedbert.export.checkpoint.architecture import describe, read_config
    from fusedbert.export.checkpoint.weights import Weights
    from fusedbert.export.parity.reference import Encoded, forward

    architecture, layout = describe(read_config(checkpoint))
    weights = Weights(checkpoint, architecture, layout)
    texts = [
        Encoded(tuple(ids), tuple(types))
        for batch, counted in zip(checks.batches, checks.counted, strict=True)
        for ids, types in zip(batch["ids"][:counted], batch["types"][:counted], strict=True)
    ]
    return forward(architecture, weights, texts)


def from_logits(found: Sequence[Sequence[Sequence[float]]], checks: Checks) -> Checks:
    """Take the logits of our fp32 graph as the reference."""
    rows = [row for logits, counted in zip(found, checks.counted, strict=True) for row in logits[:counted]]
    return dataclasses.replace(checks, reference=np.array(rows, dtype=np.float64), computed_by=OURS)
