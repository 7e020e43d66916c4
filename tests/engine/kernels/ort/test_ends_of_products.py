"""Products that end in RoPE, in a gated linear unit or in a norm before the next layer, against their equations in NumPy."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from operators_of_one_node import FUNCTIONS, Operator, levels, normalize

from fusedbert.engine.hardware.cpu import Int8, inspect_machine
from fusedbert.engine.kernels import Kernels
from fusedbert.export.graph.operators import bfloat16, functions, to_panels

Array = NDArray[Any]
LARGEST = 63 if inspect_machine().int8 is Int8.SATURATING else 127  # see test_int8.py
INT8 = [("", level) for level in levels("dense_int8")]
BF16 = [("Bf16", level) for level in levels("dense_bf16")]
FORMATS = [*INT8, *BF16, ("", FUNCTIONS), ("Bf16", FUNCTIONS)]  # the start of an operator's name, and a level
each = pytest.mark.parametrize(("format", "level"), FORMATS)
native = pytest.mark.parametrize(
    ("format", "level"), [*INT8, *BF16] or [pytest.param("", "", marks=pytest.mark.skip(reason="no such kernels here"))]
)
EIGHT = {"y_scale": np.array(0.031, dtype=np.float32), "y_zero_point": np.array(99, dtype=np.uint8)}
STEP = 2.0**-7  # from a bfloat16 to the next, relative
# Texts, tokens, inputs, outputs: one row and many, a full block of 14 and one more, more rows than a unit has.
SIZES = [(1, 1, 4, 32), (2, 1, 64, 64), (1, 14, 36, 96), (3, 5, 128, 64), (2, 31, 384, 192), (2, 300, 8, 64)]
ENDS = {
    "Geglu": np.vectorize(lambda x: x * 0.5 * (1 + math.erf(x / math.sqrt(2)))),
    "GegluTanh": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "Reglu": lambda x: np.maximum(x, 0),
}


def widened(bits: Array) -> Array:
    """Return the float32 numbers of bfloat16's bits."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def product(format: str, end: str, size: tuple[int, int, int, int], **attributes: float) -> tuple[Operator, Array]:
    """Make a product of random numbers with an end, yet without the end's operands, and ``x W + b`` in float64."""
    texts, tokens, inputs, outputs = size
    rng = np.random.default_rng(sum(size))
    bias = rng.normal(size=outputs).astype(np.float32)
    if format:
        x, w = (
            widened(bfloat16(rng.normal(size=shape) * spread))
            for shape, spread in (((texts, tokens, inputs), 1), ((inputs, outputs), 1 / math.sqrt(inputs)))
        )
        operands = {"x16": x, "weight": to_panels(bfloat16(w), 2), "bias": bias}
        exact = x.astype(np.float64) @ w.astype(np.float64) + bias
        attributes = {"width": outputs} | attributes
    else:
        x8 = rng.integers(0, 256, (texts, tokens, inputs), dtype=np.uint8)
        w8 = rng.integers(-LARGEST, LARGEST + 1, (inputs, outputs), dtype=np.int8)
        scale = (rng.uniform(1e-4, 3e-4, outputs) / math.sqrt(inputs)).astype(np.float32)
        operands = {
            "x8": x8,
            "zero_point": np.array(117, dtype=np.uint8),
            "weight": to_panels(w8, 4),
            "scale": scale,
            "bias": bias,
        }
        exact = (x8.astype(np.int64) - 117) @ w8.astype(np.int64) * scale.astype(np.float64) + bias
    name, kernels = f"{format}Dense{end}", Kernels.BF16 if format else Kernels.INT8
    made = Operator(name, operands, ("x16" if format else "x8",), {}, attributes, kernels, frozenset({"x16", "y16"}))
    return made, exact


def rope(format: str, size: tuple[int, int, int, int], head: int, positions: int) -> tuple[Operator, Array]:
    """Make a product that ends in RoPE, and its result in float64."""
    made, exact = product(format, "Rope", size)
    rng = np.random.default_rng(positions)
    angles = rng.uniform(-4, 4, (positions, head // 2))
    cos, sin = (of(angles).astype(np.float32) for of in (np.cos, np.sin))
    outputs: dict[str, type] = {"y16" if format else "y": np.float32}
    turned = np.empty_like(exact)
    for token in range(exact.shape[1]):
        for panel in range(exact.shape[2] // 32):
            frequencies = slice(panel % (head // 32) * 16, panel % (head // 32) * 16 + 16)
            c, s = (table[token, frequencies].astype(np.float64) for table in (cos, sin))
            left, right = (exact[:, token, panel * 32 + half : panel * 32 + half + 16] for half in (0, 16))
            turned[:, token, panel * 32 : panel * 32 + 16] = left * c - right * s
            turned[:, token, panel * 32 + 16 : panel * 32 + 32] = right * c + left * s
    return dataclasses.replace(made, operands=made.operands | {"cos": cos, "sin": sin}, outputs=outputs), turned


def glu(format: str, end: str, size: tuple[int, int, int, int]) -> tuple[Operator, Array]:
    """Make a product that ends in a gated unit, and ``act(a) g`` in float64."""
    made, exact = product(format, end, size)
    pairs = exact.reshape(*exact.shape[:-1], -1, 2, 16)  # a panel: the a of 16 neurons, and then their g
    gated = (ENDS[end](pairs[..., 0, :]) * pairs[..., 1, :]).reshape(*exact.shape[:-1], -1)
    if format:
        return dataclasses.replace(made, outputs={"y16": np.float32}), gated
    return dataclasses.replace(made, operands=made.operands | EIGHT, outputs={"y8": np.uint8}), gated


def pre_norm(format: str, size: tuple[int, int, int, int], *, factored: bool = True) -> tuple[Operator, Array, Array]:
    """Make a product that is added to a residual, the sum in float64, and its norm."""
    made, exact = product(format, "AddPreNorm", size, epsilon=1e-6)
    rng = np.random.default_rng(size[3])
    operands: dict[str, Any] = {"residual": rng.normal(size=exact.shape).astype(np.float32)}
    if not format:
        operands["factor"] = rng.normal(size=size[3]).astype(np.float32) if factored else None
    operands |= {part: rng.normal(size=size[3]).astype(np.float32) for part in ("gamma", "beta")}
    total = exact + operands["residual"].astype(np.float64) * (operands["factor"] if factored and not format else 1)
    outputs: dict[str, type] = {"y": np.float32, **({"y16": np.float32} if format else {"y8": np.uint8})}
    defined = () if format else tuple(functions(made.name, factored=factored))
    operator = dataclasses.replace(
        made, operands=made.operands | operands | ({} if format else EIGHT), inputs=(*made.inputs, "residual"), outputs=outputs,
        functions=defined,
    )  # fmt: skip
    return operator, total, normalize(total, operands["gamma"], operands["beta"], 1e-6)


def assert_rounded(format: str, found: Array, expected: Array) -> None:
    """Compare a narrow result with what is rounded; the polynomial of Gelu has an error, too."""
    if format:
        np.testing.assert_allclose(found, expected, rtol=0.51 * STEP, atol=3e-4)
    else:
        eight = np.clip(expected / float(EIGHT["y_scale"]) + int(EIGHT["y_zero_point"]), 0, 255)
        assert np.abs(found - eight).max(initial=0) < 0.52


@each
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("head", [32, 64, 96])
def test_rope_turns_each_pair_by_its_position(size: tuple[int, int, int, int], head: int, format: str, level: str) -> None:
    size = (*size[:3], 2 * head if size[3] % head else size[3])
    operator, expected = rope(format, size, head, positions=max(size[1], 40))
    (y,) = operator.run(kernels=level)
    np.testing.assert_allclose(y, expected, rtol=0.51 * STEP if format else 1e-5, atol=1e-5)


@each
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("end", ENDS)
def test_a_gated_unit_multiplies_the_two_halves_of_a_panel(
    size: tuple[int, int, int, int], end: str, format: str, level: str
) -> None:
    operator, expected = glu(format, end, size)
    (narrow,) = operator.run(kernels=level)
    assert narrow.shape == expected.shape
    assert_rounded(format, narrow, expected)


@each
@pytest.mark.parametrize("size", [*SIZES, (2, 15, 128, 33)])
@pytest.mark.parametrize("factored", [True, False])
def test_the_sum_stays_and_its_norm_is_rounded(
    size: tuple[int, int, int, int], factored: bool, format: str, level: str
) -> None:
    operator, total, normal = pre_norm(format, size, factored=factored)
    y, narrow = operator.run(kernels=level)
    np.testing.assert_allclose(y, total, rtol=1e-5, atol=1e-5)
    if size[3] > 3:
        assert_rounded(format, narrow, normal)


@each
def test_a_text_beyond_the_table_of_positions_is_refused(format: str, level: str) -> None:
    operator, _ = rope(format, (2, 9, 8, 64), 32, positions=9)
    operator.run(kernels=level)
    name = operator.inputs[0]
    longer = np.concatenate([operator.operands[name], operator.operands[name]], axis=1)
    with pytest.raises(Exception, match=r"positions|bounds"):
        operator.run({name: longer}, kernels=level)


@each
def test_no_text_gives_no_row(format: str, level: str) -> None:
    ends = [rope(format, (2, 9, 8, 64), 32, 9)[0], glu(format, "Geglu", (2, 9, 8, 64))[0], pre_norm(format, (2, 9, 8, 64))[0]]
    for operator in ends:
        none = {n: operator.operands[n][:0] for n in operator.inputs}
        assert all(y.shape[:2] == (0, 9) for y in operator.run(none, kernels=level))


@pytest.mark.parametrize(
    "level", [level for _, level in INT8] or [pytest.param("", marks=pytest.mark.skip(reason="no kernels"))]
)
def test_a_factor_has_to_be_a_constant(level: str) -> None:
    operator, *_ = pre_norm("", (1, 3, 8, 32))
    with pytest.raises(Exception, match="a factor has to be a constant"):
        dataclasses.replace(operator, inputs=(*operator.inputs, "factor")).run(kernels=level)


@native
def test_no_bit_depends_on_the_batch_or_the_threads(format: str, level: str) -> None:
    size = (3, 37, 96, 192)
    ends = [rope(format, size, 64, 40)[0], *(glu(format, end, size)[0] for end in ENDS), pre_norm(format, size)[0]]
    for operator in ends:
        whole = operator.run(kernels=level)
        for text in range(3):
            for tokens in (1, 13, 37):
                part = {n: operator.operands[n][text : text + 1, :tokens] for n in operator.inputs}
                for a, b in zip(operator.run(part, kernels=level, threads=1), whole, strict=True):
                    assert np.array_equal(a[0], b[text, :tokens])


@native
def test_ends_that_do_not_fit_are_refused_when_the_model_is_opened(format: str, level: str) -> None:
    turned, _ = rope(format, (1, 3, 8, 96), 96, positions=5)
    for table, says in (
        (np.zeros((5, 24), dtype=np.float32), "a multiple of 32"),
        (np.zeros((5, 32), dtype=np.float32), "fill the product's outputs"),
        (np.zeros((5, 0), dtype=np.float32), "a multiple of 32"),
    ):
        with pytest.raises(Exception, match=says):
            dataclasses.replace(turned, operands=turned.operands | {"cos": table, "sin": table}).open(kernels=level)
    with pytest.raises(Exception, match="cos and sin have to be"):
        dataclasses.replace(turned, operands=turned.operands | {"sin": np.zeros((5, 16), dtype=np.float32)}).open(kernels=level)
    name = turned.inputs[0]
    with pytest.raises(Exception, match="texts, tokens, inputs"):
        dataclasses.replace(turned, operands=turned.operands | {name: turned.operands[name][0]}).run(kernels=level)
    gated, _ = product(format, "Geglu", (1, 3, 8, 48))
    narrow: dict[str, type] = {"y16": np.float32} if format else {"y8": np.uint8}
    with pytest.raises(Exception, match="whole panels of 16 neurons"):
        dataclasses.replace(gated, operands=gated.operands | ({} if format else EIGHT), outputs=narrow).open(kernels=level)
