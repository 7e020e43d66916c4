"""The latency of a contender by shape, from token ids to logits, in rounds.

Every round visits every shape, so that a machine that slows down half way shows in the difference of the rounds and not
as a property of one shape.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from time import perf_counter

import numpy as np

from fusedbert.bench.batches import Vocabulary, random_batch
from fusedbert.bench.contenders import Contender
from fusedbert.bench.shapes import Shape
from fusedbert.bench.timing import Summary, WarmUp, sample, summarize, warm_up


@dataclasses.dataclass(frozen=True, kw_only=True)
class Round:
    """One visit to a shape: how it warmed up, and the samples of this visit."""

    warm_up: WarmUp
    summary: Summary


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShapeLatency:
    """A shape's latency over the samples of all rounds, and each round by itself."""

    shape: Shape
    summary: Summary
    rounds: tuple[Round, ...]


def measure_latency(
    contender: Contender,
    shapes: Sequence[Shape],
    vocabulary: Vocabulary,
    *,
    rounds: int,
    seed: int = 0,
    progress: Callable[[int, Shape], None] = lambda _round, _shape: None,
) -> tuple[ShapeLatency, ...]:
    """Time a loaded contender on fresh random tokens.

    Args:
        contender: The engine, loaded.
        shapes: What to measure, in this order in every round.
        vocabulary: Where the tokens are drawn from.
        rounds: How often every shape is visited.
        seed: Seed of the tokens: with the same one, the n-th iteration of a visit is the same batch for every contender.
        progress: Called with the round, from 0, and the shape before each visit.

    Returns:
        One entry for each shape, in the order given.
    """
    visits: dict[Shape, list[Round]] = {shape: [] for shape in shapes}
    samples: dict[Shape, list[float]] = {shape: [] for shape in shapes}
    for number in range(rounds):
        for index, shape in enumerate(shapes):
            progress(number, shape)
            run = _iteration(contender, shape, vocabulary, np.random.default_rng([seed, number, index]))
            warm = warm_up(run)
            seconds = sample(run)
            visits[shape].append(Round(warm_up=warm, summary=summarize(seconds, batch=shape.batch)))
            samples[shape] += seconds
    return tuple(
        ShapeLatency(shape=shape, summary=summarize(samples[shape], batch=shape.batch), rounds=tuple(visits[shape]))
        for shape in shapes
    )


def _iteration(contender: Contender, shape: Shape, vocabulary: Vocabulary, random: np.random.Generator) -> Callable[[], float]:
    """Make the function that runs the contender once on a new batch and returns its seconds."""

    def run() -> float:
        batch = random_batch(shape, vocabulary, random)
        start = perf_counter()
        contender.logits(batch)
        return perf_counter() - start

    return run
