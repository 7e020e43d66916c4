"""Runners: from tokenized rows to logits, whatever layout and device the graph wants.

A run has two halves, so that the first can go on in another thread while the GPU works on the second: ``prepare`` lays
rows out as arrays, ``execute`` computes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..text.tokenizer import Row
from .plan import CPU_BUDGET, Budget, pad
from .session import Session


class Prepared(Protocol):
    """A batch laid out for a run."""

    @property
    def tokens(self) -> int:
        """Tokens that the graph will compute, padding included."""


class Runner(Protocol):
    """What computes logits.

    A run goes ``runner.execute(runner.prepare(rows))``.
    """

    @property
    def file(self) -> Path:
        """The graph, for messages."""

    @property
    def budget(self) -> Budget:
        """Limits of one batch."""

    @property
    def window(self) -> int:
        """Texts that are tokenized and sorted together."""

    @property
    def ahead(self) -> bool:
        """Whether the next batches are worth preparing in a thread of their own while one runs."""

    def prepare(self, rows: Sequence[Row]) -> Prepared:
        """Lay out a batch for ``execute``, which takes what this one made."""

    def execute(self, prepared: Any) -> NDArray[np.float32]:
        """Compute the logits of a prepared batch, ``[rows, labels]``.

        Raises:
            InferenceError: The graph failed.
        """


def run(runner: Runner, rows: Sequence[Row]) -> NDArray[np.float32]:
    """Compute the logits of one batch of rows, ``[rows, labels]``."""
    return runner.execute(runner.prepare(rows))


@dataclasses.dataclass(frozen=True, kw_only=True)
class PaddedBatch:
    """Arrays ``[rows, longest]`` by name."""

    feeds: Mapping[str, NDArray[np.int64]]

    @property
    def tokens(self) -> int:
        """Rows times the longest."""
        return self.feeds["input_ids"].size


@dataclasses.dataclass(frozen=True, kw_only=True)
class PaddedRunner:
    """Pads each batch to its longest row and runs it in the caller's thread.

    Attributes:
        session: The graph.
        pad_id: Token that fills shorter rows.
        budget: Limits of one batch.
    """

    session: Session
    pad_id: int
    budget: Budget = CPU_BUDGET
    window: int = 2048  # enough to find neighbours of equal length, few enough to stay small
    ahead: bool = False

    @property
    def file(self) -> Path:
        """The session's."""
        return self.session.file

    def prepare(self, rows: Sequence[Row]) -> PaddedBatch:
        """Pad."""
        return PaddedBatch(feeds=pad(rows, self.pad_id))

    def execute(self, prepared: PaddedBatch) -> NDArray[np.float32]:
        """Run the session."""
        return self.session.run(prepared.feeds)
