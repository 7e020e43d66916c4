"""What a checkpoint is: one description for the whole BERT family, read from ``config.json``.

BERT (Devlin et al. 2019) and its relatives are one network: embeddings, then ``layers`` times {self-attention, add and
norm, feed-forward, add and norm}, then a dense layer and a classifier on the first token. What differs between them
is a handful of facts, which are the fields of ``Architecture``; where a family keeps them is in ``layouts``.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from fusedbert.engine.artifact import PROBLEM_TYPES
from fusedbert.engine.errors import CheckpointError
from fusedbert.engine.load.kinds import refuse
from fusedbert.engine.text.labels import names_by_id

from ..graph import activations
from .layouts import LAYOUTS, Layout

_LARGEST = 2**31 - 1  # of a number in a config; a tensor is far smaller
_LARGEST_EPS = 3.4e38  # a graph keeps it in float32


@dataclasses.dataclass(frozen=True, kw_only=True)
class Architecture:
    """The shape of a BERT-family classifier.

    Attributes:
        family: Hugging Face ``model_type``.
        layers: Encoder layers (12 in BERT-base, 24 in BERT-large).
        heads: Attention heads of a layer (12, 16).
        hidden_size: Width of a token's vector (768, 1024).
        intermediate_size: Width inside the feed-forward (3072, 4096).
        embedding_size: Width of the embedding tables; differs from ``hidden_size`` in small ELECTRA alone.
        vocab_size: Rows of the word table.
        positions: Rows of the position table.
        token_types: Rows of the segment table, 0 where the family has none.
        position_offset: Position of the first token: 0, or ``padding_idx + 1`` in RoBERTa's kinds.
        padding_id: Id of the padding token; RoBERTa's kinds number the positions of all other tokens.
        norm_eps: Epsilon of the layer normalizations.
        activation: Of the feed-forward, one of ``activations.KINDS``.
        head_activation: Between the head's dense layer and the classifier: ``tanh``, ``gelu`` or ``relu``.
    """

    family: str
    layers: int
    heads: int
    hidden_size: int
    intermediate_size: int
    embedding_size: int
    vocab_size: int
    positions: int
    token_types: int
    position_offset: int
    padding_id: int
    norm_eps: float
    activation: str
    head_activation: str

    @property
    def head_size(self) -> int:
        """Width of one head's queries, keys and values (64 in BERT-base and BERT-large)."""
        return self.hidden_size // self.heads

    @property
    def has_segments(self) -> bool:
        """Whether a text's second segment differs from its first, so that the graph has to be told which is which."""
        return self.token_types > 1

    @property
    def max_tokens(self) -> int:
        """Longest text that the position table holds, special tokens included."""
        return self.positions - self.position_offset


class Shape(Protocol):
    """What tokenizer and check texts need to know of a model, whichever route describes it."""

    @property
    def family(self) -> str:
        """Hugging Face ``model_type``."""

    @property
    def heads(self) -> int:
        """Attention heads of a layer."""

    @property
    def vocab_size(self) -> int:
        """Rows of the word table."""

    @property
    def token_types(self) -> int:
        """Rows of the segment table, 0 where there is none."""

    @property
    def max_tokens(self) -> int:
        """Longest text, special tokens included."""


def read_config(folder: Path) -> dict[str, Any]:
    """Read ``config.json`` of a checkpoint.

    Raises:
        CheckpointError: It is missing, empty, or no JSON object; or the folder is known to be something else.
    """
    refuse(folder)
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{folder} holds no config.json: point to a folder that save_pretrained wrote") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON ({error}): save the checkpoint again") from None
    if not isinstance(config, dict):
        raise CheckpointError(f"{path} holds {type(config).__name__}, expected an object: save the checkpoint again")
    return config


def describe(config: Mapping[str, Any]) -> tuple[Architecture, Layout]:
    """Turn a config into the description and the table of tensor names that goes with it.

    Raises:
        CheckpointError: A family, activation or option that the direct route does not build, or numbers that do not fit.
    """
    family = config.get("model_type")
    layout = next((layout for layout in LAYOUTS if family in layout.families), None)
    if layout is None:
        known = ", ".join(name for layout in LAYOUTS for name in layout.families)
        raise CheckpointError(f"model_type is {_shown(family)}, built directly are {known}: try fusedbert export --via optimum")
    _refuse_variants(config, layout)
    numbers = {field: _count(config, layout, field) for field in _COUNTS}
    named = config.get(layout.config_names.get("hidden_act", "hidden_act"), layout.defaults["hidden_act"])
    activation = activations.kind_of(named)
    if activation is None:
        known = ", ".join(activations.names())
        raise CheckpointError(f"the activation is {_shown(named)}, built directly are {known}: try --via optimum")
    padding_id = _padding_id(config, layout, numbers["vocab_size"])
    hidden_size, heads = numbers["hidden_size"], numbers["num_attention_heads"]
    if hidden_size % heads:
        raise CheckpointError(f"hidden size {hidden_size} is no multiple of {heads} attention heads: config.json is wrong")
    architecture = Architecture(
        family=str(family),
        layers=numbers["num_hidden_layers"],
        heads=heads,
        hidden_size=hidden_size,
        intermediate_size=numbers["intermediate_size"],
        embedding_size=_count(config, layout, "embedding_size") if layout.has_embedding_size else hidden_size,
        vocab_size=numbers["vocab_size"],
        positions=numbers["max_position_embeddings"],
        token_types=_count(config, layout, "type_vocab_size") if "token_type" in layout.embeddings else 0,
        position_offset=padding_id + 1 if layout.positions_follow_padding else 0,
        padding_id=padding_id,
        norm_eps=_norm_eps(config, layout),
        activation=activation,
        head_activation=layout.head_activation,
    )
    if architecture.max_tokens < 3:
        raise CheckpointError(f"{architecture.positions} positions leave no room for a text: config.json is wrong")
    return architecture, layout


_COUNTS = (
    "num_hidden_layers",
    "num_attention_heads",
    "hidden_size",
    "intermediate_size",
    "vocab_size",
    "max_position_embeddings",
)


def _count(config: Mapping[str, Any], layout: Layout, field: str) -> int:
    """Read a size: the family's own key, then the alias that it takes for it, else the family's default.

    A key that is there with null is no key that is left out: transformers refuses it.
    """
    value = layout.defaults[field]
    for name in (layout.config_names.get(field, field), *((field,) if field in layout.aliases else ())):
        if name in config:
            value = config[name]
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _LARGEST:
                raise CheckpointError(
                    f"config.json has {name} = {_shown(value)}, expected a positive integer: save the checkpoint again"
                )
    return int(value)


def _padding_id(config: Mapping[str, Any], layout: Layout, vocab_size: int) -> int:
    """Read the id of the padding token: RoBERTa's kinds count positions from it, in the others it changes no logit."""
    value = config.get("pad_token_id", layout.defaults["pad_token_id"])
    number = isinstance(value, int) and not isinstance(value, bool)
    if not layout.positions_follow_padding and (value is None or (number and -vocab_size <= value < 0)):
        return int(layout.defaults["pad_token_id"])
    if not number or not 0 <= value < vocab_size:
        raise CheckpointError(
            f"config.json has pad_token_id = {_shown(value)}, expected 0 to {vocab_size - 1}: save the checkpoint again"
        )
    return int(value)


def _norm_eps(config: Mapping[str, Any], layout: Layout) -> float:
    """Read the epsilon of the normalizations; DistilBERT's is in its code, and the config has no say."""
    if layout.norm_eps is not None:
        return layout.norm_eps
    value = config.get("layer_norm_eps", layout.defaults["layer_norm_eps"])
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= _LARGEST_EPS:
        raise CheckpointError(
            f"config.json has layer_norm_eps = {_shown(value)}, expected a number such as 1e-12: save the checkpoint again"
        )
    return float(value)


def _shown(value: Any) -> str:
    """Return a value for a message, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _refuse_variants(config: Mapping[str, Any], layout: Layout) -> None:
    """Refuse options that change the equations; silently ignoring one would give wrong scores."""
    expected = {"position_embedding_type": "absolute", "is_decoder": False, "add_cross_attention": False}
    for name, value in expected.items() if layout.norm_eps is None else ():  # DistilBERT's code knows none of these
        found = config.get(name, value)
        if found not in (value, None):
            raise CheckpointError(f"config.json has {name} = {_shown(found)}, built directly is {value!r}: try --via optimum")
    if config.get("pruned_heads"):
        raise CheckpointError("config.json has pruned_heads, which are not built directly: try --via optimum")


def read_labels(config: Mapping[str, Any], count: int) -> tuple[str, ...]:
    """Name the classifier's ``count`` outputs: ``id2label``, and ``LABEL_i`` for the ids that it leaves out.

    Raises:
        CheckpointError: ``id2label`` is no mapping of numbers to names of one line, or names more than there are outputs.
    """
    try:
        names = names_by_id(config.get("id2label"))
    except ValueError as error:
        raise CheckpointError(f"config.json has {error}: mend config.json") from None
    beyond = sorted(i for i in names if i >= count)
    if beyond:
        raise CheckpointError(
            f"config.json names a label {beyond[0]} in id2label, and the classifier has {count} rows, numbered from 0: "
            "mend config.json, or put that beside the weights which was saved with them"
        )
    return tuple(names.get(i, f"LABEL_{i}") for i in range(count))


def read_problem_type(config: Mapping[str, Any]) -> str:
    """Return the problem type; where none is stated a classifier has one label a text, as in transformers' pipeline.

    Raises:
        CheckpointError: It is none of the three that transformers knows.
    """
    problem_type = config.get("problem_type") or "single_label_classification"
    if problem_type not in PROBLEM_TYPES:
        known = ", ".join(PROBLEM_TYPES)
        raise CheckpointError(f"config.json has problem_type = {_shown(problem_type)}, expected one of {known}")
    return str(problem_type)
