"""Attention with a window against NumPy in float64: a query sees the keys at most ``window`` before or after it."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from operators_of_one_node import FUNCTIONS, Operator, levels

from fusedbert.engine.kernels import Kernels
from fusedbert.export.graph.attention_operators import QUERIES
from fusedbert.export.graph.operators import bfloat16, functions

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
    off, narrow = np.abs(found - np.clip(expected / SCALE + ZERO_POINT, 0, 255)), level.endswith("bf16")
    assert off.max(initial=0) < (6 if narrow else 0.75)  # bfloat16 rounds scores of 20 by 0.06
    assert not off.size or off.mean() < (0.4 if narrow else 0.3)


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


@native
def test_a_text_of_thousands_of_tokens(format: str, level: str) -> None:
    operator = attention(format, 8192 + 40, 1, 16, [8192], 64)
    expected, (found,) = in_float64(operator), operator.run(kernels=level)
    assert_rounded(format, level, found[0, :8192], expected[0, :8192])
    assert (found[0, 8192:] == (0 if format else ZERO_POINT)).all()
    alone = {n: operator.operands[n][:, :8192] for n in operator.inputs[:3]}
    (single,) = operator.run({**alone, "lengths": np.array([8192])}, kernels=level, threads=1)
    np.testing.assert_array_equal(single[0], found[0, :8192])


@native
@pytest.mark.parametrize("window", [32, 64])
def test_a_row_has_the_same_bits_by_itself_in_a_batch_and_in_any_block(window: int, format: str, level: str) -> None:
    """A text's length moves the blocks of its queries. The first token has the largest numbers, of which steps are shares."""
    lengths = list(range(1, 301))
    operator = attention(format, 300, 1, 32, [300], window)
    names = operator.inputs[:3]
    parts = {n: np.broadcast_to(operator.operands[n], (300, 300, 32)).copy() for n in names}
    for n in names[1:]:
        parts[n][:, 0] = 16
    (together,) = operator.run({**parts, "lengths": np.array(lengths)}, kernels=level)
    for length in lengths:
        if length in (1, 2, 17, window, window + 1, window + 2, 2 * window, 2 * window + 1, 2 * window + 2, 255, 299, 300):
            alone = {n: parts[n][:1, :length] for n in names}
            (single,) = operator.run({**alone, "lengths": np.array([length])}, kernels=level, threads=1)
            np.testing.assert_array_equal(single[0], together[length - 1, :length])
        if length > 2 * window + 32:  # as many keys may be seen as in the longest text
            whole = length - window  # queries whose windows end within the text
            np.testing.assert_array_equal(together[length - 1, :whole], together[-1, :whole])


@native
def test_a_window_over_the_whole_text_changes_no_bit(format: str, level: str) -> None:
    operator = attention(format, 90, 2, 48, [90, 41], 90)
    whole = Operator(
        f"{format}Attention",
        operator.operands,
        operator.inputs,
        operator.outputs,
        {"num_heads": 2},
        operator.kernels,
        operator.narrow,
    )
    for a, b in zip(operator.run(kernels=level), whole.run(kernels=level), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("format", ["", "Bf16"])
@pytest.mark.parametrize(
    ("tokens", "queries", "lengths"),
    [
        (2 * QUERIES + 30, None, [2 * QUERIES + 30, QUERIES, QUERIES + 1, 2, 40]),
        (QUERIES, None, [QUERIES, 5]),
        (300, 1, [300, 7]),
    ],
)
def test_the_function_for_long_texts_sees_all_keys_in_every_block(
    tokens: int, queries: int | None, lengths: list[int], format: str
) -> None:
    """A last layer that reads only [CLS] has a single query."""
    operator = attention(format, tokens, 2, 16, lengths, tokens)
    name, q = f"{format}Attention", operator.inputs[0]
    expected = in_float64(operator)
    whole = dataclasses.replace(operator, name=name, attributes={"num_heads": 2}, functions=tuple(functions(name, long=True)))
    (found,) = whole.run({q: operator.operands[q][:, :queries]}, kernels=FUNCTIONS)
    for text, length in enumerate(lengths):
        assert_rounded(format, FUNCTIONS, found[text, :length], expected[text, : min(length, queries or length)])
    for length in (-1, tokens + 1):
        with pytest.raises(Exception, match=r"nonpad_kv_seqlen"):
            whole.run({"lengths": np.array([length] * len(lengths))}, kernels=FUNCTIONS)


@native
@pytest.mark.parametrize("place", [0, 25, 99])
def test_what_is_not_finite_stays_near(place: int, format: str, level: str) -> None:
    operator = attention(format, 700, 1, 16, [700], 8)
    broken = {n: operator.operands[n].copy() for n in operator.inputs[:3]}
    broken[operator.inputs[2]][0, place] = np.nan
    (sound,), (found,) = operator.run(kernels=level), operator.run(broken, kernels=level)
    seen = slice(max(place - 8, 0), place + 9)
    assert np.isnan(found[0, seen]).all() if format else (found[0, seen] == 0).all()
    np.testing.assert_array_equal(found[0, 600:], sound[0, 600:])  # beyond the chunk


@native
def test_what_does_not_fit_is_refused(format: str, level: str) -> None:
    with pytest.raises(Exception, match="window has to be 1 or more"):
        attention(format, 5, 2, 16, [5], 0).open(kernels=level)
    operator = attention(format, 5, 2, 16, [5], 2)
    name = operator.inputs[0]
    with pytest.raises(Exception, match="as many queries as keys"):
        operator.run({name: operator.operands[name][:, :1]}, kernels=level)


@each
@pytest.mark.parametrize("length", [-1, 6])
def test_an_impossible_length_is_refused(format: str, level: str, length: int) -> None:
    with pytest.raises(Exception, match=r"nonpad_kv_seqlen"):
        attention(format, 5, 2, 16, [5, 5], 2).run({"lengths": np.array([5, length])}, kernels=level)
