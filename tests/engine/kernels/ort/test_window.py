"""Attention with a window against NumPy in float64: a query sees the keys at most ``window`` before or after it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from operators_of_one_node import FUNCTIONS, Operator, levels

from fusedbert.engine.kernels import Kernels
from fusedbert.export.graph.cpu_bf16 import bfloat16

Array = NDArray[Any]
INT8 = [("", level) for level in levels("attention")]
BF16 = [("Bf16", level) for level in levels("dense_bf16")]
FORMATS = [*INT8, *BF16, ("", FUNCTIONS), ("Bf16", FUNCTIONS)]  # the start of an operator's name, and a level
each = pytest.mark.parametrize(("format", "level"), FORMATS)
native = pytest.mark.parametrize(
    ("format", "level"), [*INT8, *BF16] or [pytest.param("", "", marks=pytest.mark.skip(reason="no such kernels here"))]
)
SCALE, ZERO_POINT = 0.02, 128


def attention(format: str, tokens: int, heads: int, head: int, lengths: list[int], window: int) -> Operator:
    """Make queries, keys and values of random numbers; scores reach from about -20 to 20."""
    rng = np.random.default_rng(tokens)
    spread = {"q": 2 / math.sqrt(head), "k": 3.0, "v": 1.0}
    parts = {n: (rng.normal(size=(len(lengths), tokens, heads * head)) * of).astype(np.float32) for n, of in spread.items()}
    attributes = {"num_heads": heads, "window": window}
    rest: dict[str, Array] = {"lengths": np.array(lengths, dtype=np.int64)}
    if format:
        narrow = {f"{n}16": (bfloat16(part).astype(np.uint32) << 16).view(np.float32) for n, part in parts.items()}
        names = frozenset({*narrow, "y16"})
        inputs = (*narrow, "lengths")
        return Operator("Bf16WindowAttention", narrow | rest, inputs, {"y16": np.float32}, attributes, Kernels.BF16, names)
    eight = {"y_scale": np.array(SCALE, dtype=np.float32), "y_zero_point": np.array(ZERO_POINT, dtype=np.uint8)}
    return Operator("WindowAttention", parts | rest | eight, (*parts, "lengths"), {"y8": np.uint8}, attributes)


def in_float64(operator: Operator) -> Array:
    """Return softmax(q k^T) v for each head, one query after the other; padding gets 0."""
    q, k, v = (operator.operands[n].astype(np.float64) for n in operator.inputs[:3])
    heads, window = operator.attributes["num_heads"], operator.attributes["window"]
    head, y = q.shape[2] // heads, np.zeros_like(q)
    for text, length in enumerate(operator.operands["lengths"]):
        for i in range(length):
            seen = slice(max(i - window, 0), min(i + window + 1, length))
            keys, values = (x[text, seen].reshape(-1, heads, head) for x in (k, v))
            scores = np.einsum("hd,khd->hk", q[text, i].reshape(heads, head), keys)
            weights = np.exp(scores - scores.max(axis=1, keepdims=True))
            weights /= weights.sum(axis=1, keepdims=True)
            y[text, i] = np.einsum("hk,khd->hd", weights, values).ravel()
    return y


def assert_rounded(format: str, level: str, found: Array, expected: Array) -> None:
    """Compare with what is rounded; the weights of the keys are rounded to 16 bits, too."""
    assert np.isfinite(found).all()
    if format:
        np.testing.assert_allclose(found, expected, rtol=0.51 * 2.0**-7, atol=2.0**-7)
        return
    off = np.abs(found - np.clip(expected / SCALE + ZERO_POINT, 0, 255))
    assert off.max(initial=0) < (2.5 if level.endswith("bf16") else 0.75)


@each
@pytest.mark.parametrize(
    ("tokens", "heads", "head", "lengths", "window"),
    [
        (1, 1, 16, [1], 8),
        (40, 2, 32, [40, 17, 1], 1),
        (70, 3, 48, [70, 33], 16),
        (100, 2, 64, [31, 32, 33, 34, 64, 65, 66, 100, 99], 32),
        (300, 1, 64, [63, 64, 65, 66, 128, 129, 130, 131, 300, 299], 64),
        (200, 2, 80, [200, 120], 500),
        (50, 2, 16, [0, 50], 7),
    ],
)
def test_a_query_sees_the_keys_of_its_window(
    tokens: int, heads: int, head: int, lengths: list[int], window: int, format: str, level: str
) -> None:
    operator = attention(format, tokens, heads, head, lengths, window)
    expected, (found,) = in_float64(operator), operator.run(kernels=level)
    for text, length in enumerate(lengths):
        assert_rounded(format, level, found[text, :length], expected[text, :length])
    assert np.isfinite(found).all()


@each
@pytest.mark.parametrize("length", [-1, 6])
def test_an_impossible_length_is_refused(format: str, level: str, length: int) -> None:
    with pytest.raises(Exception, match=r"nonpad_kv_seqlen"):
        attention(format, 5, 2, 16, [5, 5], 2).run({"lengths": np.array([5, length])}, kernels=level)
