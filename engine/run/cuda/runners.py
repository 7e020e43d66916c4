"""The runners of a GPU: packed, or padded where the packed graph does not work or the artifact has none.

The padded graph's attention is cuDNN's, which takes 55 ms for the first batch of each shape. On an H200, BERT-base, reviews of
326 tokens run padded at half the speed at the first pass, and 1 to 3 % faster from then on (bench/NOTES.md, "CUDA").
"""

from __future__ import annotations

import abc
import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ...text.tokenizer import Row
from ..batches import COARSE, CUDA_BUDGET, FINE, Batch, Budget, pack, packed_bucket, pad_to, padded_bucket
from ..runner import PaddedBatch, PaddedRunner
from .graphs import GraphCache, NoMemoryLeftError, capturable, cuda_lock

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
    """Runs padded batches. ``max_length``: maximum tokens of a row; ``fineness``: of the ladder, where none is captured."""

    max_length: int
    budget: Budget = CUDA_BUDGET
    chunk: int = 2048
    fineness: int = FINE  # COARSE: a third fewer shapes (each costs cuDNN 55 ms at first), a tenth more padding

    def prepare(self, rows: Sequence[Row]) -> Batch:
        """Pad to the next shape of the ladder."""
        lengths = [len(row.ids) for row in rows]
        fineness = _fineness(len(rows), len(rows) * max(lengths), self.fineness)
        return pad_to(rows, padded_bucket(lengths, fineness=fineness, max_length=self.max_length), self.pad_id)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PackedRunner(_GraphRunner):
    """Runs batches without padding: the tokens of all texts in one row. ``block``: tokens of a block (``Session.block``)."""

    budget: Budget = PACKED_BUDGET
    chunk: int = 512
    block: int = 1
    padded: ClassVar[bool] = False

    def prepare(self, rows: Sequence[Row]) -> Batch:
        """Concatenate the rows, filled up to the next shape of the ladder."""
        lengths = [len(row.ids) for row in rows]
        fineness = _fineness(len(rows), sum(lengths))
        bucket = packed_bucket(lengths, fineness=fineness, block=self.block, padded=self.padded)
        return pack(rows, bucket, self.pad_id, self.block)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PaddedScoresRunner(PackedRunner):
    """Runs a packed graph whose scores of positions are those of padded texts: texts of similar length share a batch."""

    budget: Budget = CUDA_BUDGET
    chunk: int = 2048
    padded: ClassVar[bool] = True


def _fineness(texts: int, tokens: int, otherwise: int = FINE) -> int:
    """Choose few shapes if each is captured, little waste if none is."""
    return COARSE if capturable(texts, tokens) else otherwise
