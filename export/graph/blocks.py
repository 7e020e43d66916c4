"""Attention in blocks of queries, in standard operators: what a window does not show is not computed, and memory stays linear.

A window of w keys on either side: a block of w queries sees only its own block of keys and those next to it, 3 w keys in all,
of which a band is masked. So blocks become texts of a larger batch. For w = 64 that is 192 keys a query, however long the text
is (the sliding window of Beltagy et al. 2020, in their chunks).

Without a window, a block of at most ``QUERIES`` queries at a time sees all keys, in a ``Scan``.

Short texts are attended to at once (``If``): copies into blocks would take as long as they save.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from .builder import Graph, Part

MASKED = -1e9  # added to a score: exp() of it is exactly 0 in fp32, and it stays finite
SHORT = 6  # windows of a text whose attention is not in blocks; measured, see bench/NOTES.md
ENOUGH = 1024  # tokens of such a text at most, so that large windows do not cost memory
LONG = 1024  # tokens of a model's longest text, up to which attention is at once
QUERIES = 512  # of a block without a window: its scores of 8,192 keys are 200 MB for 12 heads

Attend = Callable[
    [str, str, str, str], str
]  # q, k, v [batch, tokens, hidden], mask [batch, 1, queries or 1, keys] to [batch, queries, hidden]


def number(g: Graph, value: int) -> str:
    """A constant of one axis."""
    return g.constant([value], "int64")


def concat(g: Graph, *parts: str | int) -> str:
    """A shape of constants and values ``[1]``."""
    return g.op("Concat", *(number(g, part) if isinstance(part, int) else part for part in parts), axis=0)


def ceil_divide(g: Graph, a: str, b: str) -> str:
    """``ceil(a / b)`` of integers."""
    return g.op("Div", g.op("Sub", g.op("Add", a, b), number(g, 1)), b)


class WindowBlocks:
    """Attention of all layers with one window."""

    dtype, masked = "float32", MASKED

    def __init__(self, g: Graph, window: int, *, batch: str, length: str, hidden: int, padding: str) -> None:
        """Lay out the blocks; ``batch`` and ``length`` are ``[1]``, for ``padding`` see ``make_mask``."""
        self.graph, self.window, self.batch, self.length, self.hidden = g, window, batch, length, hidden
        with g.scope("blocks"):
            self.size = g.op("Min", number(g, window), length)  # of a block; in a shorter text all tokens see each other
            self.count = ceil_divide(g, length, self.size)
            behind = g.op("Sub", g.op("Mul", self.count, self.size), length)  # rows that fill the last block
            self.around = g.op("Add", behind, self.size)
            self.query_pads = concat(g, 0, 0, 0, 0, behind, 0)
            self.key_pads = concat(g, 0, self.size, 0, 0, self.around, 0)
            self.three = g.op("Mul", self.size, number(g, 3))
            zero, one, steps = g.constant(0, "int64"), g.constant(1, "int64"), g.constant([0, 1, 2], "int64")
            blocks = g.op("Range", zero, g.op("Squeeze", self.count), one)
            self.seen = g.op("Add", g.op("Unsqueeze", blocks, number(g, 1)), steps)  # [blocks, 3]
            self.mask = self.make_mask(padding)

    def make_mask(self, padding: str) -> str:
        """The mask ``[batch blocks, 1, size, 3 size]`` from that of the keys, ``[batch, 1, 1, keys]``."""
        g = self.graph
        rows = g.op("Squeeze", padding, g.constant([1, 2], "int64"))  # [batch, keys]
        keys = self.by_key(rows, g.constant(self.masked, self.dtype))
        return g.op("Add", g.op("Unsqueeze", keys, g.constant([1, 2], "int64")), self.band(self.size, self.three))

    def by_key(self, rows: str, fill: str) -> str:
        """Give each block what ``rows`` ``[batch, tokens]`` has for its keys, else ``fill``: ``[batch blocks, 3 size]``."""
        g = self.graph
        padded = g.op("Pad", rows, concat(g, 0, self.size, 0, self.around), fill)
        by_block = g.op("Reshape", padded, concat(g, self.batch, -1, self.size))
        return g.op("Reshape", g.op("Gather", by_block, self.seen, axis=1), concat(g, -1, self.three))

    def band(self, queries: str, keys: str) -> str:
        """The mask ``[queries, keys]`` of keys beyond the window; as many are before the queries as behind them."""
        g = self.graph
        zero, one = g.constant(0, "int64"), g.constant(1, "int64")
        before = g.op("Div", g.op("Sub", keys, queries), number(g, 2))
        row = g.op("Unsqueeze", g.op("Range", zero, g.op("Squeeze", queries), one), number(g, 1))
        column = g.op("Range", zero, g.op("Squeeze", keys), one)
        apart = g.op("Abs", g.op("Sub", column, g.op("Add", row, before)))
        beyond, within = g.constant(self.masked, self.dtype), g.constant(0.0, self.dtype)
        return g.op("Where", g.op("Greater", apart, self.size), beyond, within)

    def attend(self, q: str, k: str, v: str, attend: Attend) -> str:
        """Attend in blocks: ``[batch, tokens, hidden]``."""
        g = self.graph
        queries = g.op("Reshape", g.op("Pad", q, self.query_pads), concat(g, -1, self.size, self.hidden))
        y = attend(queries, self._keys(k), self._keys(v), self.mask)  # [batch blocks, size, hidden]
        return first_rows(g, y, self.batch, self.length, self.hidden)

    def _keys(self, x: str) -> str:
        """``[batch, tokens, hidden]`` to ``[batch blocks, 3 size, hidden]``."""
        g = self.graph
        block = g.op("Mul", self.size, number(g, self.hidden))
        by_block = g.op("Reshape", g.op("Pad", x, self.key_pads), concat(g, self.batch, -1, block))
        return g.op("Reshape", g.op("Gather", by_block, self.seen, axis=1), concat(g, -1, self.three, self.hidden))


def longest_short(window: int) -> int:
    """Tokens of the longest text that is attended to at once."""
    return min(SHORT * window, max(3 * window, ENOUGH))  # up to three windows, blocks see more keys than the text has


class WindowBlocksOrWhole(WindowBlocks):
    """Attention in blocks, and for short texts at once, with the window as a mask."""

    @functools.cached_property
    def short(self) -> str:
        """True (bool) if texts are short."""
        return self.graph.op("LessOrEqual", self.length, number(self.graph, longest_short(self.window)))

    def make_mask(self, padding: str) -> str:
        """Either mask."""
        g, blocks = self.graph, super().make_mask

        def whole() -> str:
            return g.op("Add", self.band(self.length, self.length), padding)

        return g.either(self.short, whole, lambda: blocks(padding), ["part", 1, "query", "key"])

    def attend(self, q: str, k: str, v: str, attend: Attend) -> str:
        """Attend either way."""
        blocks, shape = super().attend, ("batch", "sequence", self.hidden)
        return self.graph.either(self.short, lambda: attend(q, k, v, self.mask), lambda: blocks(q, k, v, attend), shape)


class LongBlocks:
    """Attention to all keys, a block of queries at a time."""

    def __init__(self, g: Graph, *, batch: str, length: str, hidden: int) -> None:
        """Lay out the blocks; ``batch`` and ``length`` are ``[1]``."""
        self.graph, self.batch, self.length, self.hidden = g, batch, length, hidden
        with g.scope("blocks"):
            self.short = g.op("LessOrEqual", length, number(g, QUERIES))
            count = ceil_divide(g, length, number(g, QUERIES))
            self.size = ceil_divide(g, length, count)  # equal blocks, so that little is filled up
            behind = g.op("Sub", g.op("Mul", count, self.size), length)
            self.pads = concat(g, 0, 0, 0, 0, behind, 0)
            self.blocks = concat(g, batch, count, self.size, hidden)

    def attend(self, q: str, k: str, v: str, mask: str, attend: Attend) -> str:
        """Attend in blocks: ``[batch, tokens, hidden]``; ``mask`` is ``[batch, 1, 1, keys]``."""
        g = self.graph

        def whole() -> str:
            return attend(q, k, v, g.op("Expand", mask, concat(g, self.batch, 1, self.length, self.length)))

        shape = ("batch", "sequence", self.hidden)
        return g.either(self.short, whole, lambda: self._blocks(q, k, v, mask, attend), shape)

    def _blocks(self, q: str, k: str, v: str, mask: str, attend: Attend) -> str:
        g = self.graph
        queries = g.op("Reshape", g.op("Pad", q, self.pads), self.blocks)  # [batch, blocks, size, hidden]
        g.declare(v, "float32", ["batch", "sequence", self.hidden])  # else ONNX Runtime infers a width of 0 inside the Scan
        wanted = concat(g, self.batch, 1, self.size, g.op("Shape", k, start=1, end=2))

        def block(part: str) -> str:
            return attend(part, k, v, g.op("Expand", mask, wanted))

        shape = ("batch", "block", self.hidden)
        return first_rows(g, g.scan(Part(queries, shape), shape=shape, body=block), self.batch, self.length, self.hidden)


def first_rows(g: Graph, blocks: str, batch: str, length: str, hidden: int) -> str:
    """Join blocks to ``[batch, tokens, hidden]`` without the rows that fill the last one."""
    rows = g.op("Reshape", blocks, concat(g, batch, -1, hidden))
    return g.op("Slice", rows, number(g, 0), length, number(g, 1))
