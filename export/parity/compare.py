"""Comparison of a graph's logits with the reference's: labels kept, changes of probabilities, or changes of the order.

The outputs of a regression, or of a model with one logit, have no unit. So a graph's error is a share of their spread over the
check texts, and the rounding of fp32 a share of an output's terms: a bias of a million leaves steps of 0.06.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusedbert.engine.artifact import Parity
from fusedbert.engine.artifact.limits import FP32_TOLERANCE, MEAN_PROBABILITY, by_order
from fusedbert.engine.text.outputs import Function, apply

from .reference import Float64

REFERENCE = "numpy float64"
UNDECIDED = 2 * MEAN_PROBABILITY["int8"]  # between the probabilities of two labels that both move by the mean accepted
ORDINARY = 10.0  # a logit of a classifier with several labels; larger ones get a larger tolerance
# Of an output's size: two units in the last place of a float32, where 0.5 was measured (a bias of a million).
ROUNDING = 2.0**-22
# Of the sum of the classifier's products without their signs: fp32 graphs of 3 to 12 layers were off by up to 3e-7 of it, and
# by 6e-7 if all products have one sign, so that the spread is as large.
OF_TERMS = 2e-6


def compare(
    results: Sequence[tuple[int, NDArray[np.floating]]], reference: Float64, problem_type: str, terms: Float64 | None = None
) -> Parity:
    """Compare a graph's logits, as ``run_graph`` returns them, with those of the reference ``[texts, labels]``.

    A text in several batches counts by its worst run; ``terms`` are those of ``Baseline``.
    """
    rows = np.asarray([row for row, _ in results])
    logits, expected = np.stack([each for _, each in results]).astype(np.float64), reference[rows]
    texts, place = np.unique(rows, return_inverse=True)
    parity = Parity(
        reference=REFERENCE, texts=len(texts), max_abs_logit=float(np.abs(logits - expected).max()), label_agreement=1.0
    )
    if by_order(problem_type, reference.shape[1]):
        parity = dataclasses.replace(parity, **_compare_order(rows, logits, reference, terms))
    else:
        scale = max(np.abs(reference).max() / ORDINARY, rounding_error(reference, terms).max() / FP32_TOLERANCE)
        parity = dataclasses.replace(parity, scale=float(scale) if scale > 1.0 else None)
    if problem_type != "regression":
        function = Function.choose(None, problem_type, reference.shape[1])
        moved = np.abs(apply(function, logits) - apply(function, expected))  # [runs, labels]
        worst, kept = np.zeros(len(texts)), np.ones(len(texts), np.bool_)  # of all runs
        np.maximum.at(worst, place, moved.mean(axis=1))
        np.logical_and.at(kept, place, same_labels(logits, expected, function) | undecided(expected, function))
        parity = dataclasses.replace(
            parity,
            label_agreement=float(kept.mean()),
            mean_abs_probability=float(worst.mean()),
            max_abs_probability=float(moved.max()),
        )
    return rounded(parity)


def _compare_order(rows: NDArray[np.int64], outputs: Float64, reference: Float64, terms: Float64 | None) -> dict[str, Any]:
    """Compare outputs ``[runs, outputs]`` of the texts ``rows``, each relative to its spread; return fields of ``Parity``.

    The worst output counts: ``max_abs_logit`` is on the scale of the largest.
    """
    off = np.abs(outputs - reference[rows])
    off[~np.isfinite(off)] = np.inf  # NaN is as wrong as can be
    spread, least = np.ptp(reference, axis=0), rounding_error(reference, terms)  # [outputs]
    scale = spread + least / FP32_TOLERANCE
    runs = [np.flatnonzero(rows == text) for text in np.unique(rows)]
    worst = np.array([each[off[each].argmax(axis=0)] for each in runs])  # [texts, outputs]
    columns = np.arange(off.shape[1])
    beyond = np.maximum(off[worst, columns] - ROUNDING * np.abs(reference).max(axis=0), 0.0)  # [texts, outputs]
    shares = _ratio(beyond, np.maximum(spread, least))
    # Texts that differ by less than fp32 can resolve have an arbitrary order.
    ordered = [j for j in columns if spread[j] > least[j]]
    exact = reference[rows[worst], columns].astype(np.float32)  # ranks of differences that fp32 can resolve
    ranks = [rank_correlation(exact[:, j], outputs[worst[:, j], j]) for j in ordered]
    return {
        "max_abs_logit": float(_ratio(off.max(axis=0), scale).max() * scale.max()),
        "scale": float(scale.max()),
        "spread": float(spread.max()),
        "rank_correlation": min(ranks, default=1.0),
        "mean_of_spread": float(shares.mean(axis=0).max()),
        "max_of_spread": float(shares.max()),
    }


def rounding_error(reference: Float64, terms: Float64 | None) -> Float64:
    """Return the error of fp32 that is only rounding, ``[outputs]``; without ``terms`` the outputs take their place."""
    size = np.abs(reference).max(axis=0)  # [outputs]
    return np.asarray(ROUNDING * size + OF_TERMS * (size if terms is None else terms))


def _ratio(part: Float64, total: Float64) -> Float64:
    """Divide; 0 / 0 is 0."""
    with np.errstate(over="ignore"):
        return np.where(part == 0.0, 0.0, part / np.maximum(total, np.finfo(np.float64).tiny))


def rank_correlation(one: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    """Return Spearman's rank correlation, -1 to 1; equal numbers share the mean of their ranks.

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


def same_labels(logits: Float64, expected: Float64, function: Function) -> NDArray[np.bool_]:
    """Return for each text whether both choose the same labels: those above zero if scores are sigmoids, else the largest."""
    if function is Function.SIGMOID:
        return np.asarray(((logits > 0) == (expected > 0)).all(axis=1))
    return np.asarray(logits.argmax(axis=1) == expected.argmax(axis=1))


def undecided(expected: Float64, function: Function) -> NDArray[np.bool_]:
    """Return for each text whether the reference chooses a label by less than ``UNDECIDED``, so that either is right."""
    scores = apply(function, expected)
    if function is Function.SIGMOID:
        return np.asarray((2 * np.abs(scores - 0.5)).min(axis=1) < UNDECIDED)
    best = np.sort(scores, axis=1)[:, -2:]
    return np.asarray(best[:, -1] - best[:, 0] < UNDECIDED)


def rounded(parity: Parity) -> Parity:
    """Round the figures for a manifest."""
    figures = {name: value for name, value in dataclasses.asdict(parity).items() if isinstance(value, float)}
    short: dict[str, Any] = {name: three_digits(value) for name, value in figures.items()}
    if parity.rank_correlation is not None:  # its difference from 1 counts
        short["rank_correlation"] = round(parity.rank_correlation, 4)
    return dataclasses.replace(parity, **short)


def three_digits(value: float) -> float:
    """Round to three digits, so that a manifest does not change with a summation's order."""
    return float(f"{value:.3g}")
