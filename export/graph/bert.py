"""BERT as a graph: the architecture written once, for every target.

This is the forward pass of Devlin et al. 2019 (post-norm encoder of Vaswani et al. 2017). A ``Lowering`` decides which nodes
and number formats a step becomes on its target. The equations in plain NumPy are in ``parity.reference``.

Each step adds to the residual ``x``; ``normed`` is its normalization, which the next step takes. BERT keeps only the latter, so
both are one there. ModernBERT (Warner et al. 2024) keeps both (pre-norm, Xiong et al. 2020).

A classifier that reads only the first token, ``[CLS]``, needs only its row in the last layer: query, output projection,
normalizations and feed-forward are of one row of each text, with the keys and values of all: 7 % less work at 12 layers, 14 %
at 6.
"""

from __future__ import annotations

import dataclasses

from ..checkpoint.architecture import Architecture
from ..checkpoint.weights import Embeddings, Head, Weights
from .biases import fold_biases
from .builder import Graph
from .int8.weights import QuantizedWeights
from .lowering import Logits, Lowering


def build(a: Architecture, weights: Weights | QuantizedWeights, lowering: type[Lowering]) -> Graph:
    """Build the graph of a classifier, whose output is ``logits``, see ``Lowering.output``; weights are read layer by layer."""
    graph = Graph(shared=a.groups > 0)
    low = lowering(graph, a)
    low.inputs()
    with graph.scope("embeddings"):
        tables = weights.embeddings()
        x = normed = low.embed(tables if a.has_segments else one_segment(tables))  # [tokens, hidden]
    for i in range(a.layers):
        layer = weights.layer(i)
        layer = fold_biases(layer, keys_biased=a.keys_biased) if low.folds_biases and isinstance(weights, Weights) else layer
        last = i == a.layers - 1
        cls_only = last and a.cls_only
        with graph.scope(f"layer.{i}"):
            with graph.scope("attention"):
                # softmax(q k^T / sqrt(d)) v for each head, side by side
                context = low.attend(normed, layer, i, cls_only=cls_only)  # [rows, hidden]; a row is a token, or a text's [CLS]
                x = low.cls_rows(x) if cls_only else x  # [rows, hidden]
                x, normed = low.dense_add_norm("output", context, layer.attention_output, x, layer.attention_norm)
            with graph.scope("feed_forward"):
                if layer.gate is None:
                    inner = low.dense_activation("intermediate", normed, layer.intermediate, a.activation)
                else:
                    inner = low.dense_gated("intermediate", normed, layer.intermediate, layer.gate, a.activation)
                # inner: [rows, intermediate]
                x, normed = low.dense_add_norm("output", inner, layer.output, x, layer.output_norm, final=last)
    with graph.scope("head"):
        pooled = low.token_rows(normed) if a.by_token else normed if a.cls_only else low.mean_rows(normed)  # [rows, hidden]
    low.output([classify(graph, a, low, head, pooled) for head in weights.heads])
    return graph


def classify(graph: Graph, a: Architecture, low: Lowering, head: Head, pooled: str) -> Logits:
    """Add a head, which reads ``[rows, hidden]``."""
    with graph.scope("head", *([head.name] if head.name else [])):
        for step in head.steps:
            if step.activation is None:
                norm, eps = head.weights.norm(step.name), a.norm_eps if step.eps is None else step.eps
                pooled = low.norm_rows(step.name, pooled, norm, eps)
            else:
                pooled = low.dense_activation(short_name(step.name), pooled, head.weights.dense(step.name), step.activation)
        return low.classify(pooled, head.classifier)  # [rows, labels]


def short_name(name: str) -> str:
    """Name a step of the head inside its scope: ``head_dense`` is ``dense``."""
    return name.removeprefix("head_")


def one_segment(tables: Embeddings) -> Embeddings:
    """Add the only segment's vector to every position, so that the graph needs no segments as input."""
    if tables.token_type is None:
        return tables
    if tables.position is None:
        return dataclasses.replace(tables, word=tables.word + tables.token_type[0], token_type=None)
    return dataclasses.replace(tables, position=tables.position + tables.token_type[0], token_type=None)
