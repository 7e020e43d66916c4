"""Several heads: a graph's figures for each, of which the worst count."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from fusedbert.engine.artifact import Head, Parity, columns_of

from .compare import compare
from .reference import Float64


def by_head(parity: Parity) -> Mapping[str, Parity]:
    """Return the figures of each head, under an empty name if there is one."""
    return parity.heads or {"": parity}


def compare_heads(
    results: Sequence[tuple[int, NDArray[np.floating]]], reference: Float64, heads: Sequence[Head], terms: Float64 | None = None
) -> Parity:
    """Compare a graph's logits with the reference's, as ``compare``, head by head if there are several."""
    if len(heads) == 1:
        return compare(results, reference, heads[0].problem_type, terms)
    found = {}
    for head, columns in columns_of(heads):
        own = [(row, logits[columns]) for row, logits in results]
        own_terms = None if terms is None else terms[columns]
        found[head.name] = compare(own, reference[:, columns], head.problem_type, own_terms)
    return worst(found)


def worst(heads: Mapping[str, Parity]) -> Parity:
    """Return the worst figures of all heads, with those of each; by order only if all are measured so."""
    by_label = [parity for parity in heads.values() if parity.rank_correlation is None]
    by_order = [parity for parity in heads.values() if parity.rank_correlation is not None]
    scales = [parity.scale for parity in heads.values() if parity.scale is not None]
    first, judged = next(iter(heads.values())), by_label or by_order
    together = Parity(
        reference=first.reference,
        texts=first.texts,
        max_abs_logit=max(parity.max_abs_logit for parity in heads.values()),
        label_agreement=min(parity.label_agreement for parity in judged),
        mean_abs_probability=max(parity.mean_abs_probability for parity in judged),
        max_abs_probability=max(parity.max_abs_probability for parity in judged),
        scale=max(scales, default=None),
        heads=dict(heads),
    )
    if by_label:
        return together
    return dataclasses.replace(
        together,
        spread=max(parity.spread or 0.0 for parity in by_order),
        rank_correlation=min(parity.rank_correlation or 0.0 for parity in by_order),
        mean_of_spread=max(parity.mean_of_spread or 0.0 for parity in by_order),
        max_of_spread=max(parity.max_of_spread or 0.0 for parity in by_order),
    )
