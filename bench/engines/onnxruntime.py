"""ONNX Runtime's own optimizer for transformers on optimum's export: its fusions, fp32 on the CPU, and a bare session."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .batches import Batch
from .conversion import converted, versions
from .optimum import exported
from .peer import Peer

if TYPE_CHECKING:
    from .registry import Job, Kind

PACKAGES = ("onnxruntime", "optimum-onnx", "optimum", "transformers", "torch")
_FILE = "model.onnx"
_FUSIONS = "fusions.json"


class OnnxRuntime(Peer):
    """A checkpoint's export after ``onnxruntime.transformers.optimizer.optimize_model``."""

    packages = PACKAGES

    def convert(self) -> Path:
        """Export and optimize."""
        names = ("optimum-onnx", "optimum", "onnxruntime", "onnxruntime-gpu", "transformers", "torch")
        about = [f"{name} {version}" for name, version in versions(names).items()]
        plain = exported(self.job.work, self.checkpoint, about)
        config = json.loads((self.checkpoint / "config.json").read_bytes())

        def optimize(folder: Path) -> None:
            from onnxruntime.transformers.optimizer import optimize_model

            model = optimize_model(
                str(plain / _FILE),
                model_type="bert",
                num_heads=config.get("num_attention_heads", config.get("n_heads", 0)),
                hidden_size=config.get("hidden_size", config.get("dim", 0)),
                opt_level=0,  # the session does the rest when it opens the graph
                use_gpu=False,
            )
            model.save_model_to_file(str(folder / _FILE))
            fused = {name: count for name, count in model.get_fused_operator_statistics().items() if count}
            (folder / _FUSIONS).write_text(json.dumps(fused), encoding="utf-8")

        return converted(self.job.work, self.name, about, optimize)

    def load(self) -> None:
        """Open a session with its defaults, but for the threads."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.job.threads
        self._model = onnxruntime.InferenceSession(str(self.folder / _FILE), options, providers=["CPUExecutionProvider"])
        self._inputs = tuple(node.name for node in self._model.get_inputs())
        self._fusions = json.loads((self.folder / _FUSIONS).read_bytes())

    def logits(self, batch: Batch) -> NDArray[np.float32]:
        """Run the session; float32 [batch, labels]."""
        found: NDArray[np.float32] = self._open().run(["logits"], {name: getattr(batch, name) for name in self._inputs})[0]
        return found

    def describe(self) -> Mapping[str, Any]:
        """Add what the optimizer fused."""
        return {**super().describe(), "fusions": dict(self._fusions)}


def make(kind: Kind, job: Job) -> OnnxRuntime:
    """Make the contender of a job."""
    return OnnxRuntime(kind, job)
