"""Client of ``fusedbert.bench.run.worker``: an engine's process, with one request at a time.

A crash, a hang and an exception in the process all become an ``EngineFailedError`` with the reason in one line.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fusedbert.engine.errors import FusedBertError

MODULE = "fusedbert.bench.run.worker"
LAST_WORDS = 4000  # bytes from the end of stderr that are searched for the last line


class EngineFailedError(FusedBertError, RuntimeError):
    """An engine's process died, hung, or raised."""

    def __init__(self, reason: str, kind: str = "") -> None:
        super().__init__(reason)
        self.kind = kind  # name of the exception that the engine raised; empty if it died or hung


class Worker:
    """A worker process, started in the environment of an engine.

    Args:
        python: The interpreter of that environment; None for this one.
        variables: Environment variables to set, in addition to those of this process.

    Raises:
        EngineFailedError: It cannot be started.
    """

    def __init__(self, python: Path | None = None, variables: Mapping[str, str] | None = None) -> None:
        inherited = {name: value for name, value in os.environ.items() if name != "PYTHONHOME"}
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # closed by stop
        try:
            self._process = subprocess.Popen(
                [str(python or sys.executable), "-P", "-m", MODULE],  # -P: the working directory is the user's
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                env={**inherited, "PYTHONUNBUFFERED": "1", "PYTHONNOUSERSITE": "1", **(variables or {})},
                text=True,
                encoding="utf-8",
                start_new_session=True,  # Ctrl-C reaches only this process, which stops the workers
            )
        except OSError as error:
            self._log.close()
            raise EngineFailedError(f"{python or sys.executable} cannot be started: {error.strerror or error}") from None
        assert self._process.stdin is not None
        self._requests = self._process.stdin
        self._answers: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def call(self, task: str, *, timeout: float, **request: Any) -> dict[str, Any]:
        """Request a task of ``fusedbert.bench.run.worker.TASKS`` with plain values for JSON, and wait for its result.

        Raises:
            EngineFailedError: It raised, died or took more than ``timeout`` seconds. After the latter two every further call
                fails at once.
        """
        try:
            self._requests.write(json.dumps({"task": task, "request": request}) + "\n")
            self._requests.flush()
        except (OSError, ValueError):
            raise EngineFailedError(self._obituary(task)) from None
        try:
            line = self._answers.get(timeout=timeout)
        except queue.Empty:
            self._kill()
            raise EngineFailedError(f"{task}: no answer within {timeout:.0f} s, so its process was ended") from None
        if line is None or not line.endswith("\n"):  # it ended, perhaps while it wrote
            raise EngineFailedError(self._obituary(task))
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise EngineFailedError(f"{task}: {answer['kind']}: {answer['error']}", kind=answer["kind"])
        return dict(answer["result"])

    def stop(self, patience: float = 2.0) -> None:
        """End the process: by the end of its input, and by force after ``patience`` seconds; a second call does nothing."""
        with contextlib.suppress(OSError, ValueError):
            self._requests.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(patience)
        self._kill()
        self._log.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _read(self) -> None:
        """Pass lines on, in a thread, because a pipe has no portable timeout; None marks the end."""
        with contextlib.suppress(ValueError, OSError):
            for line in self._process.stdout or ():
                self._answers.put(line)
        self._answers.put(None)

    def _obituary(self, task: str) -> str:
        try:
            status = self._process.wait(5)
        except subprocess.TimeoutExpired:  # it only closed its pipes
            self._kill()
            status = self._process.wait()
        how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"left with status {status}"
        return ": ".join(filter(None, (task, f"its process {how}", self.last_words())))

    def last_words(self) -> str:
        """Return the last line that the process wrote to stderr, or an empty text."""
        if self._log.closed:
            return ""
        self._log.seek(max(0, self._log.seek(0, os.SEEK_END) - LAST_WORDS))
        return last_line(self._log.read())

    def _kill(self) -> None:
        kill_group(self._process)
        with contextlib.suppress(OSError, ValueError):
            self._requests.close()


def kill_group(process: subprocess.Popen[Any]) -> None:
    """End a process that leads a session, with all its children (compilers, for example)."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(5)


def last_line(log: bytes) -> str:
    """Return the last line of a log that is not empty, shortened."""
    lines = [line.strip() for line in log.decode("utf-8", "replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""
