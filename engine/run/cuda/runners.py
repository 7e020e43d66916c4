"""The runners of a GPU: padded, packed, and the one that chooses between them by what a batch would waste."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...text.tokenizer import Row
from ..packing import COARSE, FINE, Batch, pack, packed_bucket, pad_to, padded_bucket, padding_share
from ..plan import CUDA_BUDGET, Budget
from ..runner import PaddedBatch, PaddedRunner
from .graphs import NoMemoryLeftError, ShapedSession, capturable
from .lock import turn

# Share of padding up to which a large batch takes the padded graph, whose attention has better kernels on recent GPUs and
# whose last layer is smaller. A guess from reading the kernels, to be set by measurement: bench/NOTES.md, "CUDA".
# A small batch takes the packed graph: there the number of kernels is what takes the time, and it launches a fifth fewer.
PADDED_UP_TO = 0.05
# Packed texts share a batch whatever their lengths; only the room that attention takes is rows times the longest. As many
# tokens as in a padded batch fill any GPU, and twice as many would take twice the memory: BERT-base, 3.1 GiB instead of 4.9.
PACKED_BUDGET = Budget(tokens=CUDA_BUDGET.tokens, rows=2 * CUDA_BUDGET.rows, waste=1.0)
_log = logging.getLogger("fusedbert")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlainCudaRunner(PaddedRunner):
    """Runs a graph that was made for another target: without buffers of its own and captures, and in its turn all the same."""

    budget: Budget = CUDA_BUDGET
    ahead: bool = True

    def execute(self, prepared: PaddedBatch) -> NDArray[np.float32]:
        """Run the session."""
        with turn:
            return super().execute(prepared)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PaddedCudaRunner:
    """Runs padded batches through reused buffers, small ones as CUDA graphs.

    Attributes:
        shaped: The session.
        pad_id: Token that fills shorter rows.
        max_length: Tokens of a row at most.
        budget: Limits of one batch.
    """

    shaped: ShapedSession
    pad_id: int
    max_length: int
    budget: Budget = CUDA_BUDGET
    window: int = 2048
    ahead: bool = True

    @property
    def file(self) -> Path:
        """The session's."""
        return self.shaped.session.file

    def prepare(self, rows: Sequence[Row]) -> Batch:
        """Pad to the next shape of the ladder."""
        lengths = [len(row.ids) for row in rows]
        fineness = _fineness(len(rows), len(rows) * max(lengths))
        return pad_to(rows, padded_bucket(lengths, fineness=fineness, max_length=self.max_length), self.pad_id)

    def execute(self, prepared: Batch) -> NDArray[np.float32]:
        """Run the session, and drop the fillers."""
        return _run(self, prepared)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PackedRunner:
    """Runs packed batches through reused buffers, small ones as CUDA graphs.

    Attributes:
        shaped: The session.
        pad_id: Token of the fillers.
        budget: Limits of one batch.
    """

    shaped: ShapedSession
    pad_id: int
    budget: Budget = PACKED_BUDGET
    window: int = 512
    ahead: bool = True

    @property
    def file(self) -> Path:
        """The session's."""
        return self.shaped.session.file

    def prepare(self, rows: Sequence[Row]) -> Batch:
        """Lay the rows one after the other, up to the next shape of the ladder."""
        lengths = [len(row.ids) for row in rows]
        return pack(rows, packed_bucket(lengths, fineness=_fineness(len(rows), sum(lengths))), self.pad_id)

    def execute(self, prepared: Batch) -> NDArray[np.float32]:
        """Run the session, and drop the fillers."""
        return _run(self, prepared)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chosen:
    """A batch, and the runner that it was laid out for."""

    runner: PaddedCudaRunner | PackedRunner
    batch: Batch

    @property
    def tokens(self) -> int:
        """The batch's."""
        return self.batch.tokens


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChoosingRunner:
    """Takes the padded graph for a large batch that would hardly be padded, and the packed one for the rest.

    Attributes:
        padded: For batches of up to ``up_to`` padding that are too large for a CUDA graph.
        packed: For the others, single texts among them.
        up_to: Share of padding, 0 to 1.
    """

    padded: PaddedCudaRunner
    packed: PackedRunner
    up_to: float = PADDED_UP_TO
    ahead: bool = True

    @property
    def file(self) -> Path:
        """The packed graph's."""
        return self.packed.file

    @property
    def budget(self) -> Budget:
        """The packed graph's: it is the one that takes any mixture."""
        return self.packed.budget

    @property
    def window(self) -> int:
        """The packed graph's."""
        return self.packed.window

    def prepare(self, rows: Sequence[Row]) -> Chosen:
        """Choose by the rows' lengths, and lay them out."""
        lengths = [len(row.ids) for row in rows]
        small = capturable(len(rows), sum(lengths))
        runner = self.packed if small or padding_share(lengths) > self.up_to else self.padded
        return Chosen(runner=runner, batch=runner.prepare(rows))

    def execute(self, prepared: Chosen) -> NDArray[np.float32]:
        """Run the session that was chosen."""
        return prepared.runner.execute(prepared.batch)


def _run(runner: PaddedCudaRunner | PackedRunner, batch: Batch) -> NDArray[np.float32]:
    """Run a batch; where memory does not suffice, its halves, down to single texts.

    Raises:
        InferenceError: The graph failed, or there is no room for a single text.
    """
    try:
        return runner.shaped.run(batch)
    except NoMemoryLeftError:
        if batch.texts == 1:
            raise
    half = batch.texts // 2
    _log.info("%s has no room for %d texts at a time: in halves", runner.file, batch.texts)
    parts = (batch.rows[:half], batch.rows[half:])
    return np.concatenate([runner.execute(runner.prepare(rows)) for rows in parts])


def _fineness(texts: int, tokens: int) -> int:
    """Choose the ladder: few shapes where each is captured, little waste where none is."""
    return COARSE if capturable(texts, tokens) else FINE
