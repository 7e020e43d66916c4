"""The runners of a GPU: padded, packed, and one that chooses between them for each batch."""

from __future__ import annotations

import abc
import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...text.tokenizer import Row
from ..batches import COARSE, CUDA_BUDGET, FINE, Batch, Budget, pack, packed_bucket, pad_to, padded_bucket, padding_share
from ..runner import PaddedBatch, PaddedRunner
from .graphs import GraphCache, NoMemoryLeftError, capturable, cuda_lock

# A large batch of long texts with little padding takes the padded graph, whose attention is cuDNN's. On an H200, 64 texts of up
# to 384 tokens, BERT-base, take 10.7 ms padded and 12.6 packed; with 10 % padding 10.9 and 11.9, with 20 % 11.0 and 10.4.
# cuDNN takes 55 ms for the first batch of a shape: 2,000 reviews of about 300 tokens took twice as long at the first pass, and
# 8 % less later, so it pays from about 30,000 such texts on. Shorter texts gain about 4 %, which hardly ever pays.
PADDED_FROM = 192  # tokens of the longest text
PADDED_UP_TO = 0.1  # share of padding
# Packed texts share a batch whatever their lengths; only the memory of attention is rows times the longest. As many
# tokens as in a padded batch fill any GPU, and twice as many would take twice the memory: BERT-base, 3.1 GiB instead of 4.9.
PACKED_BUDGET = Budget(tokens=CUDA_BUDGET.tokens, rows=2 * CUDA_BUDGET.rows, waste=1.0)
_log = logging.getLogger("fusedbert")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlainCudaRunner(PaddedRunner):
    """Runs a graph made for another target, without reused buffers and CUDA graphs."""

    budget: Budget = CUDA_BUDGET
    prefetch: bool = True

    def execute(self, prepared: PaddedBatch) -> NDArray[np.float32]:
        """Run the session under the lock."""
        with cuda_lock:
            return super().execute(prepared)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _GraphRunner(abc.ABC):
    """Runs batches through reused buffers, small ones as CUDA graphs."""

    graphs: GraphCache
    pad_id: int
    budget: Budget
    chunk: int
    prefetch: bool = True

    @property
    def file(self) -> Path:
        """The session's file."""
        return self.graphs.session.file

    @abc.abstractmethod
    def prepare(self, rows: Sequence[Row]) -> Batch:
        """Lay out the rows, filled up to the next shape of the ladder."""

    def execute(self, prepared: Batch) -> NDArray[np.float32]:
        """Run a batch; if memory does not suffice, its halves, down to single texts.

        Raises:
            InferenceError: The graph failed, or a single text does not fit.
        """
        try:
            return self.graphs.run(prepared)
        except NoMemoryLeftError:
            if prepared.texts == 1:
                raise
        half = prepared.texts // 2
        _log.info("%s has no room for %d texts at a time: in halves", self.file, prepared.texts)
        parts = (prepared.rows[:half], prepared.rows[half:])
        return np.concatenate([self.execute(self.prepare(rows)) for rows in parts])


@dataclasses.dataclass(frozen=True, kw_only=True)
class PaddedCudaRunner(_GraphRunner):
    """Runs padded batches. ``max_length``: maximum tokens of a row."""

    max_length: int
    budget: Budget = CUDA_BUDGET
    chunk: int = 2048

    def prepare(self, rows: Sequence[Row]) -> Batch:
        """Pad to the next shape of the ladder."""
        lengths = [len(row.ids) for row in rows]
        fineness = _fineness(len(rows), len(rows) * max(lengths))
        return pad_to(rows, padded_bucket(lengths, fineness=fineness, max_length=self.max_length), self.pad_id)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PackedRunner(_GraphRunner):
    """Runs batches without padding: the tokens of all texts in one row."""

    budget: Budget = PACKED_BUDGET
    chunk: int = 512

    def prepare(self, rows: Sequence[Row]) -> Batch:
        """Concatenate the rows, filled up to the next shape of the ladder."""
        lengths = [len(row.ids) for row in rows]
        return pack(rows, packed_bucket(lengths, fineness=_fineness(len(rows), sum(lengths))), self.pad_id)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChoosingRunner:
    """Takes the padded graph for batches of long texts with little padding, too large for a CUDA graph; else the packed one."""

    padded: PaddedCudaRunner
    packed: PackedRunner
    budget: Budget = PackedRunner.budget  # the packed graph takes any mixture of lengths
    chunk: int = PackedRunner.chunk
    prefetch: bool = True

    @property
    def file(self) -> Path:
        """The packed graph."""
        return self.packed.file

    def prepare(self, rows: Sequence[Row]) -> Batch:
        """Choose a graph by the rows' lengths, and lay them out."""
        lengths = [len(row.ids) for row in rows]
        large = not capturable(len(rows), sum(lengths))
        alike = max(lengths) >= PADDED_FROM and padding_share(lengths) <= PADDED_UP_TO
        return (self.padded if large and alike else self.packed).prepare(rows)

    def execute(self, prepared: Batch) -> NDArray[np.float32]:
        """Run the graph that the batch was laid out for."""
        runner = self.packed if "token_offset" in prepared.arrays else self.padded
        return runner.execute(prepared)


def _fineness(texts: int, tokens: int) -> int:
    """Choose few shapes if each is captured, little waste if none is."""
    return COARSE if capturable(texts, tokens) else FINE
