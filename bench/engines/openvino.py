"""OpenVINO on the CPU: fp32, bf16, int8 by NNCF's post-training quantization, and int8 with bf16 for the rest.

Converted as OpenVINO's documentation does: ``openvino.convert_model`` on transformers' module, dynamic shapes, and
``nncf.quantize`` with the preset for transformers on up to 200 calibration texts, each alone and without padding. Run with
the latency hint, which puts all threads on one request.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .batches import Batch
from .conversion import converted, read_calibration, versions
from .peer import Peer
from .text import TextBatches

if TYPE_CHECKING:
    from .registry import Job, Kind

PACKAGES = ("openvino", "nncf", "transformers", "torch")
SUBSET = 200  # calibration texts
# Against this, sdpa was behind in int8 by 8 % at 1x16 and optimum's ONNX export by 7 % at 8x128; elsewhere all are the same.
ATTENTION = "eager"
_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
_FILE = "model.xml"
_INT8 = ("int8", "int8+bf16")


class OpenVino(Peer):
    """A checkpoint in OpenVINO."""

    packages = PACKAGES

    def convert(self) -> Path:
        """Convert, and quantize where int8 is asked for."""
        about = [*(f"{name} {version}" for name, version in versions(PACKAGES).items()), ATTENTION]
        plain = converted(self.job.work, "openvino-fp32", about, lambda folder: _convert(self.checkpoint, folder / _FILE))
        if not self._is_int8:
            return plain
        batches = TextBatches.read(self.job.artifact)  # one of its own: loading a tokenizer counts when an engine starts
        rows = batches.encode(read_calibration(self.job.calibration, SUBSET), max_length=self.job.max_length)
        about.append(hashlib.sha256(repr([row.ids for row in rows]).encode()).hexdigest())

        def quantize(folder: Path) -> None:
            _quantize(plain / _FILE, [batches.pad([row]) for row in rows], folder / _FILE)

        return converted(self.job.work, "openvino-int8", about, quantize)

    def load(self) -> None:
        """Compile the graph for this CPU."""
        import openvino

        core = openvino.Core()
        compiled = core.compile_model(
            core.read_model(self.folder / _FILE),
            "CPU",
            {
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_NUM_THREADS": self.job.threads,
                "INFERENCE_PRECISION_HINT": "bf16" if "bf16" in self.kind.precision else "f32",
            },
        )
        self._inputs = tuple(port.any_name for port in compiled.inputs)
        self._properties = {name: str(compiled.get_property(name)) for name in ("INFERENCE_NUM_THREADS", "NUM_STREAMS")}
        self._model = compiled.create_infer_request()

    def logits(self, batch: Batch) -> NDArray[np.float32]:
        """Run the request; its inputs are not copied, its output is."""
        request = self._open()
        feeds = {name: getattr(batch, name) for name in self._inputs}  # [batch, tokens] each
        found: NDArray[np.float32] = request.infer(feeds, share_inputs=True)[0]
        return found

    def describe(self) -> Mapping[str, Any]:
        """Add the quantization and what the plugin made of the hints."""
        quantized = {"quantization": f"nncf, transformer preset, at most {SUBSET} texts"} if self._is_int8 else {}
        return {**super().describe(), **quantized, "attention": ATTENTION, "properties": dict(self._properties)}

    @property
    def _is_int8(self) -> bool:
        return self.kind.precision in _INT8


def make(kind: Kind, job: Job) -> OpenVino:
    """Make the contender of a job."""
    return OpenVino(kind, job)


def _convert(checkpoint: Path, file: Path) -> None:
    """Write transformers' module as OpenVINO's IR, in fp32, with dynamic batch and length."""
    import openvino
    import torch
    from transformers import AutoModelForSequenceClassification

    module = AutoModelForSequenceClassification.from_pretrained(
        checkpoint, dtype=torch.float32, attn_implementation=ATTENTION, local_files_only=True
    ).eval()
    names = [name for name in _INPUTS if name in inspect.signature(module.forward).parameters]
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
    openvino.save_model(model, file, compress_to_fp16=False)


def _quantize(plain: Path, texts: Sequence[Batch], file: Path) -> None:
    """Quantize a converted graph with NNCF, on texts one at a time."""
    import nncf
    import openvino

    model = openvino.Core().read_model(plain)
    names = [port.any_name for port in model.inputs]
    dataset = nncf.Dataset([{name: getattr(text, name) for name in names} for text in texts])
    quantized = nncf.quantize(model, dataset, model_type=nncf.ModelType.TRANSFORMER, subset_size=min(SUBSET, len(texts)))
    openvino.save_model(quantized, file, compress_to_fp16=False)
