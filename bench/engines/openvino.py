"""OpenVINO on the CPU: fp32, bf16, int8 by NNCF's post-training quantization, and int8 with bf16 for the rest.

Converted as OpenVINO's documentation shows: ``openvino.convert_model`` on transformers' module, dynamic shapes, and
``nncf.quantize`` with the preset for transformers on up to 200 calibration texts, one at a time and without padding. Run with
the latency hint, which puts all threads on one request.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fusedbert.engine.errors import CheckpointError

from .base import Engine
from .batches import Batch, Logits, TextBatches, accepted_inputs
from .transformers import read_module

SUBSET = 200  # calibration texts
# Compared with this, sdpa was 8 % slower in int8 at 1x16 and optimum's ONNX export 7 % at 8x128; elsewhere all are equal.
ATTENTION = "eager"
_FILE = "model.xml"


class OpenVino(Engine):
    """A checkpoint in OpenVINO."""

    packages = ("openvino", "nncf", "transformers", "torch")

    @functools.cached_property
    def folder(self) -> Path:
        """The converted graph, quantized for int8."""
        plain = self.converted("openvino-fp32", lambda folder: _convert(self.checkpoint, folder), ATTENTION)
        if "int8" not in self.spec.precision:
            return plain
        batches = TextBatches.read(self.job.artifact)  # not the one of `texts`: its loading counts when an engine starts
        rows = batches.encode(read_calibration(self.job.calibration, SUBSET), max_length=self.job.max_length)
        texts = [batches.pad([row]) for row in rows]
        digest = hashlib.sha256(repr([row.ids for row in rows]).encode()).hexdigest()
        return self.converted("openvino-int8", lambda folder: _quantize(plain, texts, folder), ATTENTION, digest)

    def load(self) -> None:
        """Compile the graph for this CPU."""
        core = _openvino().Core()
        hints = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": self.job.threads,
            "INFERENCE_PRECISION_HINT": "bf16" if "bf16" in self.spec.precision else "f32",
        }
        compiled = core.compile_model(core.read_model(self.folder / _FILE), "CPU", hints)
        self._inputs = tuple(port.any_name for port in compiled.inputs)
        self._properties = {name: str(compiled.get_property(name)) for name in ("INFERENCE_NUM_THREADS", "NUM_STREAMS")}
        self._model = compiled.create_infer_request()

    def logits(self, batch: Batch) -> Logits:
        """Run the request; its inputs are not copied, its output is."""
        logits: Logits = self._open().infer(batch.arrays(self._inputs), share_inputs=True)[0]
        return logits

    def describe(self) -> Mapping[str, Any]:
        """Add the quantization, and the plugin's settings after the hints."""
        int8 = "int8" in self.spec.precision
        quantized = {"quantization": f"nncf, transformer preset, at most {SUBSET} texts"} if int8 else {}
        return {**super().describe(), **quantized, "attention": ATTENTION, "properties": self._properties}


def read_calibration(path: Path | None, count: int) -> list[str]:
    """Read at most ``count`` texts, spread evenly over the file, so that a sorted file is represented; empty lines are skipped.

    Raises:
        CheckpointError: The file is missing or empty.
    """
    lines = [] if path is None else path.read_text(encoding="utf-8").splitlines()
    texts = [" ".join(line.split()) for line in lines if line.strip()]
    if not texts:
        raise CheckpointError("int8 needs calibration texts, and there are none: give a file with one text a line")
    return [texts[i * len(texts) // count] for i in range(count)] if len(texts) > count else texts


def _convert(checkpoint: Path, folder: Path) -> None:
    """Write transformers' module as OpenVINO's IR, in fp32, with dynamic batch and length."""
    openvino = _openvino()
    import torch

    module = read_module(checkpoint, dtype=torch.float32, attn_implementation=ATTENTION).eval()
    names = accepted_inputs(module.forward)
    mask = torch.ones((2, 8), dtype=torch.int64)
    mask[1, 5:] = 0  # padding, so that the mask is not traced away
    examples = {"input_ids": torch.full((2, 8), 7), "attention_mask": mask, "token_type_ids": torch.zeros_like(mask)}
    model = openvino.convert_model(
        module,
        example_input={name: examples[name] for name in names},
        input=[(name, [-1, -1], openvino.Type.i64) for name in names],
    )
    for port, name in zip(model.inputs, names, strict=True):
        port.get_tensor().set_names({name})  # tracing may have renamed an input
    openvino.save_model(model, folder / _FILE, compress_to_fp16=False)


def _quantize(plain: Path, texts: Sequence[Batch], folder: Path) -> None:
    import nncf

    openvino = _openvino()
    model = openvino.Core().read_model(plain / _FILE)
    names = [port.any_name for port in model.inputs]
    dataset = nncf.Dataset([text.arrays(names) for text in texts])
    quantized = nncf.quantize(model, dataset, model_type=nncf.ModelType.TRANSFORMER, subset_size=min(SUBSET, len(texts)))
    openvino.save_model(quantized, folder / _FILE, compress_to_fp16=False)


def _openvino() -> Any:
    """Import the package, which has the name of this file."""
    return importlib.import_module("openvino")
