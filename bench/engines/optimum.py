"""optimum with ONNX Runtime: the export as it is, dynamic int8, and O4 on CUDA, as its documentation shows them.

int8 is ``ORTQuantizer`` with ``AutoQuantizationConfig.avx512_vnni(is_static=False, per_channel=True)``; on a CPU of another
kind its configuration for that kind. What is timed is ``ORTModelForSequenceClassification``, NumPy in and NumPy out.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fusedbert.engine.errors import DeviceError

from .batches import Batch
from .conversion import converted, versions
from .peer import Peer

if TYPE_CHECKING:
    from .registry import Job, Kind

PACKAGES = ("optimum-onnx", "optimum", "onnxruntime", "onnxruntime-gpu", "transformers", "torch")
_FILES = {"fp32": "model.onnx", "int8": "model_quantized.onnx", "fp16": "model_optimized.onnx"}


class Optimum(Peer):
    """A checkpoint as optimum exports and runs it."""

    packages = PACKAGES

    def convert(self) -> Path:
        """Export, and quantize or optimize where that is asked for."""
        about = [f"{name} {version}" for name, version in versions(PACKAGES).items()]
        plain = exported(self.job.work, self.checkpoint, about)
        if self.kind.precision == "fp32":
            return plain
        make = _quantize if self.kind.precision == "int8" else _optimize
        return converted(self.job.work, self.name, about, lambda folder: make(plain, folder))

    def load(self) -> None:
        """Open the graph the way an application does."""
        import onnxruntime
        from optimum.onnxruntime import ORTModelForSequenceClassification

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.job.threads
        cuda = self.job.device == "cuda"
        if cuda:
            _need_cuda(onnxruntime)
        self._model = ORTModelForSequenceClassification.from_pretrained(
            self.folder,
            file_name=_FILES[self.kind.precision],
            provider="CUDAExecutionProvider" if cuda else "CPUExecutionProvider",
            session_options=options,
            local_files_only=True,
        )
        self._inputs = tuple(self._model.input_names)

    def logits(self, batch: Batch) -> NDArray[np.float32]:
        """Call the model; float32 [batch, labels]."""
        model = self._open()
        found: NDArray[np.float32] = model(**{name: getattr(batch, name) for name in self._inputs}).logits
        return np.asarray(found, dtype=np.float32)

    def describe(self) -> Mapping[str, Any]:
        """Add the graph's file."""
        return {**super().describe(), "graph": _FILES[self.kind.precision]}


def make(kind: Kind, job: Job) -> Optimum:
    """Make the contender of a job."""
    return Optimum(kind, job)


def exported(work: Path, checkpoint: Path, about: list[str]) -> Path:
    """Return the folder of optimum's fp32 export of a checkpoint, making it where it is not there."""

    def export(folder: Path) -> None:
        from optimum.exporters.onnx import main_export

        main_export(
            str(checkpoint),
            folder,
            task="text-classification",
            library_name="transformers",
            dtype="fp32",
            local_files_only=True,
            do_validation=False,  # the benchmark checks every contender itself
        )

    return converted(work, "optimum-export", about, export)


def _need_cuda(onnxruntime: Any) -> None:
    """Load CUDA's libraries from torch's packages, and fail where ONNX Runtime has no CUDA: it would take the CPU.

    Raises:
        DeviceError: The provider is not there.
    """
    import torch  # noqa: F401  its libraries are found through it

    onnxruntime.preload_dlls()
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise DeviceError("ONNX Runtime has no CUDA in this environment: it needs onnxruntime-gpu in place of onnxruntime")


def _quantize(plain: Path, folder: Path) -> None:
    from optimum.onnxruntime import ORTQuantizer
    from optimum.onnxruntime.configuration import AutoQuantizationConfig

    quantizer = ORTQuantizer.from_pretrained(plain, file_name=_FILES["fp32"])
    quantizer.quantize(save_dir=folder, quantization_config=_vnni(AutoQuantizationConfig)(is_static=False, per_channel=True))


def _vnni(configurations: Any) -> Any:
    """Choose the quantization configuration for this CPU, as optimum's documentation asks."""
    from fusedbert.engine.hardware.cpu import inspect_machine

    features = inspect_machine().features
    if "avx512_vnni" in features:
        return configurations.avx512_vnni
    if "avx512f" in features:
        return configurations.avx512
    return configurations.arm64 if "neon" in features else configurations.avx2


def _optimize(plain: Path, folder: Path) -> None:
    from optimum.onnxruntime import AutoOptimizationConfig, ORTModelForSequenceClassification, ORTOptimizer

    model = ORTModelForSequenceClassification.from_pretrained(plain, file_name=_FILES["fp32"], local_files_only=True)
    with contextlib.closing(model) if hasattr(model, "close") else contextlib.nullcontext():
        ORTOptimizer.from_pretrained(model).optimize(save_dir=folder, optimization_config=AutoOptimizationConfig.O4())
