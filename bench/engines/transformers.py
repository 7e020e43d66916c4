"""transformers on torch: as it is, under ``torch.compile``, and as the pipeline of its documentation."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fusedbert.engine.errors import InputError

from .base import Engine
from .batches import Batch, Logits, accepted_inputs

PIPELINE_BATCH = 8
FOR_ONE = "for one static shape, a process each"
FOR_ANY = "for dynamic shapes, in one process"
_DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


def read_module(checkpoint: Path, **settings: Any) -> Any:
    """Read a checkpoint as a module of transformers; ``settings`` are those of ``from_pretrained``."""
    transformers = importlib.import_module("transformers")  # the package has the name of this file
    return transformers.AutoModelForSequenceClassification.from_pretrained(checkpoint, local_files_only=True, **settings)


class Transformers(Engine):
    """transformers' module with its default attention, compiled if its entry says so, on a GPU with CUDA graphs.

    For the job's shape, if it has one, without a mask, as a shape has no padding: under the compiler transformers does not see
    that a mask hides nothing, and with one torch has no flash attention. Else for dynamic shapes, because a service sees every
    length. ``load`` compiles, and the compiler's cache is kept with the conversions.
    """

    packages = ("transformers", "torch", "tokenizers")

    def load(self) -> None:
        """Read the checkpoint in the engine's precision."""
        if self.spec.per_shape:  # read when torch is imported
            os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(self.job.work / "torchinductor"))
        self._model = self._module()
        if self.spec.per_shape:
            self._compile()

    def logits(self, batch: Batch) -> Logits:
        """Call the module; copying the logits to the host waits for them.

        Raises:
            InputError: The module was compiled for one shape, and a text has padding.
        """
        if self._without_padding and not batch.attention_mask.all():
            raise InputError(f"{self.name} was compiled for {self.job.shape} without padding, and a text has some")
        return self._call(self._open(), batch)

    def describe(self) -> Mapping[str, Any]:
        """Add the attention implementation, and what the module was compiled for, or False."""
        if not self.spec.per_shape:
            return {**super().describe(), "attention": self._attention, "compiled": False}
        compiled = FOR_ANY if self.job.shape is None else FOR_ONE
        return {**super().describe(), "attention": self._attention, "compiled": compiled, "why": f"compiled {compiled}"}

    @property
    def _without_padding(self) -> bool:
        return self.spec.per_shape and self.job.shape is not None

    def _compile(self) -> None:
        import torch

        only = self.job.shape
        mode = "reduce-overhead" if self.job.device == "cuda" else None
        self._model = torch.compile(self._model, dynamic=only is None, mode=mode)
        # Of dynamic shapes torch makes one graph for a batch of one and another for all others. With CUDA graphs the first call
        # compiles, the second one captures, and the third one replays.
        for rows, tokens in ((1, 16), (2, 16)) if only is None else 3 * ((only.batch, only.tokens),):
            ones = np.ones((rows, tokens), np.int64)
            self.logits(Batch(input_ids=ones, attention_mask=ones, token_type_ids=np.zeros_like(ones)))
        if only is not None:
            torch.compiler.set_stance("fail_on_recompile")  # so no visit is of another graph

    def _module(self) -> Any:
        """Read the checkpoint as a module, ready to run."""
        import torch

        torch.set_num_threads(self.job.threads)
        module = read_module(self.checkpoint, dtype=getattr(torch, _DTYPES[self.spec.precision]))
        accepted = accepted_inputs(module.forward)
        self._inputs = tuple(name for name in accepted if name != "attention_mask" or not self._without_padding)
        self._attention = str(module.config._attn_implementation)
        return module.eval().to(self.job.device)

    def _call(self, module: Any, batch: Batch) -> Logits:
        import torch

        with torch.inference_mode():
            inputs = {name: torch.from_numpy(array).to(self.job.device) for name, array in batch.arrays(self._inputs).items()}
            return np.asarray(module(**inputs).logits.float().cpu())  # [batch, labels]


class Pipeline(Transformers):
    """``pipeline("text-classification", ...)`` in fp32, eight texts at a time in their order."""

    def load(self) -> None:
        """Make the pipeline."""
        import torch

        transformers = importlib.import_module("transformers")  # the package has the name of this file
        module = self._module()
        tokenizer = transformers.AutoTokenizer.from_pretrained(self.checkpoint, local_files_only=True)
        module.config.id2label = {i: str(i) for i in range(module.config.num_labels)}  # two labels may share a name
        self._model = transformers.pipeline(
            "text-classification", model=module, tokenizer=tokenizer, device=torch.device(self.job.device)
        )

    def logits(self, batch: Batch) -> Logits:
        """Call the pipeline's module on token ids, which the pipeline itself does not take."""
        return self._call(self._open().model, batch)

    def texts(self, texts: Sequence[str], *, batch_size: int, max_length: int) -> Logits:
        """Return the pipeline's scores before softmax, float32 [texts, labels]; the batch size is the documentation's."""
        del batch_size
        model = self._open()
        results = model(
            list(texts), batch_size=PIPELINE_BATCH, top_k=None, function_to_apply="none", truncation=True, max_length=max_length
        )
        logits = np.empty((len(results), model.model.config.num_labels), dtype=np.float32)
        for row, scores in enumerate(results):
            for entry in scores:
                logits[row, int(entry["label"])] = entry["score"]
        return logits

    def describe(self) -> Mapping[str, Any]:
        """Add the batch size."""
        return {**super().describe(), "batch_size": PIPELINE_BATCH}
