"""Models of any family in transformers: loaded, described, and run in float64 as the reference.

Problems that transformers only logs are errors: it would fill a missing tensor with random numbers. Weights come only from
safetensors, and a checkpoint's code is never run.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusedbert.engine.errors import CheckpointError, ExportError, MissingDependencyError
from fusedbert.engine.text.tokenizer import Row, pad

from ..checkpoint import IgnoredWarning
from ..checkpoint.architecture import Shape
from ..checkpoint.tensors import ignored, mismatch, refuse_wrapper, weight_files

try:
    import torch
    import transformers
except ImportError as error:
    raise MissingDependencyError.of(error.name or "transformers", "optimum", "read a checkpoint of this family") from None

REFERENCE = "transformers float64"
INPUTS = ("input_ids", "attention_mask", "token_type_ids")  # that an artifact's graph may have
LONGEST = 2048  # tokens that a float64 run checks in reasonable time and memory, so the longest text that is accepted
_NO_TABLE = 512  # tokens, if positions are relative and the config names no limit


def load(folder: Path) -> Any:
    """Load a classifier in float32, with the attention that ONNX Runtime's fusions know, in evaluation mode.

    Raises:
        CheckpointError: transformers cannot read it, or tensors are missing, misshapen or not finite.

    Warns:
        IgnoredWarning: There are tensors that the model does not use.
    """
    weight_files(folder)  # refuses pickles and missing shards
    try:
        model, report = transformers.AutoModelForSequenceClassification.from_pretrained(
            folder,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=torch.float32,
            attn_implementation="eager",
            ignore_mismatched_sizes=True,  # reported below, all of them at once
            output_loading_info=True,
        )
    except Exception as error:  # whatever a family's own code raises
        raise CheckpointError(f"transformers cannot load {folder} ({_one_line(error)}): save the checkpoint again") from None
    unused = sorted(report["unexpected_keys"])
    refuse_wrapper(folder, unused, report["missing_keys"])
    faults = [f"missing {name}" for name in sorted(report["missing_keys"])]
    shapes = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    faults += [f"{name} is not of shape {shapes[name]}" for name in sorted(report["mismatched_keys"])]
    faults += [f"{name} holds NaN or infinity" for name, tensor in model.named_parameters() if not torch.isfinite(tensor).all()]
    if faults:
        raise CheckpointError(mismatch(folder, model.config.model_type, faults, unused))
    if unused:
        warnings.warn(ignored(folder, model.config.model_type, unused), IgnoredWarning, stacklevel=2)
    return model.eval()


def describe(model: Any, inputs: Sequence[str]) -> Shape:
    """Describe a model whose graph has ``inputs``; raise ``CheckpointError`` for unknown inputs, or a config without sizes."""
    config = model.config
    strange = [name for name in inputs if name not in INPUTS]
    if strange:
        raise CheckpointError(
            f"a {config.model_type} model takes {', '.join(strange)} besides the tokens of a text: it cannot be an artifact"
        )
    names = ("num_hidden_layers", "num_attention_heads", "hidden_size")
    counts: dict[str, Any] = {name: getattr(config, name, None) for name in names}
    lacking = [name for name, value in counts.items() if not isinstance(value, int)]
    if lacking:
        raise CheckpointError(f"the config of {config.model_type} names no {', '.join(lacking)}: it cannot be an artifact")
    padding_id = config.pad_token_id if isinstance(config.pad_token_id, int) else 0
    return Shape(
        family=config.model_type,
        layers=counts["num_hidden_layers"],
        heads=counts["num_attention_heads"],
        hidden_size=counts["hidden_size"],
        vocab_size=config.vocab_size,
        token_types=int(getattr(config, "type_vocab_size", 0) or 0),
        max_tokens=_longest(model),
        padding_id=padding_id,
    )


def _longest(model: Any) -> int:
    """Return the longest text in tokens; RoBERTa's kinds do not use the positions up to ``padding_id``."""
    rows = getattr(model.config, "max_position_embeddings", None)
    if not isinstance(rows, int) or rows < 1:
        return _NO_TABLE
    tables = (module for name, module in model.named_modules() if name.endswith("position_embeddings"))
    lost = max((1 + table.padding_idx for table in tables if getattr(table, "padding_idx", None) is not None), default=0)
    return min(rows - lost, LONGEST)


def forward(model: Any, inputs: Sequence[str], texts: Sequence[Row]) -> NDArray[np.float64]:
    """Compute the logits ``[texts, labels]``, text by text; raise ``ExportError`` if the model does not run in float64."""
    try:
        model.double()  # it stays so
        return np.stack([_logits(model, inputs, text) for text in texts])
    except (IndexError, RuntimeError, TypeError) as error:
        raise ExportError(
            f"transformers' {model.config.model_type} model does not run in float64 ({_one_line(error)}), so that no graph of "
            "it can be checked: nothing was written"
        ) from None


def _logits(model: Any, inputs: Sequence[str], text: Row) -> NDArray[Any]:
    arrays = pad([text], 0)  # a text by itself has no padding
    with torch.inference_mode():
        logits = model(**{name: torch.from_numpy(arrays[name]) for name in inputs}).logits  # [1, labels]
    return np.asarray(logits[0].numpy())


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
