"""The operators of int8 against their equations in NumPy: as kernels, and as the functions that a model contains."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from operators_of_one_node import ATTENTIONS, FUNCTIONS, Operator, attend, levels, normalize

from fusedbert.engine.hardware.cpu import Int8, inspect_machine
from fusedbert.export.graph.operators import PANEL, to_panels

Array = NDArray[Any]
# On AVX2 ONNX Runtime sums two products in 16 bits, which hold 255 * 63 twice: there the functions are exact up to that weight.
LARGEST = 63 if inspect_machine().int8 is Int8.SATURATING else 127
LEVELS, ATTENDING = levels("dense_int8"), levels("attention")
NONE = pytest.param("", marks=pytest.mark.skip(reason="no such kernels here"))


@pytest.fixture(params=LEVELS or [NONE])
def level(request: pytest.FixtureRequest) -> str:
    """Run the test at each level that has kernels for products."""
    return str(request.param)


@pytest.fixture(params=ATTENDING or [NONE])
def attending(request: pytest.FixtureRequest) -> str:
    """Run the test at each level that has a kernel for attention."""
    return str(request.param)


@pytest.fixture(params=[*LEVELS, FUNCTIONS])
def kernels(request: pytest.FixtureRequest) -> str:
    """Run the test with an operator's kernel at each level, and with its function."""
    return str(request.param)


def dense(rows: int, inputs: int, outputs: int, name: str = "Dense", batch: int = 1) -> Operator:
    """Make a product of random numbers, with an activation or a normalization by the operator's name."""
    rng = np.random.default_rng(rows + inputs + outputs)
    operands: dict[str, Array] = {
        "x8": rng.integers(0, 256, (batch, rows, inputs), dtype=np.uint8),
        "zero_point": np.array(117, dtype=np.uint8),
        "weight": to_panels(rng.integers(-LARGEST, LARGEST + 1, (inputs, outputs), dtype=np.int8), 4),
        "scale": rng.uniform(1e-5, 1e-4, outputs).astype(np.float32) / np.float32(math.sqrt(inputs)),
        "bias": rng.normal(size=outputs).astype(np.float32),
    }
    to_eight: dict[str, Array] = {
        "y_scale": np.array(0.031, dtype=np.float32),
        "y_zero_point": np.array(99, dtype=np.uint8),
    }
    if name == "Dense":
        return Operator(name, operands, ("x8",), {"y": np.float32})
    if name != "DenseAddNorm":
        return Operator(name, operands | to_eight, ("x8",), {"y8": np.uint8})
    norm = {part: rng.normal(size=outputs).astype(np.float32) for part in ("factor", "gamma", "beta")}
    residual = {"residual": rng.normal(size=(batch, rows, outputs)).astype(np.float32)}
    outputs_of = {"y": np.float32, "y8": np.uint8}
    return Operator(name, operands | residual | norm | to_eight, ("x8", "residual"), outputs_of, {"epsilon": 1e-6})


def attention(batch: int, queries: int, keys: int, heads: int, head: int, lengths: list[int]) -> Operator:
    """Make queries, keys and values of random numbers; scores reach from about -20 to 20."""
    rng = np.random.default_rng(keys)
    shape = {"q": queries, "k": keys, "v": keys}
    spread = {"q": 2 / math.sqrt(head), "k": 3.0, "v": 1.0}
    parts = {n: (rng.normal(size=(batch, shape[n], heads * head)) * spread[n]).astype(np.float32) for n in shape}
    rest: dict[str, Array] = {
        "lengths": np.array(lengths, dtype=np.int64),
        "y_scale": np.array(0.02, dtype=np.float32),
        "y_zero_point": np.array(128, dtype=np.uint8),
    }
    return Operator("Attention", parts | rest, ("q", "k", "v", "lengths"), {"y8": np.uint8}, {"num_heads": heads})


def product_in_float64(operator: Operator) -> Array:
    """Return ``x W + b``, exact up to the scale; the weight is read back from its panels."""
    o = operator.operands
    inputs, outputs = o["x8"].shape[-1], len(o["scale"])
    weight = np.array([[o["weight"][j // PANEL, i // 4, j % PANEL, i % 4] for j in range(outputs)] for i in range(inputs)])
    sums = (o["x8"].astype(np.int64) - int(o["zero_point"])) @ weight.astype(np.int64)
    return np.asarray(sums * o["scale"].astype(np.float64) + o.get("bias", 0.0))


def rounded(y: Array, operator: Operator) -> Array:
    """Return ONNX's QuantizeLinear before it is rounded to whole numbers."""
    return np.clip(y / float(operator.operands["y_scale"]) + int(operator.operands["y_zero_point"]), 0, 255)


def activate(kind: str, x: Array) -> Array:
    """Return the activation in float64."""
    if kind == "DenseGelu":
        return np.array([v * 0.5 * (1 + math.erf(v / math.sqrt(2))) for v in x.ravel()]).reshape(x.shape)
    if kind == "DenseGeluTanh":
        return np.asarray(0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))))
    return np.maximum(x, 0)


# One row and many, a full block of 14 and one more; inputs by fours; outputs that fill panels of 32, half of one, and neither.
SIZES = [(1, 4, 1), (2, 64, 32), (14, 36, 48), (15, 128, 33), (29, 384, 96), (70, 768, 50), (600, 8, 40)]


@pytest.mark.parametrize(("rows", "inputs", "outputs"), SIZES)
def test_dense_equals_the_product(rows: int, inputs: int, outputs: int, kernels: str) -> None:
    operator = dense(rows, inputs, outputs)
    (y,) = operator.run(kernels=kernels)
    np.testing.assert_allclose(y, product_in_float64(operator), rtol=1e-6, atol=1e-6)


def test_a_product_may_have_no_bias(kernels: str) -> None:
    whole = dense(15, 128, 33)
    operator = dataclasses.replace(whole, operands={n: array for n, array in whole.operands.items() if n != "bias"})
    (y,) = operator.run(kernels=kernels)
    np.testing.assert_allclose(y, product_in_float64(operator), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["DenseGelu", "DenseGeluTanh", "DenseRelu"])
@pytest.mark.parametrize(("rows", "inputs", "outputs"), SIZES)
def test_dense_with_an_activation_equals_its_equation(rows: int, inputs: int, outputs: int, name: str, kernels: str) -> None:
    operator = dense(rows, inputs, outputs, name)
    (y8,) = operator.run(kernels=kernels)
    expected = rounded(activate(name, product_in_float64(operator)), operator)
    assert np.abs(y8 - expected).max() < 0.51  # a half, and the error of the polynomial


@pytest.mark.parametrize(("rows", "inputs", "outputs"), SIZES)
def test_dense_add_norm_equals_its_equation(rows: int, inputs: int, outputs: int, kernels: str) -> None:
    operator = dense(rows, inputs, outputs, "DenseAddNorm", batch=2)
    o = operator.operands
    total = product_in_float64(operator) + o["residual"].astype(np.float64) * o["factor"]
    expected = normalize(total, o["gamma"], o["beta"], 1e-6)
    y, y8 = operator.run(kernels=kernels)
    np.testing.assert_allclose(y, expected, rtol=2e-5, atol=2e-5)
    assert np.abs(y8 - rounded(expected, operator)).max() < 0.51


@pytest.mark.parametrize(("batch", "queries", "keys", "heads", "head", "lengths"), ATTENTIONS)
def test_attention_equals_its_equation(
    batch: int, queries: int, keys: int, heads: int, head: int, lengths: list[int], kernels: str
) -> None:
    operator = attention(batch, queries, keys, heads, head, lengths)
    o = operator.operands
    context = attend(o["q"], o["k"], o["v"], heads, lengths)
    (y8,) = operator.run(kernels=kernels)
    for row, length in enumerate(lengths):
        real = slice(0, length if queries == keys else queries)  # rows of padding are never read
        off = np.abs(y8[row, real] - rounded(context[row, real], operator))
        narrow = kernels.endswith("bf16")  # bfloat16 has eight significant bits, too; others attend in 16 bits
        assert off.max() < (2.5 if narrow else 0.75)
        assert off.mean() < (0.4 if narrow else 0.3)


def test_a_row_does_not_depend_on_its_batch_to_the_last_bit(level: str) -> None:
    for name in ("Dense", "DenseGelu", "DenseGeluTanh", "DenseAddNorm"):
        operator = dense(37, 100, 70, name)
        whole = operator.run(kernels=level)
        for first, last in ((0, 1), (3, 9), (20, 37)):
            part = {n: operator.operands[n][:, first:last] for n in operator.inputs}
            for a, b in zip(operator.run(part, kernels=level), whole, strict=True):
                assert np.array_equal(a, b[:, first:last])


def test_attention_does_not_depend_on_padding(attending: str) -> None:
    operator = attention(3, 60, 60, 4, 32, [41, 60, 3])
    (together,) = operator.run(kernels=attending)
    for row, length in enumerate([41, 60, 3]):
        by_itself = {n: operator.operands[n][row : row + 1, :length] for n in ("q", "k", "v")}
        (single,) = operator.run({"lengths": np.array([length]), **by_itself}, kernels=attending)
        assert np.array_equal(single[0], together[row, :length])


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_change_no_bit(level: str, threads: int) -> None:
    for operator in (dense(80, 256, 320, "DenseAddNorm"), attention(2, 90, 90, 8, 64, [90, 51])):
        for a, b in zip(operator.run(kernels=level, threads=threads), operator.run(kernels=level), strict=True):
            assert np.array_equal(a, b)


def test_a_text_of_no_tokens_gives_zero(attending: str) -> None:
    for queries in (1, 5):
        (y8,) = attention(1, queries, 5, 2, 16, [0]).run(kernels=attending)
        assert (y8 == 128).all()


@pytest.mark.parametrize("length", [-1, 6])
def test_an_impossible_length_is_refused(attending: str, length: int) -> None:
    with pytest.raises(Exception, match=r"nonpad_kv_seqlen"):
        attention(2, 5, 5, 2, 16, [5, 5]).run({"lengths": np.array([5, length])}, kernels=attending)


def test_sizes_that_do_not_fit_are_refused(level: str) -> None:
    product, norm = dense(3, 64, 32), dense(3, 64, 32, "DenseAddNorm")
    with pytest.raises(Exception, match="as wide as its weights"):
        product.run({"x8": np.zeros((1, 3, 60), dtype=np.uint8)}, kernels=level)
    with pytest.raises(Exception, match="the size of the product"):
        norm.run({"residual": np.zeros((1, 2, 32), dtype=np.float32)}, kernels=level)


def test_attention_of_sizes_that_do_not_fit_is_refused(attending: str) -> None:
    heads = attention(2, 5, 5, 2, 16, [5, 5])
    with pytest.raises(Exception, match="differ in size"):
        heads.run({"v": np.zeros((2, 4, 32), dtype=np.float32)}, kernels=attending)
    with pytest.raises(Exception, match="one length for each text"):
        heads.run({"lengths": np.array([5])}, kernels=attending)
    with pytest.raises(Exception, match="differ in size"):  # as many numbers, laid out in another way
        heads.run({"v": np.zeros((1, 10, 32), dtype=np.float32)}, kernels=attending)
    with pytest.raises(Exception, match="multiple of 16"):
        none = {n: np.zeros((1, 5, 0), dtype=np.float32) for n in ("q", "k", "v")}
        heads.run({"lengths": np.array([5]), **none}, kernels=attending)
    with pytest.raises(Exception, match="multiple of 16"):
        dataclasses.replace(heads, attributes={"num_heads": 4}).run(kernels=attending)


@pytest.mark.parametrize(
    ("operand", "wrong", "says"),
    [
        ("weight", np.zeros((1, 16, 16, 4), dtype=np.int8), r"panels, inputs / 4, 32, 4"),
        ("weight", np.zeros((2, 16, 32, 4), dtype=np.int8), "same number of outputs"),
        ("weight", np.zeros((1, 0, 32, 4), dtype=np.int8), "has to have inputs"),
        ("scale", np.zeros(31, dtype=np.float32), "same number of outputs"),
        ("gamma", np.zeros(31, dtype=np.float32), "as wide as the product"),
        ("y_scale", np.zeros(2, dtype=np.float32), "one number each"),
        ("zero_point", np.zeros(2, dtype=np.uint8), "one number"),
    ],
)
def test_constants_that_do_not_fit_are_refused_when_the_model_is_opened(
    level: str, operand: str, wrong: Array, says: str
) -> None:
    operator = dense(3, 64, 32, "DenseAddNorm")
    broken = dataclasses.replace(operator, operands=operator.operands | {operand: wrong})
    with pytest.raises(Exception, match=says):
        broken.open(kernels=level)


def test_weights_have_to_be_constants(level: str) -> None:
    operator = dense(3, 64, 32)
    with pytest.raises(Exception, match="constants of the model"):
        dataclasses.replace(operator, inputs=("x8", "scale")).open(kernels=level)
    with pytest.raises(Exception, match="a bias has to be a constant"):
        dataclasses.replace(operator, inputs=("x8", "bias")).run(kernels=level)
