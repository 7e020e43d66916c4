"""Runners: tokenized rows to logits, for each layout and device.

A run has two halves, so that another thread can prepare a batch while the GPU computes one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..text.tokenizer import Row, pad
from .batches import CPU_BUDGET, Budget
from .session import Session


class Prepared(Protocol):
    """A batch laid out for a run."""

    @property
    def tokens(self) -> int:
        """Tokens to compute, padding included."""
        ...


class Runner(Protocol):
    """A way to compute logits: ``runner.execute(runner.prepare(rows))``."""

    @property
    def file(self) -> Path:
        """The graph, for messages."""
        ...

    @property
    def budget(self) -> Budget:
        """Limits of a batch."""
        ...

    @property
    def chunk(self) -> int:
        """Number of texts to tokenize and sort together."""
        ...

    @property
    def prefetch(self) -> bool:
        """True to prepare batches in a separate thread while one runs."""
        ...

    def prepare(self, rows: Sequence[Row]) -> Prepared:
        """Lay out a batch for ``execute``."""
        ...

    def execute(self, prepared: Any) -> NDArray[np.float32]:
        """Compute the logits ``[rows, labels]`` of a prepared batch; of a token classifier, those of all rows' tokens.

        Raises:
            InferenceError: The graph failed.
        """
        ...


def run(runner: Runner, rows: Sequence[Row]) -> NDArray[np.float32]:
    """Compute the logits of one batch of rows, as ``Runner.execute``."""
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
    """Runs batches padded to their longest row, in the caller's thread; the attributes are those of ``Runner``."""

    session: Session
    pad_id: int
    budget: Budget = CPU_BUDGET
    chunk: int = 2048  # enough to find rows of equal length, few enough to stay small
    prefetch: bool = False

    @property
    def file(self) -> Path:
        """The session's file."""
        return self.session.file

    def prepare(self, rows: Sequence[Row]) -> PaddedBatch:
        """Pad to the longest row."""
        return PaddedBatch(feeds=pad(rows, self.pad_id))

    def execute(self, prepared: PaddedBatch) -> NDArray[np.float32]:
        """Run the session; of the logits of tokens, leave out those of padding."""
        logits = self.session.run(prepared.feeds)  # [rows, labels], or [rows, longest, labels]
        return logits if logits.ndim == 2 else logits[prepared.feeds["attention_mask"] != 0]
