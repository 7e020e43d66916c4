"""Relative positions in the scores of attention, in standard operators (He et al. 2021; ``checkpoint.relative``).

A table's rows are looked up once for all distances, and multiplied with all queries, or keys. Row i of that product has what
query i needs as one run, which begins one place further left than in row i - 1. So no index is as large as the scores: the rows
are joined, and cut again into rows one number shorter (``skew``).
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..checkpoint.architecture import Architecture
from ..checkpoint.relative import REACH
from ..checkpoint.weights import Layer
from .blocks import number
from .builder import Graph


class RelativeScores:
    """Parts of the scores, ``[batch, heads, queries, keys]``, of scaled queries."""

    def __init__(self, g: Graph, a: Architecture, length: str) -> None:
        """Slice the distances of texts of ``length`` ``[1]`` tokens."""
        assert a.relative is not None
        self.graph, self.architecture, self.length = g, a, length
        _, index = a.relative.columns()
        reach = min(REACH, a.max_tokens)
        near = index[REACH - reach : REACH + reach - 1]  # of the distances from 1 - reach up
        with g.scope("distances"):
            begin = g.op("Sub", number(g, reach), length)
            self.twice = g.op("Add", length, length)
            self.first = g.op("Sub", length, number(g, 1))
            end = g.op("Add", begin, self.twice)
            zero = number(g, 0)
            self.rising, self.falling = (
                g.op("Slice", g.weight(name, np.append(order, order[-1])), begin, end, zero)
                for name, order in (("rising", near), ("falling", near[::-1]))
            )  # [2 tokens]: from the first key's distance to the last one's, and back; one more for ``skew``
            # Of the first query: 0, -1, and so on.
            self.first_query = g.op("Slice", g.weight("first", near[reach - 1 :: -1]), zero, length, zero)

    def scores(self, q: str, k: str, layer: Layer) -> str:
        """Of all queries and keys, ``[batch, tokens, hidden]`` each."""
        if layer.position_bias is not None:
            return self._shared_bias(layer.position_bias)
        g, parts = self.graph, []
        if layer.position_key is not None:
            rows = self._rows("position_key", layer.position_key, self.falling)
            parts.append(self.skew(g.op("MatMul", self.by_head(q), rows)))
        if layer.position_query is not None:
            rows = self._rows("position_query", self._scaled(layer.position_query), self.rising)
            by_key = self.skew(g.op("MatMul", self.by_head(k), rows))  # [batch, heads, key, query]
            parts.append(g.op("Transpose", by_key, perm=[0, 1, 3, 2]))
        return functools.reduce(lambda x, y: g.op("Add", x, y), parts)

    def scores_of_first(self, q: str, k: str, layer: Layer) -> str:
        """Of the first query ``[batch, 1, hidden]``."""
        g, parts = self.graph, []
        if layer.position_bias is not None:
            row = g.op(
                "Gather", g.weight("position_bias", layer.position_bias.astype(np.float32)), self.first_query, axis=1
            )  # [heads, tokens]
            return g.op("Unsqueeze", row, g.constant([0, 2], "int64"))
        if layer.position_key is not None:
            parts.append(g.op("MatMul", self.by_head(q), self._rows("position_key", layer.position_key, self.first_query)))
        if layer.position_query is not None:
            table = g.weight("position_query", self._scaled(layer.position_query))
            products = g.op("Mul", self.by_head(k), g.op("Gather", table, self.first_query, axis=1))
            total = g.op("ReduceSum", products, number(g, 3), keepdims=0)  # [batch, heads, key]
            parts.append(g.op("Unsqueeze", total, number(g, 2)))
        return functools.reduce(lambda x, y: g.op("Add", x, y), parts)

    def skew(self, x: str) -> str:
        """Row i of ``[..., tokens, 2 tokens]`` from its place ``tokens - 1 - i`` on: ``[..., tokens, tokens]``."""
        g = self.graph
        heads, zero, one = number(g, self.architecture.heads), number(g, 0), number(g, 1)
        shorter = g.op("Sub", self.twice, one)
        flat = g.op("Reshape", x, g.op("Concat", zero, heads, number(g, -1), axis=0))
        end = g.op("Add", self.first, g.op("Mul", self.length, shorter))
        rows = g.op("Slice", flat, self.first, end, number(g, 2))
        cut = g.op("Reshape", rows, g.op("Concat", zero, heads, self.length, shorter, axis=0))
        return g.op("Slice", cut, zero, self.length, number(g, 3))

    def by_head(self, x: str) -> str:
        """``[batch, tokens, hidden]`` to ``[batch, heads, tokens, d]``."""
        g, a = self.graph, self.architecture
        split = g.op("Reshape", x, g.constant([0, 0, a.heads, a.head_size], "int64"))
        return g.op("Transpose", split, perm=[0, 2, 1, 3])

    def _rows(self, name: str, table: NDArray[Any], index: str) -> str:
        """The rows of distances, as a right operand: ``[heads, d, distances]``."""
        g = self.graph
        return g.op("Transpose", g.op("Gather", g.weight(name, table.astype(np.float32)), index, axis=1), perm=[0, 2, 1])

    def _scaled(self, table: NDArray[Any]) -> NDArray[np.float32]:
        return np.asarray(table * self.architecture.scale, dtype=np.float32)

    def _shared_bias(self, table: NDArray[Any]) -> str:
        """MPNet's, made once: ``[1, heads, tokens, tokens]``."""
        if not hasattr(self, "_bias"):
            g, heads = self.graph, number(self.graph, self.architecture.heads)
            row = g.op("Gather", g.weight("position_bias", table.astype(np.float32)), self.falling, axis=1)  # [heads, 2 tokens]
            row = g.op("Unsqueeze", row, g.constant([0, 2], "int64"))
            self._bias = self.skew(g.op("Expand", row, g.op("Concat", number(g, 1), heads, self.length, self.twice, axis=0)))
        return self._bias
