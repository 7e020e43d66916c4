"""Concurrent callers, gathered into batches: ``Batcher``."""

from __future__ import annotations

from .batcher import Batcher
from .queue import BatcherStats

__all__ = ["Batcher", "BatcherStats"]
