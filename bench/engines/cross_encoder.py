"""sentence-transformers' CrossEncoder: on torch, and on OpenVINO in int8 as its documentation shows.

For int8, ``backend="openvino"`` exports by optimum-intel; NNCF quantizes the graph after training with the preset for
transformers, as ``export_static_quantized_openvino_model`` does, on fusedbert's calibration texts in place of a data set.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .base import Engine
from .batches import Batch, Logits, TextBatches
from .openvino import SUBSET, read_calibration

_GRAPH, _QUANTIZED = "openvino_model.xml", "openvino_model_qint8_quantized.xml"


class CrossEncoder(Engine):
    """A reranker with the library's defaults: batches of 32 pairs, the longest first."""

    packages = ("sentence-transformers", "transformers", "torch", "tokenizers", "optimum-intel", "openvino", "nncf")

    @property
    def int8(self) -> bool:
        """True if it runs on OpenVINO in int8."""
        return self.spec.precision == "int8"

    @functools.cached_property
    def folder(self) -> Path:
        """The checkpoint, or for int8 a copy with OpenVINO's quantized graph."""
        if not self.int8:
            return self.checkpoint
        batches = TextBatches.read(self.job.artifact)
        rows = batches.encode(read_calibration(self.job.calibration, SUBSET), max_length=self.job.max_length)
        texts = [batches.pad([row]) for row in rows]
        digest = hashlib.sha256(repr([row.ids for row in rows]).encode()).hexdigest()
        return self.converted("crossencoder-int8", lambda folder: _quantize(self.checkpoint, texts, folder), digest)

    def load(self) -> None:
        """Open the model with the job's threads."""
        import torch

        torch.set_num_threads(self.job.threads)
        if not self.int8:
            dtype = {"model_kwargs": {"dtype": torch.float32}}
            self._model = _library().CrossEncoder(str(self.folder), device="cpu", local_files_only=True, **dtype)
            return
        settings = {"INFERENCE_NUM_THREADS": str(self.job.threads), "PERFORMANCE_HINT": "LATENCY", "CACHE_DIR": ""}
        options = {"file_name": _QUANTIZED, "ov_config": settings, "export": False}
        self._model = _library().CrossEncoder(
            str(self.folder), device="cpu", local_files_only=True, backend="openvino", model_kwargs=options
        )

    def rank(self, query: str, documents: Sequence[str]) -> list[int]:
        """Call ``rank``; a model with two labels, which it refuses, by ``predict`` and the probability of the second."""
        model = self._open()
        if model.num_labels == 1:
            return [each["corpus_id"] for each in model.rank(query, list(documents))]
        scores = model.predict([(query, document) for document in documents], apply_softmax=True)
        order: list[int] = np.argsort(-scores[:, 1], kind="stable").tolist()
        return order

    def logits(self, batch: Batch) -> Logits:
        """Run the model inside; float32 [batch, labels]."""
        import torch

        model = self._open()
        names = [
            name for name in model.tokenizer.model_input_names if name in ("input_ids", "attention_mask", "token_type_ids")
        ]
        with torch.inference_mode():
            inputs = {name: torch.from_numpy(array) for name, array in batch.arrays(names).items()}
            return np.asarray(model.model(**inputs).logits.float())

    def describe(self) -> Mapping[str, Any]:
        """Add the backend, and the quantization."""
        quantized = {"quantization": f"nncf, transformer preset, at most {SUBSET} texts"} if self.int8 else {}
        return {**super().describe(), "backend": "openvino" if self.int8 else "torch", **quantized}


def _quantize(checkpoint: Path, texts: Sequence[Batch], folder: Path) -> None:
    """Export the checkpoint by optimum-intel, and write the quantized graph next to it."""
    import nncf

    openvino = importlib.import_module("openvino")
    options = {"export": True, "ov_config": {"CACHE_DIR": ""}}
    plain = _library().CrossEncoder(
        str(checkpoint), device="cpu", local_files_only=True, backend="openvino", model_kwargs=options
    )
    plain.save_pretrained(str(folder))
    (graph,) = folder.rglob(_GRAPH)
    model = openvino.Core().read_model(graph)
    names = [port.any_name for port in model.inputs]
    dataset = nncf.Dataset([text.arrays(names) for text in texts])
    quantized = nncf.quantize(model, dataset, model_type=nncf.ModelType.TRANSFORMER, subset_size=min(SUBSET, len(texts)))
    openvino.save_model(quantized, graph.with_name(_QUANTIZED), compress_to_fp16=False)
    graph.unlink()  # hundreds of megabytes that nothing reads
    graph.with_suffix(".bin").unlink()


def _library() -> Any:
    return importlib.import_module("sentence_transformers")
