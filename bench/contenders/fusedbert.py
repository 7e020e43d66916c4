"""Ourselves: the engine as an application loads it, entered behind the tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusedbert.bench.batches import Batch
from fusedbert.engine.device import CUDA
from fusedbert.engine.errors import ClosedError
from fusedbert.engine.loading import Loaded, load
from fusedbert.engine.options import Options
from fusedbert.engine.tokenizer import Row


class FusedBert:
    """The engine on an artifact, on the device and in the precision that the options choose.

    Example:
        >>> contender = FusedBert(Path("artifacts/sst2-mini"), Options())  # doctest: +SKIP
        >>> contender.load()  # doctest: +SKIP
        >>> contender.describe()["precision"]  # doctest: +SKIP
        'fp32'
    """

    name = "fusedbert"

    def __init__(self, artifact: Path, options: Options) -> None:
        self._artifact = artifact
        self._options = options
        self._loaded: Loaded | None = None

    def load(self) -> None:
        """Open the graph."""
        self._loaded = load(self._artifact, self._options)

    def logits(self, batch: Batch) -> NDArray[np.float32]:
        """Run the graph on a batch, as ``Classifier`` does once its texts are tokens; float32 [batch, labels]."""
        loaded = self._open()
        if loaded.runtime.provider == CUDA:  # its buffers and its layout are the runner's
            arrays = zip(batch.input_ids.tolist(), batch.token_type_ids.tolist(), strict=True)
            rows = [Row(ids=ids, types=types, truncated=False) for ids, types in arrays]
            return loaded.runner.execute(loaded.runner.prepare(rows))
        feeds = {
            "input_ids": batch.input_ids,  # [batch, tokens]
            "attention_mask": batch.attention_mask,  # [batch, tokens]
            "token_type_ids": batch.token_type_ids,  # [batch, tokens]
        }
        return loaded.session.run(feeds)

    def describe(self) -> Mapping[str, Any]:
        """Say what the engine chose, and why."""
        runtime = self._open().runtime
        return {
            "device": runtime.device,
            "provider": runtime.provider,
            "precision": runtime.precision,
            "graph": runtime.file.name,
            "fused_attention": runtime.fused_attention,
            "threads": runtime.threads,
            "why": runtime.why,
        }

    def close(self) -> None:
        """Let go of the session."""
        self._loaded = None

    def _open(self) -> Loaded:
        if self._loaded is None:
            raise ClosedError("this contender is not loaded: call load() first")
        return self._loaded
