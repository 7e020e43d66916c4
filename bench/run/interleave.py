"""Contenders in turns: a process for each, prepared, loaded and found right before any is timed.

``open_field`` makes the processes. A measurement then goes round after round, within a round item after item (a shape, a
corpus), and visits every contender that still runs, in an order that rotates: whatever the machine does in the meantime
hits all of them alike. What fails is reported and the rest goes on.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar

import numpy as np

from ..engines.environments import OURS, links, python_of, variables
from ..engines.registry import Job, Kind, kind_of
from .activity import Reading, others_share, read
from .lane import Lane as Lane
from .lane import Status as Status
from .process import ContenderFailedError, Worker
from .progress import SLOW, Progress
from .reference import Checks, judge

T = TypeVar("T")
AGAIN = "-again"  # ends the name of a contender of ours that runs a second time
CONVERTED = 2.0  # seconds from which a preparation has done something


@dataclasses.dataclass(frozen=True, kw_only=True)
class Patience:
    """Seconds after which a contender counts as hung, by task."""

    prepare: float = 1500.0
    load: float = 300.0
    check: float = 600.0
    visit: float = 120.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """How contenders are run.

    Attributes:
        job: The model, device and threads.
        patience: Limits in time.
        python_path: Folders that the workers find modules in, before others.
        factories: For engines that are not in the registry, by name: ``module:function``, see the task ``prepare``.
    """

    job: Job
    patience: Patience = Patience()
    python_path: tuple[Path, ...] = ()
    factories: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Visit:
    """What a visit brought.

    Attributes:
        result: The task's.
        others: Share of the CPUs that went to other processes meanwhile; None where it is not known.
    """

    result: dict[str, Any]
    others: float | None


class Field:
    """The contenders of a run."""

    def __init__(self, lanes: Sequence[Lane], setting: Setting, progress: Progress, packages: Path) -> None:
        self.lanes = tuple(lanes)
        self.setting = setting
        self.progress = progress
        self.packages = packages
        self._spent: dict[tuple[str, str], list[float]] = {}

    @property
    def running(self) -> list[Lane]:
        """Those that can be asked for more."""
        return [lane for lane in self.lanes if lane.running]

    def turns(self, items: Sequence[T], rounds: int, visit: Callable[[Lane, T, int], None]) -> None:
        """Go round after round; call ``visit`` with lane, item and number of the round for each that runs at that time."""
        self.progress.begin()
        for number in range(rounds):
            for place, item in enumerate(items):
                for lane in in_turn(self.running, number + place):
                    left = self._left(items, rounds)
                    what = f"{lane.name} {item}, round {number + 1} of {rounds}"
                    if lane is self.running[0] and place == 0:
                        self.progress.step(f"round {number + 1} of {rounds}", left=left, after=SLOW)
                    self.progress.tell(what, left=left)
                    begun = monotonic()
                    visit(lane, item, number)
                    self._spent.setdefault((lane.name, str(item)), []).append(monotonic() - begun)
        for lane in self.running:
            lane.status, lane.why = Status.MEASURED, ""

    def visit(self, lane: Lane, task: str, *, timeout: float | None = None, **request: Any) -> Visit | None:
        """Ask a contender for a task, and see how busy the machine was with others; None where it failed."""
        before = self._reading(lane)
        result = lane.call(task, timeout=timeout or self.setting.patience.visit, **request)
        if result is None:
            self.progress.say(f"{lane.name} {lane.status}: {lane.why}")
            return None
        return Visit(result=result, others=others_share(before, self._reading(lane)))

    def _reading(self, lane: Lane) -> Reading | None:
        return read([lane.worker.pid]) if lane.worker is not None else None

    def _left(self, items: Sequence[Any], rounds: int) -> float | None:
        """Estimate the seconds that are left from the visits so far; None before there are any.

        First visits warm up and take longer, so they only stand for their like until there are others.
        """
        if not self._spent:
            return None
        usual = {key: float(np.mean(spent[1:] or spent)) for key, spent in self._spent.items()}
        typical = float(np.mean(list(usual.values())))
        keys = [(lane.name, str(item)) for lane in self.running for item in items]
        return sum(max(0, rounds - len(self._spent.get(key, []))) * usual.get(key, typical) for key in keys)


def registered(name: str) -> str:
    """Return the registry's name of a contender that may run a second time.

    Example:
        >>> registered("fusedbert-int8-again")
        'fusedbert-int8'
    """
    return name.removesuffix(AGAIN)


def in_turn(lanes: Sequence[Lane], turn: int) -> list[Lane]:
    """Order contenders for a turn: each time another begins, and every second time they go backwards.

    Example:
        >>> in_turn(["a", "b", "c"], 1)
        ['b', 'a', 'c']
    """
    if not lanes:
        return []
    first = turn % len(lanes)
    order = [*lanes[first:], *lanes[:first]]
    return order if turn % 2 == 0 else [order[0], *reversed(order[1:])]


@contextlib.contextmanager
def open_field(names: Sequence[str | Kind], setting: Setting, progress: Progress) -> Iterator[Field]:
    """Name the contenders of a run and give them an end: their processes are stopped when the block is left.

    Args:
        names: Names of the registry, or entries of one's own.
        setting: How to run them.
        progress: Told about every step.
    """
    lanes = [Lane(kind=kind_of(name) if isinstance(name, str) else name) for name in names]
    with links() as packages:  # for as long as they run: a task's module is imported when it is first asked for
        try:
            yield Field(lanes, setting, progress, packages)
        finally:
            progress.clear()
            for lane in lanes:
                if lane.worker is not None:
                    lane.worker.stop(patience=0.5)
                    lane.worker = None


def start(field: Field) -> None:
    """Start, prepare and load every contender; those that cannot be are left with the reason."""
    for number, lane in enumerate(field.lanes, start=1):
        python = python_of(lane.kind.environment)
        if python is None:
            lane.status = Status.MISSING
            lane.why = f"its environment is not built: fusedbert bench setup {lane.kind.environment}"
            continue
        _start(lane, python, field, f"({number} of {len(field.lanes)})")
        if not lane.running:
            field.progress.say(f"{lane.name} {lane.status}: {lane.why}")


def check(field: Field, checks: Checks) -> None:
    """Compare every contender that runs with the reference; a wrong one is stopped."""
    for lane in field.running:
        field.progress.step(f"checking {lane.name}")
        result = lane.call("check", timeout=field.setting.patience.check, **checks.request())
        if result is not None:
            verdict = judge(result["logits"], checks, lane.kind.tolerance)
            lane.check = {**verdict.entry(), "reference": checks.computed_by}
            if not verdict.right:
                lane.end(Status.WRONG, verdict.why)
        if not lane.running:
            field.progress.say(f"{lane.name} {lane.status}: {lane.why}")


def worker_variables(kind: Kind, setting: Setting, packages: Path) -> dict[str, str]:
    """Return the environment variables of a contender's process; ours sees the packages as they are installed."""
    found = variables(packages, threads=setting.job.threads)
    inherited = os.environ.get("PYTHONPATH", "") if kind.environment == OURS else str(packages)
    found["PYTHONPATH"] = os.pathsep.join(filter(None, (*map(str, setting.python_path), inherited)))
    return found


def _start(lane: Lane, python: Path, field: Field, of: str) -> None:
    """Start a contender's process, prepare, and load; where it had something to convert, load in a process of its own."""
    setting, patience = field.setting, field.setting.patience
    environment = worker_variables(lane.kind, setting, field.packages)
    request = {
        "contender": registered(lane.name),
        "job": setting.job.to_json(),
        "factory": setting.factories.get(lane.name),
    }
    for fresh in (False, True):
        try:
            lane.worker = Worker.start(python, environment)
        except ContenderFailedError as error:
            lane.end(Status.FAILED, str(error))
            return
        field.progress.step(f"preparing {lane.name} {of}")
        prepared = lane.call("prepare", timeout=patience.prepare, **request)
        if prepared is None:
            return
        # A conversion leaves memory and threads behind that running the result does not have.
        if prepared["seconds"] < CONVERTED or fresh:
            break
        if lane.worker is not None:
            lane.worker.stop()
    field.progress.step(f"loading {lane.name} {of}")
    loaded = lane.call("load", timeout=patience.load, tokenizer=str(setting.job.artifact))
    if loaded is not None:
        lane.description, lane.load_seconds = loaded["description"], loaded["seconds"]
