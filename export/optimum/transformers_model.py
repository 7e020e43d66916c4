"""Models of any family that transformers has the code for: loaded, described, and run in float64 as the reference.

The direct route reads a checkpoint itself. Here transformers does, and what it would only log is an error: a tensor that
the checkpoint lacks would be filled with random numbers. Weights come from safetensors alone, and code that a
checkpoint brings along is never run.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusedbert.engine.errors import CheckpointError, ExportError, MissingDependencyError

from ..checkpoint.notes import IgnoredWarning
from ..checkpoint.tensors import ignored, mismatch, wrapped, wrapper
from ..checkpoint.weights import headers, weight_files
from ..parity.reference import Encoded

try:
    import torch
    import transformers
except ImportError as error:
    raise MissingDependencyError.of(error.name or "transformers", "optimum", "read a checkpoint of this family") from None

REFERENCE = "transformers float64"
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
LONGEST = 2048  # tokens: what a float64 run checks in reasonable time and memory, and so the longest text that is promised
_NO_TABLE = 512  # tokens, where positions are relative and the config names no limit


@dataclasses.dataclass(frozen=True, kw_only=True)
class Description:
    """What tokenizer, check texts and manifest need to know of a model.

    Attributes:
        family: Hugging Face ``model_type``.
        layers: Encoder layers.
        heads: Attention heads of a layer.
        hidden_size: Width of a token's vector.
        vocab_size: Rows of the word table.
        token_types: Rows of the segment table, 0 where the model has none.
        max_tokens: Longest text that the model takes, ``LONGEST`` at most.
        padding_id: Id of the padding token.
        inputs: Those of ``INPUTS`` that the exported graph declares.
    """

    family: str
    layers: int
    heads: int
    hidden_size: int
    vocab_size: int
    token_types: int
    max_tokens: int
    padding_id: int
    inputs: tuple[str, ...]


def load(folder: Path) -> Any:
    """Load a classifier in float32, with the attention that ONNX Runtime's fusions know.

    Returns:
        The transformers model, in evaluation mode.

    Raises:
        CheckpointError: transformers cannot read it, or its tensors are missing, misshapen or not finite.

    Warns:
        IgnoredWarning: There are tensors that the model does not use.
    """
    files = weight_files(folder)  # refuses pickles and lacking shards
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
    if report["missing_keys"] and (prefix := wrapper(unused, report["missing_keys"])):
        raise CheckpointError(wrapped(folder, prefix, headers(files)))
    faults = [f"missing {name}" for name in sorted(report["missing_keys"])]
    shapes = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    faults += [f"{name} is not of shape {shapes[name]}" for name in sorted(report["mismatched_keys"])]
    faults += [f"{name} holds NaN or infinity" for name, tensor in model.named_parameters() if not torch.isfinite(tensor).all()]
    if faults:
        raise CheckpointError(mismatch(folder, model.config.model_type, faults, unused))
    if unused:
        warnings.warn(ignored(folder, model.config.model_type, unused), IgnoredWarning, stacklevel=2)
    return model.eval()


def describe(model: Any, inputs: Sequence[str]) -> Description:
    """Describe a loaded model.

    Args:
        model: What ``load`` returned.
        inputs: Names of the inputs that its graph will have.

    Raises:
        CheckpointError: It takes inputs that are not made from a text alone, or its config names no heads or layers.
    """
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
    return Description(
        family=config.model_type,
        layers=counts["num_hidden_layers"],
        heads=counts["num_attention_heads"],
        hidden_size=counts["hidden_size"],
        vocab_size=config.vocab_size,
        token_types=int(getattr(config, "type_vocab_size", 0) or 0),
        max_tokens=_longest(model),
        padding_id=padding_id,
        inputs=tuple(name for name in INPUTS if name in inputs),
    )


def _longest(model: Any) -> int:
    """Return how many tokens the model takes; RoBERTa's kinds count positions from behind the padding's and lose those."""
    rows = getattr(model.config, "max_position_embeddings", None)
    if not isinstance(rows, int) or rows < 1:
        return _NO_TABLE
    tables = (module for name, module in model.named_modules() if name.endswith("position_embeddings"))
    lost = max((1 + table.padding_idx for table in tables if getattr(table, "padding_idx", None) is not None), default=0)
    return min(rows - lost, LONGEST)


def forward(model: Any, description: Description, texts: Sequence[Encoded]) -> NDArray[np.float64]:
    """Compute the logits in float64, each text alone and without padding; the model is left in float64.

    Returns:
        Float64 ``[texts, labels]``.

    Raises:
        ExportError: The model's code does not run in float64.
    """
    try:
        return np.stack([_logits(model.double(), description.inputs, text) for text in texts])
    except (IndexError, RuntimeError, TypeError) as error:
        raise ExportError(
            f"transformers' {description.family} model does not run in float64 ({_one_line(error)}), so that no graph of it "
            "can be held against it: nothing was written"
        ) from None


def _logits(model: Any, inputs: Sequence[str], text: Encoded) -> NDArray[Any]:
    rows: Mapping[str, tuple[int, ...]] = {
        "input_ids": text.ids,
        "attention_mask": (1,) * len(text.ids),
        "token_type_ids": text.types,
    }
    with torch.inference_mode():
        logits = model(**{name: torch.tensor([rows[name]]) for name in INPUTS if name in inputs}).logits  # [1, labels]
    return np.asarray(logits[0].numpy())


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
