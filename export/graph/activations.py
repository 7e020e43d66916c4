"""Activations: what a config may call them, and the nodes that compute them.

The names are those of transformers (``ACT2FN``), where several stand for one function, written or rounded in another way;
here each function has one name. The same functions in float64, from their papers, are in ``reference``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .builder import Graph

KINDS = ("gelu", "gelu_new", "relu", "silu", "quick_gelu", "mish", "gelu_10", "tanh")
SAME_AS: Mapping[str, str] = {
    "gelu_python": "gelu",
    "gelu_pytorch_tanh": "gelu_new",
    "gelu_python_tanh": "gelu_new",
    "gelu_accurate": "gelu_new",
    "gelu_fast": "gelu_new",  # its constant is sqrt(2 / pi) to ten digits
    "swish": "silu",
}
GELU_SINCE = 20  # the operator set that brought Gelu; what else is used here is as old as opset 17
CEILING = 10.0  # of gelu_10; its floor of -10 is never reached, since gelu stays above -0.17


def kind_of(name: object) -> str | None:
    """Return the one of ``KINDS`` that a config's name stands for, or None where it is not known."""
    kind = SAME_AS.get(name, name) if isinstance(name, str) else None
    return kind if kind in KINDS else None


def names() -> tuple[str, ...]:
    """Return every name that is known."""
    return (*KINDS, *SAME_AS)


def emit(g: Graph, x: str, kind: str, *, opset: int, dtype: str = "float32") -> str:
    """Add the nodes of an activation, of standard ONNX alone.

    Args:
        g: The graph.
        x: What goes in.
        kind: One of ``KINDS``.
        opset: Version of the default operator set.
        dtype: Type of ``x``.

    Returns:
        What comes out, of the same type and shape.
    """
    if kind in ("gelu", "gelu_new") and opset >= GELU_SINCE:
        return g.op("Gelu", x, approximate="tanh") if kind == "gelu_new" else g.op("Gelu", x)
    if kind == "gelu_10":
        return clip(g, emit(g, x, "gelu", opset=opset, dtype=dtype), dtype)
    return _NODES[kind](g, x, dtype)


def clip(g: Graph, x: str, dtype: str) -> str:
    """Keep what a gelu gave at ``CEILING`` or below."""
    return g.op("Min", x, g.constant(CEILING, dtype))


def _relu(g: Graph, x: str, dtype: str) -> str:
    return g.op("Relu", x)


def _tanh(g: Graph, x: str, dtype: str) -> str:
    return g.op("Tanh", x)


def _silu(g: Graph, x: str, dtype: str) -> str:
    """X sigmoid(x)."""
    return g.op("Mul", x, g.op("Sigmoid", x))


def _quick_gelu(g: Graph, x: str, dtype: str) -> str:
    """X sigmoid(1.702 x)."""
    return g.op("Mul", x, g.op("Sigmoid", g.op("Mul", x, g.constant(1.702, dtype))))


def _mish(g: Graph, x: str, dtype: str) -> str:
    """X tanh(log(1 + exp(x)))."""
    return g.op("Mul", x, g.op("Tanh", g.op("Softplus", x)))


def _gelu(g: Graph, x: str, dtype: str) -> str:
    """X / 2 (1 + erf(x / sqrt(2))), in the order in which ONNX Runtime's optimizer knows it."""
    inner = g.op("Erf", g.op("Div", x, g.constant(math.sqrt(2), dtype)))
    return g.op("Mul", g.op("Mul", x, g.op("Add", inner, g.constant(1.0, dtype))), g.constant(0.5, dtype))


def _gelu_tanh(g: Graph, x: str, dtype: str) -> str:
    """X / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))), in the order in which ONNX Runtime's optimizer knows it."""
    cubed = g.op("Mul", g.op("Pow", x, g.constant(3.0, dtype)), g.constant(0.044715, dtype))
    inner = g.op("Tanh", g.op("Mul", g.op("Add", x, cubed), g.constant(math.sqrt(2 / math.pi), dtype)))
    return g.op("Mul", g.op("Mul", x, g.constant(0.5, dtype)), g.op("Add", inner, g.constant(1.0, dtype)))


_NODES: Mapping[str, Callable[[Graph, str, str], str]] = {
    "gelu": _gelu,
    "gelu_new": _gelu_tanh,
    "relu": _relu,
    "silu": _silu,
    "quick_gelu": _quick_gelu,
    "mish": _mish,
    "tanh": _tanh,
}
