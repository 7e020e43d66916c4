"""BERT's forward pass in plain NumPy float64, from the papers' equations: the oracle for every exported graph.

    hidden_0 = norm(word[id] + position[0..n] + segment[type])                           Devlin et al. 2019
    q, k, v  = hidden W_q + b_q,  hidden W_k + b_k,  hidden W_v + b_v                    for each head, width d
    weights  = softmax(q k^T / sqrt(d))                                                  Vaswani et al. 2017, (1)
    context  = weights v                                                                 a weighted average of the values
    hidden   = norm(hidden + concat(context of all heads) W_o + b_o)
    hidden   = norm(hidden + act(hidden W_1 + b_1) W_2 + b_2)
    logits   = act(hidden[CLS] W_p + b_p) W_c + b_c

There is no padding and no mask here: the texts' tokens lie one after the other in one matrix, and attention looks at
each text by itself. What a graph computes for a padded batch has to equal that. The layers go by one at a time, through
all texts, so that one layer's weights are in memory.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from fusedbert.engine.errors import MissingDependencyError

from ..checkpoint.architecture import Architecture
from ..checkpoint.weights import Dense, Embeddings, Layer, Norm, Weights

try:
    from scipy.special import erf
except ImportError:
    raise MissingDependencyError.of("scipy", "export", "check a graph against the reference") from None

Float64 = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Encoded:
    """One text as the network sees it: token ids and segments, ``[tokens]`` each."""

    ids: tuple[int, ...]
    types: tuple[int, ...]


@dataclasses.dataclass
class Trace:
    """What a run showed besides its logits.

    Attributes:
        max_activation: Largest absolute value of any intermediate result; float16 holds up to 65504.
        terms: Of each logit the largest sum of the classifier's products without their signs, ``[labels]``.
        attentions: Where asked for: for each text its attention weights ``[tokens, tokens]``, head by head, layer by layer.
    """

    max_activation: float = 0.0
    terms: Float64 | None = None
    attentions: dict[int, list[Float64]] | None = None

    def saw(self, x: Float64) -> Float64:
        """Note how large ``x`` gets, and pass it on."""
        self.max_activation = max(self.max_activation, float(np.abs(x).max()))
        return x


def forward(
    a: Architecture,
    weights: Weights,
    texts: Sequence[Encoded],
    trace: Trace | None = None,
    dtype: type[np.floating] = np.float64,
) -> Float64:
    """Compute the logits of each text.

    Args:
        a: The description of the checkpoint.
        weights: Its tensors.
        texts: Token ids and segments of each text, special tokens included.
        trace: Filled, where given, with what the run showed.
        dtype: float64; float32 shows what the model's own arithmetic leaves uncertain.

    Returns:
        Logits ``[texts, labels]``.
    """
    trace = trace or Trace()
    ends = np.cumsum([len(text.ids) for text in texts])
    spans = [slice(end - len(text.ids), end) for end, text in zip(ends, texts, strict=True)]
    tables = weights.embeddings()
    x = np.concatenate([embed(a, tables, text, dtype) for text in texts])  # [all tokens, hidden]
    del tables
    for i in range(a.layers):
        layer = _typed(weights.layer(i), dtype)
        x = normalize(trace.saw(x + attention(a, layer, x, spans, trace)), layer.attention_norm, a.norm_eps)
        inner = ACTIVATIONS[a.activation](trace.saw(dense(x, layer.intermediate)))  # [all tokens, intermediate]
        x = normalize(trace.saw(x + trace.saw(dense(inner, layer.output))), layer.output_norm, a.norm_eps)
    first = x[ends - [len(text.ids) for text in texts]]  # [texts, hidden]: the vector of each [CLS]
    pooled = ACTIVATIONS[a.head_activation](trace.saw(dense(first, weights.dense("head_dense"))))
    classifier = weights.dense("classifier")
    trace.terms = np.asarray((np.abs(pooled) @ np.abs(classifier.weight.astype(dtype))).max(axis=0))  # [labels]
    return dense(pooled, classifier)


def embed(a: Architecture, tables: Embeddings, text: Encoded, dtype: type[np.floating] = np.float64) -> Float64:
    """Add word, position and segment vectors: ``[tokens, hidden]``."""
    ids = np.asarray(text.ids)
    positions = np.arange(len(ids))
    if a.position_offset:  # RoBERTa: tokens that are not padding are counted from padding_id + 1 up
        real = (ids != a.padding_id).astype(int)
        positions = np.cumsum(real) * real + a.padding_id
    x = np.asarray(tables.word[ids].astype(dtype) + tables.position[positions].astype(dtype))
    if tables.token_type is not None:
        x = x + tables.token_type[np.asarray(text.types)].astype(dtype)
    x = normalize(x, tables.norm, a.norm_eps)
    return x if tables.projection is None else dense(x, tables.projection)


def attention(a: Architecture, layer: Layer, x: Float64, spans: Sequence[slice], trace: Trace) -> Float64:
    """Multi-head self-attention within each text, and its output projection: ``[all tokens, hidden]``."""
    q, k, v = (trace.saw(dense(x, part)) for part in (layer.query, layer.key, layer.value))
    context = np.empty_like(x)
    for text, span in enumerate(spans):
        for head in range(a.heads):
            d = slice(head * a.head_size, (head + 1) * a.head_size)  # a head's share of the hidden width
            scores = trace.saw(q[span, d] @ k[span, d].T) / math.sqrt(a.head_size)  # [tokens, tokens]: queries . keys
            probabilities = softmax(scores)  # each row sums to 1
            context[span, d] = probabilities @ v[span, d]  # [tokens, d]: a weighted average of the values
            if trace.attentions is not None:
                trace.attentions.setdefault(text, []).append(probabilities)
    return trace.saw(dense(context, layer.attention_output))


def dense(x: Float64, weights: Dense) -> Float64:
    """``x W + b``."""
    return np.asarray(x @ weights.weight.astype(x.dtype, copy=False) + weights.bias.astype(x.dtype, copy=False))


def softmax(scores: Float64) -> Float64:
    """Compute exp(s) / sum(exp(s)) over the last axis, shifted by the largest score so that nothing overflows."""
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def normalize(x: Float64, norm: Norm, eps: float) -> Float64:
    """Layer normalization (Ba et al. 2016) over the last axis."""
    centred = x - x.mean(axis=-1, keepdims=True)
    deviation = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + eps)
    return np.asarray(centred / deviation * norm.weight.astype(x.dtype) + norm.bias.astype(x.dtype))


def gelu(x: Float64) -> Float64:
    """Compute x Phi(x), with the normal distribution's Phi exact (Hendrycks and Gimpel 2016)."""
    return np.asarray(x * 0.5 * (1.0 + erf(x / math.sqrt(2.0))))


def gelu_tanh(x: Float64) -> Float64:
    """The same paper's approximation by tanh."""
    return np.asarray(0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3))))


def gelu_10(x: Float64) -> Float64:
    """GELU between -10 and 10 (Wu et al. 2020, on integer quantization)."""
    return np.clip(gelu(x), -10.0, 10.0)


def relu(x: Float64) -> Float64:
    """Compute max(x, 0)."""
    return np.maximum(x, 0.0)


def silu(x: Float64) -> Float64:
    """Compute x sigmoid(x) (Hendrycks and Gimpel 2016; as swish in Ramachandran et al. 2017)."""
    return x * sigmoid(x)


def quick_gelu(x: Float64) -> Float64:
    """GELU's approximation by a sigmoid, x sigmoid(1.702 x) (Hendrycks and Gimpel 2016)."""
    return x * sigmoid(1.702 * x)


def mish(x: Float64) -> Float64:
    """Compute x tanh(log(1 + exp(x))) (Misra 2019)."""
    return np.asarray(x * np.tanh(np.logaddexp(0.0, x)))


def sigmoid(x: Float64) -> Float64:
    """Compute 1 / (1 + exp(-x)) without overflow."""
    return np.asarray(np.exp(-np.logaddexp(0.0, -x)))


ACTIVATIONS: dict[str, Callable[[Float64], Float64]] = {
    "gelu": gelu,
    "gelu_new": gelu_tanh,
    "gelu_10": gelu_10,
    "relu": relu,
    "silu": silu,
    "quick_gelu": quick_gelu,
    "mish": mish,
    "tanh": np.tanh,
}


def _typed(layer: Layer, dtype: type[np.floating]) -> Layer:
    """Turn a layer's weights to a type once, for all that is computed with them."""
    parts = {field.name: getattr(layer, field.name) for field in dataclasses.fields(layer)}
    return Layer(**{name: type(part)(part.weight.astype(dtype), part.bias.astype(dtype)) for name, part in parts.items()})
