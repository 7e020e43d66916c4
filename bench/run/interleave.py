"""Interleaved measurement: every engine in its own process, visited in every round, in an order that rotates."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import IO, Any, NamedTuple, TypeVar

import numpy as np
from tqdm import tqdm

from ..engines.base import EngineSpec, Job
from ..engines.batches import Shape
from ..engines.environments import OURS, links, python_of, variables
from ..engines.registry import registered
from .machine import others_share, read_cpu_time
from .process import EngineFailedError, Worker

T = TypeVar("T")
SLOW = 4.0  # seconds of a round from which it gets a line outside a terminal
LONG = 30.0  # the same for the steps before the rounds
CONVERTED = 2.0  # seconds from which a preparation has converted something


class Progress:
    """A progress line on a stream; None for stderr."""

    def __init__(self, stream: IO[str] | None = None) -> None:
        self._stream = stream or sys.stderr
        self._bar: tqdm[Any] | None = None
        self.begin()

    def update(self, text: str, *, left: float | None = None) -> None:
        """Show the current activity and the seconds left; only on a terminal."""
        if self._stream.isatty():
            if self._bar is None:
                self._bar = tqdm(total=0, bar_format="{desc}", file=self._stream, leave=False, dynamic_ncols=True)
            self._bar.set_description_str(_with_time(text, left))

    def begin(self) -> None:
        """Restart the time that ``step`` measures."""
        self._last = monotonic()

    def step(self, text: str, *, left: float | None = None, after: float = LONG) -> None:
        """Announce a step: like ``update`` on a terminal, elsewhere as a line if the last one is ``after`` seconds old."""
        self.update(text, left=left)
        if not self._stream.isatty() and monotonic() - self._last >= after:
            self.write(_with_time(text, left))
            self.begin()

    def write(self, text: str) -> None:
        """Write a line that stays."""
        self.clear()
        print(text, file=self._stream, flush=True)

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
    """Settings of the engines' processes."""

    job: Job
    patience: Patience = Patience()
    python_path: tuple[Path, ...] = ()  # folders at the front of the workers' module path
    factories: Mapping[str, str] = dataclasses.field(default_factory=dict)  # name -> module:function, outside the registry
    shapes: tuple[Shape, ...] = ()  # all that will be asked for, a process each of an engine ``per_shape``; empty: not known


@dataclasses.dataclass
class EngineProcess:
    """An engine in a run; of one that is compiled, what runs one shape."""

    spec: EngineSpec
    shape: Shape | None = None  # the only one that it runs; None: all
    worker: Worker | None = None  # its process; None before it is started and after it has ended
    status: Status = Status.INTERRUPTED  # until its measurement is complete
    why: str = "ended before it was measured to the end"  # the reason if it is not measured
    check: dict[str, Any] | None = None  # the document's
    description: dict[str, Any] = dataclasses.field(default_factory=dict)  # the engine's own, once the model is open
    load_seconds: float | None = None

    @property
    def name(self) -> str:
        """The engine's name, which all its processes have."""
        return self.spec.name

    @property
    def title(self) -> str:
        """Name in messages: the engine's, and its shape if it has one."""
        return self.name if self.shape is None else f"{self.name} {self.shape}"

    def takes(self, item: object) -> bool:
        """True if it may be asked for this item."""
        return self.shape in (None, item)

    def call(self, task: str, *, timeout: float, **request: Any) -> dict[str, Any] | None:
        """Request a task; None if it failed, with the reason in the status."""
        if self.worker is not None:
            try:
                return self.worker.call(task, timeout=timeout, **request)
            except EngineFailedError as error:
                missing = error.kind in ("MissingDependencyError", "ModuleNotFoundError")
                self.end(Status.MISSING if missing else Status.FAILED, str(error))
        return None

    def end(self, status: Status, why: str) -> None:
        """Stop the process and record the status."""
        self.status, self.why = status, why
        self.stop()

    def stop(self, patience: float = 2.0) -> None:
        """Stop the process, if it runs, by force after ``patience`` seconds."""
        if self.worker is not None:
            self.worker.stop(patience)
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
    """The result of one visit."""

    result: dict[str, Any]
    others: float | None  # share of the CPUs that other processes had during it; None if unknown


@dataclasses.dataclass(frozen=True)
class Run:
    """The engines of a run, and how they are run."""

    processes: Sequence[EngineProcess]
    settings: RunSettings
    progress: Progress  # where steps are announced
    packages: Path  # the folder of links to our packages

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
                takers = [process for process in self.running if process.takes(item)]
                for turn, process in enumerate(round_robin(takers, number + place)):
                    visits = sum(each.takes(other) for each in self.running for other in items)  # of a round
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
        self.report(process)
        return None if result is None else Sample(result, others_share(before, read_cpu_time(pids)))

    def report(self, process: EngineProcess) -> None:
        """Write a line on why an engine has ended; nothing if it still runs."""
        if process.worker is None:
            self.progress.write(f"{process.title} {process.status}: {process.why}")

    def variables(self, spec: EngineSpec) -> dict[str, str]:
        """Return the environment variables of an engine's process; fusedbert's uses our packages as they are installed."""
        inherited = os.environ.get("PYTHONPATH", "") if spec.environment == OURS else str(self.packages)
        path = os.pathsep.join(filter(None, (*map(str, self.settings.python_path), inherited)))
        return {**variables(self.packages, threads=self.settings.job.threads), "PYTHONPATH": path}


def round_robin(engines: Sequence[T], turn: int) -> list[T]:
    """Order engines for a turn: each time another one begins, and every second time they go backwards.

    Example:
        >>> round_robin(["a", "b", "c"], 1)
        ['b', 'a', 'c']
    """
    first = turn % max(1, len(engines))
    order = [*engines[first:], *engines[:first]]
    return order if turn % 2 == 0 else [*order[:1], *reversed(order[1:])]


@contextlib.contextmanager
def open_run(engines: Sequence[EngineSpec], settings: RunSettings, progress: Progress) -> Iterator[Run]:
    """Open a run of engines; their processes are ended when the context exits."""
    apart: Sequence[Shape | None] = settings.shapes or (None,)
    processes = [EngineProcess(spec=spec, shape=shape) for spec in engines for shape in (apart if spec.per_shape else (None,))]
    with links() as packages:  # as long as they run: the module of a task is imported at its first request
        try:
            yield Run(processes, settings, progress, packages)
        finally:
            progress.clear()
            for process in processes:
                process.stop(patience=0.5)


def start(run: Run) -> None:
    """Start every engine, convert its model and open it; failures are recorded in its status."""
    for number, process in enumerate(run.processes, start=1):
        python = python_of(process.spec.environment)
        if python is None:
            process.status = Status.MISSING
            process.why = f"its environment is not built: fusedbert bench setup {process.spec.environment}"
            continue
        of = f"({number} of {len(run.processes)})"
        run.progress.step(f"preparing {process.title} {of}")
        if _prepare(process, python, run) >= CONVERTED:
            # A conversion leaves memory and threads behind that running its result does not need.
            process.stop()
            _prepare(process, python, run)
        if process.worker is not None:
            run.progress.step(f"{'compiling' if process.spec.per_shape else 'loading'} {process.title} {of}")
            opened = process.call("open", timeout=run.settings.patience.load, tokenizer=str(run.settings.job.artifact))
            if opened is not None:
                process.description, process.load_seconds = opened["description"], opened["seconds"]
        run.report(process)


def _prepare(process: EngineProcess, python: Path, run: Run) -> float:
    """Start a process that makes and converts an engine; return the seconds of the conversion."""
    try:
        process.worker = Worker(python, run.variables(process.spec))
    except EngineFailedError as error:
        process.end(Status.FAILED, str(error))
    settings, name = run.settings, registered(process.name)
    job = dataclasses.replace(settings.job, shape=process.shape)
    request = {"engine": name, "job": job.to_json(), "factory": settings.factories.get(process.name)}
    prepared = process.call("prepare", timeout=settings.patience.prepare, **request)
    return 0.0 if prepared is None else float(prepared["seconds"])
