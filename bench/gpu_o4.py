"""The graph that optimum's O4 makes, made by the tool that optimum calls: ``onnxruntime.transformers.optimizer``.

O4 is its fusions for BERT, GELU approximated by tanh, and float16
(https://huggingface.co/docs/optimum-onnx/onnxruntime/usage_guides/optimization). optimum itself needs an older transformers
than the other peers, and a GPU's environment of its own; the tool comes with ONNX Runtime.
"""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusedbert.engine.errors import DeviceError

_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def open_o4(checkpoint: Path, device: str) -> Callable[[NDArray[np.int64]], NDArray[np.float32]]:
    """Export a BERT by torch, optimize it as O4 does, and open it.

    Args:
        checkpoint: A folder as transformers saves it.
        device: ``cuda``, or ``cpu`` in a dry run.

    Returns:
        What runs a batch of ids ``[batch, tokens]`` without padding, to logits ``[batch, labels]`` on the host.

    Raises:
        DeviceError: The session came without CUDA.
    """
    import onnxruntime
    import torch  # noqa: F401  CUDA's libraries are found through it

    providers = ["CUDAExecutionProvider" if device == "cuda" else "CPUExecutionProvider"]
    with tempfile.TemporaryDirectory() as folder:
        file = _optimize(_export(checkpoint, Path(folder) / "plain.onnx"), checkpoint)
        session = onnxruntime.InferenceSession(str(file), providers=providers)
    if session.get_providers()[0] != providers[0]:
        raise DeviceError("the session of the O4 graph came without CUDA")
    declared = {node.name for node in session.get_inputs()}

    def run(ids: NDArray[np.int64]) -> NDArray[np.float32]:
        feeds = dict(zip(_INPUTS, (ids, np.ones_like(ids), np.zeros_like(ids)), strict=True))
        logits: NDArray[np.float32] = session.run(["logits"], {n: array for n, array in feeds.items() if n in declared})[0]
        return logits

    return run


def _export(checkpoint: Path, file: Path) -> Path:
    """Export in fp32, with the attention that the optimizer's patterns know: eager."""
    import torch
    from transformers import BertForSequenceClassification

    model = BertForSequenceClassification.from_pretrained(checkpoint, attn_implementation="eager").eval()

    class Logits(torch.nn.Module):  # type: ignore[misc]  # torch is no dependency of the checked packages
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *inputs: Any) -> Any:
            return self.model(**dict(zip(_INPUTS, inputs, strict=True))).logits

    ids = torch.randint(5, int(model.config.vocab_size), (2, 16))
    mask = torch.ones_like(ids)
    mask[1, 10:] = 0
    dynamic = {name: {0: "batch", 1: "sequence"} for name in _INPUTS} | {"logits": {0: "batch"}}
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Logits(),
            (ids, mask, torch.zeros_like(ids)),
            str(file),
            input_names=list(_INPUTS),
            output_names=["logits"],
            dynamic_axes=dynamic,
            opset_version=17,
            dynamo=False,
        )
    return file


def _optimize(plain: Path, checkpoint: Path) -> Path:
    from onnxruntime.transformers.fusion_options import FusionOptions
    from onnxruntime.transformers.optimizer import optimize_model

    config = json.loads((checkpoint / "config.json").read_bytes())
    options = FusionOptions("bert")
    options.enable_gelu_approximation = True
    model = optimize_model(
        str(plain),
        model_type="bert",
        num_heads=config["num_attention_heads"],
        hidden_size=config["hidden_size"],
        opt_level=0,  # the session does the rest when it opens the graph
        optimization_options=options,
        use_gpu=True,
    )
    model.convert_float_to_float16(keep_io_types=True)
    file = plain.with_name("o4.onnx")
    model.save_model_to_file(str(file))
    return file
