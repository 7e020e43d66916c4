"""The task ``latency``: one visit to one shape, from token ids in memory to logits in memory.

The first visit warms up until the times hold still. Later ones run for a moment first, because other engines had the
caches and the clock meanwhile. What is timed is fresh in every iteration and the same for every contender: the tokens of
the warm-up, which may take longer for one than for another, are drawn from a generator of their own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy as np

from ..engines import Contender
from ..engines.batches import Vocabulary, random_batch
from ..engines.shapes import Shape
from ..run.state import State
from ..stats.timing import WARM_UP_SECONDS, WarmUp, sample, warm_up

MOMENT = 0.05  # seconds of warm-up of a later visit, one iteration at least
MOST_WARM_UP = 15.0  # seconds of the first one: the two windows that it takes at least, of iterations that last a second
SLOW = 8.0  # times the seconds of a visit, after which it ends with fewer samples than wanted


def run(state: State, request: dict[str, Any]) -> dict[str, Any]:
    """Time a shape.

    Args:
        state: Holds the loaded contender and the vocabulary; remembers which shapes are warm.
        request: ``batch`` and ``tokens``; ``seed``, integers that are the same for every contender; ``seconds`` and
            ``samples``, what the visit should at least have of both.

    Returns:
        ``seconds`` of each iteration, and ``warm_up``.
    """
    shape = Shape(batch=request["batch"], tokens=request["tokens"])
    contender, vocabulary = state.engine(), state.vocabulary
    assert vocabulary is not None
    warming = iteration(contender, shape, vocabulary, np.random.default_rng([*request["seed"], 0]))
    warm = _warm(warming, state.warm.get(str(shape)), request["seconds"])
    state.warm[str(shape)] = warm
    timed = iteration(contender, shape, vocabulary, np.random.default_rng([*request["seed"], 1]))
    most = max(SLOW * request["seconds"], 1e-3)
    seconds = sample(timed, least_samples=request["samples"], least_seconds=request["seconds"], most_seconds=most)
    return {"seconds": seconds, "warm_up": dataclasses.asdict(warm)}


def _warm(once: Callable[[], float], before: WarmUp | None, seconds: float) -> WarmUp:
    """Warm up until the times hold still where the shape is new, and for a moment where it is not."""
    if before is None:
        once()  # compiles, for some
        return warm_up(once, cap=min(MOST_WARM_UP, max(WARM_UP_SECONDS, 11 * once())))
    spent = sample(once, least_samples=1, least_seconds=min(MOMENT, seconds), most_seconds=MOMENT)
    return WarmUp(iterations=len(spent), seconds=sum(spent), converged=before.converged)


def iteration(contender: Contender, shape: Shape, vocabulary: Vocabulary, random: np.random.Generator) -> Callable[[], float]:
    """Make the function that runs a contender once on a new batch and returns its seconds."""

    def once() -> float:
        batch = random_batch(shape, vocabulary, random)
        start = perf_counter()
        contender.logits(batch)
        return perf_counter() - start

    return once
