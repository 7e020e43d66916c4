"""Contenders: the engines that a benchmark times, one file each, behind one small interface.

A contender is made with its options and does nothing until ``load``. A benchmark then calls ``logits`` with one batch
after another, which is what it times: from token ids in memory to logits in memory, whatever copies that takes. So an
engine that is asynchronous waits in ``logits`` until the numbers are there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fusedbert.bench.batches import Batch


class Contender(Protocol):
    """An engine with a model in it."""

    @property
    def name(self) -> str:
        """What tables call it, e.g. ``fusedbert``."""

    def load(self) -> None:
        """Make the engine ready to run; called once, before anything is timed.

        Raises:
            FusedBertError: The model, the device or the precision cannot be had.
        """

    def logits(self, batch: Batch) -> NDArray[np.float32]:
        """Compute the logits of a batch, float32 [batch, labels]."""

    def describe(self) -> Mapping[str, Any]:
        """Say what was loaded: device, precision, threads, versions; plain values that fit into JSON."""

    def close(self) -> None:
        """Let go of the model; ``load`` is not called again."""
