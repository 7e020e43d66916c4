"""Operators of the graphs in int8 and bfloat16, each as a function in standard operators.

The engine has kernels for them (engine/kernels). Without these ONNX Runtime runs the functions, which are in the model file.

In int8 activations are uint8, ``value = scale * (x8 - zero_point)``, and a weight is ``[panels, in / 4, 32, 4]``: output ``o``
and input ``i`` are at ``[o // 32, i // 4, o % 32, i % 4]``. In bfloat16 it is ``[panels, in / 2, 32, 2]`` likewise. A bias may
be left out. Gamma and beta are called ``gain`` and ``shift``.
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

from .attention_operators import attention_text

DOMAIN = "fusedbert"
PANEL = 32  # outputs that the kernel computes at a time
SPARE = 16  # columns of zeros behind the buckets of a table of positions, which a load at the last one reaches into
ACTIVATIONS: Mapping[str, str] = {"gelu": "Gelu", "gelu_new": "GeluTanh", "relu": "Relu"}
GLUS: Mapping[str, str] = {"Gelu": "Geglu", "GeluTanh": "GegluTanh", "Relu": "Reglu"}  # the same before a gate (Shazeer 2020)

HEAD = '<domain: "fusedbert", opset_import: ["" : 24, "com.microsoft" : 1, "fusedbert" : 1]>'

# The weight as ``matrix``, [in, out]; ``start`` is [0], ``axis`` [1].
DENSE = """
Dense (x8, zero_point, weight, scale, bias) => (y) {
    rows = Transpose <perm = [1, 3, 0, 2]> (weight)
    padded = Flatten <axis = 2> (rows)
    start = Constant <value_ints = [0]> ()
    axis = Constant <value_ints = [1]> ()
    width = Shape (scale)
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

# rope(x W + b), in float32. ``{turned}`` is below.
_DENSE_ROPE = """
DenseRope (x8, zero_point, weight, scale, bias, cos, sin) => (y) {{
    product = fusedbert.Dense (x8, zero_point, weight, scale, bias)
    {turned}
}}
"""

# act(a) g, quantized, where a and g are halves of x W + b.
_DENSE_GLU = """
Dense{name} (x8, zero_point, weight, scale, bias, y_scale, y_zero_point) => (y8) {{
    product = fusedbert.Dense (x8, zero_point, weight, scale, bias)
    {gated}
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

# x W + b + factor residual in float32, and its norm, quantized; ``{kept}`` is ``factor residual``, or the residual.
_DENSE_ADD_PRE_NORM = """
DenseAddPreNorm <epsilon> (
    x8, zero_point, weight, scale, bias, residual, factor, gain, shift, y_scale, y_zero_point
) => (y, y8) {{
    product = fusedbert.Dense (x8, zero_point, weight, scale, bias)
    {kept}
    y = Add (product, kept)
    normal = LayerNormalization <axis = -1, epsilon: float = @epsilon> (y, gain, shift)
    y8 = QuantizeLinear (normal, y_scale, y_zero_point)
}}
"""

# x W + b in float32, of bfloat16. ``Gemm`` takes two axes, and a bias that is left out.
_BF16_PRODUCT = """
Bf16Product <width> (x16, weight, bias) => (y) {
    wide = Cast <to = 1> (weight)
    rows = Transpose <perm = [1, 3, 0, 2]> (wide)
    padded = Flatten <axis = 2> (rows)
    start = Constant <value_ints = [0]> ()
    axis = Constant <value_ints = [1]> ()
    last = Constant <value_ints = [-1]> ()
    number = Constant <value_int: int = @width> ()
    end = Reshape (number, axis)
    matrix = Slice (padded, start, end, axis)
    x = Cast <to = 1> (x16)
    flat = Flatten <axis = -1> (x)
    product = Gemm (flat, matrix, bias)
    leading = Shape <end = -1> (x16)
    shape = Concat <axis = 0> (leading, end)
    y = Reshape (product, shape)
}
"""

# act(x W + b), rounded.
_BF16_DENSE = """
Bf16Dense{name} <width> (x16, weight, bias) => (y16) {{
    product = fusedbert.Bf16Product <width: int = @width> (x16, weight, bias)
    y = {node} (product)
    y16 = Cast <to = 16> (y)
}}
"""

# rope(x W + b), act(a) g, and x W + b + residual with its norm: as in int8.
_BF16_DENSE_ROPE = """
Bf16DenseRope <width> (x16, weight, bias, cos, sin) => (y16) {{
    product = fusedbert.Bf16Product <width: int = @width> (x16, weight, bias)
    {turned}
    y16 = Cast <to = 16> (y)
}}
"""
_BF16_DENSE_GLU = """
Bf16Dense{name} <width> (x16, weight, bias) => (y16) {{
    product = fusedbert.Bf16Product <width: int = @width> (x16, weight, bias)
    {gated}
    y16 = Cast <to = 16> (y)
}}
"""
_BF16_DENSE_ADD_PRE_NORM = """
Bf16DenseAddPreNorm <width, epsilon> (x16, weight, bias, residual, gain, shift) => (y, y16) {
    product = fusedbert.Bf16Product <width: int = @width> (x16, weight, bias)
    y = Add (product, residual)
    normal = LayerNormalization <axis = -1, epsilon: float = @epsilon> (y, gain, shift)
    y16 = Cast <to = 16> (normal)
}
"""

# norm(x W + b + residual), in float32 and rounded.
_BF16_DENSE_ADD_NORM = """
Bf16DenseAddNorm <width, epsilon> (x16, weight, bias, residual, gain, shift) => (y, y16) {
    product = fusedbert.Bf16Product <width: int = @width> (x16, weight, bias)
    sum = Add (product, residual)
    y = LayerNormalization <axis = -1, epsilon: float = @epsilon> (sum, gain, shift)
    y16 = Cast <to = 16> (y)
}
"""

# ``y`` is ``product`` turned (Su et al. 2021). A panel has the first halves of 16 pairs, then their second halves. A head has
# as many panels as ``cos`` and ``sin``, [positions, head / 2], have sixteens.
_TURNED = """
    zero = Constant <value_int = 0> ()
    one = Constant <value_int = 1> ()
    ones = Constant <value_ints = [1]> ()
    sixteen = Constant <value_ints = [16]> ()
    halves = Constant <value_ints = [2, 16]> ()
    leading = Shape <end = 2> (product)
    whole = Shape (product)
    width = Shape <start = 2> (product)
    half = Shape <start = 1> (cos)
    head = Add (half, half)
    heads = Div (width, head)
    panels = Div (half, sixteen)
    split = Concat <axis = 0> (leading, heads, panels, halves)
    pairs = Reshape (product, split)
    left, right = Split <axis = 4, num_outputs = 2> (pairs)
    tokens = Shape <start = 1, end = 2> (product)
    end = Squeeze (tokens)
    places = Range (zero, end, one)
    of_panels = Concat <axis = 0> (tokens, ones, panels, ones, sixteen)
    cos_rows = Gather (cos, places)
    c = Reshape (cos_rows, of_panels)
    sin_rows = Gather (sin, places)
    s = Reshape (sin_rows, of_panels)
    left_c = Mul (left, c)
    right_s = Mul (right, s)
    turned_left = Sub (left_c, right_s)
    right_c = Mul (right, c)
    left_s = Mul (left, s)
    turned_right = Add (right_c, left_s)
    turned = Concat <axis = 4> (turned_left, turned_right)
    y = Reshape (turned, whole)
"""

# ``y`` is ``act(a) g`` (Shazeer 2020); a panel of ``product`` has the a of 16 neurons, then their g.
_GATED = """
    leading = Shape <end = -1> (product)
    width = Shape <start = -1> (product)
    thirty_two = Constant <value_ints = [32]> ()
    halves = Constant <value_ints = [2, 16]> ()
    two = Constant <value_ints = [2]> ()
    panels = Div (width, thirty_two)
    split = Concat <axis = 0> (leading, panels, halves)
    pairs = Reshape (product, split)
    a, g = Split <axis = -2, num_outputs = 2> (pairs)
    active = {node} (a)
    gated = Mul (active, g)
    neurons = Div (width, two)
    joined = Concat <axis = 0> (leading, neurons)
    y = Reshape (gated, joined)
"""

# norm(word + position + segment), in float32 and narrow. ``words``, ``places`` and ``vectors`` are made by what follows.
_EMBED = """
{name} <epsilon{attribute}> (ids, segments, word, position, token_type, gain, shift{rest}) => (y, narrow) {{
    rows = Gather (word, ids)
    wide = Cast <to = 1> (rows)
    {words}
    {places}
    {vectors}
    y = LayerNormalization <axis = -1, epsilon: float = @epsilon> (vectors, gain, shift)
    {narrow}
}}
"""
_NOWHERE = "placed = Identity (words)"
_FROM_ZERO = """
    start = Constant <value_ints = [0]> ()
    length = Shape <start = 1> (ids)
    places = Slice (position, start, length, start)
    placed = Add (words, places)
"""
_COUNTED = """
    padding = Constant <value_int: int = @padding_id> ()
    is_padding = Equal (ids, padding)
    is_text = Not (is_padding)
    text = Cast <to = 7> (is_text)
    axis = Constant <value_int = 1> ()
    counts = CumSum (text, axis)
    of_text = Mul (counts, text)
    positions = Add (of_text, padding)
    places = Gather (position, positions)
    placed = Add (words, places)
"""
_SEGMENTS = """
    kinds = Gather (token_type, segments)
    vectors = Add (placed, kinds)
"""
_SCALED_WORDS = """
    scales = Gather (scale, ids)
    words = Mul (wide, scales)
"""
_EMBEDS: Mapping[str, Mapping[str, str]] = {
    "Embed": {
        "rest": ", scale, y_scale, y_zero_point",
        "words": _SCALED_WORDS,
        "narrow": "narrow = QuantizeLinear (y, y_scale, y_zero_point)",
    },
    "Bf16Embed": {"rest": "", "words": "words = Identity (wide)", "narrow": "narrow = Cast <to = 16> (y)"},
}

# The number of each text's tokens, or -1 if padding is not on the right. ``last`` is the place of the last one.
_LENGTHS = """
Lengths (mask) => (lengths) {
    axis = Constant <value_ints = [1]> ()
    count = ReduceSum <keepdims = 0> (mask, axis)
    small = Cast <to = 6> (mask)
    last = ArgMax <axis = 1, keepdims = 0, select_last_index = 1> (small)
    one = Constant <value_int = 1> ()
    end = Add (last, one)
    behind = Equal (end, count)
    none = Constant <value_int = -1> ()
    lengths = Where (behind, count, none)
}
"""

_NODES: Mapping[str, str] = {"Gelu": "Gelu", "GeluTanh": 'Gelu <approximate = "tanh">', "Relu": "Relu"}
_GLUS: Mapping[str, str] = {name: _NODES[kind] for kind, name in GLUS.items()}
_TEXTS: Mapping[str, str] = {
    "Dense": DENSE + _MULTIPLIED,
    **{f"Dense{name}": _DENSE_ACTIVATION.format(name=name, node=node) for name, node in _NODES.items()},
    **{f"Dense{name}": _DENSE_GLU.format(name=name, gated=_GATED.format(node=node)) for name, node in _GLUS.items()},
    "DenseRope": _DENSE_ROPE.format(turned=_TURNED),
    "DenseAddNorm": _DENSE_ADD_NORM,
    "DenseAddPreNorm": _DENSE_ADD_PRE_NORM.format(kept="kept = Mul (residual, factor)"),
    "Bf16Product": _BF16_PRODUCT,
    **{f"Bf16Dense{name}": _BF16_DENSE.format(name=name, node=node) for name, node in {"": "Identity", **_NODES}.items()},
    **{f"Bf16Dense{name}": _BF16_DENSE_GLU.format(name=name, gated=_GATED.format(node=node)) for name, node in _GLUS.items()},
    "Bf16DenseRope": _BF16_DENSE_ROPE.format(turned=_TURNED),
    "Bf16DenseAddNorm": _BF16_DENSE_ADD_NORM,
    "Bf16DenseAddPreNorm": _BF16_DENSE_ADD_PRE_NORM,
    "Lengths": _LENGTHS,
}


def functions(
    name: str, *, factored: bool = True, long: bool = False, positions: tuple[bool, bool] = (True, True)
) -> list[Any]:
    """Return an operator's ``FunctionProto``, after that of the function which it calls, if any.

    ``factored``: of ``DenseAddPreNorm``, whether its nodes have a factor; a model has one function for all of them.
    ``long``: whether attention is in blocks, as long texts need it.
    ``positions``: of disentangled attention, whether its nodes have the tables of keys and of queries.
    """
    text = attention_text(name, long=long, positions=positions) or _TEXTS[name]
    if not factored:
        text = _DENSE_ADD_PRE_NORM.format(kept="kept = Identity (residual)")
    product = "Bf16Product" if name.startswith("Bf16") else "Dense"
    names = (product, name) if name.removeprefix("Bf16").startswith("Dense") and name != product else (name,)
    return [parser.parse_function(HEAD + (text if each == name else _TEXTS[each])) for each in names]


def embed_function(name: str, *, segments: bool, counted: bool, positioned: bool = True) -> Any:
    """Return the ``FunctionProto`` of the embeddings of a model.

    They have segments or none, and positions or none (``positioned``), which are counted or from 0 on.
    """
    text = _EMBED.format(
        name=name,
        attribute=", padding_id" if counted else "",
        places=_NOWHERE if not positioned else _COUNTED if counted else _FROM_ZERO,
        vectors=_SEGMENTS if segments else "vectors = Identity (placed)",
        **_EMBEDS[name],
    )
    return parser.parse_function(HEAD + text)


def bfloat16(array: NDArray[Any]) -> NDArray[np.uint16]:
    """Round to bfloat16, the upper half of a float32, ties to even; NumPy has no such type, so these are its bits."""
    bits = np.ascontiguousarray(array, dtype=np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def to_columns(table: NDArray[Any]) -> NDArray[Any]:
    """Lay a table of positions ``[heads, buckets, head]`` out as ``[heads, head / 2, buckets + 16, 2]``, zeros behind."""
    heads, buckets, head = table.shape
    padded = np.pad(table, ((0, 0), (0, SPARE), (0, 0)))
    return np.ascontiguousarray(padded.reshape(heads, buckets + SPARE, head // 2, 2).transpose(0, 2, 1, 3))


def to_panels(weight: NDArray[Any], takes: int) -> NDArray[Any]:
    """Lay a weight ``[in, out]`` out in panels, outputs rounded up with zeros; ``takes`` inputs lie together."""
    inputs, outputs = weight.shape
    padded = np.pad(weight, ((0, 0), (0, -outputs % PANEL)))
    return np.ascontiguousarray(padded.reshape(inputs // takes, takes, -1, PANEL).transpose(2, 0, 3, 1))
