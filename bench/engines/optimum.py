"""optimum's ONNX export, run by optimum's model class or by a bare session of ONNX Runtime.

The export as it is, dynamic int8, and O4 on CUDA are made as optimum's documentation shows: int8 is ``ORTQuantizer`` with
``AutoQuantizationConfig.avx512_vnni(is_static=False, per_channel=True)``, on another CPU its configuration for that one.
The int8 graph is timed in ``ORTModelForSequenceClassification`` (NumPy in, NumPy out) and in a bare session, as
``optimum-int8`` and ``onnxruntime-optimum-int8``; the two differ by 0.05 ms a call (bench/NOTES.md).
``onnxruntime-optimized`` is the fp32 export after ONNX Runtime's own optimizer for transformers.
"""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fusedbert.engine.errors import DeviceError

from .base import Engine
from .batches import Batch, Logits

_FILES = {"fp32": "model.onnx", "int8": "modelquantized.onnx", "fp16": "model_optimized.onnx"}
_FUSIONS = "fusions.json"


class Optimum(Engine):
    """A checkpoint as optimum exports and runs it."""

    packages: tuple[str, ...] = ("optimum-onnx", "optimum", "onnxruntime", "onnxruntime-gpu", "transformers", "torch")

    @functools.cached_property
    def folder(self) -> Path:
        """The export, quantized or optimized if the precision asks for it."""
        plain = self.converted("optimum-export", self._export)
        if self.spec.precision == "fp32":
            return plain
        name, make = ("optimum-int8", quantize) if self.spec.precision == "int8" else ("optimum-o4", _optimize)
        return self.converted(name, lambda folder: make(plain, folder))

    def load(self) -> None:
        """Open the graph with optimum's model class."""
        import onnxruntime
        from optimum.onnxruntime import ORTModelForSequenceClassification

        cuda = self.job.device == "cuda"
        if cuda:
            _need_cuda(onnxruntime)
        provider = "CUDAExecutionProvider" if cuda else "CPUExecutionProvider"
        settings = {"file_name": _FILES[self.spec.precision], "provider": provider, "local_files_only": True}
        self._model = ORTModelForSequenceClassification.from_pretrained(
            self.folder, session_options=self._session_options(), **settings
        )
        self._inputs = tuple(self._model.input_names)

    def logits(self, batch: Batch) -> Logits:
        """Call the model; float32 [batch, labels]."""
        return np.asarray(self._open()(**batch.arrays(self._inputs)).logits, dtype=np.float32)

    def describe(self) -> Mapping[str, Any]:
        """Add the graph's file."""
        return {**super().describe(), "graph": _FILES[self.spec.precision]}

    def _session_options(self) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.job.threads
        return options

    def _export(self, folder: Path) -> None:
        from optimum.exporters.onnx import main_export

        model = {"task": "text-classification", "library_name": "transformers", "dtype": "fp32"}
        # The benchmark checks every engine itself, so the export does not.
        main_export(str(self.checkpoint), folder, **model, local_files_only=True, do_validation=False)


class OptimumSession(Optimum):
    """The same int8 graph in a bare session on the CPU, with default options except for the threads."""

    packages = ("onnxruntime", "optimum-onnx", "optimum", "onnxruntime-gpu", "transformers", "torch")

    def load(self) -> None:
        """Open a session."""
        import onnxruntime

        file = self.folder / _FILES[self.spec.precision]
        self._model = onnxruntime.InferenceSession(str(file), self._session_options(), providers=["CPUExecutionProvider"])
        self._inputs = tuple(node.name for node in self._model.get_inputs())

    def logits(self, batch: Batch) -> Logits:
        """Run the session; float32 [batch, labels]."""
        logits: Logits = self._open().run(["logits"], batch.arrays(self._inputs))[0]
        return logits


class OptimizedSession(OptimumSession):
    """The export after ``onnxruntime.transformers.optimizer.optimize_model``, fp32 on the CPU."""

    @functools.cached_property
    def folder(self) -> Path:
        """The optimized export."""
        plain = self.converted("optimum-export", self._export)
        config = json.loads((self.checkpoint / "config.json").read_bytes())

        def optimize(folder: Path) -> None:
            from onnxruntime.transformers.optimizer import optimize_model

            model = optimize_model(
                str(plain / _FILES["fp32"]),
                model_type="bert",
                num_heads=config.get("num_attention_heads", config.get("n_heads", 0)),
                hidden_size=config.get("hidden_size", config.get("dim", 0)),
                opt_level=0,  # the session does the rest when it opens the graph
                use_gpu=False,
            )
            model.save_model_to_file(str(folder / _FILES["fp32"]))
            fused = {name: count for name, count in model.get_fused_operator_statistics().items() if count}
            (folder / _FUSIONS).write_text(json.dumps(fused), encoding="utf-8")

        return self.converted(self.name, optimize)

    def describe(self) -> Mapping[str, Any]:
        """Add the optimizer's fusions."""
        return {**super().describe(), "fusions": json.loads((self.folder / _FUSIONS).read_bytes())}


def _need_cuda(onnxruntime: Any) -> None:
    """Load CUDA's libraries from torch's packages; a ``DeviceError`` without them: ONNX Runtime would silently take the CPU."""
    import torch  # noqa: F401  its libraries are found through it

    onnxruntime.preload_dlls()
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise DeviceError("ONNX Runtime has no CUDA in this environment: it needs onnxruntime-gpu in place of onnxruntime")


def quantize(plain: Path, folder: Path) -> None:
    """Quantize with the configuration for this CPU, as optimum's documentation asks."""
    from optimum.onnxruntime import ORTQuantizer
    from optimum.onnxruntime.configuration import AutoQuantizationConfig

    from fusedbert.engine.hardware.cpu import inspect_machine

    names = {"avx512_vnni": "avx512_vnni", "avx512f": "avx512", "neon": "arm64"}
    features = inspect_machine().features
    chosen = next((name for feature, name in names.items() if feature in features), "avx2")
    configuration = getattr(AutoQuantizationConfig, chosen)(is_static=False, per_channel=True)
    quantizer = ORTQuantizer.from_pretrained(plain, file_name=_FILES["fp32"])
    quantizer.quantize(save_dir=folder, quantization_config=configuration)


def _optimize(plain: Path, folder: Path) -> None:
    from optimum.onnxruntime import AutoOptimizationConfig, ORTModelForSequenceClassification, ORTOptimizer

    model = ORTModelForSequenceClassification.from_pretrained(plain, file_name=_FILES["fp32"], local_files_only=True)
    with contextlib.closing(model) if hasattr(model, "close") else contextlib.nullcontext():
        ORTOptimizer.from_pretrained(model).optimize(save_dir=folder, optimization_config=AutoOptimizationConfig.O4())
