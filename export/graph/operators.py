"""Operators of the int8 graph, each as a function in standard operators.

The engine has kernels for them (engine/kernels). Without these ONNX Runtime runs the functions, which are in the model file.

Activations are uint8, ``value = scale * (x8 - zero_point)``. A weight is ``[panels, in / 4, 32, 4]``: output ``o`` and input
``i`` are at ``[o // 32, i // 4, o % 32, i % 4]``. Gamma and beta are called ``gain`` and ``shift``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusedbert.engine.errors import MissingDependencyError

try:
    from onnx import parser
except ImportError:
    raise MissingDependencyError.of("onnx", "export", "build a graph") from None

DOMAIN = "fusedbert"
PANEL = 32  # outputs that the kernel computes at a time
ACTIVATIONS: Mapping[str, str] = {"gelu": "Gelu", "gelu_new": "GeluTanh", "relu": "Relu"}

HEAD = '<domain: "fusedbert", opset_import: ["" : 24, "com.microsoft" : 1, "fusedbert" : 1]>'

# The weight as ``matrix``, [in, out]; ``start`` is [0], ``axis`` [1].
DENSE = """
Dense (x8, zero_point, weight, scale, bias) => (y) {
    rows = Transpose <perm = [1, 3, 0, 2]> (weight)
    padded = Flatten <axis = 2> (rows)
    start = Constant <value_ints = [0]> ()
    axis = Constant <value_ints = [1]> ()
    width = Shape (bias)
    matrix = Slice (padded, start, width, axis)
"""

# x W + b: sums in 32 bits, then the scale of each output. The cast declares a type that ONNX cannot infer.
_MULTIPLIED = """
    one = Constant <value_float = 1.0> ()
    product = com.microsoft.MatMulIntegerToFloat (x8, matrix, one, scale, zero_point, "", bias)
    y = Cast <to = 1> (product)
}
"""

# act(x W + b), quantized.
_DENSE_ACTIVATION = """
Dense{name} (x8, zero_point, weight, scale, bias, y_scale, y_zero_point) => (y8) {{
    product = fusedbert.Dense (x8, zero_point, weight, scale, bias)
    y = {node} (product)
    y8 = QuantizeLinear (y, y_scale, y_zero_point)
}}
"""

# norm(x W + b + factor residual), in float32 and quantized.
_DENSE_ADD_NORM = """
DenseAddNorm <epsilon> (x8, zero_point, weight, scale, bias, residual, factor, gain, shift, y_scale, y_zero_point) => (y, y8) {
    product = fusedbert.Dense (x8, zero_point, weight, scale, bias)
    kept = Mul (residual, factor)
    sum = Add (product, kept)
    y = LayerNormalization <axis = -1, epsilon: float = @epsilon> (sum, gain, shift)
    y8 = QuantizeLinear (y, y_scale, y_zero_point)
}
"""

# softmax(q k^T) v for each head, side by side, over the keys within each text's length; quantized.
_ATTENTION = """
Attention <num_heads> (q, k, v, lengths, y_scale, y_zero_point) => (y8) {
    y = Attention <q_num_heads: int = @num_heads, kv_num_heads: int = @num_heads, scale = 1.0> (q, k, v, "", "", "", lengths)
    y8 = QuantizeLinear (y, y_scale, y_zero_point)
}
"""

_TEXTS: Mapping[str, str] = {
    "Dense": DENSE + _MULTIPLIED,
    "DenseGelu": _DENSE_ACTIVATION.format(name="Gelu", node="Gelu"),
    "DenseGeluTanh": _DENSE_ACTIVATION.format(name="GeluTanh", node='Gelu <approximate = "tanh">'),
    "DenseRelu": _DENSE_ACTIVATION.format(name="Relu", node="Relu"),
    "DenseAddNorm": _DENSE_ADD_NORM,
    "Attention": _ATTENTION,
}


def function(name: str) -> Any:
    """Return an operator's ``FunctionProto``; all but ``Attention`` call ``Dense``."""
    return parser.parse_function(HEAD + _TEXTS[name])


def to_panels(weight: NDArray[np.int8]) -> NDArray[np.int8]:
    """Lay a weight ``[in, out]`` out in panels, outputs rounded up with zeros; ``in`` is a multiple of 4."""
    inputs, outputs = weight.shape
    padded = np.pad(weight, ((0, 0), (0, -outputs % PANEL)))
    return np.ascontiguousarray(padded.reshape(inputs // 4, 4, -1, PANEL).transpose(2, 0, 3, 1))
