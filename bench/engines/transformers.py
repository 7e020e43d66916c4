"""transformers on torch: as it is, under ``torch.compile``, and as the pipeline that its documentation shows first."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .batches import Batch
from .peer import Peer

if TYPE_CHECKING:
    from .registry import Job, Kind

PACKAGES = ("transformers", "torch", "tokenizers")
PIPELINE_BATCH = 8
_DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


class Transformers(Peer):
    """transformers' module with its default attention, and compiled where the name says so.

    Compiled for dynamic shapes, because a service sees every length. torch makes one graph for a batch of one and another
    for all others; ``load`` has both made, and the compiler's cache is kept beside the conversions.
    """

    packages = PACKAGES

    def load(self) -> None:
        """Read the checkpoint in the contender's precision."""
        self._compiled = "compile" in self.kind.name
        if self._compiled:  # read when torch is imported
            os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(self.job.work / "torchinductor"))
        import torch

        module = _module(self)
        self._names = _inputs(module)
        self._attention = str(module.config._attn_implementation)
        self._model = torch.compile(module, dynamic=True) if self._compiled else module
        for rows in (1, 2) if self._compiled else ():
            ones = np.ones((rows, 16), np.int64)
            self.logits(Batch(input_ids=ones, attention_mask=ones, token_type_ids=np.zeros_like(ones)))

    def logits(self, batch: Batch) -> NDArray[np.float32]:
        """Call the module; the logits are copied to the host, which waits for them."""
        return _logits(self._open(), self._names, batch, self.job.device)

    def describe(self) -> Mapping[str, Any]:
        """Add which attention runs, and whether it was compiled."""
        return {**super().describe(), "attention": self._attention, "compiled": self._compiled}


class Pipeline(Peer):
    """``pipeline("text-classification", ...)`` in fp32, eight texts at a time in the order in which they come."""

    packages = PACKAGES

    def load(self) -> None:
        """Make the pipeline."""
        import torch
        from transformers import AutoTokenizer, pipeline

        module = _module(self)
        tokenizer = AutoTokenizer.from_pretrained(self.checkpoint, local_files_only=True)
        self._names = _inputs(module)
        module.config.id2label = {i: str(i) for i in range(module.config.num_labels)}  # two labels may share a name
        self._model = pipeline("text-classification", model=module, tokenizer=tokenizer, device=torch.device(self.job.device))

    def logits(self, batch: Batch) -> NDArray[np.float32]:
        """Call the pipeline's module on token ids: what is in front of it does not take ids."""
        return _logits(self._open().model, self._names, batch, self.job.device)

    def texts(self, texts: Sequence[str], *, batch_size: int, max_length: int) -> NDArray[np.float32]:
        """Call the pipeline on texts as they come; the batch size is the documentation's, whatever is asked for.

        Returns:
            The scores before softmax, float32 [texts, labels].
        """
        del batch_size
        model = self._open()
        results = model(
            list(texts),
            batch_size=PIPELINE_BATCH,
            top_k=None,
            function_to_apply="none",
            truncation=True,
            max_length=max_length,
        )
        found = np.empty((len(results), model.model.config.num_labels), dtype=np.float32)
        for row, scores in enumerate(results):
            for entry in scores:
                found[row, int(entry["label"])] = entry["score"]
        return found

    def describe(self) -> Mapping[str, Any]:
        """Add the batch size."""
        return {**super().describe(), "batch_size": PIPELINE_BATCH}


def make(kind: Kind, job: Job) -> Transformers | Pipeline:
    """Make the contender of a job."""
    return Pipeline(kind, job) if kind.name == "transformers-pipeline" else Transformers(kind, job)


def _inputs(module: Any) -> tuple[str, ...]:
    """Return the inputs that a module takes; DistilBERT, for one, has no segments."""
    accepted = inspect.signature(module.forward).parameters
    return tuple(name for name in ("input_ids", "attention_mask", "token_type_ids") if name in accepted)


def _logits(module: Any, names: tuple[str, ...], batch: Batch, device: str) -> NDArray[np.float32]:
    import torch

    with torch.inference_mode():
        inputs = {name: torch.from_numpy(getattr(batch, name)).to(device) for name in names}  # [batch, tokens] each
        found: NDArray[np.float32] = module(**inputs).logits.float().cpu().numpy()  # [batch, labels]
    return found


def _module(peer: Peer) -> Any:
    """Read the checkpoint as a module, ready to run."""
    import torch
    from transformers import AutoModelForSequenceClassification

    torch.set_num_threads(peer.job.threads)
    dtype = getattr(torch, _DTYPES[peer.kind.precision])
    module = AutoModelForSequenceClassification.from_pretrained(peer.checkpoint, dtype=dtype, local_files_only=True)
    return module.eval().to(peer.job.device)
