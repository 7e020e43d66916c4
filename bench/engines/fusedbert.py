"""Ourselves: the engine as an application loads it; for batches entered behind the tokenizer, for texts in front of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fusedbert.engine.classifier import Classifier
from fusedbert.engine.errors import ClosedError
from fusedbert.engine.hardware.device import CUDA
from fusedbert.engine.load.open import Loaded, load
from fusedbert.engine.options import Options
from fusedbert.engine.text.tokenizer import Row

from .batches import Batch
from .conversion import versions

if TYPE_CHECKING:
    from .registry import Job, Kind

PACKAGES = ("fusedbert", "onnxruntime", "onnxruntime-gpu", "numpy", "tokenizers")


class FusedBert:
    """The engine on an artifact, on the device and in the precision that the options choose.

    Attributes:
        name: What tables call it.

    Example:
        >>> contender = FusedBert(Path("artifacts/sst2-mini"), Options())  # doctest: +SKIP
        >>> contender.load()  # doctest: +SKIP
        >>> contender.describe()["precision"]  # doctest: +SKIP
        'fp32'
    """

    def __init__(self, artifact: Path, options: Options, *, name: str = "fusedbert") -> None:
        self.name = name
        self._artifact = artifact
        self._options = options
        self._loaded: Loaded | None = None
        self._classifier: Classifier | None = None

    @property
    def classifier(self) -> Classifier | None:
        """What an application would call; None before ``load`` and after ``close``."""
        return self._classifier

    def prepare(self) -> None:
        """Nothing: the artifact was exported before the benchmark began."""

    def load(self) -> None:
        """Open the graph."""
        self._loaded = load(self._artifact, self._options)
        self._classifier = Classifier(self._loaded, self._options)

    def logits(self, batch: Batch) -> NDArray[np.float32]:
        """Run the graph on a batch, as ``Classifier`` does once its texts are tokens; float32 [batch, labels]."""
        loaded = self._open()
        if loaded.runtime.provider == CUDA:  # its buffers and its layout are the runner's
            return loaded.runner.execute(loaded.runner.prepare(_rows(batch)))
        feeds = {
            "input_ids": batch.input_ids,  # [batch, tokens]
            "attention_mask": batch.attention_mask,  # [batch, tokens]
            "token_type_ids": batch.token_type_ids,  # [batch, tokens]
        }
        return loaded.session.run(feeds)

    def texts(self, texts: Sequence[str], *, batch_size: int, max_length: int) -> NDArray[np.float32]:
        """Call ``decision_function``, float32 [texts, labels]; it plans its batches, and cuts at what it was loaded with.

        Raises:
            ValueError: ``max_length`` is not what the contender was loaded with.
        """
        loaded, classifier = self._open(), self._classifier
        if classifier is None or max_length != loaded.tokenizer.max_length:
            raise ValueError(f"max_length is {max_length}, and {self.name} was loaded with {loaded.tokenizer.max_length}")
        return classifier.decision_function(list(texts))

    def describe(self) -> Mapping[str, Any]:
        """Say what the engine chose, and why."""
        runtime, found = self._open().runtime, versions(PACKAGES)
        return {
            "engine": f"fusedbert {found.get('fusedbert', '')}".rstrip(),
            "device": runtime.device,
            "provider": runtime.provider,
            "precision": runtime.precision,
            "graph": runtime.file.name,
            "fused_attention": runtime.fused_attention,
            "threads": runtime.threads,
            "versions": found,
            "why": runtime.why,
        }

    def close(self) -> None:
        """Let go of the session."""
        if self._classifier is not None:
            self._classifier.close()
        self._loaded = self._classifier = None

    def _open(self) -> Loaded:
        if self._loaded is None:
            raise ClosedError("this contender is not loaded: call load() first")
        return self._loaded


def make(kind: Kind, job: Job) -> FusedBert:
    """Make the contender of a job; its precision is the one that is asked for, whatever ``auto`` would take."""
    options = Options.parse(device=job.device, precision=kind.precision, threads=job.threads, max_length=job.max_length)
    return FusedBert(job.artifact, options, name=kind.name)


def _rows(batch: Batch) -> list[Row]:
    """Take the padding off: the rows as the tokenizer gives them."""
    lengths = batch.attention_mask.sum(axis=1).tolist()  # [batch]
    arrays = zip(batch.input_ids, batch.token_type_ids, lengths, strict=True)
    return [Row(ids=ids[:n].tolist(), types=types[:n].tolist(), truncated=False) for ids, types, n in arrays]
