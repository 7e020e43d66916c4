"""Starting fresh processes in turns, up to their first answer."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import resource
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ..engines.environments import python_of
from ..engines.registry import Kind, kind_of
from ..run.activity import others_share, read
from ..run.interleave import Field, Lane, Setting, Status, in_turn, registered, worker_variables
from ..run.process import ContenderFailedError
from ..run.reference import OURS, Checks, judge
from ..stats.comparison import doubts

T = TypeVar("T")
TEXT = "I really loved this movie."
SCRIPT = Path(__file__).with_name("task.py")
PHASES = ("interpreter_s", "import_s", "load_s", "first_s", "total_s")
# What an application that uses the engine imports first, by the file in ``fusedbert.bench.engines``.
IMPORTS = {
    "transformers": ("numpy", "torch", "transformers"),
    "optimum": ("numpy", "onnxruntime", "optimum.onnxruntime"),
    "onnxruntime": ("numpy", "onnxruntime", "tokenizers"),
    "openvino": ("numpy", "openvino", "tokenizers"),
    "ctranslate2": ("numpy", "ctranslate2", "tokenizers"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Start:
    """One process from its start to its first answer.

    Attributes:
        number: The round, from 0.
        seconds: The ``PHASES``; what they have in common with nothing but the benchmark is in none of them.
        peak_bytes: The most memory that it had resident.
        others: Share of the CPUs that other processes had meanwhile; None where it is not known.
    """

    number: int
    seconds: Mapping[str, float]
    peak_bytes: int
    others: float | None


@dataclasses.dataclass
class Starts:
    """What a contender brought; filled as it goes.

    Attributes:
        starts: In the order of the rounds.
        installed_bytes: Disk that the distributions take which it needs; None before it is known.
        environment_bytes: Disk that all packages of its environment take.
    """

    starts: list[Start] = dataclasses.field(default_factory=list)
    installed_bytes: int | None = None
    environment_bytes: int | None = None


Records = dict[str, Starts]
Launch = Callable[[Kind, "Request"], dict[str, Any]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """What a process is asked for.

    Attributes:
        setting: How contenders are run.
        packages: Folder of links to our packages, for the environments of others.
        sizes: Whether it looks at the installed packages too, after its answer.
        timeout: Seconds after which it counts as hung.
        device: ``cpu`` or ``cuda``, where it is not the job's.
    """

    setting: Setting
    packages: Path
    sizes: bool
    timeout: float
    device: str | None = None


def measure(
    field: Field,
    rounds: int,
    multi_label: bool,
    records: Records,
    launch: Launch | None = None,
    *,
    by_order: bool = False,
) -> None:
    """Start every contender once without counting, then in turns.

    Args:
        field: The contenders, checked. Their processes are stopped: nothing else of theirs runs while one starts.
        rounds: Starts of each.
        multi_label: Whether each logit is a decision of its own.
        records: Filled as it goes, so that a break leaves what there is.
        launch: Starts a process; None for ``start_process``.
        by_order: Whether the model is a regression.

    Raises:
        ContenderFailedError: Our fp32 graph, against which the answers are held, did not start.
    """
    launch = launch or start_process
    lanes = [lane for lane in field.lanes if lane.running]
    for lane in lanes:
        if lane.worker is not None:
            lane.worker.stop()
            lane.worker = None
    request = Request(setting=field.setting, packages=field.packages, sizes=False, timeout=field.setting.patience.load)
    field.progress.step(f"starting {OURS}, for its answer")
    reference = launch(kind_of(OURS), dataclasses.replace(request, device="cpu"))["logits"]
    checks = dataclasses.replace(_checks(reference, multi_label), by_order=by_order)
    lanes = [lane for lane in lanes if _first(field, lane, launch, dataclasses.replace(request, sizes=True), checks, records)]
    spent: dict[str, float] = {}
    for number in range(rounds):
        left = sum(spent.values()) / number * (rounds - number) if number else None
        field.progress.step(f"round {number + 1} of {rounds}", left=left)
        for lane in in_turn(list(lanes), number):
            field.progress.tell(f"{lane.name}, round {number + 1} of {rounds}", left=left)
            begun = time.monotonic()
            found = _attempt(field, lane, functools.partial(observe, launch, lane.kind, request, number))
            if found is None:
                lanes.remove(lane)
                continue
            spent[lane.name] = spent.get(lane.name, 0.0) + time.monotonic() - begun
            records[lane.name].starts.append(found)
    for lane in lanes:
        lane.status, lane.why = Status.MEASURED, ""


def _first(field: Field, lane: Lane, launch: Launch, request: Request, checks: Checks, records: Records) -> bool:
    """Start a contender for the first time: its files come into memory, and its answer is looked at."""
    field.progress.step(f"starting {lane.name} once, not counted")
    found = _attempt(field, lane, functools.partial(launch, lane.kind, request))
    if found is None:
        return False
    verdict = judge([found["logits"]], checks, lane.kind.tolerance)
    if not verdict.right:
        lane.end(Status.WRONG, f"the first answer: {verdict.why}")
        field.progress.say(f"{lane.name} {lane.status}: {lane.why}")
        return False
    records[lane.name] = Starts(installed_bytes=found["installed_bytes"], environment_bytes=found["environment_bytes"])
    return True


def _attempt(field: Field, lane: Lane, start: Callable[[], T]) -> T | None:
    """Start a process; None where it failed, which the lane's status then says."""
    try:
        return start()
    except ContenderFailedError as error:
        lane.end(Status.FAILED, str(error))
        field.progress.say(f"{lane.name} {lane.status}: {lane.why}")
        return None


def observe(launch: Launch, kind: Kind, request: Request, number: int) -> Start:
    """Start a process, and see what the rest of the machine did meanwhile."""
    before, children = read([]), _children_seconds()
    found = launch(kind, request)
    after = read([])
    if after is not None:  # the process has ended by now, and counts among our children
        after = dataclasses.replace(after, own=after.own + _children_seconds() - children)
    return Start(number=number, seconds=phases(found), peak_bytes=found["peak_bytes"], others=others_share(before, after))


def phases(found: Mapping[str, Any]) -> dict[str, float]:
    """Split the time from the moment at which the process was started to its first answer.

    Example:
        >>> times = {"spawned": 10.0, "begun": 10.25, "uncounted_s": 0.5, "import_s": 1.0, "load_s": 2.0, "first_s": 0.25}
        >>> phases({**times, "first_at": 14.0})["total_s"]
        3.5
    """
    return {
        "interpreter_s": found["begun"] - found["spawned"],
        "import_s": found["import_s"],
        "load_s": found["load_s"],
        "first_s": found["first_s"],
        "total_s": found["first_at"] - found["spawned"] - found["uncounted_s"],
    }


def start_process(kind: Kind, request: Request) -> dict[str, Any]:
    """Start a contender in a fresh process and wait for its answer.

    Returns:
        What ``task.py`` writes, and ``spawned``, the time at which it was started.

    Raises:
        ContenderFailedError: It died, hung, or answered with something else.
    """
    python = python_of(kind.environment)
    if python is None:
        raise ContenderFailedError(f"its environment is not built: fusedbert bench setup {kind.environment}")
    job = request.setting.job.to_json() | ({"device": request.device} if request.device else {})
    asked = {
        "contender": registered(kind.name),
        "ours": kind.engine == "fusedbert",
        "precision": kind.precision,
        "imports": IMPORTS.get(kind.module, ()),
        "job": job,
        "text": TEXT,
        "sizes": request.sizes,
    }
    environment = worker_variables(kind, request.setting, request.packages)
    command = [str(python), "-P", str(SCRIPT), json.dumps(asked)]
    return run_script(command, environment, request.timeout)


def run_script(command: Sequence[str], environment: Mapping[str, str], timeout: float) -> dict[str, Any]:
    """Run a script that answers with one line of JSON, the last on stdout.

    Raises:
        ContenderFailedError: It died, hung, or answered with something else.
    """
    with tempfile.TemporaryFile() as log:
        spawned = time.time()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, env=dict(environment), start_new_session=True
        )
        try:
            output, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            raise ContenderFailedError(f"no answer within {timeout:.0f} s, so its process was ended") from None
        finally:
            if process.poll() is None:
                with contextlib.suppress(OSError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        log.seek(0)
        words = [line.strip() for line in log.read().decode("utf-8", "replace").splitlines() if line.strip()]
    if process.returncode:
        last = f": {words[-1][:300]}" if words else ""
        raise ContenderFailedError(f"its process left with status {process.returncode}{last}")
    lines = output.decode("utf-8", "replace").strip().splitlines()
    try:
        found = json.loads(lines[-1])
        assert isinstance(found, dict)
    except (ValueError, IndexError, AssertionError):
        raise ContenderFailedError(f"its process answered with something else: {lines[-1:]!r:.200}") from None
    return {**found, "spawned": spawned}


def _children_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _checks(logits: Sequence[Sequence[float]], multi_label: bool) -> Checks:
    reference = np.array(logits, dtype=np.float64)  # [1, labels]
    return Checks(batches=(), counted=(len(reference),), pad=0, reference=reference, computed_by=OURS, multi_label=multi_label)


def results(record: Starts) -> list[dict[str, Any]]:
    """Return a contender's ``results`` for the document: medians over its starts; empty where there was none."""
    if not record.starts:
        return []
    middle = {name: float(np.median([start.seconds[name] for start in record.starts])) for name in PHASES}
    totals = [start.seconds["total_s"] for start in record.starts]
    return [
        {
            **middle,
            "peak_mb": float(np.median([start.peak_bytes for start in record.starts])) / 1e6,
            "installed_mb": None if record.installed_bytes is None else record.installed_bytes / 1e6,
            "environment_mb": None if record.environment_bytes is None else record.environment_bytes / 1e6,
            "fastest_s": min(totals),
            "slowest_s": max(totals),
            "rounds": totals,
            "round_numbers": [start.number for start in record.starts],
            "starts": [{**start.seconds, "peak_mb": start.peak_bytes / 1e6} for start in record.starts],
            "others": [start.others for start in record.starts],
            "noisy": doubts(totals, [start.others for start in record.starts]),
        }
    ]
