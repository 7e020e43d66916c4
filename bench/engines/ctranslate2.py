"""CTranslate2 on the CPU: its encoder with BERT's pooler, and the classifier's one product in NumPy.

Converted by ``ctranslate2.converters.TransformersConverter``; the precision is the ``compute_type`` at load.
"""

from __future__ import annotations

import functools
import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fusedbert.engine.errors import CheckpointError

from .base import Engine
from .batches import Batch, Logits
from .transformers import read_module

_COMPUTE = {"fp32": "float32", "int8": "int8_float32"}
_HEAD = "head.npz"


class CTranslate2(Engine):
    """A BERT checkpoint in CTranslate2."""

    packages = ("ctranslate2", "transformers", "torch")

    @functools.cached_property
    def folder(self) -> Path:
        """The converted encoder, with the head next to it."""
        return self.converted("ctranslate2", lambda folder: _convert(self.checkpoint, folder))

    def load(self) -> None:
        """Load the encoder with all threads for one batch."""
        ctranslate2 = importlib.import_module("ctranslate2")  # the package has the name of this file
        settings = {"compute_type": _COMPUTE[self.spec.precision], "inter_threads": 1, "intra_threads": self.job.threads}
        self._model = ctranslate2.Encoder(str(self.folder), device="cpu", **settings)
        self._view = ctranslate2.StorageView.from_array
        with np.load(self.folder / _HEAD) as head:
            self._weight, self._bias = head["weight"], head["bias"]  # [hidden, labels], [labels]

    def logits(self, batch: Batch) -> Logits:
        """Run the encoder and the head; float32 [batch, labels]."""
        lengths = batch.attention_mask.sum(axis=1, dtype=np.int32)  # [batch]
        output = self._open().forward_batch(
            self._view(np.ascontiguousarray(batch.input_ids, dtype=np.int32)),
            self._view(lengths),
            token_type_ids=batch.token_type_ids.tolist(),
        )
        pooled = np.array(output.pooler_output)  # [batch, hidden], after tanh
        return np.asarray(pooled @ self._weight + self._bias)

    def describe(self) -> Mapping[str, Any]:
        """Add the compute type in use."""
        return {**super().describe(), "compute_type": str(self._open().compute_type)}


def _convert(checkpoint: Path, folder: Path) -> None:
    """Convert a checkpoint in fp32; a ``CheckpointError`` if it is not a BERT, whose head is the only one built here."""
    family = json.loads((checkpoint / "config.json").read_bytes()).get("model_type")
    if family != "bert":
        raise CheckpointError(f"model_type is {family!r}, and CTranslate2 is measured with bert only: leave CTranslate2 out")
    from ctranslate2.converters import TransformersConverter

    TransformersConverter(str(checkpoint)).convert(str(folder), quantization="float32", force=True)
    head = read_module(checkpoint).classifier.float()
    weight, bias = head.weight.detach().numpy().T, head.bias.detach().numpy()
    np.savez(folder / _HEAD, weight=np.ascontiguousarray(weight), bias=bias)
