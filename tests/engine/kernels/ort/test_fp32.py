"""The kernels of ONNX's Gemm, LayerNormalization and Gelu against their equations in float64 and against ONNX Runtime's."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import helper

from fusedbert.engine import kernels as cpu_kernels

Run = Callable[..., NDArray[Any]]
NEEDED = {"norm", "gelu", "dense_fp32"}
KNOWN = [level for level in getattr(cpu_kernels.loaded(), "levels", ()) if not level.lacking]
LEVELS = [level.name for level in KNOWN if level.operations >= NEEDED]


@pytest.fixture(params=LEVELS or [pytest.param("", marks=pytest.mark.skip(reason="no kernels for these operators here"))])
def run(request: pytest.FixtureRequest) -> Run:
    """``run_at`` for each level that has both kernels."""
    return functools.partial(run_at, request.param)


def run_at(level: str, node: str, *arrays: NDArray[np.float32], threads: int = 2, **attributes: Any) -> NDArray[Any]:
    """Run a graph of one node on float32 arrays."""
    names = [f"input_{i}" for i in range(len(arrays))]
    inputs = [helper.make_tensor_value_info(n, 1, [None] * a.ndim) for n, a in zip(names, arrays, strict=True)]
    output = helper.make_tensor_value_info("y", 1, [None] * arrays[0].ndim)
    graph = helper.make_graph([helper.make_node(node, names, ["y"], **attributes)], "one", inputs, [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 4
    cpu_kernels.register(options, {cpu_kernels.SWITCH: level}, cpu_kernels.Kernels.FP32)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, dict(zip(names, arrays, strict=True)))[0])


@pytest.mark.parametrize("shape", [(1, 1), (3, 16), (2, 5, 37), (7, 384), (40, 768)])
def test_layer_normalization_agrees_with_its_equation(run: Run, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(shape[-1])
    x = (rng.normal(size=shape) * 3 + 5).astype(np.float32)
    gamma, beta = (rng.normal(size=shape[-1]).astype(np.float32) for _ in range(2))
    exact = x.astype(np.float64)
    centred = exact - exact.mean(axis=-1, keepdims=True)
    expected = centred / np.sqrt(np.square(centred).mean(axis=-1, keepdims=True) + 1e-6) * gamma + beta
    y = run("LayerNormalization", x, gamma, beta, axis=-1, epsilon=1e-6)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(y, run("LayerNormalization", x, gamma, beta, threads=1, axis=-1, epsilon=1e-6))
    alone = run("LayerNormalization", x[:1], gamma, beta, axis=-1, epsilon=1e-6)
    np.testing.assert_array_equal(alone, y[:1])


def product(*arrays: NDArray[Any]) -> NDArray[Any]:
    a, b, *c = (each.astype(np.float64) for each in arrays)
    return a @ b + (c[0] if c else 0)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("rows", "inputs", "outputs"),
    [
        (0, 8, 4),
        (1, 384, 2),
        (1, 1536, 384),
        (3, 7, 1),
        (16, 768, 768),
        (17, 130, 97),
        (29, 65, 64),
        (130, 300, 161),
        (530, 33, 5),
    ],
)
def test_gemm_agrees_with_its_equation_and_no_row_depends_on_the_others(
    run: Run, rows: int, inputs: int, outputs: int, bias: bool
) -> None:
    rng = np.random.default_rng(rows + outputs)
    x, weight, row = (rng.normal(size=size).astype(np.float32) for size in ((rows, inputs), (inputs, outputs), outputs))
    constants = [weight, row] if bias else [weight]
    y = run("Gemm", x, *constants)
    np.testing.assert_allclose(y, product(x, *constants), rtol=2e-5, atol=2e-5 * math.sqrt(inputs))
    np.testing.assert_array_equal(y, run("Gemm", x, *constants, threads=1))
    for i in {0, rows // 2, rows - 1} if rows else ():
        np.testing.assert_array_equal(run("Gemm", x[i : i + 1], *constants), y[i : i + 1])
        np.testing.assert_array_equal(run("Gemm", np.repeat(x[i : i + 1], 9, axis=0), *constants)[4], y[i])


@pytest.mark.parametrize("turned", [(0, 0), (1, 0), (0, 1), (1, 1)])
@pytest.mark.parametrize("c", [(), (1,), (5,), (1, 5), (3, 1), (3, 5), (1, 1), None])
def test_gemm_is_right_in_the_forms_that_the_exporter_never_writes(
    run: Run, turned: tuple[int, int], c: tuple[int, ...] | None
) -> None:
    rng = np.random.default_rng(5)
    a, b, third = (rng.normal(size=size).astype(np.float32) for size in ((3, 7), (7, 5), c or ()))
    inputs = [each.T.copy() if turn else each for each, turn in zip((a, b), turned, strict=True)]
    added = [] if c is None else [np.asarray(third)]
    attributes = {"transA": turned[0], "transB": turned[1]}
    np.testing.assert_allclose(run("Gemm", *inputs, *added, **attributes), product(a, b, *added), rtol=1e-5, atol=1e-5)
    scaled = run("Gemm", *inputs, *added, alpha=0.5, beta=2.0, **attributes)
    np.testing.assert_allclose(scaled, product(a / 2, b, *(2 * each for each in added)), rtol=1e-5, atol=1e-5)


def test_gemm_of_no_inputs_is_its_bias_and_what_does_not_fit_is_refused(run: Run) -> None:
    def ones(*shape: int) -> NDArray[Any]:
        return np.ones(shape, dtype=np.float32)

    np.testing.assert_array_equal(run("Gemm", ones(2, 0), ones(0, 5), ones(5)), ones(2, 5))
    for operands in ((ones(2, 3), ones(4, 5)), (ones(2, 3), ones(3, 5), ones(4)), (ones(2, 3), ones(3, 5), ones(3, 5))):
        with pytest.raises(Exception, match="not fit"):
            run("Gemm", *operands)


def test_gelu_is_exact_to_the_last_digits_of_float32(run: Run) -> None:
    x = np.concatenate([np.linspace(-20, 20, 40_003), [0.0, -0.0, 1e-30, -1e-30, 1e30, -1e30, -300]]).astype(np.float32)[None]
    expected = np.array([[v * 0.5 * math.erfc(-v / math.sqrt(2)) for v in x[0].astype(np.float64)]])
    np.testing.assert_allclose(run("Gelu", x), expected, rtol=2e-6, atol=2e-7)
    assert np.isnan(run("Gelu", np.array([[np.nan]], dtype=np.float32))).all()


@pytest.mark.parametrize("attributes", [{}, {"approximate": "tanh"}], ids=["erf", "tanh"])
def test_gelu_of_the_lowest_numbers_is_0_as_in_onnx_runtime(run: Run, attributes: dict[str, Any]) -> None:
    x = np.array([[-3e38, -1e35, -1e30, -13, -1e-40, 1e-40, 3e38, np.inf, np.nan]], dtype=np.float32)
    np.testing.assert_allclose(
        run("Gelu", x, **attributes), run_at("onnxruntime", "Gelu", x, **attributes), rtol=1e-6, atol=1e-30
    )
    assert not run("Gelu", x, **attributes)[0, :4].any()


def test_gelu_by_tanh_agrees_with_its_equation(run: Run) -> None:
    x = np.linspace(-20, 20, 5_001, dtype=np.float32)[None]
    u = math.sqrt(2 / math.pi) * (x.astype(np.float64) + 0.044715 * x.astype(np.float64) ** 3)
    np.testing.assert_allclose(run("Gelu", x, approximate="tanh"), 0.5 * x * (1 + np.tanh(u)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        run("Gelu", x, approximate="tanh"), run_at("onnxruntime", "Gelu", x, approximate="tanh"), atol=1e-5
    )


def test_node_forms_that_the_exporter_never_writes_are_refused(run: Run) -> None:
    x, row = np.ones((2, 3, 4), dtype=np.float32), np.ones(4, dtype=np.float32)
    with pytest.raises(Exception, match="over the last axis"):
        run("LayerNormalization", x, np.ones((3, 4), dtype=np.float32), np.ones((3, 4), dtype=np.float32), axis=1, epsilon=1e-6)
    with pytest.raises(Exception, match="as wide as the input"):
        run("LayerNormalization", x, row[:3], row, axis=-1, epsilon=1e-6)
