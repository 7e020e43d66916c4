"""Attention of the graphs in int8 and bfloat16, as functions in standard operators (``operators`` has the others).

softmax(q k^T) v for each head, side by side, over the keys within each text's length; with a window over those of them that are
at most so many tokens before or after a query. Disentangled attention adds products with positions to the scores.

A ``Scan`` takes a block of queries at a time, so that memory stays linear in the length, and slices the keys that a window
shows. Models of short texts have it in one node, and disentangled attention is without blocks for any length.
"""

from __future__ import annotations

QUERIES = 256  # of a block

# Every query, and all keys of its text.
_AT_ONCE = """
    y = Attention <q_num_heads: int = @num_heads, kv_num_heads: int = @num_heads, scale = 1.0> (q, k, v, "", "", "", lengths)
"""

# The same in blocks. Heads are an axis, since ONNX infers a width of 0 for the result of the other form.
_IN_BLOCKS = """
    zero = Constant <value_int = 0> ()
    one = Constant <value_int = 1> ()
    zeros = Constant <value_ints = [0]> ()
    ones = Constant <value_ints = [1]> ()
    rows = Shape <start = 1, end = 2> (q)
    most = Constant <value_ints = [{queries}]> ()
    size = Min (rows, most)
    further = Sub (rows, ones)
    whole_blocks = Div (further, size)
    blocks = Add (whole_blocks, ones)
    filled = Mul (blocks, size)
    behind = Sub (filled, rows)
    pads = Concat <axis = 0> (zeros, zeros, zeros, zeros, behind, zeros)
    padded = Pad (q, pads)
    batch = Shape <end = 1> (q)
    width = Shape <start = 2> (q)
    by_block = Concat <axis = 0> (batch, blocks, size, width)
    parts = Reshape (padded, by_block)
    count = Squeeze (blocks)
    numbers = Range (zero, count, one)
    starts = Mul (numbers, size)
    as_before = Constant <value_ints = [0, 0]> ()
    heads = Constant <value_int: int = @num_heads> ()
    of_heads = Reshape (heads, ones)
    head = Constant <value_ints = [-1]> ()
    split = Concat <axis = 0> (as_before, of_heads, head)
    joined = Concat <axis = 0> (as_before, width)
    k_split = Reshape (k, split)
    k_by_head = Transpose <perm = [0, 2, 1, 3]> (k_split)
    v_split = Reshape (v, split)
    v_by_head = Transpose <perm = [0, 2, 1, 3]> (v_split)
    {before}
    contexts = Scan <num_scan_inputs = 2, scan_input_axes = [1, 0], scan_output_axes = [1],
        body = block (float[batch, row, width] part, int64 start) => (float[batch, row, width] context) {{
            q_split = Reshape (part, split)
            q_by_head = Transpose <perm = [0, 2, 1, 3]> (q_split)
            {seen}
            by_token = Transpose <perm = [0, 2, 1, 3]> (by_head)
            context = Reshape (by_token, joined)
        }}> (parts, starts)
    together = Concat <axis = 0> (batch, filled, width)
    all_rows = Reshape (contexts, together)
    y = Slice (all_rows, zeros, rows, ones)
"""

# Attention of a block without a window.
_ALL = 'by_head = Attention <scale = 1.0> (q_by_head, k_by_head, v_by_head, "", "", "", lengths)'

# And with one: to a slice of the keys, in which ``mask`` is [rows, keys] and texts end at ``ends``. Padding has a key, too.
_REACH = """
    tokens = Shape <start = 1, end = 2> (k)
    axis = Constant <value_ints = [2]> ()
    reach = Constant <value_int: int = @window> ()
    least = Min (lengths, ones)
    impossible = Greater (lengths, tokens)
"""
_WINDOW = """
            before = Sub (start, reach)
            first = Max (before, zeros)
            stop = Add (start, size)
            after = Add (stop, reach)
            last = Min (after, tokens)
            keys = Slice (k_by_head, first, last, axis)
            values = Slice (v_by_head, first, last, axis)
            from_key = Squeeze (first)
            to_key = Squeeze (last)
            to_row = Squeeze (stop)
            columns = Range (from_key, to_key, one)
            places = Range (start, to_row, one)
            of_rows = Unsqueeze (places, ones)
            apart = Sub (of_rows, columns)
            distance = Abs (apart)
            mask = LessOrEqual (distance, reach)
            left = Sub (lengths, first)
            seen = Sub (last, first)
            within = Min (left, seen)
            possible = Max (within, least)
            ends = Where (impossible, lengths, possible)
            by_head = Attention <scale = 1.0> (q_by_head, keys, values, mask, "", "", ends)
"""
_BODIES = {
    "Attention": (_AT_ONCE, _IN_BLOCKS.format(queries=QUERIES, before="", seen=_ALL)),
    "WindowAttention": (_IN_BLOCKS.format(queries=QUERIES, before=_REACH, seen=_WINDOW),) * 2,
}

# Scores with positions (He et al. 2021): queries, or keys, times the rows of a table for all distances. The products of a
# distance are a column, and those of a key lie on a diagonal. Read as rows of one number less, the diagonals are columns.
_POSITIONS = """
    zero = Constant <value_int = 0> ()
    one = Constant <value_int = 1> ()
    zeros = Constant <value_ints = [0]> ()
    ones = Constant <value_ints = [1]> ()
    twos = Constant <value_ints = [2]> ()
    axis = Constant <value_ints = [3]> ()
    as_before = Constant <value_ints = [0, 0]> ()
    rest = Constant <value_ints = [-1]> ()
    in_line = Constant <value_ints = [0, 0, 1, -1]> ()
    by_column = Constant <value_ints = [0, 0, -1]> ()
    number = Constant <value_int: int = @num_heads> ()
    heads = Reshape (number, ones)
    split = Concat <axis = 0> (as_before, heads, rest)
    queries = Shape <start = 1, end = 2> (q)
    tokens = Shape <start = 1, end = 2> (k)
    long = Add (queries, tokens)
    short = Sub (long, ones)
    skewed = Concat <axis = 0> (as_before, rest, short)
    count = Squeeze (long)
    numbers = Range (zero, count, one)
    distances = Shape (buckets)
    farthest = Div (distances, twos)
    nearest = Neg (farthest)
    {terms}
    y = Attention <q_num_heads: int = @num_heads, kv_num_heads: int = @num_heads, scale = 1.0>
        (q, k, v, positions, "", "", lengths)
"""
_TERM = """
    last_{of} = Sub ({rows}, ones)
    apart_{of} = Sub ({apart})
    far_{of} = Max (apart_{of}, nearest)
    near_{of} = Min (far_{of}, farthest)
    places_{of} = Add (near_{of}, farthest)
    buckets_{of} = Gather (buckets, places_{of})
    wide_{of} = Cast <to = 1> ({table})
    columns_{of} = Transpose <perm = [0, 2, 1, 3]> (wide_{of})
    table_{of} = Reshape (columns_{of}, by_column)
    met_{of} = Gather <axis = 1> (table_{of}, buckets_{of})
    turned_{of} = Transpose <perm = [0, 2, 1]> (met_{of})
    split_{of} = Reshape ({of}, split)
    by_head_{of} = Transpose <perm = [0, 2, 1, 3]> (split_{of})
    products_{of} = MatMul (by_head_{of}, turned_{of})
    line_{of} = Reshape (products_{of}, in_line)
    size_{of} = Mul ({rows}, short)
    end_{of} = Add (last_{of}, size_{of})
    part_{of} = Slice (line_{of}, last_{of}, end_{of}, axis)
    square_{of} = Reshape (part_{of}, skewed)
    scores_{of} = Slice (square_{of}, zeros, {columns}, axis)
"""
_OF_QUERIES = _TERM.format(of="q", table="position_key", rows="queries", columns="tokens", apart="last_q, numbers")
_OF_KEYS = (
    _TERM.format(of="k", table="position_query", rows="tokens", columns="queries", apart="numbers, last_k")
    + "    turned_scores = Transpose <perm = [0, 1, 3, 2]> (scores_k)\n"
)
_TERMS = {
    (True, True): f"{_OF_QUERIES}{_OF_KEYS}    positions = Add (scores_q, turned_scores)",
    (True, False): f"{_OF_QUERIES}    positions = Identity (scores_q)",
    (False, True): f"{_OF_KEYS}    positions = Identity (turned_scores)",
    # A number for each distance and head (Song et al. 2020).
    (False, False): """
    rows = Squeeze (queries)
    columns = Squeeze (tokens)
    query_places = Range (zero, rows, one)
    key_places = Range (zero, columns, one)
    by_row = Unsqueeze (query_places, ones)
    apart = Sub (by_row, key_places)
    far = Max (apart, nearest)
    near = Min (far, farthest)
    places = Add (near, farthest)
    buckets_of_pairs = Gather (buckets, places)
    numbers_of_pairs = Gather <axis = 1> (position_bias, buckets_of_pairs)
    of_a_text = Unsqueeze (numbers_of_pairs, zeros)
    batch = Shape <end = 1> (q)
    of_all = Concat <axis = 0> (batch, ones, ones, ones)
    positions = Expand (of_a_text, of_all)""",
}
_TABLES = ", position_key, position_query, buckets, position_bias"

_INT8 = """
{name} <num_heads{window}> (q, k, v, lengths, y_scale, y_zero_point{tables}) => (y8) {{
    {body}
    y8 = QuantizeLinear (y, y_scale, y_zero_point)
}}
"""
_BF16 = """
Bf16{name} <num_heads{window}> (q16, k16, v16, lengths{tables}) => (y16) {{
    q = Cast <to = 1> (q16)
    k = Cast <to = 1> (k16)
    v = Cast <to = 1> (v16)
    {body}
    y16 = Cast <to = 16> (y)
}}
"""


def attention_text(name: str, *, long: bool, positions: tuple[bool, bool] = (True, True)) -> str | None:
    """Return the function's text, or None if it is not attention.

    ``long``: without a window in blocks, too. ``positions``: which tables disentangled attention has, of keys and of queries;
    neither if it has the numbers of ``position_bias``.
    """
    kind = name.removeprefix("Bf16")
    disentangled = kind == "DisentangledAttention"
    if kind not in _BODIES and not disentangled:
        return None
    body = _POSITIONS.format(terms=_TERMS[positions]) if disentangled else _BODIES[kind][long]
    window, tables = ", window" if kind == "WindowAttention" else "", _TABLES if disentangled else ""
    return (_BF16 if kind != name else _INT8).format(name=kind, window=window, tables=tables, body=body)
