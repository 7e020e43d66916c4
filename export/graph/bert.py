"""BERT as a graph: the architecture written once, for every target.

This is the forward pass of Devlin et al. 2019 (post-norm encoder of Vaswani et al. 2017). A ``Lowering`` decides which nodes
and number formats a step becomes on its target. The equations in plain NumPy are in ``parity.reference``.

The classifier reads only the first token, ``[CLS]``. So the last layer computes query, output projection, normalizations and
feed-forward for one row of each text, with the keys and values of all: 7 % less work at 12 layers, 14 % at 6.
"""

from __future__ import annotations

import dataclasses

from ..checkpoint.architecture import Architecture
from ..checkpoint.weights import Embeddings, Weights
from .biases import fold_biases
from .builder import Graph
from .int8.weights import QuantizedWeights
from .lowering import Lowering


def build(a: Architecture, weights: Weights | QuantizedWeights, lowering: type[Lowering]) -> Graph:
    """Build the graph of a classifier, whose output is ``logits`` ``[batch, labels]``; weights are read layer by layer."""
    graph = Graph()
    low = lowering(graph, a)
    low.inputs()
    with graph.scope("embeddings"):
        tables = weights.embeddings()
        x = low.embed(tables if a.has_segments else one_segment(tables))  # [tokens, hidden]
    for i in range(a.layers):
        layer = weights.layer(i)
        layer = fold_biases(layer) if low.folds_biases and isinstance(weights, Weights) else layer
        last = i == a.layers - 1
        with graph.scope(f"layer.{i}"):
            with graph.scope("attention"):
                # softmax(q k^T / sqrt(d)) v for each head, side by side
                context = low.attend(x, layer, cls_only=last)  # [rows, hidden]; rows = texts in the last layer, else tokens
                x = low.cls_rows(x) if last else x  # [rows, hidden]
                x = low.dense_add_norm("output", context, layer.attention_output, x, layer.attention_norm)
            with graph.scope("feed_forward"):
                inner = low.dense_activation("intermediate", x, layer.intermediate, a.activation)  # [rows, intermediate]
                x = low.dense_add_norm("output", inner, layer.output, x, layer.output_norm)  # [rows, hidden]
    with graph.scope("head"):
        pooled = low.dense_activation("dense", x, weights.dense("head_dense"), a.head_activation)  # [batch, hidden]
        low.classify(pooled, weights.dense("classifier"))  # [batch, labels]
    return graph


def one_segment(tables: Embeddings) -> Embeddings:
    """Add the only segment's vector to every position, so that the graph needs no segments as input."""
    if tables.token_type is None:
        return tables
    return dataclasses.replace(tables, position=tables.position + tables.token_type[0], token_type=None)
