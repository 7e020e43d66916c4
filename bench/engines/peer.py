"""What the contenders that are not ours have in common: a job, the way from texts to batches, and how they are described."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fusedbert.engine.errors import CheckpointError, ClosedError

from .batches import Batch
from .conversion import versions
from .text import TextBatches

if TYPE_CHECKING:
    from .registry import Job, Kind


class Peer(abc.ABC):
    """The base of a contender with an engine of somebody else's.

    A child says in ``convert`` what it makes of the checkpoint, sets ``self._model`` in ``load``, and names the ``packages``
    that its figures depend on.

    Attributes:
        packages: Distributions whose versions go into the record, the engine's own first.
    """

    packages: tuple[str, ...] = ()

    def __init__(self, kind: Kind, job: Job) -> None:
        self.kind, self.job = kind, job
        self._converted: Path | None = None
        self._model: Any = None
        self._text_batches: TextBatches | None = None

    @property
    def name(self) -> str:
        """The registry's name."""
        return self.kind.name

    @property
    def checkpoint(self) -> Path:
        """The checkpoint's folder.

        Raises:
            CheckpointError: The job has none.
        """
        if self.job.checkpoint is None:
            raise CheckpointError(f"{self.name} is converted from a checkpoint, and there is none: give its folder as MODEL")
        return self.job.checkpoint

    def prepare(self) -> None:
        """Convert the checkpoint, where that was not done before."""
        self._converted = self.convert()

    def convert(self) -> Path:
        """Return the folder that ``load`` reads, the checkpoint itself unless a child makes another."""
        return self.checkpoint

    @property
    def folder(self) -> Path:
        """What ``prepare`` made."""
        if self._converted is None:
            self._converted = self.convert()
        return self._converted

    @abc.abstractmethod
    def load(self) -> None:
        """Make the engine ready to run."""

    @abc.abstractmethod
    def logits(self, batch: Batch) -> NDArray[np.float32]:
        """Compute the logits of a batch, float32 [batch, labels]."""

    def texts(self, texts: Sequence[str], *, batch_size: int, max_length: int) -> NDArray[np.float32]:
        """Compute the logits of texts in batches of similar length, float32 [texts, labels]."""
        if self._text_batches is None:
            self._text_batches = TextBatches.read(self.job.artifact)
        return self._text_batches.run(self.logits, texts, batch_size=batch_size, max_length=max_length)

    def describe(self) -> Mapping[str, Any]:
        """Say what runs; a child adds to it."""
        found = versions(self.packages)
        return {
            "engine": " ".join([self.packages[0], *([found[self.packages[0]]] if self.packages[0] in found else [])]),
            "precision": self.kind.precision,
            "device": self.job.device,
            "threads": self.job.threads,
            "versions": found,
        }

    def close(self) -> None:
        """Let go of the model."""
        self._model = None

    def _open(self) -> Any:
        if self._model is None:
            raise ClosedError(f"{self.name} is not loaded: call load() first")
        return self._model
