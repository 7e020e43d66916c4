"""Every kernel against reference.c, without ONNX Runtime: odd sizes, no rows, saturation, NaN; and nothing written outside."""

from __future__ import annotations

import ctypes
import math
import re
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray
from operators_of_one_node import ATTENTIONS

Array = NDArray[Any]
FOLDER = Path(__file__).parents[3] / "engine" / "kernels"
# In the table's order.
OPERATIONS = ("dense_int8", "dense_bf16", "dense_fp32", "attention", "norm", "gelu", "embed_int8", "embed_bf16", "disentangled")
TABLE = re.findall(r"\[(\w+)\] = &(\w+)", (FOLDER / "levels.c").read_text())  # of all levels
KERNELS = sorted({(operation.removesuffix("_ALONE").lower(), name) for operation, name in TABLE})
IDENTITY, GELU, GELU_TANH, RELU = range(4)
PANEL, DENSE_ROWS, STRIP, NORM_ROWS, GELU_NUMBERS = 32, 512, 64, 4, 4096
GUARD = 64  # numbers before and after every result


class Rounding(ctypes.Structure):
    _fields_: ClassVar = [("inverse_scale", ctypes.c_float), ("zero_point", ctypes.c_int32)]


class Operation(ctypes.Structure):
    """A struct of kernels.h, made of NumPy arrays, which it keeps alive."""

    def __init__(self, **fields: Any) -> None:
        self.arrays = [value for value in fields.values() if isinstance(value, np.ndarray)]
        super().__init__(**{n: v.ctypes.data if isinstance(v, np.ndarray) else v for n, v in fields.items()})


def layout(pointers: str, sizes: str, *rest: tuple[str, Any]) -> list[tuple[str, Any]]:
    return [*((n, ctypes.c_void_p) for n in pointers.split()), *((n, ctypes.c_size_t) for n in sizes.split()), *rest]


class Kernel(ctypes.Structure):
    _fields_: ClassVar = [*layout("unit offsets scratch", "", ("cost", ctypes.c_double))]

    def call(self, function: str, restype: Any, *arguments: Any) -> Any:
        return ctypes.CFUNCTYPE(restype)(getattr(self, function))(*arguments)


class Level(ctypes.Structure):
    _fields_: ClassVar = [
        ("name", ctypes.c_char_p),
        ("needs", ctypes.c_uint),
        ("kernels", ctypes.POINTER(Kernel) * len(OPERATIONS)),
    ]


class Dense(Operation):
    _fields_: ClassVar = [
        *layout("x weight bias scale offset", "rows inputs outputs", ("activation", ctypes.c_int)),
        *layout("y y16 y8", "", ("rounding", Rounding), ("ending", ctypes.c_int)),
        *layout("cos sin", "tokens head"),
    ]


class Attention(Operation):
    _fields_: ClassVar = [
        *layout("q k v", "", ("format", ctypes.c_int)),
        *layout("lengths", "batch queries keys heads head window"),
        *layout("y16 y8", "", ("rounding", Rounding), ("scratch", ctypes.c_void_p)),
    ]


class Norm(Operation):
    _fields_: ClassVar = [
        *layout("x y residual factor gamma beta", "", ("epsilon", ctypes.c_float), *layout("", "rows width")),
        *layout("y8 y16", "", ("rounding", Rounding), ("keeps_sum", ctypes.c_int)),
    ]


class Embed(Operation):
    _fields_: ClassVar = [
        *layout("ids segments word scale position token_type", "tokens words kinds", ("counted", ctypes.c_int)),
        ("padding_id", ctypes.c_int64),
        ("norm", Norm),
    ]


class Gelu(Operation):
    _fields_: ClassVar = layout("x y", "count", ("kind", ctypes.c_int))


@pytest.fixture(scope="module", params=["gcc", "clang"])
def library(
    request: pytest.FixtureRequest, build: Any, sources: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> ctypes.CDLL:
    """All kernels and the reference, by each compiler."""
    file = tmp_path_factory.mktemp("kernels") / "kernels.so"
    found = ctypes.CDLL(str(build(file, [*sources, Path(__file__).with_name("reference.c")], request.param)))
    found.fusedbert_levels.restype = ctypes.POINTER(Level)
    return found


def each(operation: str) -> pytest.MarkDecorator:
    """Parametrize a test by the kernels that the table's levels have for an operation."""
    return pytest.mark.parametrize("kernel", [name for of, name in KERNELS if of == operation])


def kernel_of(library: ctypes.CDLL, name: str, operation: str) -> Kernel:
    """Return a kernel by its name in the table, or the reference."""
    if name in ("BF16_ATTENTION", "INT16_ATTENTION"):  # the reference, with a kernel's rounding
        return Kernel.in_dll(library, name)
    if name == "reference":
        return (Kernel * len(OPERATIONS)).in_dll(library, "REFERENCE")[OPERATIONS.index(operation)]
    return Kernel.in_dll(library, name)


@pytest.fixture(autouse=True)
def _needs(library: ctypes.CDLL, kernel: str) -> None:
    address, levels, i = ctypes.addressof(Kernel.in_dll(library, kernel)), library.fusedbert_levels(), 0
    while levels[i].name is not None:
        used = [ctypes.addressof(each.contents) for each in levels[i].kernels if each]
        if address in used and not levels[i].needs & ~library.fusedbert_features():
            return
        i += 1
    pytest.skip(f"this CPU has no level with {kernel}")


class Result:
    """A guarded array that a kernel writes."""

    def __init__(self, shape: tuple[int, ...], dtype: type) -> None:
        self.memory = np.full(math.prod(shape) + 2 * GUARD, 77, dtype=dtype)
        self.array = self.memory[GUARD : len(self.memory) - GUARD].reshape(shape)

    def checked(self) -> Array:
        """Return the result; nothing next to it may have changed."""
        assert (self.memory[:GUARD] == 77).all() and (self.memory[-GUARD:] == 77).all()
        return self.array


def run(kernel: Kernel, operation: Operation, units: int) -> None:
    """Compute all units, the last one first: their order has to be free."""
    for unit in reversed(range(units)):
        kernel.call("unit", None, ctypes.byref(operation), ctypes.c_size_t(unit))


def assert_close_in_eight_bits(found: Array, expected: Array, differing: float = 0.01) -> None:
    """A tie may round either way: a few numbers may be one step off."""
    off = np.abs(found.astype(int) - expected)
    assert off.size == 0 or (off.max() <= 1 and (off > 0).mean() <= differing), (off.max(), (off > 0).mean())


SIZES = [(0, 64, 32), (1, 4, 1), (2, 64, 32), (13, 36, 48), (15, 128, 33), (29, 384, 96), (70, 768, 50), (600, 8, 40)]


def dense(
    library: ctypes.CDLL, kernel: str, size: tuple[int, int, int], activation: int, eight_bits: bool, **changed: Array
) -> Array:
    """Compute a product of random numbers."""
    rows, inputs, outputs = size
    rng = np.random.default_rng(sum(size))
    panels = -(-outputs // PANEL)
    weight = rng.integers(-127, 128, (panels, inputs // 4, PANEL, 4), dtype=np.int8)
    arrays: dict[str, Array] = {
        "x": rng.integers(0, 256, (rows, inputs), dtype=np.uint8),
        "weight": weight,
        "scale": (rng.uniform(1e-5, 1e-4, outputs) / math.sqrt(inputs)).astype(np.float32),
        "bias": rng.normal(size=outputs).astype(np.float32),
    } | changed
    offset = Result((panels * PANEL,), np.int32)
    y = Result((rows, outputs), np.uint8 if eight_bits else np.float32)
    target = {"y8" if eight_bits else "y": y.array}
    operation = Dense(
        **arrays, offset=offset.array, rows=rows, inputs=inputs, outputs=outputs, activation=activation,
        rounding=Rounding(1 / 0.031, 99), **target,
    )  # fmt: skip
    found = kernel_of(library, kernel, "dense_int8")
    found.call("offsets", None, ctypes.byref(operation), 117, ctypes.c_void_p(offset.array.ctypes.data))
    assert np.array_equal(offset.checked(), 117 * weight.astype(int).sum(axis=(1, 3)).ravel())
    run(found, operation, panels * -(-rows // DENSE_ROWS))
    return y.checked()


@each("dense_int8")
@pytest.mark.parametrize("size", SIZES)
def test_the_kernel_of_dense_agrees_with_the_reference(library: ctypes.CDLL, kernel: str, size: tuple[int, int, int]) -> None:
    found, expected = (dense(library, each, size, IDENTITY, eight_bits=False) for each in (kernel, "reference"))
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@each("dense_int8")
@pytest.mark.parametrize("activation", [IDENTITY, GELU, GELU_TANH, RELU])
@pytest.mark.parametrize("size", SIZES)
def test_the_kernel_of_dense_in_eight_bits_agrees_with_the_reference(
    library: ctypes.CDLL, kernel: str, size: tuple[int, int, int], activation: int
) -> None:
    found, expected = (dense(library, each, size, activation, eight_bits=True) for each in (kernel, "reference"))
    assert_close_in_eight_bits(found, expected)


@each("dense_int8")
@pytest.mark.parametrize("activation", [IDENTITY, GELU, GELU_TANH, RELU])
def test_dense_saturates_and_maps_nan(library: ctypes.CDLL, kernel: str, activation: int) -> None:
    bias = np.array([1e6, -1e6, 3e38, -3e38, np.nan, 0.5, -11.9, -12.1, np.inf, -np.inf, -40, -1e5] * 3, dtype=np.float32)
    found, expected = (
        dense(library, each, (5, 8, 36), activation, eight_bits=True, bias=bias) for each in (kernel, "reference")
    )
    assert_close_in_eight_bits(found, expected)
    assert (found[:, [0, 2, 8]] == 255).all() and set(found[:, 4]) == {99 if activation == RELU else 0}
    assert activation == IDENTITY or (found[:, [1, 3, 6, 7, 9, 10, 11]] == 99).all()


FP32_SIZES = [(0, 64, 32), (1, 4, 1), (2, 65, 33), (14, 64, 64), (15, 700, 97), (16, 128, 80), (40, 257, 65), (530, 33, 130)]


@each("dense_fp32")
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("size", FP32_SIZES)
def test_the_kernel_of_dense_in_float32_agrees_with_the_reference(
    library: ctypes.CDLL, kernel: str, size: tuple[int, int, int], bias: bool
) -> None:
    rows, inputs, outputs = size
    rng = np.random.default_rng(sum(size))
    arrays = {n: rng.normal(size=of).astype(np.float32) for n, of in (("x", size[:2]), ("weight", size[1:]))}
    if bias:
        arrays["bias"] = np.concatenate([[np.nan, np.inf, -3e38][:outputs], rng.normal(size=outputs)])[:outputs].astype(
            np.float32
        )
    found = {}
    for name, columns in ((kernel, STRIP), ("reference", PANEL)):
        y = Result((rows, outputs), np.float32)
        operation = Dense(**arrays, rows=rows, inputs=inputs, outputs=outputs, y=y.array)
        run(kernel_of(library, name, "dense_fp32"), operation, -(-outputs // columns) * -(-rows // DENSE_ROWS))
        found[name] = y.checked()
    np.testing.assert_allclose(found[kernel], found["reference"], rtol=2e-5, atol=2e-5 * math.sqrt(inputs))


@each("norm")
@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize(("rows", "width"), [(0, 16), (1, 1), (3, 16), (5, 37), (4, 384), (41, 768)])
def test_the_kernel_of_normalization_agrees_with_the_reference(
    library: ctypes.CDLL, kernel: str, rows: int, width: int, residual: bool
) -> None:
    rng = np.random.default_rng(rows + width)
    numbers = {n: rng.normal(size=(rows, width)).astype(np.float32) for n in ("x", "residual")}
    vectors = {n: rng.normal(size=width).astype(np.float32) for n in ("factor", "gamma", "beta")}
    if rows > 2:
        numbers["x"][1, width // 2] = np.nan
        vectors["beta"][0] = 100  # saturates
    found = {}
    for name in (kernel, "reference"):
        y, y8 = Result((rows, width), np.float32), Result((rows, width), np.uint8)
        y.array[:] = numbers["x"]  # x may be y
        added = {"residual": numbers["residual"]} if residual else {}
        operation = Norm(
            x=y.array, y=y.array, **vectors, **added, epsilon=1e-6, rows=rows, width=width, y8=y8.array,
            rounding=Rounding(1 / 0.031, 99),
        )  # fmt: skip
        run(kernel_of(library, name, "norm"), operation, -(-rows // NORM_ROWS))
        found[name] = y.checked(), y8.checked()
    np.testing.assert_allclose(found[kernel][0], found["reference"][0], rtol=2e-5, atol=2e-5)
    assert_close_in_eight_bits(found[kernel][1], found["reference"][1])


def embeddings(library: ctypes.CDLL, kernel: str, operation: str, texts: int, tokens: int, width: int, counted: bool) -> Any:
    """Compute embeddings of random numbers: float32, and its narrow form."""
    rng = np.random.default_rng(width)
    words, narrow = 30, np.uint8 if operation == "embed_int8" else np.uint16
    scale = rng.uniform(0.001, 0.02, words).astype(np.float32)
    table = rng.integers(-127, 128, (words, width)).astype(np.int8)
    arrays: dict[str, Array] = {
        "ids": rng.integers(-words, words, (texts, tokens)),
        "segments": rng.integers(0, 2, (texts, tokens)),
        "position": rng.normal(size=(tokens + 3, width)).astype(np.float32),
        "token_type": rng.normal(size=(2, width)).astype(np.float32),
        "word": table if narrow == np.uint8 else (table * scale[:, None]).astype(np.float16),
    }
    vectors = {n: rng.normal(size=width).astype(np.float32) for n in ("gamma", "beta")}
    y, y_narrow = Result((texts, tokens, width), np.float32), Result((texts, tokens, width), narrow)
    norm = Norm(
        y=y.array, **vectors, epsilon=1e-6, rows=texts * tokens, width=width, rounding=Rounding(1 / 0.031, 99),
        **{"y8" if narrow == np.uint8 else "y16": y_narrow.array},
    )  # fmt: skip
    if narrow == np.uint8:
        arrays["scale"] = scale
    sizes = {"tokens": tokens, "words": words, "kinds": 2, "counted": counted, "padding_id": 2}
    run(kernel_of(library, kernel, operation), Embed(**arrays, **sizes, norm=norm), -(-texts * tokens // NORM_ROWS))
    return y.checked(), y_narrow.checked()


EMBEDDED = pytest.mark.parametrize(
    ("texts", "tokens", "width", "counted"),
    [(0, 5, 16, False), (1, 1, 8, True), (2, 3, 37, False), (3, 17, 384, True), (7, 9, 768, False)],
)


@each("embed_int8")
@EMBEDDED
def test_the_kernel_of_embeddings_in_eight_bits_agrees_with_the_reference(
    library: ctypes.CDLL, kernel: str, texts: int, tokens: int, width: int, counted: bool
) -> None:
    (y, y8), (expected, expected8) = (
        embeddings(library, each, "embed_int8", texts, tokens, width, counted) for each in (kernel, "reference")
    )
    np.testing.assert_allclose(y, expected, rtol=2e-5, atol=2e-5)
    assert_close_in_eight_bits(y8, expected8)


@each("embed_bf16")
@EMBEDDED
def test_the_kernel_of_embeddings_in_bfloat16_agrees_with_the_reference(
    library: ctypes.CDLL, kernel: str, texts: int, tokens: int, width: int, counted: bool
) -> None:
    (y, y16), (expected, expected16) = (
        embeddings(library, each, "embed_bf16", texts, tokens, width, counted) for each in (kernel, "reference")
    )
    np.testing.assert_allclose(y, expected, rtol=2e-5, atol=2e-5)
    assert y16.size == 0 or np.abs(y16.astype(int) - expected16.astype(int)).max() <= 1  # of neighbours by their bits


@each("gelu")
@pytest.mark.parametrize(("kind", "rtol"), [(GELU, 2e-6), (GELU_TANH, 1e-5)])
@pytest.mark.parametrize("count", [0, 1, 37, 4096, 4097, 40_003])
def test_the_kernel_of_gelu_agrees_with_the_reference(
    library: ctypes.CDLL, kernel: str, count: int, kind: int, rtol: float
) -> None:
    x = np.linspace(-20, 20, count, dtype=np.float32)
    x[5:10] = x[5:10] * 0 + [0.0, -0.0, 1e-30, -1e-30, np.nan] if count > 10 else x[5:10]
    found = {}
    for name in (kernel, "reference"):
        y = Result((count,), np.float32)
        run(kernel_of(library, name, "gelu"), Gelu(x=x, y=y.array, count=count, kind=kind), -(-count // GELU_NUMBERS))
        found[name] = y.checked()
    np.testing.assert_allclose(found[kernel], found["reference"], rtol=rtol, atol=2e-7 if kind == GELU else 1e-6)


@each("gelu")
@pytest.mark.parametrize("kind", [GELU, GELU_TANH])
def test_gelu_has_its_limits(library: ctypes.CDLL, kernel: str, kind: int) -> None:
    far = np.array([-12.1, -100, -1e10, -1e20, -1e35, -3e38, -np.inf], dtype=np.float32)
    x = np.concatenate([far, -far, np.array([1e-40, -1e-40, np.nan], dtype=np.float32)])
    for name in (kernel, "reference"):
        y = Result((len(x),), np.float32)
        run(kernel_of(library, name, "gelu"), Gelu(x=x, y=y.array, count=len(x), kind=kind), 1)
        np.testing.assert_allclose(y.checked(), np.concatenate([0 * far[:-1], [0], -far, x[-3:] / 2]), rtol=1e-6, atol=1e-30)


def attend(library: ctypes.CDLL, name: str, head: int, arrays: dict[str, np.ndarray]) -> Array:
    """Run a kernel of attention, or the reference, with heads of this width."""
    (batch, queries, hidden), y8 = arrays["q"].shape, Result(arrays["q"].shape, np.uint8)
    sizes = {"batch": batch, "queries": queries, "keys": arrays["k"].shape[1], "heads": hidden // head, "head": head}
    operation = Attention(**arrays, **sizes, y8=y8.array, rounding=Rounding(50, 128))
    kernel = kernel_of(library, name, "attention")
    units, size = batch * (hidden // head), kernel.call("scratch", ctypes.c_size_t, ctypes.byref(operation))
    scratch = np.empty(units * size + 64, dtype=np.uint8)
    operation.scratch = -(-scratch.ctypes.data // 64) * 64
    run(kernel, operation, units)
    return y8.checked()


@each("attention")
@pytest.mark.parametrize(
    ("batch", "queries", "keys", "heads", "head", "lengths"),
    [
        *ATTENTIONS,
        (1, 16, 16, 2, 64, None),  # without lengths
        (2, 5, 5, 4, 16, [0, 5]),  # a text without tokens
        (2, 3, 9, 2, 32, [0, 5]),
    ],
)
@pytest.mark.parametrize("reach", [1.0, 30.0])  # the second saturates
def test_the_kernel_of_attention_agrees_with_the_reference(
    library: ctypes.CDLL, kernel: str, batch: int, queries: int, keys: int, heads: int, head: int, lengths: Any, reach: float
) -> None:
    rng = np.random.default_rng(keys)
    sizes, spreads = {"q": queries, "k": keys, "v": keys}, {"q": 2 / math.sqrt(head), "k": 3.0, "v": reach}
    arrays: dict[str, np.ndarray] = {
        n: (rng.normal(size=(batch, sizes[n], heads * head)) * spreads[n]).astype(np.float32) for n in sizes
    }
    if lengths:
        arrays["lengths"] = np.array(lengths, dtype=np.int64)
        for row, length in enumerate(lengths):
            arrays["k"][row, length:] = arrays["v"][row, length:] = np.nan  # nothing may read padding
    narrow, found = kernel.endswith("bf16"), attend(library, kernel, head, arrays)
    assert_close_in_eight_bits(found, attend(library, "BF16_ATTENTION" if narrow else "INT16_ATTENTION", head, arrays), 0.05)
    if reach == 1.0:  # values that saturate have steps larger than the result's
        assert np.abs(found.astype(int) - attend(library, "reference", head, arrays)).max(initial=0) <= (2 if narrow else 1)


@each("attention")
@pytest.mark.parametrize("head", [16, 64, 128, 256])
@pytest.mark.parametrize("keys", [16, 700])
def test_sums_of_the_largest_numbers_fit(library: ctypes.CDLL, kernel: str, head: int, keys: int) -> None:
    """All numbers are as large as the largest, and all weights equal: what is added up in 32 bits cannot be larger."""
    full = {n: np.full((1, keys, head), 2, dtype=np.float32) for n in "qkv"}
    for n in (1, 0):  # 0: queries and keys of zeros
        assert (attend(library, kernel, head, {**full, "q": n * full["q"], "k": n * full["k"]}) == 128 + 100).all()
    split = {n: np.where(np.arange(keys)[:, None] < keys // 2, full[n], -full[n]) for n in full}  # each half attends to itself
    assert (attend(library, kernel, head, split)[0] == np.where(split["v"][0] > 0, 128 + 100, 128 - 100)).all()
