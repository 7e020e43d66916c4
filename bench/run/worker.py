"""The process that a contender runs in: it reads requests, one JSON object a line, and answers each with one.

It is started with the python of the contender's environment as ``python -m fusedbert.bench.run.worker``, so it imports the
standard library alone; a task's module (see ``TASKS``) is imported when it is first asked for.

* request: ``{"id": 1, "task": "latency", "request": {...}}``
* answer: ``{"id": 1, "result": {...}}`` or ``{"id": 1, "error": "one line", "kind": "ValueError"}``

The end of the input ends the process, so that none outlives the one that started it.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from typing import IO, Any

from .state import State

TASKS = {
    "prepare": "run.prepare",
    "load": "run.load",
    "check": "run.check",
    "latency": "latency.task",
    "overhead": "latency.overhead",
    "ceiling": "latency.roofline_task",
    "corpus": "corpus.task",
    "arrivals": "load.task",
    "startup": "startup.task",
}


def serve(requests: IO[str], answers: IO[str], state: State) -> None:
    """Answer requests until there are no more. A task that raises is an answer too; its traceback goes to stderr."""
    for line in requests:
        asked = json.loads(line)
        try:
            answer = {"result": perform(asked["task"], state, asked["request"])}
            text = json.dumps({"id": asked["id"], **answer})
        except Exception as error:  # whatever an engine may raise
            traceback.print_exc()
            reason = " ".join(str(error).split()) or "no message"
            text = json.dumps({"id": asked["id"], "error": reason[:1000], "kind": type(error).__name__})
        answers.write(text + "\n")
        answers.flush()


def perform(task: str, state: State, request: dict[str, Any]) -> dict[str, Any]:
    """Run a task by name.

    Raises:
        ValueError: There is no task of this name.
    """
    if task not in TASKS:
        raise ValueError(f"{task!r} is no name of a task")
    result = importlib.import_module(f"fusedbert.bench.{TASKS[task]}").run(state, request)
    assert isinstance(result, dict)
    return result


def main() -> None:
    """Serve the process that started this one.

    Engines and the libraries under them print what they like to file descriptor 1. The answers go to a duplicate of it,
    and descriptor 1 itself becomes stderr, which the other side keeps in a file.
    """
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    requests = os.fdopen(os.dup(0), encoding="utf-8")
    os.dup2(2, 1)
    with open(os.devnull, "rb") as nothing:  # noqa: PTH123  # nothing that is called here may read the requests
        os.dup2(nothing.fileno(), 0)
    state = State()
    status = 1
    try:
        serve(requests, answers, state)
        status = 0
    except BaseException:  # SystemExit too: nothing that runs in here may leave without a word
        traceback.print_exc()
    sys.stderr.flush()
    os._exit(status)  # an engine's threads at exit are not waited for


if __name__ == "__main__":
    main()
