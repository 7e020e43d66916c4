"""``fusedbert bench startup``: fresh processes up to their first answer, interleaved."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from ..cli.benchmark import Benchmark, execute
from ..engines.base import EngineSpec
from ..engines.environments import python_of
from ..engines.registry import RANKERS, registered, spec_of
from ..report.text import engine_table, render_document
from ..run.interleave import EngineProcess, Run, Status, round_robin
from ..run.machine import others_share, read_cpu_time
from ..run.process import EngineFailedError, kill_group, last_line
from ..run.reference import OURS, Checks, check_answer
from ..run.setup import Lineup, Shared, shared_options
from ..run.stats import noise

ROUNDS = 9
TEXT = "I really loved this movie."
SCRIPT = Path(__file__).with_name("task.py")
PHASES = ("interpreter_s", "import_s", "load_s", "first_s", "total_s")
TIMED = "from the start of a process to its first answer, files in the page cache, one start before that is not counted"
INSTALLED = "the distributions that the process imported something of, and all that these require"
IMPORTS = {  # the first imports of an application, by engine
    "transformers": ("numpy", "torch", "transformers"),
    "optimum": ("numpy", "onnxruntime", "optimum.onnxruntime"),
    "onnxruntime": ("numpy", "onnxruntime", "tokenizers"),
    "openvino": ("numpy", "openvino", "tokenizers"),
    "crossencoder": ("numpy", "torch", "sentence_transformers"),
    "ctranslate2": ("numpy", "ctranslate2", "tokenizers"),
}
COLUMNS = ("total s", "python", "import", "load", "first", "peak MB", "installed MB")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Start:
    """One process up to its first answer."""

    number: int  # of the round, from 0
    seconds: Mapping[str, float]  # by phase, without the benchmark's own code
    peak_bytes: int  # of its resident memory
    others: float | None  # share of the CPUs that other processes had; None if unknown


@dataclasses.dataclass
class Record:
    """The measurements of an engine so far."""

    installed_bytes: int  # of the distributions that it needs
    environment_bytes: int  # of all packages of its environment
    starts: list[Start] = dataclasses.field(default_factory=list)


@click.command()
@shared_options(rounds=f"{ROUNDS}")
def startup(shared: Shared) -> None:
    """Start a fresh process, import, load, answer one text; time, peak memory, and size on disk.

    With --against, processes of all engines are interleaved, one at a time.
    """
    execute(
        shared,
        lambda lineup: Startup(lineup, shared.rounds or ROUNDS, lineup.model.manifest.problem_type),
        render,
        without=RANKERS,
    )


class Startup(Benchmark):
    """The benchmark ``startup``."""

    kind, item, only = "startup", "start", "first answer"

    def __init__(self, lineup: Lineup, rounds: int, problem_type: str) -> None:
        super().__init__(lineup, rounds)
        self.problem_type = problem_type
        self.records: dict[str, Record] = {}

    def measure(self, run: Run) -> None:
        """Start every engine once without counting, then interleaved.

        Their workers are stopped: no engine runs while another one starts.

        Raises:
            EngineFailedError: fusedbert's fp32 graph, whose answer is the reference, did not start.
        """
        engines = run.running
        for process in engines:
            process.stop()
        run.progress.step(f"starting {OURS}, for its answer")
        checks = Checks.of_logits(start_process(run, spec_of(OURS), device="cpu")["logits"], self.problem_type)
        for process in engines:
            run.progress.step(f"starting {process.name} once, not counted")  # which brings its files into memory
            found = _attempt(run, process, sizes=True)
            if found is not None and check_answer(process, found["logits"], checks, "the first answer: "):
                self.records[process.name] = Record(found["installed_bytes"], found["environment_bytes"])
            else:
                run.report(process)
        engines = [process for process in engines if process.name in self.records]
        spent = 0.0
        for number in range(self.rounds):
            left = spent / number * (self.rounds - number) if number else None
            run.progress.step(f"round {number + 1} of {self.rounds}", left=left)
            for process in round_robin(list(engines), number):
                run.progress.update(f"{process.name}, round {number + 1} of {self.rounds}", left=left)
                begun, before = time.monotonic(), read_cpu_time([])
                found = _attempt(run, process)
                if found is None:
                    run.report(process)
                    engines.remove(process)
                    continue
                others = others_share(before, read_cpu_time([]))
                spent += time.monotonic() - begun
                start = Start(number=number, seconds=phases(found), peak_bytes=found["peak_bytes"], others=others)
                self.records[process.name].starts.append(start)
        run.complete(engines)

    def settings(self) -> dict[str, Any]:
        """Return the text, and the meaning of the figures."""
        return {"input": TEXT, "timed": TIMED, "installed": INSTALLED}

    def entry(self, process: EngineProcess) -> dict[str, Any]:
        """Return an engine's results: medians over its starts; none without any."""
        record = self.records.get(process.name)
        return {"results": [result(record)] if record is not None and record.starts else []}


def _attempt(run: Run, process: EngineProcess, *, sizes: bool = False) -> dict[str, Any] | None:
    """Start an engine; None if it failed, with the reason in its status."""
    try:
        return start_process(run, process.spec, sizes=sizes)
    except EngineFailedError as error:
        process.end(Status.FAILED, str(error))
        return None


def phases(found: Mapping[str, Any]) -> dict[str, float]:
    """Split the time from the start of the process to its first answer.

    Example:
        >>> times = {"spawned": 10.0, "begun": 10.25, "uncounted_s": 0.5, "import_s": 1.0, "load_s": 2.0, "first_s": 0.25}
        >>> phases({**times, "first_at": 14.0})["total_s"]
        3.5
    """
    parts = {"interpreter_s": found["begun"] - found["spawned"], **{name: found[name] for name in PHASES[1:4]}}
    return {**parts, "total_s": found["first_at"] - found["spawned"] - found["uncounted_s"]}


def start_process(run: Run, spec: EngineSpec, *, sizes: bool = False, device: str | None = None) -> dict[str, Any]:
    """Start an engine in a fresh process, and return the output of ``task.py`` and the time at which it was ``spawned``.

    With ``sizes`` it also measures the installed packages, after its answer; ``device`` is the job's by default.

    Raises:
        EngineFailedError: It died, hung, or answered with something else.
    """
    python = python_of(spec.environment)
    if python is None:
        raise EngineFailedError(f"its environment is not built: fusedbert bench setup {spec.environment}")
    job = run.settings.job.to_json()
    engine = {"engine": registered(spec.name), "fusedbert": spec.is_fusedbert, "precision": spec.precision}
    request = {"imports": IMPORTS.get(spec.engine, ()), "job": job | {"device": device or job["device"]}, "text": TEXT}
    command = [str(python), "-P", str(SCRIPT), json.dumps({**engine, **request, "sizes": sizes})]
    return run_script(command, run.variables(spec), run.settings.patience.load)


def run_script(command: Sequence[str], environment: Mapping[str, str], timeout: float) -> dict[str, Any]:
    """Run a script that answers with one line of JSON, the last on stdout.

    Raises:
        EngineFailedError: It died, hung, or answered with something else.
    """
    with tempfile.TemporaryFile() as log:
        spawned = time.time()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, env=dict(environment), start_new_session=True
        )
        try:
            output, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            raise EngineFailedError(f"no answer within {timeout:.0f} s, so its process was ended") from None
        finally:
            if process.poll() is None:
                kill_group(process)
        log.seek(0)
        words = last_line(log.read())
    if process.returncode:
        raise EngineFailedError(f"its process left with status {process.returncode}" + (f": {words}" if words else ""))
    lines = output.decode("utf-8", "replace").strip().splitlines()
    try:
        answer = json.loads(lines[-1])
        assert isinstance(answer, dict)
    except (ValueError, IndexError, AssertionError):
        raise EngineFailedError(f"its process answered with something else: {lines[-1:]!r:.200}") from None
    return {**answer, "spawned": spawned}


def result(record: Record) -> dict[str, Any]:
    """Return the document's result of an engine."""
    starts = record.starts
    totals, others = [start.seconds["total_s"] for start in starts], [start.others for start in starts]
    return {
        **{name: float(np.median([start.seconds[name] for start in starts])) for name in PHASES},
        "peak_mb": float(np.median([start.peak_bytes for start in starts])) / 1e6,
        "installed_mb": record.installed_bytes / 1e6,
        "environment_mb": record.environment_bytes / 1e6,
        "fastest_s": min(totals),
        "slowest_s": max(totals),
        "rounds": totals,
        "round_numbers": [start.number for start in starts],
        "starts": [{**start.seconds, "peak_mb": start.peak_bytes / 1e6} for start in starts],
        "others": others,
        "noisy": noise(totals, others),
    }


def render(document: Mapping[str, Any]) -> str:
    """Write a document of kind ``startup`` as text."""
    table = engine_table(document, COLUMNS, _cells, notes=f"installed MB: {INSTALLED}.", time="total")
    return render_document(document, table)


def _cells(result: Mapping[str, Any]) -> list[str]:
    seconds = (f"{result[name]:.3f}" for name in ("total_s", "interpreter_s", "import_s", "load_s", "first_s"))
    return [*seconds, *(f"{result[name]:.0f}" for name in ("peak_mb", "installed_mb"))]
