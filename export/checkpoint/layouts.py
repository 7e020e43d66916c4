"""Layouts: each family's names of tensors and config keys.

A dense layer is ``NAME.weight`` ``[out, in]`` and ``NAME.bias`` ``[out]``, a normalization the same with ``[width]``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

POOLER = r"^(\w+\.)?pooler\."  # BERT's dense layer for texts
_BUFFERS = (r"embeddings\.position_ids$", r"embeddings\.token_type_ids$")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """The names of one family."""

    families: tuple[str, ...]  # values of ``model_type``
    prefix: str  # optional prefix of the encoder's names
    embeddings: Mapping[str, str]  # our name to the family's, inside the prefix; without tables that the family lacks
    layer: Mapping[str, str]  # the same for layer ``{i}``, where ``{next}`` is the number of the layer after it
    last: Mapping[str, str] = dataclasses.field(default_factory=dict)  # names that differ in the last layer
    joined: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)  # a tensor's parts, of equal size
    head: Mapping[str, str]  # the same for the head; names with ``^`` are inside the prefix, others are not
    head_activation: str | None  # behind the head's first layer; None for that of the config
    head_key: str = "classifier_activation"  # of the config, for the activation
    defaults: Mapping[str, Any]  # of the family's config class in transformers, by BERT's config keys
    config_names: Mapping[str, str] = dataclasses.field(default_factory=dict)  # BERT's config key to the family's
    aliases: tuple[str, ...] = ()  # config keys of BERT that win over the family's
    norm_eps: float | None = None  # epsilon of the normalizations, if not the config's ``layer_norm_eps``
    fixed: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # options of the config, and the values that are built
    positions_follow_padding: bool = False  # positions count from ``padding_id + 1`` and skip padding (RoBERTa)
    pre_norm: bool = False  # the residual goes around the normalizations, not through them
    positions: str = "absolute"  # or "relative" (DeBERTa) or "biased" (MPNet): ``relative.py`` reads their options
    projection_first: bool = False  # embeddings are projected before they are normalized, not after
    relative: Mapping[str, str] = dataclasses.field(default_factory=dict)  # the table of relative positions, inside the prefix
    grouped: bool = False  # layers of a group share their weights; ``{group}`` is its number
    unbiased: tuple[str, ...] = ()  # parts without a bias
    rotary: bool = False  # RoPE in place of a table of positions, and windows: ``rotary.py`` reads their options
    # A key of the config to the parts that have a bias only if it is true.
    bias_options: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    ignored: tuple[str, ...] = _BUFFERS  # patterns of tensors that a classifier does not use: buffers and heads of pre-training
    token_head: Mapping[str, str] = dataclasses.field(default_factory=lambda: {"classifier": "classifier"})  # of tokens

    def of_tokens(self) -> Layout:
        """Return the layout of the family's token classifier, which has no pooler; old checkpoints hold one."""
        return dataclasses.replace(self, head=self.token_head, ignored=(*self.ignored, POOLER))


_EMBEDDINGS = {
    "word": "embeddings.word_embeddings",
    "position": "embeddings.position_embeddings",
    "token_type": "embeddings.token_type_embeddings",
    "embedding_norm": "embeddings.LayerNorm",
}
_LAYER = {
    "query": "encoder.layer.{i}.attention.self.query",
    "key": "encoder.layer.{i}.attention.self.key",
    "value": "encoder.layer.{i}.attention.self.value",
    "attention_output": "encoder.layer.{i}.attention.output.dense",
    "attention_norm": "encoder.layer.{i}.attention.output.LayerNorm",
    "intermediate": "encoder.layer.{i}.intermediate.dense",
    "output": "encoder.layer.{i}.output.dense",
    "output_norm": "encoder.layer.{i}.output.LayerNorm",
}
_DEFAULTS: Mapping[str, Any] = {
    "vocab_size": 30522,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
}
_FIXED: Mapping[str, Any] = {"position_embedding_type": "absolute", "is_decoder": False, "add_cross_attention": False}

BERT = Layout(
    families=("bert",),
    prefix="bert.",
    embeddings=_EMBEDDINGS,
    layer=_LAYER,
    head={"head_dense": "^pooler.dense", "classifier": "classifier"},
    head_activation="tanh",
    defaults=_DEFAULTS,
    ignored=(*_BUFFERS, r"^cls\."),
    fixed=_FIXED,
)

ROBERTA = Layout(
    families=("roberta",),
    prefix="roberta.",
    embeddings=_EMBEDDINGS,
    layer=_LAYER,
    head={"head_dense": "classifier.dense", "classifier": "classifier.out_proj"},
    head_activation="tanh",
    defaults={**_DEFAULTS, "vocab_size": 50265, "pad_token_id": 1},
    positions_follow_padding=True,
    ignored=(*_BUFFERS, r"^lm_head\.", r"^(roberta\.)?pooler\."),
    fixed=_FIXED,
)

XLM_ROBERTA = dataclasses.replace(ROBERTA, families=("xlm-roberta", "camembert"), defaults={**_DEFAULTS, "pad_token_id": 1})

ELECTRA = Layout(
    families=("electra",),
    prefix="electra.",
    embeddings={**_EMBEDDINGS, "embedding_projection": "embeddings_project"},
    layer=_LAYER,
    head={"head_dense": "classifier.dense", "classifier": "classifier.out_proj"},
    head_activation="gelu",
    defaults={**_DEFAULTS, "hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 1024, "embedding_size": 128},
    ignored=(*_BUFFERS, r"^discriminator_predictions\.", r"^generator_"),
    fixed=_FIXED,
)

DISTILBERT = Layout(
    families=("distilbert",),
    prefix="distilbert.",
    embeddings={name: theirs for name, theirs in _EMBEDDINGS.items() if name != "token_type"},
    layer={
        "query": "transformer.layer.{i}.attention.q_lin",
        "key": "transformer.layer.{i}.attention.k_lin",
        "value": "transformer.layer.{i}.attention.v_lin",
        "attention_output": "transformer.layer.{i}.attention.out_lin",
        "attention_norm": "transformer.layer.{i}.sa_layer_norm",
        "intermediate": "transformer.layer.{i}.ffn.lin1",
        "output": "transformer.layer.{i}.ffn.lin2",
        "output_norm": "transformer.layer.{i}.output_layer_norm",
    },
    head={"head_dense": "pre_classifier", "classifier": "classifier"},
    head_activation="relu",
    defaults={**_DEFAULTS, "num_hidden_layers": 6},
    config_names={
        "num_hidden_layers": "n_layers",
        "num_attention_heads": "n_heads",
        "hidden_size": "dim",
        "intermediate_size": "hidden_dim",
        "hidden_act": "activation",
    },
    aliases=("num_hidden_layers", "num_attention_heads", "hidden_size"),
    norm_eps=1e-12,
    ignored=(*_BUFFERS, r"^vocab_(transform|layer_norm|projector)\."),
)

# What is added to the residual is normalized for the next step, so a norm is named after the step before it.
MODERNBERT = Layout(
    families=("modernbert",),
    prefix="model.",
    embeddings={"word": "embeddings.tok_embeddings", "embedding_norm": "embeddings.norm"},
    layer={
        "query_key_value": "layers.{i}.attn.Wqkv",
        "attention_output": "layers.{i}.attn.Wo",
        "attention_norm": "layers.{i}.mlp_norm",
        "intermediate_gate": "layers.{i}.mlp.Wi",
        "output": "layers.{i}.mlp.Wo",
        "output_norm": "layers.{next}.attn_norm",
    },
    last={"output_norm": "final_norm"},
    joined={"query_key_value": ("query", "key", "value"), "intermediate_gate": ("intermediate", "gate")},
    head={"head_dense": "head.dense", "head_norm": "head.norm", "classifier": "classifier"},
    token_head={"head_dense": "head.dense", "head_norm": "head.norm", "classifier": "classifier"},
    head_activation=None,
    defaults={
        **{name: value for name, value in _DEFAULTS.items() if name != "type_vocab_size"},
        "vocab_size": 50368,
        "num_hidden_layers": 22,
        "intermediate_size": 1152,
        "max_position_embeddings": 8192,
        "layer_norm_eps": 1e-5,
        "pad_token_id": 50283,
    },
    config_names={"hidden_act": "hidden_activation", "layer_norm_eps": "norm_eps"},
    pre_norm=True,
    rotary=True,
    bias_options={
        "attention_bias": ("query_key_value", "attention_output"),
        "mlp_bias": ("intermediate_gate", "output"),
        "norm_bias": ("embedding_norm", "attention_norm", "output_norm", "head_norm"),
        "classifier_bias": ("head_dense",),
    },
    ignored=(r"^decoder\.",),
)

DEBERTA = Layout(
    families=("deberta-v2",),  # v3 too
    prefix="deberta.",
    embeddings={**_EMBEDDINGS, "embedding_projection": "embeddings.embed_proj"},
    projection_first=True,
    layer={
        **_LAYER,
        **{name: f"encoder.layer.{{i}}.attention.self.{name}_proj" for name in ("query", "key", "value")},
        "position_key": "encoder.layer.{i}.attention.self.pos_key_proj",
        "position_query": "encoder.layer.{i}.attention.self.pos_query_proj",
    },
    relative={"relative": "encoder.rel_embeddings", "relative_norm": "encoder.LayerNorm"},
    positions="relative",
    head={"head_dense": "pooler.dense", "classifier": "classifier"},
    head_activation=None,
    head_key="pooler_hidden_act",
    defaults={
        **_DEFAULTS,
        "vocab_size": 128100,
        "hidden_size": 1536,
        "num_hidden_layers": 24,
        "num_attention_heads": 24,
        "intermediate_size": 6144,
        "type_vocab_size": 0,
        "layer_norm_eps": 1e-7,
    },
    unbiased=("embedding_projection", "relative"),
    fixed={"conv_kernel_size": 0},
    ignored=(*_BUFFERS, r"^(lm|mask)_predictions\.", r"^cls\."),
)

MPNET = Layout(
    families=("mpnet",),
    prefix="mpnet.",
    embeddings={name: key for name, key in _EMBEDDINGS.items() if name != "token_type"},
    layer={
        **_LAYER,
        **{name: f"encoder.layer.{{i}}.attention.attn.{name[0]}" for name in ("query", "key", "value")},
        "attention_output": "encoder.layer.{i}.attention.attn.o",
        "attention_norm": "encoder.layer.{i}.attention.LayerNorm",
    },
    relative={"relative": "encoder.relative_attention_bias"},
    positions="biased",
    head={"head_dense": "classifier.dense", "classifier": "classifier.out_proj"},
    head_activation="tanh",
    defaults={**_DEFAULTS, "vocab_size": 30527, "pad_token_id": 1},
    positions_follow_padding=True,
    unbiased=("relative",),
    ignored=(*_BUFFERS, r"^lm_head\.", r"^(mpnet\.)?pooler\."),
)

ALBERT = Layout(
    families=("albert",),
    prefix="albert.",
    embeddings={**_EMBEDDINGS, "embedding_projection": "encoder.embedding_hidden_mapping_in"},
    layer={
        name: f"encoder.albert_layer_groups.{{group}}.albert_layers.0.{key}"
        for name, key in {
            "query": "attention.query",
            "key": "attention.key",
            "value": "attention.value",
            "attention_output": "attention.dense",
            "attention_norm": "attention.LayerNorm",
            "intermediate": "ffn",
            "output": "ffn_output",
            "output_norm": "full_layer_layer_norm",
        }.items()
    },
    grouped=True,
    head={"head_dense": "^pooler", "classifier": "classifier"},
    head_activation="tanh",
    defaults={
        **_DEFAULTS,
        "vocab_size": 30000,
        "embedding_size": 128,
        "hidden_size": 4096,
        "num_attention_heads": 64,
        "intermediate_size": 16384,
        "hidden_act": "gelu_new",
    },
    fixed={"inner_group_num": 1},
    ignored=(*_BUFFERS, r"^predictions\.", r"^sop_classifier\."),
)

LAYOUTS = (BERT, ROBERTA, XLM_ROBERTA, DISTILBERT, ELECTRA, MODERNBERT, DEBERTA, MPNET, ALBERT)
