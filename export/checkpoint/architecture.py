"""Architecture: one description for the whole BERT family, read from ``config.json``.

BERT (Devlin et al. 2019) and its relatives are one network: embeddings, then layers of {self-attention, add and norm,
feed-forward, add and norm}, then a dense layer and a classifier on the first token.

ModernBERT (Warner et al. 2024) differs in options: the residual goes around the normalizations, positions turn queries and
keys (RoPE, Su et al. 2021), some layers see a window, the feed-forward is gated (GLU, Shazeer 2020), most layers have no bias.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fusedbert.engine.artifact import LARGE, PROBLEM_TYPES, read_json_file
from fusedbert.engine.errors import CheckpointError, shown
from fusedbert.engine.load.unsupported import refuse
from fusedbert.engine.text.outputs import names_by_id

from .layouts import LAYOUTS, Layout
from .relative import C2P, P2C, REACH, Relative, read_bias, read_relative
from .rotary import read_rotary

KINDS = ("gelu", "gelu_new", "relu", "silu", "quick_gelu", "mish", "gelu_10", "tanh")
"""Activations that are built; each function has one name."""
IDENTITY = "identity"
"""No activation, which only a step of the head may have."""
ACTIVATION_NAMES: Mapping[str, str] = {
    **{kind: kind for kind in KINDS},
    "gelu_python": "gelu",
    "gelu_pytorch_tanh": "gelu_new",
    "gelu_python_tanh": "gelu_new",
    "gelu_accurate": "gelu_new",
    "gelu_fast": "gelu_new",  # its constant is sqrt(2 / pi) to ten digits
    "swish": "silu",
}
"""Names of transformers (``ACT2FN``), each with the one of ``KINDS`` that computes the same."""
TOKEN_CLASS = "ForTokenClassification"
_LARGEST = 2**31 - 1  # of a number in a config; a tensor is far smaller
_MOST_LABELS = 1_000_000
_SIZES = ("_size", "_layers", "_dim", "_heads", "_embeddings", "dim", "d_model")  # endings of the names of sizes
_ORDINARY = 1 << 24  # a size up to this may have no tensor, such as the positions of a model without a table
_LARGEST_EPS = 3.4e38  # a graph keeps it in float32


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shape:
    """The facts of a model that every route needs."""

    family: str  # Hugging Face ``model_type``
    layers: int  # encoder layers (12 in BERT-base, 24 in BERT-large)
    heads: int  # attention heads of a layer (12, 16)
    hidden_size: int  # width of a token's vector (768, 1024)
    vocab_size: int  # rows of the word table
    token_types: int  # rows of the segment table, 0 without one
    padding_id: int  # id of the padding token
    max_tokens: int  # longest text, with special tokens
    usual_tokens: int = 0  # longest text unless the user asks for longer ones, if not ``max_tokens``
    windows: tuple[int | None, ...] = ()  # keys that a token sees on either side, for each layer; None or empty: all
    by_token: bool = False  # each token has logits, not each text


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeadStep:
    """A step of the head: a dense layer with an activation, one of ``KINDS`` or ``IDENTITY``, or a normalization."""

    name: str  # of its weights, such as ``head_dense``
    activation: str | None  # None for a normalization
    eps: float | None = None  # of a normalization, if not the encoder's


@dataclasses.dataclass(frozen=True, kw_only=True)
class Architecture(Shape):
    """The description of a BERT-family classifier."""

    intermediate_size: int  # width inside the feed-forward (3072 in BERT-base, 4096 in BERT-large)
    embedding_size: int  # width of the embedding tables; differs from ``hidden_size`` only in small ELECTRA
    positions: int  # rows of the position table, or positions that RoPE turns by
    position_offset: int  # position of the first token: 0, or ``padding_id + 1`` in RoBERTa's kinds
    norm_eps: float  # epsilon of the layer normalizations
    activation: str  # of the feed-forward, one of ``KINDS``
    head: tuple[HeadStep, ...]  # between the encoder and the classifier
    relative: Relative | None = None  # of DeBERTa and MPNet
    products: int = 1  # of which a score is the sum (3 in DeBERTa), and by whose root it is divided
    groups: int = 0  # of layers that share their weights (ALBERT); 0 if none do
    pre_norm: bool = False  # the residual goes around the normalizations, not through them
    gated: bool = False  # the feed-forward is ``(act(x W + b) * (x V + c)) W_2 + b_2``
    thetas: tuple[float, ...] = ()  # base of each layer's RoPE; none with a position table
    pooling: str = "cls"  # what the head reads: the vector of the first token (``cls``), or the ``mean`` of all
    unbiased: frozenset[str] = frozenset()  # our names of the weights that have no bias

    @property
    def cls_only(self) -> bool:
        """True if nothing but each text's first vector leaves the last layer."""
        return self.pooling == "cls" and not self.by_token

    @property
    def head_size(self) -> int:
        """Width of one head's queries, keys and values (64 in BERT-base and BERT-large)."""
        return self.hidden_size // self.heads

    @property
    def scale(self) -> float:
        """Factor of the products of queries and keys, 1/sqrt(d) (1/8 in BERT-base)."""
        return 1 / math.sqrt(self.head_size * self.products)

    @property
    def keys_biased(self) -> bool:
        """True if scores see the bias of the keys: it is not the same for every key of a query."""
        return bool(self.thetas) or (self.relative is not None and P2C in self.relative.terms)

    @property
    def has_segments(self) -> bool:
        """True if the graph has segments as an input."""
        return self.token_types > 1

    @property
    def shared_window(self) -> int | None:
        """The window of the layers that have one: it is the same in all."""
        return max((window for window in self.windows if window is not None), default=None)

    def group(self, layer: int) -> int:
        """Return the number of a layer's weights: layers of a group have the same."""
        return int(layer / (self.layers / self.groups)) if self.groups else layer

    def window(self, layer: int) -> int | None:
        """Return how many keys a token of a layer sees on either side; None for all."""
        return self.windows[layer] if self.windows else None


def read_config(folder: Path) -> dict[str, Any]:
    """Read ``config.json``; raise ``CheckpointError`` if it is not a JSON object, or the folder is something else."""
    refuse(folder)
    config = read_json(folder / "config.json")
    if config is None:
        raise CheckpointError(f"{folder} holds no config.json: point to a folder that save_pretrained wrote")
    labels = config.get("num_labels")  # transformers makes a name for each
    if labels is not None and not (type(labels) is int and 1 <= labels <= _MOST_LABELS):
        raise CheckpointError(
            f"config.json has num_labels = {shown(labels)}, expected 1 to {_MOST_LABELS}: save the checkpoint again"
        )
    return config


def refuse_absurd_sizes(config: Mapping[str, Any], tensors: Mapping[str, tuple[int, ...]]) -> None:
    """Raise ``CheckpointError`` for sizes far beyond the shapes of all tensors, before another library allocates them."""
    largest = max((size for shape in tensors.values() for size in shape), default=0)
    for name, value in config.items():
        most = len(tensors) if name.endswith("layers") else max(largest, _ORDINARY)
        if name.endswith(_SIZES) and type(value) is int and value > most:
            raise CheckpointError(
                f"config.json has {name} = {shown(value)}, and no tensor is as large: save the checkpoint again, or use the "
                "config.json that was saved with the weights"
            )


def read_json(path: Path, owner: str = "checkpoint") -> dict[str, Any] | None:
    """Read a JSON object of a checkpoint, None if the file is missing; raise ``CheckpointError`` if it holds something else."""
    return read_json_file(path, error=CheckpointError, way_out=f"save the {owner} again", limit=LARGE, encoding="utf-8")


def describe(config: Mapping[str, Any]) -> tuple[Architecture, Layout]:
    """Return a config's architecture and layout; raise ``CheckpointError`` if they are not built, or numbers do not fit."""
    family = config.get("model_type")
    layout = next((layout for layout in LAYOUTS if family in layout.families), None)
    if layout is None:
        known = ", ".join(name for layout in LAYOUTS for name in layout.families)
        raise CheckpointError(f"model_type is {shown(family)}, built directly are {known}: try fusedbert export --via optimum")
    _refuse_options(config, layout)
    by_token = classifies_tokens(config)
    layout = layout.of_tokens() if by_token else layout
    layout = _as_configured(config, layout) if layout.positions == "relative" else layout
    count = functools.partial(_count, config, layout)
    hidden_size, heads = count("hidden_size"), count("num_attention_heads")
    vocab_size, positions, layers = count("vocab_size"), count("max_position_embeddings"), count("num_hidden_layers")
    padding_id = _padding_id(config, layout, vocab_size)
    if hidden_size % heads:
        raise CheckpointError(f"hidden size {hidden_size} is not a multiple of {heads} attention heads: config.json is wrong")
    offset = padding_id + 1 if layout.positions_follow_padding else 0
    if positions - offset < 3:
        raise CheckpointError(f"{positions} positions leave no room for a text: config.json is wrong")
    rotary = read_rotary(config, layers, hidden_size // heads) if layout.rotary else None
    relative, products = _relative(config, layout, positions)
    layout = _with_positions(layout, relative)
    unlimited = not layout.rotary and "position" not in layout.embeddings  # no table ends
    longest = min(positions - offset, REACH) if unlimited or relative is not None else positions - offset
    architecture = Architecture(
        family=str(family),
        layers=layers,
        heads=heads,
        hidden_size=hidden_size,
        intermediate_size=count("intermediate_size"),
        embedding_size=count("embedding_size") if "embedding_projection" in layout.embeddings else hidden_size,  # ELECTRA
        vocab_size=vocab_size,
        positions=positions,
        max_tokens=REACH if unlimited else longest,
        usual_tokens=longest,
        relative=relative,
        products=products,
        groups=_groups(config, layers) if layout.grouped else 0,
        token_types=count("type_vocab_size") if "token_type" in layout.embeddings else 0,
        position_offset=offset,
        padding_id=padding_id,
        norm_eps=_norm_eps(config, layout),
        activation=_activation(config, layout.config_names.get("hidden_act", "hidden_act"), layout.defaults["hidden_act"]),
        head=_head(config, layout),
        pre_norm=layout.pre_norm,
        gated=any("gate" in parts for parts in layout.joined.values()),
        thetas=rotary.thetas if rotary else (),
        windows=rotary.windows if rotary else (),
        pooling=_pooling(config) if layout.rotary else "cls",
        unbiased=_unbiased(config, layout),
        by_token=by_token,
    )
    return architecture, layout


def _activation(config: Mapping[str, Any], key: str, default: str) -> str:
    """Read the name of an activation."""
    named = config.get(key, default)
    activation = ACTIVATION_NAMES.get(named) if isinstance(named, str) else None
    if activation is None:
        known = ", ".join(ACTIVATION_NAMES)
        raise CheckpointError(f"the activation is {shown(named)}, built directly are {known}: try --via optimum")
    return activation


def classifies_tokens(config: Mapping[str, Any]) -> bool:
    """Return whether the class of transformers that a config names is one ``ForTokenClassification``."""
    names = config.get("architectures")
    return isinstance(names, list) and any(isinstance(name, str) and name.endswith(TOKEN_CLASS) for name in names)


def _head(config: Mapping[str, Any], layout: Layout) -> tuple[HeadStep, ...]:
    """List the steps before the classifier."""
    kind = layout.head_activation or _activation(config, layout.head_key, "gelu")
    return tuple(
        HeadStep(name=name, activation=None if name.endswith("norm") else kind) for name in layout.head if name != "classifier"
    )


def _as_configured(config: Mapping[str, Any], layout: Layout) -> Layout:
    """Leave out DeBERTa's tables that an option leaves out; raise ``CheckpointError`` for widths that are not built."""
    hidden, heads = _count(config, layout, "hidden_size"), _count(config, layout, "num_attention_heads")
    for name, built in (("attention_head_size", hidden // heads), ("pooler_hidden_size", hidden)):
        if config.get(name, built) not in (built, None):
            raise CheckpointError(f"config.json has {name} = {shown(config[name])}, not built directly: try --via optimum")
    biased = config.get("position_biased_input", True)
    if not isinstance(biased, bool):
        raise CheckpointError(
            f"config.json has position_biased_input = {shown(biased)}, expected true or false: mend config.json"
        )
    absent = {"position": not biased, "token_type": config.get("type_vocab_size", 0) == 0}
    absent["embedding_projection"] = config.get("embedding_size", hidden) == hidden
    kept = {name: key for name, key in layout.embeddings.items() if not absent.get(name)}
    unused = () if biased else (r"embeddings\.position_embeddings\.weight$",)  # in checkpoints of older versions
    defaults, ignored = {**layout.defaults, "embedding_size": hidden}, (*layout.ignored, *unused)
    return dataclasses.replace(layout, embeddings=kept, defaults=defaults, ignored=ignored)


def _relative(config: Mapping[str, Any], layout: Layout, positions: int) -> tuple[Relative | None, int]:
    """Read the relative positions, and how many products a score is the sum of."""
    if layout.positions == "absolute":
        return None, 1
    return read_relative(config, positions) if layout.positions == "relative" else (read_bias(config), 1)


def _with_positions(layout: Layout, relative: Relative | None) -> Layout:
    """Leave out the tensors of relative positions that the model does not have."""
    terms = () if relative is None else relative.terms
    apart = relative is not None and not relative.shared
    there = {
        "position_key": C2P in terms and apart,
        "position_query": P2C in terms and apart,
        "relative": relative is not None,
        "relative_norm": relative is not None and relative.normalized,
    }
    layer = {name: key for name, key in layout.layer.items() if there.get(name, True)}
    return dataclasses.replace(layout, layer=layer, relative={n: key for n, key in layout.relative.items() if there[n]})


def _groups(config: Mapping[str, Any], layers: int) -> int:
    groups = config.get("num_hidden_groups", 1)
    if type(groups) is not int or not 1 <= groups <= layers:
        raise CheckpointError(
            f"config.json has num_hidden_groups = {shown(groups)}, expected 1 to {layers}: save the checkpoint again"
        )
    return groups


def _pooling(config: Mapping[str, Any]) -> str:
    value = config.get("classifier_pooling", "cls")
    if value not in ("cls", "mean"):
        raise CheckpointError(f"config.json has classifier_pooling = {shown(value)}, expected cls or mean: mend config.json")
    return str(value)


def _unbiased(config: Mapping[str, Any], layout: Layout) -> frozenset[str]:
    """Return the weights without bias."""
    names = set(layout.unbiased)
    for key, parts in layout.bias_options.items():
        value = config.get(key, False)
        if not isinstance(value, bool):
            raise CheckpointError(f"config.json has {key} = {shown(value)}, expected true or false: mend config.json")
        names.update(() if value else parts)
    return frozenset(names)


def _count(config: Mapping[str, Any], layout: Layout, field: str) -> int:
    """Read a size from the family's key, overridden by its alias; null is refused, as in transformers."""
    value = layout.defaults[field]
    for name in (layout.config_names.get(field, field), *((field,) if field in layout.aliases else ())):
        if name in config:
            value = config[name]
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _LARGEST:
                expected = "0 or a positive integer" if field == "type_vocab_size" else "a positive integer"
                raise CheckpointError(
                    f"config.json has {name} = {shown(value)}, expected {expected}: save the checkpoint again"
                )
    return int(value)


def _padding_id(config: Mapping[str, Any], layout: Layout, vocab_size: int) -> int:
    """Read the id of the padding token, which matters only in RoBERTa's kinds; MPNet's positions know only 1."""
    if layout.positions == "biased":
        return 1
    value = config.get("pad_token_id", layout.defaults["pad_token_id"])
    number = isinstance(value, int) and not isinstance(value, bool)
    if not layout.positions_follow_padding and (value is None or (number and -vocab_size <= value < 0)):
        default = int(layout.defaults["pad_token_id"])
        return default if default < vocab_size else 0
    if not number or not 0 <= value < vocab_size:
        raise CheckpointError(
            f"config.json has pad_token_id = {shown(value)}, expected 0 to {vocab_size - 1}: save the checkpoint again"
        )
    return int(value)


def _norm_eps(config: Mapping[str, Any], layout: Layout) -> float:
    """Read the epsilon of the normalizations; DistilBERT's is fixed in its code."""
    if layout.norm_eps is not None:
        return layout.norm_eps
    name = layout.config_names.get("layer_norm_eps", "layer_norm_eps")
    value = config.get(name, layout.defaults["layer_norm_eps"])
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= _LARGEST_EPS:
        raise CheckpointError(
            f"config.json has {name} = {shown(value)}, expected a number such as 1e-12: save the checkpoint again"
        )
    return float(value)


def _refuse_options(config: Mapping[str, Any], layout: Layout) -> None:
    for name, value in layout.fixed.items():
        actual = config.get(name, value)
        if actual not in (value, None):
            raise CheckpointError(f"config.json has {name} = {shown(actual)}, built directly is {value!r}: try --via optimum")
    if config.get("pruned_heads"):
        raise CheckpointError("config.json has pruned_heads, which are not built directly: try --via optimum")


def read_labels(config: Mapping[str, Any], count: int) -> tuple[str, ...]:
    """Name ``count`` outputs by ``id2label``, else ``LABEL_i``; raise ``CheckpointError`` if it is not valid."""
    try:
        names = names_by_id(config.get("id2label"))
    except ValueError as error:
        raise CheckpointError(f"config.json has {error}: mend config.json") from None
    beyond = sorted(i for i in names if i >= count)
    if beyond:
        raise CheckpointError(
            f"config.json names a label {beyond[0]} in id2label, and the classifier has {count} rows, numbered from 0: "
            "mend config.json, or use the config.json that was saved with the weights"
        )
    return tuple(names.get(i, f"LABEL_{i}") for i in range(count))


def expected_labels(config: Mapping[str, Any]) -> tuple[tuple[str, ...], str]:
    """Return the labels that a config names, and the problem type; ``read_labels`` checks them against the classifier."""
    try:
        count = max(names_by_id(config.get("id2label")), default=-1) + 1
    except ValueError:
        count = 0  # the error is that of read_labels
    named = config.get("num_labels", 2)  # as in transformers
    return read_labels(config, max(count, named if type(named) is int and not count else 0)), read_problem_type(config)


def read_problem_type(config: Mapping[str, Any]) -> str:
    """Return the problem type, one of transformers' three; raise ``CheckpointError`` for others."""
    problem_type = config.get("problem_type") or "single_label_classification"  # as in transformers' pipeline
    if classifies_tokens(config):  # whose pipeline does not ask
        return "single_label_classification"
    if problem_type not in PROBLEM_TYPES:
        known = ", ".join(PROBLEM_TYPES)
        raise CheckpointError(f"config.json has problem_type = {shown(problem_type)}, expected one of {known}")
    return str(problem_type)
