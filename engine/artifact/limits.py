"""The gates: limits on a graph's distance from the checkpoint, checked at export and by ``precision="auto"`` at load.

Several labels are measured by label and probability. A regression or a model with one logit (mostly rerankers) has no unit:
it is measured by the order of its outputs, and by their changes as a share of their spread.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from . import Parity

FP32_TOLERANCE = 1e-4  # of a logit, times the parity's scale
LABEL_AGREEMENT = 0.99  # share of texts that keep their label in fp16, bf16 and int8
MEAN_PROBABILITY = {"fp16": 0.002, "bf16": 0.005, "int8": 0.01}
# Golden texts at load: room for another order of additions; a wrong kernel is off by whole units. Of a logit, times the
# parity's scale; of an output without a unit, as a share of the outputs' spread.
GOLDEN_TOLERANCE = {"fp16": 0.05, "bf16": 0.05, "fp32": 1e-3}
GOLDEN_OF_SPREAD = {"fp16": 0.01, "bf16": 0.01, "fp32": 1e-3}


@dataclasses.dataclass(frozen=True, kw_only=True)
class OrderLimits:
    """Limits of ``Parity``'s figures for a rounded graph that is measured by order."""

    rank_correlation: float
    mean_of_spread: float
    max_of_spread: float


# Measured as (rank correlation, mean, largest change over the spread), on the export's check texts:
#   14 heads on models/sst2-mini (its two rows' difference, times 1e-3, 10 and 1e6, with biases of 20 and 1e6; random rows):
#       int8 0.9990 to 0.9999, 0.0022 to 0.0036, 0.021 to 0.035     fp16 from 0.9999 up, up to 0.00007, up to 0.0003
#   30 heads on random checkpoints of 48 to 192 units, whose outputs hardly differ from text to text:
#       int8 0.956 to 0.997,   0.013 to 0.23,    0.065 to 0.89      fp16 from 0.998 up,  up to 0.0039,  up to 0.0092
# A wrong graph moves outputs by a good part of their spread: off by 2 where they differ by 8 is a mean of 0.25. The limits
# for int8 are five times what a trained model needs. Most random models miss them; their int8 is useless for ranking.
ORDER: Mapping[str, OrderLimits] = {
    "fp16": OrderLimits(rank_correlation=0.995, mean_of_spread=0.01, max_of_spread=0.05),
    "bf16": OrderLimits(rank_correlation=0.995, mean_of_spread=0.01, max_of_spread=0.05),
    "int8": OrderLimits(rank_correlation=0.99, mean_of_spread=0.02, max_of_spread=0.2),
}


def by_order(problem_type: str, labels: int) -> bool:
    """Return whether a model is measured by the order of its outputs."""
    return problem_type == "regression" or labels == 1


def passes(parity: Parity, precision: str) -> bool:
    """Return whether a rounded graph is close enough to the checkpoint, for each of its heads; NaN never is."""
    if parity.heads:
        return all(passes(head, precision) for head in parity.heads.values())
    if parity.rank_correlation is None or parity.mean_of_spread is None or parity.max_of_spread is None:
        return parity.label_agreement >= LABEL_AGREEMENT and parity.mean_abs_probability <= MEAN_PROBABILITY[precision]
    limits = ORDER[precision]
    return (
        parity.rank_correlation >= limits.rank_correlation
        and parity.mean_of_spread <= limits.mean_of_spread
        and parity.max_of_spread <= limits.max_of_spread
    )


def figures(parity: Parity) -> str:
    """Return a rounded graph's figures for a message."""
    if parity.heads:
        return "; ".join(f"{name}: {figures(head)}" for name, head in parity.heads.items())
    if parity.rank_correlation is None:
        return f"labels agree in {parity.label_agreement:.1%}, mean change of p {parity.mean_abs_probability:.4f}"
    return (
        f"rank correlation {parity.rank_correlation:.4f}, an output moves by {parity.mean_of_spread:.2%} of their spread on "
        f"average, {parity.max_of_spread:.2%} at most"
    )


def limits(parity: Parity, precision: str) -> str:
    """Return the limits for a message, in the order of ``figures``."""
    if parity.heads:
        return " or ".join(dict.fromkeys(limits(head, precision) for head in parity.heads.values()))
    if parity.rank_correlation is None:
        return f"{LABEL_AGREEMENT:.0%} and {MEAN_PROBABILITY[precision]}"
    order = ORDER[precision]
    return f"{order.rank_correlation:g}, {order.mean_of_spread:.2%} and {order.max_of_spread:.2%}"
