"""Interleaved measurement: every engine in its own process, visited in every round, in an order that rotates.

A measurement goes round after round, within a round item after item (a shape, a corpus), and visits every engine that still
runs: a slow spell of the machine hits all alike. A failure is reported, and the other engines go on.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import IO, Any, NamedTuple, TypeVar

import numpy as np
from tqdm import tqdm

from ..engines.base import EngineSpec, Job
from ..engines.environments import OURS, links, python_of, variables
from ..engines.registry import registered
from .machine import others_share, read_cpu_time
from .process import EngineFailedError, Worker

SLOW = 4.0  # seconds of a round from which it gets a line outside a terminal
LONG = 30.0  # the same for the steps before the rounds


class Progress:
    """A progress line on a stream; None for stderr."""

    def __init__(self, stream: IO[str] | None = None) -> None:
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty()
        self._bar: Any = None
        self._last = time.monotonic()

    def update(self, text: str, *, left: float | None = None) -> None:
        """Show the current activity and the seconds left; only on a terminal."""
        if not self._live:
            return
        if self._bar is None:
            self._bar = tqdm(total=0, bar_format="{desc}", file=self._stream, leave=False, dynamic_ncols=True)
        self._bar.set_description_str(_with_time(text, left))

    def begin(self) -> None:
        """Restart the time that ``step`` measures."""
        self._last = time.monotonic()

    def step(self, text: str, *, left: float | None = None, after: float = LONG) -> None:
        """Announce a step: like ``update`` on a terminal, elsewhere as a line if the last one is ``after`` seconds old."""
        if self._live:
            self.update(text, left=left)
        elif time.monotonic() - self._last >= after:
            self.write(_with_time(text, left))
            self._last = time.monotonic()

    def write(self, text: str) -> None:
        """Write a line that stays."""
        self.clear()
        self._stream.write(text + "\n")
        self._stream.flush()

    def clear(self) -> None:
        """Remove the line."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _with_time(text: str, left: float | None) -> str:
    return text if left is None else f"{text}, {duration(left)} left"


def duration(seconds: float) -> str:
    """Write a duration in words.

    Example:
        >>> duration(42.4), duration(600)
        ('42 s', '10 min')
    """
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


T = TypeVar("T")
CONVERTED = 2.0  # seconds from which a preparation has converted something


class Status(enum.StrEnum):
    """Outcome of an engine."""

    MEASURED = "measured"
    WRONG = "wrong"
    MISSING = "missing"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Patience:
    """Seconds after which an engine counts as hung, by task."""

    prepare: float = 1500.0
    load: float = 300.0
    check: float = 600.0
    visit: float = 120.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunSettings:
    """Settings of the engines' processes.

    ``python_path`` are folders at the front of the workers' module path; ``factories`` are the ``module:function`` of engines
    outside the registry, by name.
    """

    job: Job
    patience: Patience = Patience()
    python_path: tuple[Path, ...] = ()
    factories: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class EngineProcess:
    """An engine in a run.

    Attributes:
        worker: Its process; None before it is started and after it has ended.
        status: Interrupted until its measurement is complete.
        why: The reason if it is not measured.
        check: The document's ``check``; None before the check.
        description: The engine's own description; empty before the model is open.
    """

    spec: EngineSpec
    worker: Worker | None = None
    status: Status = Status.INTERRUPTED
    why: str = "ended before it was measured to the end"
    check: dict[str, Any] | None = None
    description: dict[str, Any] = dataclasses.field(default_factory=dict)
    load_seconds: float | None = None

    @property
    def name(self) -> str:
        """The engine's name."""
        return self.spec.name

    def call(self, task: str, *, timeout: float, **request: Any) -> dict[str, Any] | None:
        """Request a task; None if it failed, with the reason in the status."""
        if self.worker is None:
            return None
        try:
            return self.worker.call(task, timeout=timeout, **request)
        except EngineFailedError as error:
            missing = error.kind in ("MissingDependencyError", "ModuleNotFoundError")
            self.end(Status.MISSING if missing else Status.FAILED, str(error))
            return None

    def end(self, status: Status, why: str) -> None:
        """Stop the process and record the status."""
        self.status, self.why = status, why
        if self.worker is not None:
            self.worker.stop()
            self.worker = None

    def entry(self) -> dict[str, Any]:
        """Return its part of the document, without results."""
        # `engine` is the registry's group; the version that an engine adds to it is in `versions`.
        shown = {key: value for key, value in self.description.items() if key not in ("name", "engine", "why")}
        return {
            "name": self.name,
            "title": self.spec.title,
            "engine": self.spec.engine,
            "precision": self.spec.precision,
            "device": None,
            "threads": None,
            "versions": {},
            **shown,
            "status": str(self.status),
            "why": self.why if self.status is not Status.MEASURED else str(self.description.get("why", "")),
            "load_seconds": self.load_seconds,
            "check": self.check,
        }


class Sample(NamedTuple):
    """The result of one visit, and the share of the CPUs that other processes had during it; None if unknown."""

    result: dict[str, Any]
    others: float | None


@dataclasses.dataclass(frozen=True)
class Run:
    """The engines of a run, how they are run, where steps are announced, and the folder of links to our packages."""

    processes: Sequence[EngineProcess]
    settings: RunSettings
    progress: Progress
    packages: Path

    @property
    def running(self) -> list[EngineProcess]:
        """The engines that take requests."""
        return [process for process in self.processes if process.worker is not None]

    def interleave(self, items: Sequence[T], rounds: int, visit: Callable[[EngineProcess, T, int], None]) -> None:
        """Go round after round, and call ``visit`` with each running engine, item and round number."""
        self.progress.begin()
        spent: list[float] = []  # seconds of each visit
        for number in range(rounds):
            for place, item in enumerate(items):
                for turn, process in enumerate(round_robin(self.running, number + place)):
                    visits = len(items) * len(self.running)  # of a round
                    usual = float(np.mean(spent[-visits:])) if spent else None  # the first round warms up
                    left = None if usual is None else usual * max(0, rounds * visits - len(spent))
                    if turn == 0 and place == 0:
                        self.progress.step(f"round {number + 1} of {rounds}", left=left, after=SLOW)
                    self.progress.update(f"{process.name} {item}, round {number + 1} of {rounds}", left=left)
                    begun = monotonic()
                    visit(process, item, number)
                    spent.append(monotonic() - begun)
        self.complete()

    def complete(self, processes: Sequence[EngineProcess] | None = None) -> None:
        """Mark engines as measured; all that run by default."""
        for process in self.running if processes is None else processes:
            process.status, process.why = Status.MEASURED, ""

    def sample(self, process: EngineProcess, task: str, *, timeout: float | None = None, **request: Any) -> Sample | None:
        """Request a task, and read how busy other processes kept the machine; None if it failed."""
        pids = [process.worker.pid] if process.worker is not None else []
        before = read_cpu_time(pids)
        result = process.call(task, timeout=timeout or self.settings.patience.visit, **request)
        if result is None:
            self.report(process)
            return None
        return Sample(result, others_share(before, read_cpu_time(pids)))

    def report(self, process: EngineProcess) -> None:
        """Write a line on why an engine has ended; nothing if it still runs."""
        if process.worker is None:
            self.progress.write(f"{process.name} {process.status}: {process.why}")

    def variables(self, spec: EngineSpec) -> dict[str, str]:
        """Return the environment variables of an engine's process; fusedbert's uses our packages as they are installed."""
        found = variables(self.packages, threads=self.settings.job.threads)
        inherited = os.environ.get("PYTHONPATH", "") if spec.environment == OURS else str(self.packages)
        found["PYTHONPATH"] = os.pathsep.join(filter(None, (*map(str, self.settings.python_path), inherited)))
        return found


def round_robin(engines: Sequence[T], turn: int) -> list[T]:
    """Order engines for a turn: each time another one begins, and every second time they go backwards.

    Example:
        >>> round_robin(["a", "b", "c"], 1)
        ['b', 'a', 'c']
    """
    if not engines:
        return []
    first = turn % len(engines)
    order = [*engines[first:], *engines[:first]]
    return order if turn % 2 == 0 else [order[0], *reversed(order[1:])]


@contextlib.contextmanager
def open_run(engines: Sequence[EngineSpec], settings: RunSettings, progress: Progress) -> Iterator[Run]:
    """Open a run of engines; their processes are ended when the context exits."""
    processes = [EngineProcess(spec=spec) for spec in engines]
    with links() as packages:  # as long as they run: the module of a task is imported at its first request
        try:
            yield Run(processes, settings, progress, packages)
        finally:
            progress.clear()
            for process in processes:
                if process.worker is not None:
                    process.worker.stop(patience=0.5)
                    process.worker = None


def start(run: Run) -> None:
    """Start every engine, convert its model and open it; failures are recorded in its status."""
    for number, process in enumerate(run.processes, start=1):
        python = python_of(process.spec.environment)
        if python is None:
            process.status = Status.MISSING
            process.why = f"its environment is not built: fusedbert bench setup {process.spec.environment}"
        else:
            _start(process, python, run, f"({number} of {len(run.processes)})")
            run.report(process)


def _start(process: EngineProcess, python: Path, run: Run, of: str) -> None:
    settings, patience = run.settings, run.settings.patience
    request = {"engine": registered(process.name), "job": settings.job.to_json()}
    for fresh in (False, True):
        try:
            process.worker = Worker(python, run.variables(process.spec))
        except EngineFailedError as error:
            process.end(Status.FAILED, str(error))
            return
        run.progress.step(f"preparing {process.name} {of}")
        factory = settings.factories.get(process.name)
        prepared = process.call("prepare", timeout=patience.prepare, factory=factory, **request)
        if prepared is None:
            return
        # A conversion leaves memory and threads behind that running its result does not need.
        if prepared["seconds"] < CONVERTED or fresh:
            break
        process.worker.stop()
    run.progress.step(f"loading {process.name} {of}")
    opened = process.call("open", timeout=patience.load, tokenizer=str(settings.job.artifact))
    if opened is not None:
        process.description, process.load_seconds = opened["description"], opened["seconds"]
