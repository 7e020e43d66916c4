"""What contenders brought on a corpus, as figures: throughput, latency of one text, accuracy, agreement with our fp32."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..stats.comparison import doubts
from .measure import Logits, Plan, Run, Runs


def results(
    run: Run, plan: Plan, reference: Logits | None, gold: NDArray[np.int64] | None, tokens: int | None
) -> list[dict[str, Any]]:
    """Return a contender's ``results`` for the document; empty where it has run nothing to the end.

    Args:
        run: What it brought.
        plan: What was measured.
        reference: Logits of our fp32, float32 [texts, labels].
        gold: Number of each text's label, -1 where it has none; None where accuracy has no meaning.
        tokens: Tokens of all texts, as they are cut.
    """
    if not run.seconds:
        return []
    count = len(plan.corpus.texts)
    rounds = sorted(run.seconds)
    rates = [count / run.seconds[number] for number in rounds]
    middle = float(np.median(rates))
    single = np.percentile([1e3 * seconds for seconds in run.single], [50, 90, 99]).tolist() if run.single else [None] * 3
    return [
        {
            "corpus": plan.corpus.name,
            "texts": count,
            "batch_size": run.batch_size,
            "texts_per_second": middle,
            "tokens_per_second": None if tokens is None else middle * tokens / count,
            **dict(zip(("p50_ms", "p90_ms", "p99_ms"), single, strict=True)),
            "samples": len(run.single),
            "accuracy": accuracy(run.logits, gold),
            **agreement(run.logits, reference, multi_label=plan.multi_label),
            "tried": run.rates if run.batch_size is not None else {},
            "spent_s": run.spent,
            "rounds": rates,
            "round_numbers": rounds,
            "others": [run.others[number] for number in rounds],
            "noisy": doubts([1.0 / rate for rate in rates], [run.others[number] for number in rounds]),
        }
    ]


def accuracy(logits: Logits | None, gold: NDArray[np.int64] | None) -> float | None:
    """Return the share of texts, of those with a label, whose highest logit is that label's.

    Example:
        >>> accuracy(np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]], np.float32), np.array([1, 1, -1]))
        0.5
    """
    if logits is None or gold is None or not (gold >= 0).any():
        return None
    known = gold >= 0
    return float((logits.argmax(axis=1) == gold)[known].mean())


def agreement(logits: Logits | None, reference: Logits | None, *, multi_label: bool) -> Mapping[str, float | None]:
    """Compare with our fp32: the share of texts with the same label, and the largest difference of a logit."""
    if logits is None or reference is None or logits.shape != reference.shape:
        return {"label_agreement": None, "max_abs_logit": None}
    same = ((logits > 0) == (reference > 0)).all(axis=1) if multi_label else logits.argmax(axis=1) == reference.argmax(axis=1)
    return {"label_agreement": float(same.mean()), "max_abs_logit": float(np.abs(logits - reference).max())}


def series(runs: Runs, plan: Plan) -> tuple[dict[str, dict[str, list[float | None]]], dict[str, dict[str, list[bool]]]]:
    """Return for ``comparison.compare`` the seconds of each contender's rounds, and which of them are in doubt."""
    times: dict[str, dict[str, list[float | None]]] = {}
    noisy: dict[str, dict[str, list[bool]]] = {}
    for name, run in runs.items():
        if not run.seconds:
            continue
        times[name] = {plan.corpus.name: [run.seconds.get(number) for number in range(plan.rounds)]}
        numbers = sorted(run.seconds)
        reasons = doubts([run.seconds[number] for number in numbers], [run.others[number] for number in numbers])
        flags = dict(zip(numbers, reasons, strict=True))
        noisy[name] = {plan.corpus.name: [flags.get(number) is not None for number in range(plan.rounds)]}
    return times, noisy
