"""CTranslate2 on the CPU: its encoder, with BERT's pooler, and the classifier's one product in NumPy.

Converted by ``ctranslate2.converters.TransformersConverter``; the precision is the ``compute_type`` that it is loaded with.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fusedbert.engine.errors import CheckpointError

from .batches import Batch
from .conversion import converted, versions
from .peer import Peer

if TYPE_CHECKING:
    from .registry import Job, Kind

PACKAGES = ("ctranslate2", "transformers", "torch")
_COMPUTE = {"fp32": "float32", "int8": "int8_float32"}
_HEAD = "head.npz"


class CTranslate2(Peer):
    """A BERT checkpoint in CTranslate2."""

    packages = PACKAGES

    def convert(self) -> Path:
        """Convert the encoder, and keep the head beside it."""
        about = [f"{name} {version}" for name, version in versions(PACKAGES).items()]
        return converted(self.job.work, "ctranslate2", about, lambda folder: _convert(self.checkpoint, folder))

    def load(self) -> None:
        """Load the encoder with all threads for one batch."""
        import ctranslate2

        self._model = ctranslate2.Encoder(
            str(self.folder),
            device="cpu",
            compute_type=_COMPUTE[self.kind.precision],
            inter_threads=1,
            intra_threads=self.job.threads,
        )
        self._view = ctranslate2.StorageView.from_array
        with np.load(self.folder / _HEAD) as head:
            self._weight, self._bias = head["weight"], head["bias"]  # [hidden, labels], [labels]

    def logits(self, batch: Batch) -> NDArray[np.float32]:
        """Run the encoder and the head; float32 [batch, labels]."""
        lengths = batch.attention_mask.sum(axis=1, dtype=np.int32)  # [batch]
        output = self._open().forward_batch(
            self._view(np.ascontiguousarray(batch.input_ids, dtype=np.int32)),
            self._view(lengths),
            token_type_ids=batch.token_type_ids.tolist(),
        )
        pooled = np.array(output.pooler_output)  # [batch, hidden], after tanh
        found: NDArray[np.float32] = pooled @ self._weight + self._bias
        return found

    def describe(self) -> Mapping[str, Any]:
        """Add the compute type that was taken."""
        return {**super().describe(), "compute_type": str(self._open().compute_type)}


def make(kind: Kind, job: Job) -> CTranslate2:
    """Make the contender of a job."""
    return CTranslate2(kind, job)


def _convert(checkpoint: Path, folder: Path) -> None:
    """Convert a checkpoint in fp32.

    Raises:
        CheckpointError: It is not a BERT, whose head is the only one that is built here.
    """
    family = json.loads((checkpoint / "config.json").read_bytes()).get("model_type")
    if family != "bert":
        raise CheckpointError(f"model_type is {family!r}, and this contender runs bert alone: leave CTranslate2 out")
    from ctranslate2.converters import TransformersConverter
    from transformers import AutoModelForSequenceClassification

    TransformersConverter(str(checkpoint)).convert(str(folder), quantization="float32", force=True)
    head = AutoModelForSequenceClassification.from_pretrained(checkpoint, local_files_only=True).classifier.float()
    weight, bias = head.weight.detach().numpy().T, head.bias.detach().numpy()
    np.savez(folder / _HEAD, weight=np.ascontiguousarray(weight), bias=bias)
