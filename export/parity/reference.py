"""Reference: BERT's forward pass in plain NumPy float64, from the papers' equations, with which every graph is compared.

    hidden_0 = norm(word[id] + position[0..n] + segment[type])                           Devlin et al. 2019
    q, k, v  = hidden W_q + b_q,  hidden W_k + b_k,  hidden W_v + b_v                    for each head, width d
    weights  = softmax(q k^T / sqrt(d))                                                  Vaswani et al. 2017, (1)
    context  = weights v                                                                 a weighted average of the values
    hidden   = norm(hidden + concat(context of all heads) W_o + b_o)
    hidden   = norm(hidden + act(hidden W_1 + b_1) W_2 + b_2)
    logits   = act(hidden[CLS] W_p + b_p) W_c + b_c

ModernBERT (Warner et al. 2024) has no table of positions, and what it adds is normalized for the next step, not kept so:

    q, k     = turn(q), turn(k)                                                          RoPE, Su et al. 2021, (34)
    weights  = softmax over the keys within the layer's window
    hidden   = hidden + context W_o,  then  hidden + (act(normed W_1) * (normed V)) W_2  GLU, Shazeer 2020
    normed   = norm(hidden)                                                              what the next product takes

DeBERTa (He et al. 2021) adds two products with vectors of the distance to each score, MPNet (Song et al. 2020) a number:

    score_ij = (q_i k_j + q_i K_r[i - j] + k_j Q_r[i - j]) / sqrt(3 d)                   (4), without the last term there

The tables K_r and Q_r and the bucket of a distance are those of ``checkpoint``: tests compare them with transformers'.

There is no padding and no mask: the tokens of all texts lie one after the other, and attention is within each text. Layers are
read one at a time, to save memory.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusedbert.engine.errors import MissingDependencyError
from fusedbert.engine.text.tokenizer import Row

from ..checkpoint.architecture import IDENTITY, Architecture, HeadStep
from ..checkpoint.relative import Relative
from ..checkpoint.weights import Dense, Embeddings, Head, Layer, Norm, Weights

try:
    from scipy.special import erf
except ImportError:
    raise MissingDependencyError.of("scipy", "export", "check a graph against the reference") from None

Float64 = NDArray[np.float64]
QUERIES = 512  # of which the scores are in memory at once


@dataclasses.dataclass
class Trace:
    """Measurements of a run."""

    max_activation: float = 0.0  # largest absolute value of any intermediate result
    terms: Float64 | None = None  # largest sum of each logit's products in the classifier without signs, ``[labels]``
    # If not None, each text's weights ``[tokens, tokens]``, head by head, layer by layer.
    attentions: dict[int, list[Float64]] | None = None

    def observe(self, x: Float64) -> Float64:
        """Record the largest value of ``x``, and return it."""
        self.max_activation = max(self.max_activation, float(np.abs(x).max()))
        return x


def forward(
    a: Architecture,
    weights: Weights,
    texts: Sequence[Row],
    trace: Trace | None = None,
    dtype: type[np.floating] = np.float64,
) -> Float64:
    """Compute the logits ``[texts, labels]``, or of all tokens, and fill ``trace``; float32 shows the model's rounding."""
    trace = trace or Trace()
    ends = np.cumsum([len(text.ids) for text in texts])
    spans = [slice(end - len(text.ids), end) for end, text in zip(ends, texts, strict=True)]
    tables = weights.embeddings()
    x = np.concatenate([embed(a, tables, text, dtype) for text in texts])  # [all tokens, hidden]
    del tables
    normed = x
    for i in range(a.layers):
        layer = weights.layer(i)
        x, normed = add_norm(a, x, attention(a, layer, i, normed, spans, trace), layer.attention_norm, trace)
        inner = feed_forward(a, layer, normed, trace)  # [all tokens, intermediate]
        x, normed = add_norm(a, x, trace.observe(dense(inner, layer.output)), layer.output_norm, trace)
    pooled = normed if a.by_token else pool(a, normed, spans)  # [rows, hidden]; a row is a token, or a text
    logits, terms = zip(*(classify(a, head, pooled, trace) for head in weights.heads), strict=True)
    largest = np.concatenate(terms)  # [labels]
    trace.terms = largest if trace.terms is None else np.maximum(trace.terms, largest)  # of all runs
    return np.concatenate(logits, axis=1)


def classify(a: Architecture, head: Head, x: Float64, trace: Trace) -> tuple[Float64, Float64]:
    """Return a head's logits ``[rows, labels]``, and each one's largest sum of products without signs, ``[labels]``."""
    for step in head.steps:
        x = head_step(a, head.weights, step, x, trace)
    classifier = head.classifier
    return dense(x, classifier), np.asarray((np.abs(x) @ np.abs(classifier.weight.astype(x.dtype))).max(axis=0))


def add_norm(a: Architecture, x: Float64, added: Float64, norm: Norm, trace: Trace) -> tuple[Float64, Float64]:
    """Return the residual that goes on, and what the next step takes."""
    total = trace.observe(x + added)
    normed = trace.observe(normalize(total, norm, a.norm_eps))
    return (total if a.pre_norm else normed), normed


def feed_forward(a: Architecture, layer: Layer, x: Float64, trace: Trace) -> Float64:
    """Compute ``act(x W_1 + b_1)``, times ``x V + c`` if gated."""
    inner = ACTIVATIONS[a.activation](trace.observe(dense(x, layer.intermediate)))
    return inner if layer.gate is None else trace.observe(inner * trace.observe(dense(x, layer.gate)))


def pool(a: Architecture, x: Float64, spans: Sequence[slice]) -> Float64:
    """Take each text's first vector, [CLS], or the mean of all."""
    return np.stack([x[span.start] if a.pooling == "cls" else x[span].mean(axis=0) for span in spans])


def head_step(a: Architecture, weights: Weights, step: HeadStep, x: Float64, trace: Trace) -> Float64:
    """Compute a dense layer of the head with its activation, or a normalization."""
    if step.activation is None:
        return normalize(x, weights.norm(step.name), a.norm_eps if step.eps is None else step.eps)
    y = trace.observe(dense(x, weights.dense(step.name)))
    return y if step.activation == IDENTITY else ACTIVATIONS[step.activation](y)


def embed(a: Architecture, tables: Embeddings, text: Row, dtype: type[np.floating] = np.float64) -> Float64:
    """Add word, position and segment vectors: ``[tokens, hidden]``."""
    ids = np.asarray(text.ids)
    positions = np.arange(len(ids))
    if a.position_offset:  # RoBERTa: counts the tokens that are not padding, from padding_id + 1 up
        real = (ids != a.padding_id).astype(int)
        positions = np.cumsum(real) * real + a.padding_id
    x: NDArray[Any] = np.asarray(tables.word[ids].astype(dtype))
    if tables.position is not None:
        x = np.asarray(x + tables.position[positions].astype(dtype))
    if tables.token_type is not None:
        x = np.asarray(x + tables.token_type[np.asarray(text.types)].astype(dtype))
    x = normalize(x, tables.norm, a.norm_eps)
    return x if tables.projection is None else dense(x, tables.projection)


def attention(a: Architecture, layer: Layer, i: int, x: Float64, spans: Sequence[slice], trace: Trace) -> Float64:
    """Multi-head self-attention of layer ``i`` and output projection: ``[all tokens, hidden]``."""
    q, k, v = (trace.observe(dense(x, part)) for part in (layer.query, layer.key, layer.value))
    context = np.empty_like(x)
    for text, span in enumerate(spans):
        for head in range(a.heads):
            d = slice(head * a.head_size, (head + 1) * a.head_size)  # a head's share of the hidden width
            qh, kh = q[span, d], k[span, d]
            if a.thetas:
                qh, kh = turn(qh, a.thetas[i]), turn(kh, a.thetas[i])
            shown: list[Float64] | None = None if trace.attentions is None else []
            added = None if a.relative is None else functools.partial(relative_scores, a.relative, layer, head, qh, kh)
            context[span, d] = attend(qh, kh, v[span, d], a.window(i), trace, shown, products=a.products, added=added)
            if trace.attentions is not None and shown is not None:
                trace.attentions.setdefault(text, []).append(np.concatenate(shown))
    return trace.observe(dense(context, layer.attention_output))


def relative_scores(
    relative: Relative, layer: Layer, head: int, q: Float64, k: Float64, rows: NDArray[np.int64]
) -> tuple[Float64, Float64]:
    """Return what positions add to the scores of some queries before and after the division, ``[queries, keys]`` each."""
    at = _columns(relative)[relative.row(rows[:, None] - np.arange(len(k)))]  # of i - j
    added, bias = np.zeros(at.shape, q.dtype), np.zeros(at.shape, q.dtype)
    if layer.position_key is not None:
        added += np.take_along_axis(q[rows] @ layer.position_key[head].astype(q.dtype).T, at, axis=1)
    if layer.position_query is not None:
        added += np.take_along_axis((k @ layer.position_query[head].astype(q.dtype).T).T, at, axis=0)
    if layer.position_bias is not None:
        bias += layer.position_bias[head].astype(q.dtype)[at]
    return added, bias


@functools.cache
def _columns(relative: Relative) -> NDArray[np.int64]:
    """Return the column of the tables that each row of the checkpoint's has."""
    columns, _ = relative.columns()
    places = np.full(relative.rows, -1)
    places[columns] = np.arange(len(columns))
    return places


def attend(
    q: Float64,
    k: Float64,
    v: Float64,
    window: int | None,
    trace: Trace,
    shown: list[Float64] | None,
    *,
    products: int = 1,
    added: Callable[[NDArray[np.int64]], tuple[Float64, Float64]] | None = None,
) -> Float64:
    """Compute ``softmax(q k^T / sqrt(d)) v`` of one head ``[tokens, d]``, some queries at a time; add weights to ``shown``."""
    tokens, width = q.shape
    context = np.empty_like(v)
    for start in range(0, tokens, QUERIES):
        rows = np.arange(start, min(start + QUERIES, tokens))
        low, high = (0, tokens) if window is None else (max(0, start - window), min(tokens, rows[-1] + window + 1))
        within, bias = (0, 0) if added is None else added(rows)
        scores = trace.observe(q[rows] @ k[low:high].T + within) / math.sqrt(width * products) + bias  # [queries, keys]
        if window is not None:
            apart = np.abs(rows[:, None] - np.arange(low, high))
            scores = np.where(apart <= window, scores, -np.inf)
        probabilities = softmax(scores)  # each row sums to 1
        context[rows] = probabilities @ v[low:high]  # [queries, d]: a weighted average of the values
        if shown is not None:
            shown.append(np.pad(probabilities, ((0, 0), (low, tokens - high))))  # [queries, tokens]
    return context


def turn(x: Float64, theta: float) -> Float64:
    """Turn each pair ``(x_j, x_{j + d/2})`` of a head ``[tokens, d]`` by the angle ``position / theta^(2 j / d)``.

    The frequencies and angles are float32 in transformers, and so in the model.
    """
    width = x.shape[-1]
    frequencies = (1.0 / theta ** (np.arange(0, width, 2) / width)).astype(np.float32)
    angles = np.arange(len(x), dtype=np.float32)[:, None] * frequencies  # [tokens, d / 2]
    cos, sin = np.cos(angles.astype(np.float64)), np.sin(angles.astype(np.float64))
    first, second = x[:, : width // 2], x[:, width // 2 :]
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=1).astype(x.dtype)


def dense(x: Float64, weights: Dense) -> Float64:
    """``x W + b``."""
    return np.asarray(x @ weights.weight.astype(x.dtype, copy=False) + weights.bias.astype(x.dtype, copy=False))


def softmax(scores: Float64) -> Float64:
    """Compute exp(s) / sum(exp(s)) over the last axis, without overflow."""
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def normalize(x: Float64, norm: Norm, eps: float) -> Float64:
    """Layer normalization (Ba et al. 2016) over the last axis."""
    centred = x - x.mean(axis=-1, keepdims=True)
    deviation = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + eps)
    return np.asarray(centred / deviation * norm.weight.astype(x.dtype) + norm.bias.astype(x.dtype))


def gelu(x: Float64) -> Float64:
    """Compute x Phi(x) (Hendrycks and Gimpel 2016)."""
    return np.asarray(x * 0.5 * (1.0 + erf(x / math.sqrt(2.0))))


def gelu_tanh(x: Float64) -> Float64:
    """The approximation by tanh (same paper)."""
    return np.asarray(0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3))))


def gelu_10(x: Float64) -> Float64:
    """GELU between -10 and 10 (Wu et al. 2020)."""
    return np.clip(gelu(x), -10.0, 10.0)


def relu(x: Float64) -> Float64:
    """Compute max(x, 0)."""
    return np.maximum(x, 0.0)


def silu(x: Float64) -> Float64:
    """Compute x sigmoid(x) (Hendrycks and Gimpel 2016; swish in Ramachandran et al. 2017)."""
    return x * sigmoid(x)


def quick_gelu(x: Float64) -> Float64:
    """Compute x sigmoid(1.702 x) (Hendrycks and Gimpel 2016)."""
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
