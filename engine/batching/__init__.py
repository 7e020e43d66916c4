"""Concurrent callers, gathered into batches: ``Batcher``."""

from __future__ import annotations

from fusedbert.engine.batching.batcher import Batcher
from fusedbert.engine.batching.queue import BatcherStats

__all__ = ["Batcher", "BatcherStats"]
