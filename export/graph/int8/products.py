"""Other bodies of the operator ``Dense``, to check the int8 graph as other processors compute it.

On x86 without VNNI, ONNX Runtime multiplies by vpmaddubsw: of a row and an output, the products of inputs 2j and 2j + 1 are
summed in 16 bits, and a sum beyond them is replaced by -32768 or 32767. So are those of a graph that runs there. Its product
of two unsigned matrices widens first, and is exact on every processor.
"""

from __future__ import annotations

from typing import Any

from onnx import parser

from ..operators import DENSE, HEAD

# The weight plus 128, with a zero point of 128.
_EXACT = """
    signed = Cast <to = 6> (matrix)
    half = Constant <value = int32 {128}> ()
    raised = Add (signed, half)
    unsigned = Cast <to = 2> (raised)
    middle = Cast <to = 2> (half)
    exact = MatMulInteger (x8, unsigned, zero_point, middle)
"""

# What saturation takes from the exact sums. A pair's sum reaches at most its weights times the inputs' maxima. Only pairs that
# may leave 16 bits are looked at: ``count`` of each output, the loop's steps, sorted by their reach (of an output that has
# fewer, further ones, which lose nothing). Inputs and sums are transposed, so that a step gathers whole rows.
_LOST = """
    flat = Flatten <axis = -1> (x8)
    columns = Transpose <perm = [1, 0]> (flat)
    x = Cast <to = 6> (columns)
    end = Constant <value_ints = [2147483647]> ()
    two = Constant <value_ints = [2]> ()
    x0 = Slice (x, start, end, start, two)
    x1 = Slice (x, axis, end, start, two)
    w0 = Slice (signed, start, end, start, two)
    w1 = Slice (signed, axis, end, start, two)
    most0 = ReduceMax (x0, axis)
    most1 = ReduceMax (x1, axis)
    reach0 = Mul (w0, most0)
    reach1 = Mul (w1, most1)
    reach = Add (reach0, reach1)
    size = Abs (reach)
    least = Constant <value = int32 {-32768}> ()
    most = Constant <value = int32 {32767}> ()
    beyond = Greater (size, most)
    ones = Cast <to = 6> (beyond)
    counts = ReduceSum <keepdims = 0> (ones, start)
    largest = ReduceMax (counts, start)
    count = Cast <to = 7> (largest)
    sizes, places = TopK <axis = 0> (size, count)
    places0 = GatherElements <axis = 0> (w0, places)
    places1 = GatherElements <axis = 0> (w1, places)
    tokens = Shape <start = 1> (x)
    shape = Concat <axis = 0> (width, tokens)
    none = Constant <value = int32 {0}> ()
    nothing = Expand (none, shape)
    steps = Squeeze (count)
    yes = Constant <value = bool {1}> ()
    lost = Loop (steps, yes, nothing) <body = step (int64 i, bool go, int32[o, r] before) => (bool on, int32[o, r] after) {
        on = Identity (go)
        place = Gather (places, i)
        weight0 = Gather (places0, i)
        weight1 = Gather (places1, i)
        column0 = Unsqueeze (weight0, axis)
        column1 = Unsqueeze (weight1, axis)
        input0 = Gather (x0, place)
        input1 = Gather (x1, place)
        product0 = Mul (input0, column0)
        product1 = Mul (input1, column1)
        pair = Add (product0, product1)
        clipped = Clip (pair, least, most)
        change = Sub (clipped, pair)
        after = Add (before, change)
    }>
    lost_rows = Transpose <perm = [1, 0]> (lost)
    full_shape = Shape (exact)
    lost_full = Reshape (lost_rows, full_shape)
    sums = Add (exact, lost_full)
"""

_UNCHANGED = """
    sums = Identity (exact)
"""

_SCALED = """
    numbers = Cast <to = 1> (sums)
    scaled = Mul (numbers, scale)
    y = Add (scaled, bias)
}
"""


def dense_stand_in(*, saturating: bool) -> Any:
    """Return a ``FunctionProto`` of ``Dense`` with exact sums, or with those of a processor where pairs saturate."""
    return parser.parse_function(HEAD + DENSE + _EXACT + (_LOST if saturating else _UNCHANGED) + _SCALED)
