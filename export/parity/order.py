"""Regressions and models with one logit: how exact an output can be, and how well a graph keeps their order.

Such outputs have no bounds and no unit of their own: prices in thousands, similarities, a reranker's logits around 20. So
nothing here is absolute. What a wrong graph changes is a share of the outputs' spread over the check texts. What fp32
cannot give is a share of what an output is summed of: a bias of a million leaves steps of 0.06, and a small output that
large terms cancel down to keeps the rounding of those.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusedbert.engine.artifact import Golden
from fusedbert.engine.artifact.gates import FP32_TOLERANCE, by_order

Float64 = NDArray[np.float64]

# Of an output's size: two units in the last place of a float32, where 0.5 was measured (a bias of a million).
ROUNDING = 2.0**-22
# Of the sum of the classifier's products without their signs: fp32 graphs of 3 to 12 layers were off by up to 3e-7 of it,
# and by 6e-7 where all products have one sign, so that the spread is as large.
OF_TERMS = 2e-6


def noise(reference: Float64, terms: Float64 | None) -> Float64:
    """Return what an output may be off by in fp32 for no other reason than rounding, ``[outputs]``.

    Args:
        reference: Outputs ``[texts, outputs]``.
        terms: Of each output the largest sum of its products without their signs, ``[outputs]``; where that is not known
            the outputs themselves stand for it.
    """
    size = np.abs(reference).max(axis=0)  # [outputs]
    return np.asarray(ROUNDING * size + OF_TERMS * (size if terms is None else terms))


def figures(rows: NDArray[np.int64], found: Float64, reference: Float64, terms: Float64 | None) -> dict[str, Any]:
    """Compare outputs with the reference's; a text that was run in several batches counts by the worst of its runs.

    Each output of a regression is held against its own spread, and the worst of them counts: ``max_abs_logit`` is brought
    to the scale of the largest.

    Args:
        rows: Text of each run.
        found: Outputs ``[runs, outputs]``.
        reference: Outputs ``[texts, outputs]``.
        terms: As in ``noise``.

    Returns:
        Fields of ``Parity``: ``max_abs_logit``, ``scale``, ``spread``, ``rank_correlation``, ``mean_of_spread``,
        ``max_of_spread``.
    """
    off = np.abs(found - reference[rows])
    off[~np.isfinite(off)] = np.inf  # what is no number is as wrong as can be
    spread, least = np.ptp(reference, axis=0), noise(reference, terms)  # [outputs]
    scale = spread + least / FP32_TOLERANCE
    runs = [np.flatnonzero(rows == text) for text in np.unique(rows)]
    worst = np.array([each[off[each].argmax(axis=0)] for each in runs])  # [texts, outputs]
    outputs = np.arange(off.shape[1])
    beyond = np.maximum(off[worst, outputs] - ROUNDING * np.abs(reference).max(axis=0), 0.0)  # [texts, outputs]
    shares = _ratio(beyond, np.maximum(spread, least))
    # Where texts differ by less than fp32 can tell, there is no order to keep.
    ordered = [j for j in outputs if spread[j] > least[j]]
    exact = reference[rows[worst], outputs].astype(np.float32)  # ranks of what fp32 can tell apart
    ranks = [rank_correlation(exact[:, j], found[worst[:, j], j]) for j in ordered]
    return {
        "max_abs_logit": float(_ratio(off.max(axis=0), scale).max() * scale.max()),
        "scale": float(scale.max()),
        "spread": float(spread.max()),
        "rank_correlation": min(ranks, default=1.0),
        "mean_of_spread": float(shares.mean(axis=0).max()),
        "max_of_spread": float(shares.max()),
    }


def _ratio(part: Float64, whole: Float64) -> Float64:
    """Divide; nothing of nothing is 0."""
    with np.errstate(over="ignore"):
        return np.where(part == 0.0, 0.0, part / np.maximum(whole, np.finfo(np.float64).tiny))


def rank_correlation(one: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    """Return Spearman's rank correlation of two rows of numbers, -1 to 1; equal numbers share the mean of their ranks.

    Example:
        >>> rank_correlation(np.array([1.0, 2.0, 30.0]), np.array([0.1, 0.2, 0.3]))
        1.0
    """
    first, second = (_ranks(row) - (len(row) + 1) / 2 for row in (one, other))
    norm = float(np.sqrt((first @ first) * (second @ second)))
    return float(first @ second) / norm if norm else float(np.array_equal(first, second))


def _ranks(row: NDArray[np.floating]) -> Float64:
    _, place, counts = np.unique(row, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[place])


def golden_texts(texts: Sequence[str], logits: Float64, problem_type: str) -> tuple[Golden, ...]:
    """Pair texts with their logits, to six decimals, or to the nine digits of a float32 where outputs have no unit."""
    digits = by_order(problem_type, logits.shape[1])
    rows = [[float(f"{value:.9g}") for value in row] for row in logits.tolist()] if digits else logits.round(6).tolist()
    return tuple(Golden(text=text, logits=tuple(row)) for text, row in zip(texts, rows, strict=True))
