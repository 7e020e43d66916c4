"""Biases of attention that can leave the graph without changing its numbers.

Softmax does not see the key's: q (k + b) = q k + q b, and q b is the same for every key of a query. The value's goes through
the weighted average, because the weights sum to 1, and then through the output projection:
(sum p (v + b)) W = (sum p v) W + b W. With RoPE the key's stays, as it is turned by the key's position, and in DeBERTa, whose
keys are multiplied with vectors of distances.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from ..checkpoint.weights import Layer


def fold_biases(layer: Layer, *, keys_biased: bool) -> Layer:
    """Return a layer with the same output, whose value, and unless ``keys_biased`` the key, has a bias of zeros."""
    output = layer.attention_output
    moved = layer.value.bias.astype(np.float64) @ output.weight.astype(np.float64)  # [hidden]
    return dataclasses.replace(
        layer,
        key=layer.key if keys_biased else dataclasses.replace(layer.key, bias=np.zeros_like(layer.key.bias)),
        value=dataclasses.replace(layer.value, bias=np.zeros_like(layer.value.bias)),
        attention_output=dataclasses.replace(output, bias=(output.bias + moved).astype(np.float32)),
    )
