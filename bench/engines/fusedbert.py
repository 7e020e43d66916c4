"""fusedbert as an application loads it: batches enter after the tokenizer, texts before it."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fusedbert.engine.hardware.device import CUDA
from fusedbert.engine.load import Options
from fusedbert.engine.load.open import Loaded, load
from fusedbert.engine.model import Model
from fusedbert.engine.run.runner import run
from fusedbert.engine.tasks.classifier import Classifier
from fusedbert.engine.tasks.heads import MultiHeadClassifier, classifier_of
from fusedbert.engine.text.tokenizer import Row

from .base import Engine
from .batches import Batch, Logits


class FusedBert(Engine):
    """fusedbert on the artifact, in the precision that the registry names."""

    packages = ("fusedbert", "onnxruntime", "onnxruntime-gpu", "numpy", "tokenizers")
    classifier: Classifier | MultiHeadClassifier | None = None  # as an application calls it; None before load and after close

    @functools.cached_property
    def folder(self) -> Path:
        """The artifact, which was exported before the benchmark began."""
        return self.job.artifact

    def load(self) -> None:
        """Open the graph."""
        settings = {"threads": self.job.threads, "max_length": self.job.max_length}
        options = Options.parse(device=self.job.device, precision=self.spec.precision, **settings)
        self._model = load(self.folder, options)
        self.classifier = classifier_of(Model(self._model, options))

    def logits(self, batch: Batch) -> Logits:
        """Run the graph on a batch as ``Classifier`` does after tokenizing; float32 [batch, labels]."""
        loaded: Loaded = self._open()
        if loaded.runtime.provider == CUDA:  # the runner owns its buffers and its layout
            lengths = batch.attention_mask.sum(axis=1).tolist()  # [batch]
            padded = zip(batch.input_ids, batch.token_type_ids, lengths, strict=True)
            rows = [Row(ids=ids[:n].tolist(), types=types[:n].tolist()) for ids, types, n in padded]
            return run(loaded.runner, rows)
        return loaded.session.run(batch.arrays())

    def texts(self, texts: Sequence[str], *, batch_size: int, max_length: int) -> Logits:
        """Call ``decision_function``, float32 [texts, labels]; it plans its own batches.

        Raises:
            ValueError: ``max_length`` differs from the one it was loaded with.
        """
        del batch_size
        limit = self._open().tokenizer.max_length
        if self.classifier is None or max_length != limit:
            raise ValueError(f"max_length is {max_length}, and {self.name} was loaded with {limit}")
        found = self.classifier.decision_function(list(texts))
        return np.concatenate(list(found.values()), axis=1) if isinstance(found, dict) else found

    def rank(self, query: str, documents: Sequence[str]) -> list[int]:
        """Call ``Classifier.rank``."""
        self._open()
        assert isinstance(self.classifier, Classifier)
        return [each["corpus_id"] for each in self.classifier.rank(query, documents)]

    def describe(self) -> Mapping[str, Any]:
        """Describe the engine's choice, and its reason."""
        runtime = self._open().runtime
        chosen = ("device", "provider", "precision", "fused_attention", "threads", "why")
        return {**super().describe(), **{name: getattr(runtime, name) for name in chosen}, "graph": runtime.file.name}

    def close(self) -> None:
        """Free the session."""
        if self.classifier is not None:
            self.classifier.close()
        self.classifier = None
        super().close()
