"""fusedbert as an application loads it: batches enter after the tokenizer, texts before it."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fusedbert.engine.classifier import Classifier
from fusedbert.engine.hardware.device import CUDA
from fusedbert.engine.load import Options
from fusedbert.engine.load.open import load
from fusedbert.engine.model import Model
from fusedbert.engine.text.tokenizer import Row

from .base import Engine
from .batches import Batch, Logits


class FusedBert(Engine):
    """fusedbert on the artifact, in the precision that the registry names.

    Attributes:
        classifier: The object that an application calls; None before ``load`` and after ``close``.
    """

    packages = ("fusedbert", "onnxruntime", "onnxruntime-gpu", "numpy", "tokenizers")
    classifier: Classifier | None = None

    @functools.cached_property
    def folder(self) -> Path:
        """The artifact, which was exported before the benchmark began."""
        return self.job.artifact

    def load(self) -> None:
        """Open the graph."""
        job = self.job
        options = Options.parse(
            device=job.device, precision=self.spec.precision, threads=job.threads, max_length=job.max_length
        )
        self._model = load(self.folder, options)
        self.classifier = Classifier(Model(self._model, options))

    def logits(self, batch: Batch) -> Logits:
        """Run the graph on a batch as ``Classifier`` does after tokenizing; float32 [batch, labels]."""
        loaded = self._open()
        if loaded.runtime.provider == CUDA:  # the runner owns its buffers and its layout
            logits: Logits = loaded.runner.execute(loaded.runner.prepare(_rows(batch)))
        else:
            logits = loaded.session.run(batch.arrays())
        return logits

    def texts(self, texts: Sequence[str], *, batch_size: int, max_length: int) -> Logits:
        """Call ``decision_function``, float32 [texts, labels]; it plans its own batches.

        Raises:
            ValueError: ``max_length`` differs from the one it was loaded with.
        """
        del batch_size
        limit = self._open().tokenizer.max_length
        if self.classifier is None or max_length != limit:
            raise ValueError(f"max_length is {max_length}, and {self.name} was loaded with {limit}")
        return self.classifier.decision_function(list(texts))

    def describe(self) -> Mapping[str, Any]:
        """Describe the engine's choice, and its reason."""
        runtime = self._open().runtime
        chosen = {name: getattr(runtime, name) for name in ("device", "provider", "precision", "fused_attention", "threads")}
        return {**super().describe(), **chosen, "graph": runtime.file.name, "why": runtime.why}

    def close(self) -> None:
        """Free the session."""
        if self.classifier is not None:
            self.classifier.close()
        self.classifier = None
        super().close()


def _rows(batch: Batch) -> list[Row]:
    """Remove the padding: the rows as the tokenizer returns them."""
    lengths = batch.attention_mask.sum(axis=1).tolist()  # [batch]
    arrays = zip(batch.input_ids, batch.token_type_ids, lengths, strict=True)
    return [Row(ids=ids[:n].tolist(), types=types[:n].tolist(), truncated=False) for ids, types, n in arrays]
