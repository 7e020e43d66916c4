"""Contenders: the engines that a benchmark times, one file each, behind one small interface.

A contender is made with a job (``fusedbert.bench.engines.registry``) and does nothing until it is told to. A benchmark
then calls ``prepare`` and ``load``, and ``logits`` with one batch after another, which is what it times: from token ids in
memory to logits in memory, whatever copies that takes. So an engine that is asynchronous waits in ``logits`` until the
numbers are there. ``texts`` is timed too, in the benchmarks that begin with a text.

The peers run in environments that hold their engine and none of ours (``fusedbert.bench.engines.environments``). So what is
imported here and in the files beside, when they are imported, is numpy, tokenizers and nothing else that is not Python's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .batches import Batch


class Contender(Protocol):
    """An engine with a model in it."""

    @property
    def name(self) -> str:
        """What tables call it, e.g. ``fusedbert-int8``."""

    def prepare(self) -> None:
        """Convert the checkpoint into what the engine loads; not timed, kept between runs, nothing to do the second time.

        Raises:
            FusedBertError: The checkpoint cannot be converted.
        """

    def load(self) -> None:
        """Make the engine ready to run; called once, before anything is timed.

        Raises:
            FusedBertError: The model, the device or the precision cannot be had.
        """

    def logits(self, batch: Batch) -> NDArray[np.float32]:
        """Compute the logits of a batch, float32 [batch, labels]; rows may be padded on the right."""

    def texts(self, texts: Sequence[str], *, batch_size: int, max_length: int) -> NDArray[np.float32]:
        """Compute the logits of texts, tokenizing included, float32 [texts, labels], in the order of the texts.

        Args:
            texts: Single texts.
            batch_size: Texts that run together; an engine that plans its batches itself does not read it.
            max_length: Tokens at which a text is cut, special tokens included.
        """

    def describe(self) -> Mapping[str, Any]:
        """Say what was loaded: engine, device, precision, threads, versions; plain values that fit into JSON."""

    def close(self) -> None:
        """Let go of the model; ``load`` is not called again."""
