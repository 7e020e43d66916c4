"""Batch scoring: a file of rows in, the same rows with their labels and scores out; none lost, none twice.

``score_file`` reads, tokenizes, runs and writes at the same time, in memory that does not grow with the file, and can be
killed at any moment: what it had committed is kept, and ``resume`` ends with the same bytes. ``Scorer`` is the same for a
batch of columns in memory, and picklable, for a data framework to call. csv, tsv and jsonl need the standard library alone;
parquet and zst need pyarrow.
"""

from __future__ import annotations

from .score import score_file
from .scorer import Scorer
from .summary import Summary

__all__ = ["Scorer", "Summary", "score_file"]
