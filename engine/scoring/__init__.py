"""Batch scoring: rows in, the same rows with labels and scores out.

``score_file`` scores a file in bounded memory, ``Scorer`` a batch of columns for a data framework.
"""

from __future__ import annotations

from .score import score_file
from .scorer import Scorer
from .summary import Summary

__all__ = ["Scorer", "Summary", "score_file"]
