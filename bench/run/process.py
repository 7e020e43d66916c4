"""The other end of ``fusedbert.bench.run.worker``: a process for a contender, asked one thing at a time.

A crash, a hang and an exception over there all become ``ContenderFailedError`` here, with the reason in one line.
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
from types import TracebackType
from typing import IO, Any

from fusedbert.engine.errors import FusedBertError

MODULE = "fusedbert.bench.run.worker"
LAST_WORDS = 4000  # bytes from the end of stderr that are looked at


class ContenderFailedError(FusedBertError, RuntimeError):
    """A contender's process died, hung, or raised.

    Attributes:
        kind: Name of the exception that the contender raised; empty where it died or hung.
    """

    def __init__(self, reason: str, kind: str = "") -> None:
        super().__init__(reason)
        self.kind = kind


ContenderFailed = ContenderFailedError


class Worker:
    """A running worker process.

    Example:
        >>> worker = Worker.start()  # doctest: +SKIP
        >>> worker.call("prepare", timeout=60, contender="fusedbert-fp32", job={...})  # doctest: +SKIP
        >>> worker.stop()  # doctest: +SKIP
    """

    def __init__(self, process: subprocess.Popen[str], log: IO[bytes]) -> None:
        self._process = process
        self._log = log
        self._asked = 0
        self._answers: queue.Queue[str | None] = queue.Queue()
        assert process.stdin is not None and process.stdout is not None
        self._requests = process.stdin
        self._reader = threading.Thread(target=self._read, args=(process.stdout,), name="fusedbert-worker", daemon=True)
        self._reader.start()

    @classmethod
    def start(cls, python: Path | None = None, variables: Mapping[str, str] | None = None) -> Worker:
        """Start a process.

        Args:
            python: The interpreter of the contender's environment; None for this one.
            variables: Environment variables to set there, beside those of this process.

        Raises:
            ContenderFailedError: It cannot be started.
        """
        log = tempfile.TemporaryFile()  # noqa: SIM115  # closed by stop
        inherited = {name: value for name, value in os.environ.items() if name != "PYTHONHOME"}
        environment = {**inherited, "PYTHONUNBUFFERED": "1", "PYTHONNOUSERSITE": "1", **(variables or {})}
        try:
            process = subprocess.Popen(
                [str(python or sys.executable), "-P", "-m", MODULE],  # -P: the working directory is the user's, not ours
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                text=True,
                encoding="utf-8",
                start_new_session=True,  # Ctrl-C is for us; we stop the workers
            )
        except OSError as error:
            log.close()
            raise ContenderFailedError(f"{python or sys.executable} cannot be started: {error.strerror or error}") from None
        return cls(process, log)

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def call(self, task: str, *, timeout: float, **request: Any) -> dict[str, Any]:
        """Ask for a task and wait for its result.

        Args:
            task: Name of a module of ``fusedbert.bench.run.state``.
            timeout: Seconds after which the process counts as hung, and is ended.
            request: What the task is given; plain values that fit into JSON.

        Raises:
            ContenderFailedError: It raised, died or hung. After the latter two every further call fails at once.
        """
        self._asked += 1
        try:
            self._requests.write(json.dumps({"id": self._asked, "task": task, "request": request}) + "\n")
            self._requests.flush()
        except (OSError, ValueError):
            raise ContenderFailedError(self._obituary(task)) from None
        answer = self._wait(task, timeout)
        if "error" in answer:
            raise ContenderFailedError(f"{task}: {answer['kind']}: {answer['error']}", kind=answer["kind"])
        result = answer["result"]
        assert isinstance(result, dict)
        return result

    def stop(self, patience: float = 2.0) -> None:
        """End the process, gently for ``patience`` seconds and then by force; a second call does nothing."""
        with contextlib.suppress(OSError, ValueError):
            self._requests.close()  # it leaves when there is nothing more to read
        try:
            self._process.wait(patience)
        except subprocess.TimeoutExpired:
            pass
        finally:
            self._kill()
            self._log.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def _wait(self, task: str, timeout: float) -> dict[str, Any]:
        try:
            line = self._answers.get(timeout=timeout)
        except queue.Empty:
            self._kill()
            raise ContenderFailedError(f"{task}: no answer within {timeout:.0f} s, so its process was ended") from None
        if line is None:
            raise ContenderFailedError(self._obituary(task))
        try:
            answer = json.loads(line)
            assert answer["id"] == self._asked
        except (ValueError, KeyError, TypeError, AssertionError):
            self._kill()
            raise ContenderFailedError(f"{task}: its process answered with something else: {line[:100]!r}") from None
        assert isinstance(answer, dict)
        return answer

    def _read(self, stream: IO[str]) -> None:
        """Pass lines on, in a thread, because a pipe cannot be waited for with a limit everywhere; None is the end."""
        with contextlib.suppress(ValueError, OSError):
            for line in stream:
                self._answers.put(line)
        self._answers.put(None)

    def _obituary(self, task: str) -> str:
        """Say how the process ended, with the last line that it wrote."""
        try:
            status: int | None = self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._kill()
            status = None
        how = f"left with status {status}"
        if status is not None and status < 0:
            with contextlib.suppress(ValueError):
                how = f"was ended by {signal.Signals(-status).name}"
        words = self.last_words()
        return f"{task}: its process {how}" + (f": {words}" if words else "")

    def last_words(self) -> str:
        """Return the last line of what the process wrote to stderr, or an empty text."""
        try:
            size = self._log.seek(0, os.SEEK_END)
            self._log.seek(max(0, size - LAST_WORDS))
            lines = [line.strip() for line in self._log.read().decode("utf-8", "replace").splitlines() if line.strip()]
        except (OSError, ValueError):
            return ""
        return lines[-1][:300] if lines else ""

    def _kill(self) -> None:
        """End the process and those that it started (compilers, for example), and let go of the pipes."""
        if hasattr(os, "killpg"):
            with contextlib.suppress(OSError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        with contextlib.suppress(OSError, ValueError):
            self._requests.close()
