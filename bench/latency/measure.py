"""The latency of contenders by shape, from token ids to logits, in turns.

Every round visits every shape, and every shape every contender, so that a machine that slows down half way shows in the
difference of the rounds, and not as a property of one shape or one contender.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from ..engines.shapes import Shape
from ..run.interleave import Field, Lane
from ..run.subject import Size
from ..stats.comparison import Series, doubts
from ..stats.timing import summarize
from .roofline import Ceiling

SEED = 0
_PER_SHAPE = 4.0  # a visit that takes this many times its share and more counts as hung


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """How long to measure.

    Attributes:
        shapes: What to measure, in this order in every round.
        rounds: How often each shape is visited.
        seconds: How long a visit lasts at least.
        samples: Iterations that it has at least; a slow contender may have fewer.
    """

    shapes: tuple[Shape, ...]
    rounds: int
    seconds: float
    samples: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Round:
    """One visit of a contender to a shape.

    Attributes:
        number: The round, from 0.
        seconds: Each sample.
        warm_up: How it warmed up.
        others: Share of the CPUs that other processes had meanwhile; None where it is not known.
    """

    number: int
    seconds: tuple[float, ...]
    warm_up: dict[str, Any]
    others: float | None


Visits = dict[str, dict[Shape, list[Round]]]  # by contender and shape


def measure(field: Field, plan: Plan, visits: Visits) -> None:
    """Visit every shape with every contender that runs; ``visits`` is filled as it goes, so a break leaves what there is."""
    places = {shape: index for index, shape in enumerate(plan.shapes)}

    def visit(lane: Lane, shape: Shape, number: int) -> None:
        found = field.visit(
            lane,
            "latency",
            batch=shape.batch,
            tokens=shape.tokens,
            seed=[SEED, number, places[shape]],
            seconds=plan.seconds,
            samples=plan.samples,
            timeout=field.setting.patience.visit + _PER_SHAPE * plan.seconds,
        )
        if found is not None:
            rounds = visits.setdefault(lane.name, {}).setdefault(shape, [])
            seconds = tuple(found.result["seconds"])
            rounds.append(Round(number=number, seconds=seconds, warm_up=found.result["warm_up"], others=found.others))

    field.turns(plan.shapes, plan.rounds, visit)


def results(visits: dict[Shape, list[Round]], lane: Lane, ceiling: Ceiling | None, size: Size | None) -> list[dict[str, Any]]:
    """Return a contender's ``results`` for the document, a shape each, over the samples of all its rounds."""
    entries = []
    for shape, rounds in visits.items():
        summary = summarize([each for visit in rounds for each in visit.seconds], batch=shape.batch)
        single = [summarize(visit.seconds, batch=shape.batch) for visit in rounds]
        reasons = doubts([each.p50_ms for each in single], [visit.others for visit in rounds])
        share = None
        if ceiling is not None and size is not None:
            share = ceiling.share(size.flops(shape), summary.p50_ms / 1e3, lane.kind.precision)
        entries.append(
            {
                "shape": str(shape),
                **dataclasses.asdict(shape),
                **dataclasses.asdict(summary),
                "share_of_ceiling": share,
                "rounds": [
                    {
                        "round": visit.number,
                        **dataclasses.asdict(each),
                        "warm_up": visit.warm_up,
                        "others": visit.others,
                        "noisy": reason,
                    }
                    for visit, each, reason in zip(rounds, single, reasons, strict=True)
                ],
            }
        )
    return entries


def series(entries: Sequence[dict[str, Any]], rounds: int, *, item: str = "shape") -> tuple[Series, dict[str, list[bool]]]:
    """Take the medians of a contender's rounds from its results, and which are in doubt, each at its round's place."""
    times: dict[str, list[float | None]] = {}
    noisy: dict[str, list[bool]] = {}
    for entry in entries:
        times[entry[item]], noisy[entry[item]] = [None] * rounds, [False] * rounds
        for visit in entry["rounds"]:
            times[entry[item]][visit["round"]] = visit["p50_ms"]
            noisy[entry[item]][visit["round"]] = visit["noisy"] is not None
    return times, noisy
