"""Measuring contenders under load: arrivals at rising rates, in turns, until each one's capacity is known."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..corpus.texts import Corpus
from ..run.activity import BUSY
from ..run.interleave import Field, Lane, Status, in_turn
from ..run.progress import duration
from .open_loop import Outcome, pool
from .search import Search

SEED = 0
SATURATE_SECONDS = 1.5
LEAST_GRACE = 1.0  # seconds that answers may take after the last arrival, or twice the budget
RETRIES = 2  # runs at a rate that are thrown away, where it was not held while other processes had the CPUs
LATE = 2.0  # budgets that the sender may fall behind before it stops, on top of the grace


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What to measure.

    Attributes:
        corpus: The texts, from which each arrival is drawn.
        max_length: Tokens at which they are cut.
        budget: Seconds within which 99 % of the arrivals are to be answered.
        seconds: Length of one run at one rate.
        rounds: Runs at each rate.
        callers: Threads that call in plain mode.
        modes: ``plain`` and ``batcher``, or one of them.
        rates: Rates to try, arrivals a second; empty to look for the capacity.
    """

    corpus: Corpus
    max_length: int
    budget: float
    seconds: float
    rounds: int
    callers: int
    modes: tuple[str, ...]
    rates: tuple[float, ...] = ()

    @property
    def grace(self) -> float:
        """Seconds that answers may take after the last arrival."""
        return max(LEAST_GRACE, 2.0 * self.budget)

    @property
    def run_seconds(self) -> float:
        """Seconds that a run takes at most."""
        return self.seconds + 2.0 * self.grace + LATE * self.budget


@dataclasses.dataclass
class Level:
    """One rate of a course.

    Attributes:
        rate: Arrivals a second.
        outcomes: A run for each round.
        others: Share of the CPUs that other processes had, for each round.
        dropped: Runs that were thrown away, because other processes had the CPUs.
    """

    rate: float
    outcomes: list[Outcome] = dataclasses.field(default_factory=list)
    others: list[float | None] = dataclasses.field(default_factory=list)
    dropped: int = 0

    @property
    def whole(self) -> Outcome:
        """All rounds as one."""
        return pool(self.outcomes)


@dataclasses.dataclass
class Course:
    """A contender in one mode.

    Attributes:
        mode: ``plain`` or ``batcher``.
        saturated: Answers a second while it is never idle.
        search: Which rate comes next.
        levels: The rates so far, in the order in which they were tried.
    """

    mode: str
    saturated: float
    search: Search
    levels: list[Level] = dataclasses.field(default_factory=list)

    def held(self, level: Level, budget: float) -> bool:
        """Tell whether a rate was held within the budget."""
        return level.whole.within(budget)


@dataclasses.dataclass
class Served:
    """What a contender brought; filled as it goes.

    Attributes:
        alone_ms: Median milliseconds of a text while nothing else runs.
        callers: Threads that call it in plain mode.
        one_caller: Why there is one alone, or empty.
        courses: By mode.
    """

    alone_ms: float
    callers: int
    one_caller: str
    courses: dict[str, Course] = dataclasses.field(default_factory=dict)


Records = dict[str, Served]


def measure(field: Field, plan: Plan, records: Records) -> None:
    """Open the texts everywhere, find each one's saturation, then try rates in turns.

    Args:
        field: The contenders, started and checked.
        plan: What to measure.
        records: Filled as it goes, so that a break leaves what there is.
    """
    with tempfile.TemporaryDirectory(prefix="fusedbert-load-") as folder:
        texts = Path(folder) / "texts.json"
        texts.write_text(json.dumps(plan.corpus.texts), encoding="utf-8")
        for lane in field.running:
            _open(field, lane, plan, texts, records)
        field.progress.say(announce(plan, records))
        turn = 0
        while _step(field, plan, records, turn):
            turn += 1
    for lane in field.running:
        lane.status, lane.why = Status.MEASURED, ""


def announce(plan: Plan, records: Records) -> str:
    """Say how long it takes at most."""
    searches = [course.search for served in records.values() for course in served.courses.values()]
    runs = plan.rounds * sum(search.most for search in searches)
    most = duration(runs * plan.run_seconds)
    return f"{len(searches)} courses, at most {runs} runs of {plan.seconds:g} s of arrivals: at most {most}, usually half of it"


def _open(field: Field, lane: Lane, plan: Plan, texts: Path, records: Records) -> None:
    """Give a contender its texts, and keep it busy for a moment in each mode, to know which rates to try."""
    patience = field.setting.patience
    field.progress.step(f"{lane.name}: looking for its saturation")
    request = {"path": str(texts), "max_length": plan.max_length, "callers": plan.callers}
    opened = lane.call("arrivals", timeout=patience.load, step="open", **request)
    if opened is not None:
        served = Served(alone_ms=opened["alone_ms"], callers=opened["callers"], one_caller=opened["why"])
        for mode in (mode for mode in plan.modes if mode in opened["modes"]):
            timeout = patience.visit + SATURATE_SECONDS
            found = lane.call("arrivals", timeout=timeout, step="saturate", mode=mode, seconds=SATURATE_SECONDS)
            if found is None:
                break
            served.callers, served.one_caller = found.get("callers", served.callers), found.get("why", served.one_caller)
            search = Search(max(found["rate"], 0.1), rates=plan.rates)
            served.courses[mode] = Course(mode=mode, saturated=found["rate"], search=search)
        else:
            records[lane.name] = served
    if not lane.running:
        field.progress.say(f"{lane.name} {lane.status}: {lane.why}")


def _step(field: Field, plan: Plan, records: Records, turn: int) -> bool:
    """Try the next rate of every course, round after round; return whether there was any."""
    levels: list[tuple[Lane, Course, Level]] = []
    for lane, course in _courses(field, records, turn):
        rate = course.search.next()
        if rate is not None:
            course.levels.append(Level(rate=rate))
            levels.append((lane, course, course.levels[-1]))
    for number in range(plan.rounds):
        for lane, course, level in levels:
            left = _left(field, plan, records)
            field.progress.step(f"{lane.name} {course.mode}, {level.rate:.3g} a second", left=left)
            _visit(field, lane, course, level, plan, [SEED, turn, number])
    for _lane, course, level in levels:
        if level.outcomes:
            course.search.record(level.rate, held=course.held(level, plan.budget))
        else:  # it failed: nothing more will come
            course.levels.remove(level)
    return bool(levels) and bool(field.running)


def _courses(field: Field, records: Records, turn: int) -> Iterator[tuple[Lane, Course]]:
    """Yield what runs now, in an order that rotates."""
    for lane in in_turn([lane for lane in field.running if lane.name in records], turn):
        for course in records[lane.name].courses.values():
            yield lane, course


def _visit(field: Field, lane: Lane, course: Course, level: Level, plan: Plan, seed: list[int]) -> None:
    """Run a rate once; where it is not held and the machine was busy with others meanwhile, once more."""
    found = field.visit(
        lane,
        "arrivals",
        step="run",
        mode=course.mode,
        rate=level.rate,
        seconds=plan.seconds,
        seed=seed,
        grace=plan.grace,
        give_up=plan.grace + LATE * plan.budget,
        timeout=field.setting.patience.visit + plan.run_seconds,
    )
    if found is not None:
        latencies = np.array(found.result["latencies"], dtype=np.float64)
        outcome = Outcome(**{**found.result, "latencies": latencies})
        disturbed = found.others is not None and found.others > BUSY
        if disturbed and not outcome.within(plan.budget) and level.dropped < RETRIES:
            level.dropped += 1
            _visit(field, lane, course, level, plan, [*seed, level.dropped])
            return
        level.outcomes.append(outcome)
        level.others.append(found.others)


def _left(field: Field, plan: Plan, records: Records) -> float:
    """Estimate the seconds that are left, if every course went on as long as it can."""
    ahead = sum(max(0, course.search.most - len(course.levels) + 1) for _, course in _courses(field, records, 0))
    return ahead * plan.rounds * plan.seconds


def results(served: Served, plan: Plan) -> list[dict[str, Any]]:
    """Return a contender's ``results`` for the document, by mode and rising rate."""
    found = []
    for course in served.courses.values():
        for level in sorted((level for level in course.levels if level.outcomes), key=lambda level: level.rate):
            single = [float(1e3 * np.percentile(each.latencies, 99)) for each in level.outcomes if len(each.latencies)]
            found.append(
                {
                    "mode": course.mode,
                    **level.whole.figures(),
                    "within_budget": course.held(level, plan.budget),
                    "rounds": single,
                    "others": level.others,
                    "dropped": level.dropped,
                }
            )
    return found


def capacities(served: Served) -> dict[str, dict[str, float | None]]:
    """Return by mode the ``rate`` that was held, the lowest ``beyond`` it that was not, and the rate ``saturated``."""
    return {
        course.mode: {**dataclasses.asdict(course.search.capacity), "saturated": course.saturated}
        for course in served.courses.values()
    }
