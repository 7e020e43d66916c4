"""A contender on its way through a benchmark: its process, how it stands, and what it says of itself."""

from __future__ import annotations

import dataclasses
import enum
from typing import Any

from ..engines.registry import Kind
from .process import ContenderFailedError, Worker


class Status(enum.StrEnum):
    """How it went with a contender."""

    MEASURED = "measured"
    WRONG = "wrong"
    MISSING = "missing"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


@dataclasses.dataclass
class Lane:
    """A contender on its way through a benchmark.

    Attributes:
        kind: Its entry in the registry.
        worker: Its process; None before it is started and after it has ended.
        status: How it stands: interrupted until its measurement is complete.
        why: The reason where it is not measured.
        check: The document's ``check``, from the check on.
        description: What it says of itself, from the load on.
        load_seconds: How long the load took.
    """

    kind: Kind
    worker: Worker | None = None
    status: Status = Status.INTERRUPTED
    why: str = "ended before it was measured to the end"
    check: dict[str, Any] | None = None
    description: dict[str, Any] = dataclasses.field(default_factory=dict)
    load_seconds: float | None = None

    @property
    def name(self) -> str:
        """Its name."""
        return self.kind.name

    @property
    def running(self) -> bool:
        """Whether it can be asked for more."""
        return self.worker is not None

    def call(self, task: str, *, timeout: float, **request: Any) -> dict[str, Any] | None:
        """Ask its process for a task; None where it failed, which its status then says."""
        if self.worker is None:
            return None
        try:
            return self.worker.call(task, timeout=timeout, **request)
        except ContenderFailedError as error:
            missing = error.kind in ("MissingDependencyError", "ModuleNotFoundError")
            self.end(Status.MISSING if missing else Status.FAILED, str(error))
            return None

    def end(self, status: Status, why: str = "") -> None:
        """Stop its process and note how it went."""
        self.status, self.why = status, why
        if self.worker is not None:
            self.worker.stop()
            self.worker = None

    def entry(self) -> dict[str, Any]:
        """Return its part of the document, without results."""
        # `engine` is the registry's, by which a reader tells whose it is; the version that a contender adds is in `versions`.
        shown = {key: value for key, value in self.description.items() if key not in ("name", "engine", "why")}
        return {
            "name": self.name,
            "title": self.kind.title,
            "engine": self.kind.engine,
            "precision": self.kind.precision,
            "device": None,
            "threads": None,
            "versions": {},
            **shown,
            "status": str(self.status),
            "why": self.why if self.status is not Status.MEASURED else str(self.description.get("why", "")),
            "load_seconds": self.load_seconds,
            "check": self.check,
        }
