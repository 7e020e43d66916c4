"""Worker process of an engine: it reads requests, one JSON object a line, and answers each with one.

It is started in the engine's environment as ``python -m fusedbert.bench.run.worker``, so it imports only the standard
library; the module of a task (see ``TASKS``) is imported at its first request.

* request: ``{"task": "latency", "request": {...}}``
* answer: ``{"result": {...}}`` or ``{"error": "one line", "kind": "ValueError"}``

The end of the input ends the process, so that none outlives the one that started it; on Linux that is also so during a task.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import importlib
import json
import os
import signal
import sys
import traceback
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..engines.base import Engine
    from ..engines.batches import Vocabulary

TASKS = {  # name -> module and function, which takes a State and a request, and returns plain values for JSON
    "prepare": "run.tasks:prepare",
    "open": "run.tasks:open_model",
    "check": "run.tasks:check",
    "latency": "latency.task:time_shape",
    "overhead": "latency.task:time_overhead",
    "rank": "latency.rank.task:time_ranking",
    "roofline": "latency.roofline:run_products",
    "corpus-open": "corpus.task:open_texts",
    "corpus-trial": "corpus.task:trial",
    "corpus-run": "corpus.task:run_all",
    "corpus-single": "corpus.task:single",
    "load-open": "load.task:open_texts",
    "load-saturate": "load.task:saturate",
    "load-run": "load.task:run_rate",
    "http-labels": "load.http.task:label_texts",
    "http-texts": "load.http.task:open_texts",
    "http-open": "load.http.task:open_server",
    "http-saturate": "load.http.task:saturate_server",
    "http-run": "load.http.task:run_rate",
    "gpu_step": "gpu_steps:run_step",
}
_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of linux/prctl.h: when the thread ends that started this process, its main one


@dataclasses.dataclass
class State:
    """Objects that a worker keeps between tasks."""

    engine: Engine | None = None  # from prepare on
    vocabulary: Vocabulary | None = None  # of random texts, from open on
    warm: dict[str, Any] = dataclasses.field(default_factory=dict)  # the warm-up of each shape so far
    kept: dict[str, Any] = dataclasses.field(default_factory=dict)  # whatever else a task keeps for its next call

    def open_engine(self) -> Engine:
        """Return the engine; a ``RuntimeError`` if ``prepare`` was not requested before."""
        if self.engine is None:
            raise RuntimeError("no engine here yet: the task prepare comes first")
        return self.engine


def serve(requests: IO[str], answers: IO[str], state: State) -> None:
    """Answer requests until the input ends. An exception of a task is an answer too; its traceback goes to stderr."""
    for line in requests:
        try:
            asked = json.loads(line)
            if asked["task"] not in TASKS:
                raise ValueError(f"{asked['task']!r} is not the name of a task")
            module, _, function = TASKS[asked["task"]].partition(":")
            perform = getattr(importlib.import_module(f"fusedbert.bench.{module}"), function)
            text = json.dumps({"result": perform(state, asked["request"])})
        except Exception as error:  # whatever an engine may raise
            traceback.print_exc()
            reason = " ".join(str(error).split()) or "no message"
            text = json.dumps({"error": reason[:1000], "kind": type(error).__name__})
        answers.write(text + "\n")
        answers.flush()


def end_with_parent(parent: int | None = None) -> None:
    """Let Linux end this process with the one that started it: what goes on would disturb whatever is measured next.

    If ``parent``, the id of the latter, is given, it ends at once where that has gone already.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)
        if parent not in (None, os.getppid()):
            os._exit(1)


def main() -> None:
    """Serve the process that started this one.

    Engines and their libraries may print to file descriptor 1. So the answers go to a duplicate of it, and descriptor 1
    itself becomes stderr, which the other side keeps in a file.
    """
    end_with_parent()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    requests = os.fdopen(os.dup(0), encoding="utf-8")
    os.dup2(2, 1)
    with open(os.devnull, "rb") as nothing:  # noqa: PTH123  # no library may read the requests
        os.dup2(nothing.fileno(), 0)
    try:
        serve(requests, answers, State())
        status = 0
    except BaseException:  # SystemExit too: an engine that exits must leave a reason
        traceback.print_exc()
        status = 1
    sys.stderr.flush()
    os._exit(status)  # without waiting for an engine's threads


if __name__ == "__main__":
    main()
