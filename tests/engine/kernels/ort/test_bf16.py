"""The operators of bfloat16 against their equations in NumPy: as kernels, and as the functions that a model contains."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from operators_of_one_node import ATTENTIONS, FUNCTIONS, Operator, attend, levels, normalize

from fusedbert.engine.kernels import Kernels
from fusedbert.export.graph.operators import PANEL, bfloat16, to_panels

Array = NDArray[Any]
LEVELS = levels("dense_bf16")
STEP = 2.0**-7  # from a bfloat16 to the next, relative; half of it is lost at most
NARROW = frozenset({"x16", "q16", "k16", "v16", "y16"})


@pytest.fixture(params=LEVELS or [pytest.param("", marks=pytest.mark.skip(reason="no such kernels here"))])
def level(request: pytest.FixtureRequest) -> str:
    """Run the test at each level that has the kernels."""
    return str(request.param)


@pytest.fixture(params=[*LEVELS, FUNCTIONS])
def kernels(request: pytest.FixtureRequest) -> str:
    """Run the test with an operator's kernel at each level, and with its function."""
    return str(request.param)


def widened(bits: Array) -> Array:
    """Return the float32 numbers of bfloat16's bits."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def normal(*shape: int, spread: float = 1.0) -> Array:
    """Return random numbers that bfloat16 holds."""
    numbers = np.random.default_rng(sum(shape)).normal(size=shape) * spread
    return widened(bfloat16(numbers))


def dense(rows: int, inputs: int, outputs: int, name: str = "Bf16Dense", batch: int = 1) -> Operator:
    """Make a product of random numbers, with an activation or a normalization by the operator's name."""
    rng = np.random.default_rng(rows + inputs + outputs)
    operands: dict[str, Array] = {
        "x16": normal(batch, rows, inputs),
        "weight": to_panels(bfloat16(normal(inputs, outputs, spread=1 / math.sqrt(inputs))), 2),
        "bias": rng.normal(size=outputs).astype(np.float32),
    }
    attributes: dict[str, Any] = {"width": outputs}
    results: dict[str, type] = {"y16": np.float32}
    if name == "Bf16DenseAddNorm":
        operands["residual"] = rng.normal(size=(batch, rows, outputs)).astype(np.float32)
        operands |= {part: rng.normal(size=outputs).astype(np.float32) for part in ("gamma", "beta")}
        attributes["epsilon"] = 1e-6
        results = {"y": np.float32, "y16": np.float32}
    inputs_of = tuple(n for n in ("x16", "residual") if n in operands)
    return Operator(name, operands, inputs_of, results, attributes, Kernels.BF16, NARROW)


def attention(batch: int, queries: int, keys: int, heads: int, head: int, lengths: list[int]) -> Operator:
    """Make queries, keys and values of random numbers; scores reach from about -20 to 20."""
    parts = {
        "q16": normal(batch, queries, heads * head, spread=2 / math.sqrt(head)),
        "k16": normal(batch, keys, heads * head, spread=3.0),
        "v16": normal(batch, keys, heads * head),
    }
    operands = {**parts, "lengths": np.array(lengths, dtype=np.int64)}
    attributes = {"num_heads": heads}
    return Operator("Bf16Attention", operands, tuple(operands), {"y16": np.float32}, attributes, Kernels.BF16, NARROW)


def product(operator: Operator) -> Array:
    """Return ``x W + b`` in float64; the weight is read back from its panels."""
    o = operator.operands
    inputs, outputs = o["x16"].shape[-1], operator.attributes["width"]
    weight = widened(o["weight"])
    matrix = np.array([[weight[j // PANEL, i // 2, j % PANEL, i % 2] for j in range(outputs)] for i in range(inputs)])
    return np.asarray(o["x16"].astype(np.float64) @ matrix.astype(np.float64) + o.get("bias", 0.0))


# One row and many, a full block of 14 and one more; inputs by twos; outputs that fill panels of 32, half of one, and neither.
SIZES = [(1, 2, 1), (2, 64, 32), (14, 38, 48), (15, 128, 33), (29, 384, 96), (70, 768, 50), (600, 8, 40)]
ACTIVATIONS = {
    "Bf16Dense": lambda x: x,
    "Bf16DenseGelu": np.vectorize(lambda x: x * 0.5 * (1 + math.erf(x / math.sqrt(2)))),
    "Bf16DenseGeluTanh": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "Bf16DenseRelu": lambda x: np.maximum(x, 0),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize(("rows", "inputs", "outputs"), SIZES)
def test_dense_equals_its_equation(rows: int, inputs: int, outputs: int, name: str, kernels: str) -> None:
    operator = dense(rows, inputs, outputs, name)
    (y,) = operator.run(kernels=kernels)
    np.testing.assert_allclose(y, ACTIVATIONS[name](product(operator)), rtol=0.51 * STEP, atol=1.1e-4)  # gelu's polynomial


def test_a_product_may_have_no_bias(kernels: str) -> None:
    whole = dense(15, 128, 33)
    operator = dataclasses.replace(whole, operands={n: array for n, array in whole.operands.items() if n != "bias"})
    (y,) = operator.run(kernels=kernels)
    np.testing.assert_allclose(y, product(operator), rtol=0.51 * STEP, atol=1e-5)


@pytest.mark.parametrize(("rows", "inputs", "outputs"), SIZES[1:])
def test_dense_add_norm_equals_its_equation(rows: int, inputs: int, outputs: int, kernels: str) -> None:
    operator = dense(rows, inputs, outputs, "Bf16DenseAddNorm", batch=2)
    o = operator.operands
    total = product(operator) + o["residual"].astype(np.float64)
    expected = normalize(total, o["gamma"], o["beta"], 1e-6)
    y, y16 = operator.run(kernels=kernels)
    np.testing.assert_allclose(y, expected, rtol=2e-5, atol=2e-5)
    np.testing.assert_array_equal(y16, widened(bfloat16(y)))


@pytest.mark.parametrize(("batch", "queries", "keys", "heads", "head", "lengths"), ATTENTIONS)
def test_attention_equals_its_equation(
    batch: int, queries: int, keys: int, heads: int, head: int, lengths: list[int], kernels: str
) -> None:
    operator = attention(batch, queries, keys, heads, head, lengths)
    o = operator.operands
    context = attend(o["q16"], o["k16"], o["v16"], heads, lengths)
    (y,) = operator.run(kernels=kernels)
    for row, length in enumerate(lengths):
        real = slice(0, length if queries == keys else queries)  # rows of padding are never read
        np.testing.assert_allclose(y[row, real], context[row, real], rtol=0.51 * STEP, atol=STEP)  # weights round, too


def test_no_bit_depends_on_the_batch_or_the_threads(level: str) -> None:
    for name in (*ACTIVATIONS, "Bf16DenseAddNorm"):
        operator = dense(37, 100, 70, name)
        whole = operator.run(kernels=level)
        for first, last in ((0, 1), (3, 9), (20, 37)):
            part = {n: operator.operands[n][:, first:last] for n in operator.inputs}
            for a, b in zip(operator.run(part, kernels=level, threads=1), whole, strict=True):
                assert np.array_equal(a, b[:, first:last])
    operator = attention(3, 60, 60, 4, 32, [41, 60, 3])
    (together,) = operator.run(kernels=level)
    for row, length in enumerate([41, 60, 3]):
        by_itself = {n: operator.operands[n][row : row + 1, :length] for n in ("q16", "k16", "v16")}
        (single,) = operator.run({"lengths": np.array([length]), **by_itself}, kernels=level, threads=1)
        assert np.array_equal(single[0], together[row, :length])


@pytest.mark.parametrize(
    ("changed", "attributes", "says"),
    [
        ({"weight": np.zeros((1, 16, 32, 4), dtype=np.uint16)}, {}, r"panels, inputs / 2, 32, 2"),
        ({"weight": np.zeros((2, 32, 32, 2), dtype=np.uint16)}, {}, "same number of outputs"),
        ({"bias": np.zeros(31, dtype=np.float32)}, {}, "same number of outputs"),
        ({"gamma": np.zeros(31, dtype=np.float32)}, {}, "as wide as the product"),
        ({}, {"width": 0}, "has to have inputs and outputs"),
    ],
)
def test_constants_that_do_not_fit_are_refused_when_the_model_is_opened(
    level: str, changed: dict[str, Array], attributes: dict[str, Any], says: str
) -> None:
    operator = dense(3, 64, 32, "Bf16DenseAddNorm")
    broken = dataclasses.replace(operator, operands=operator.operands | changed, attributes=operator.attributes | attributes)
    with pytest.raises(Exception, match=says):
        broken.open(kernels=level)


@pytest.mark.parametrize("number", [0.0, 1.0, 1.00390625, 1.01171875, -3.1415927, 1e-38, 3.3e38, 65519.0])
def test_rounding_is_to_the_nearest_ties_to_even(number: float) -> None:
    near = [widened(np.array([bits], dtype=np.uint16))[0] for bits in range(1 << 16)]
    finite = np.array([each for each in near if np.isfinite(each)], dtype=np.float64)
    off = np.abs(finite - np.float32(number))
    found = float(widened(bfloat16(np.array([number])))[0])
    assert abs(found - np.float32(number)) == off.min()
    if (off == off.min()).sum() > 1 and number:  # a tie: the last bit is even
        assert not int(bfloat16(np.array([number]))[0]) & 1
