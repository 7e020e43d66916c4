"""Relative positions in the scores of attention, in standard operators (He et al. 2021; ``checkpoint.relative``).

A table's rows are looked up once for all distances, and multiplied with all queries, or keys. Row i of that product has what
query i needs as one run, which begins one place further left than in row i - 1. So no index is as large as the scores: the rows
are joined, and cut again into rows one number shorter (``skew``).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..checkpoint.architecture import Architecture
from ..checkpoint.relative import REACH
from ..checkpoint.weights import Layer
from .blocks import LONG, Attend, number
from .builder import Graph, Part


class RelativeScores:
    """Parts of the scores, ``[batch, heads, queries, keys]``, of queries times ``scale``."""

    def __init__(
        self,
        g: Graph,
        a: Architecture,
        length: str,
        *,
        scale: float = 1.0,
        store: Callable[[str, NDArray[np.float32]], str] | None = None,  # of a table, if not in float32
        heads_first: bool = False,  # one product for each head
        most: int | None = None,  # the largest ``length``, if not the model's
    ) -> None:
        """Slice the distances of texts of ``length`` ``[1]`` tokens, padding included."""
        self._scale, self._store, self._heads_first = scale, store or g.weight, heads_first
        assert a.relative is not None
        self._bias = ""  # MPNet's
        self._last: tuple[Layer, str, str] | None = None
        self.graph, self.architecture, self.length = g, a, length
        _, index = a.relative.columns()
        reach = min(REACH, most or a.max_tokens)
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
        by_query, by_key = self._tables(layer)
        if by_query:
            parts.append(self._products(q, by_query, self.falling))
        if by_key:
            parts.append(g.op("Transpose", self._products(k, by_key, self.rising), perm=[0, 1, 3, 2]))
        total = functools.reduce(lambda x, y: g.op("Add", x, y), parts)
        return g.op("Transpose", total, perm=[1, 0, 2, 3]) if self._heads_first else total

    def attend(self, q: str, k: str, v: str, layer: Layer, padding: str, attend: Attend) -> str:
        """Attend in one node; in long texts head by head, so that memory does not hold the scores of all.

        ``padding`` is the mask of keys, ``[batch, 1, 1, tokens]``.
        """
        g, a = self.graph, self.architecture

        def whole() -> str:
            return attend(q, k, v, g.op("Add", self.scores(q, k, layer), padding))

        if a.max_tokens <= LONG or layer.position_bias is not None:  # MPNet's is made once for all layers, of all heads
            return whole()
        heads = functools.partial(self._attend_head_by_head, q, k, v, *self._tables(layer), padding)
        return g.either(self._long, heads, whole, ("batch", "sequence", a.hidden_size))

    @functools.cached_property
    def _long(self) -> str:
        return self.graph.op("Greater", self.length, number(self.graph, LONG))

    def _attend_head_by_head(self, q: str, k: str, v: str, by_query: str, by_key: str, padding: str) -> str:
        """Attend with the scores of one head at a time, ``[batch, tokens, tokens]``."""
        g, a = self.graph, self.architecture
        row, table = ("batch", "sequence", a.head_size), (a.head_size, "distances")
        parts = [Part(self.by_head(x), row) for x in (q, k, v)]
        if by_query:
            parts.append(Part(self._rows(by_query, self.falling), table, axis=0))
        if by_key:
            parts.append(Part(self._rows(by_key, self.rising), table, axis=0))
        mask = g.op("Squeeze", padding, number(g, 1))

        def head(q: str, k: str, v: str, *tables: str) -> str:
            scores = g.op("Add", g.op("MatMul", q, g.op("Transpose", k, perm=[0, 2, 1])), mask)
            if by_query:
                scores = g.op("Add", scores, self._skewed_head(q, tables[0]))
            if by_key:
                scores = g.op("Add", scores, g.op("Transpose", self._skewed_head(k, tables[-1]), perm=[0, 2, 1]))
            return g.op("MatMul", g.op("Softmax", scores, axis=-1), v)

        by_head = g.scan(*parts, shape=row, body=head)  # [batch, heads, tokens, d]
        return g.op("Reshape", g.op("Transpose", by_head, perm=[0, 2, 1, 3]), g.constant([0, 0, a.hidden_size], "int64"))

    def _skewed_head(self, x: str, rows: str) -> str:
        g = self.graph
        return g.op("Squeeze", self.skew(g.op("Unsqueeze", g.op("MatMul", x, rows), number(g, 1)), heads=1), number(g, 1))

    def _products(self, x: str, table: str, index: str) -> str:
        """Of ``x`` and the vectors of distances, by head, a column for each distance: ``[batch, heads, tokens, tokens]``."""
        g, a = self.graph, self.architecture
        if not self._heads_first:
            return self.skew(g.op("MatMul", self.by_head(x), self._rows(table, index)))
        split = g.op("Reshape", x, g.constant([0, 0, a.heads, a.head_size], "int64"))
        joined = g.op("Reshape", g.op("Transpose", split, perm=[2, 0, 1, 3]), g.constant([a.heads, -1, a.head_size], "int64"))
        return self.skew(g.op("MatMul", joined, self._rows(table, index)))  # [heads, batch tokens, 2 tokens]

    def scores_of_first(self, q: str, k: str, layer: Layer) -> str:
        """Of the first query ``[batch, 1, hidden]``."""
        g, a, parts = self.graph, self.architecture, []
        if layer.position_bias is not None:
            table = self._table("position_bias", layer.position_bias)
            return g.op("Unsqueeze", g.op("Gather", table, self.first_query, axis=1), g.constant([0, 2], "int64"))
        by_query, by_key = self._tables(layer)
        if by_query:
            rows = self._rows(by_query, self.first_query)  # [heads, d, tokens]
            queries = g.op("Reshape", q, g.constant([-1, a.heads, a.head_size], "int64"))
            products = g.op("MatMul", g.op("Transpose", queries, perm=[1, 0, 2]), rows)  # [heads, batch, tokens]
            parts.append(g.op("Unsqueeze", g.op("Transpose", products, perm=[1, 0, 2]), number(g, 2)))
        if by_key:
            products = g.op("Mul", self.by_head(k), g.op("Gather", by_key, self.first_query, axis=1))
            total = g.op("ReduceSum", products, number(g, 3), keepdims=0)  # [batch, heads, key]
            parts.append(g.op("Unsqueeze", total, number(g, 2)))
        return functools.reduce(lambda x, y: g.op("Add", x, y), parts)

    def skew(self, x: str, heads: int | None = None) -> str:
        """Of each ``tokens`` rows of ``2 tokens``, row i from place ``tokens - 1 - i`` on: ``[..., ..., tokens, tokens]``."""
        g, heads = self.graph, heads or self.architecture.heads
        zero, one, rest = number(g, 0), number(g, 1), number(g, -1)
        leading, second = (number(g, heads), rest) if self._heads_first else (zero, number(g, heads))
        shorter = g.op("Sub", self.twice, one)
        flat = g.op("Reshape", x, g.op("Concat", leading, second, g.op("Mul", self.length, self.twice), axis=0))
        end = g.op("Add", self.first, g.op("Mul", self.length, shorter))
        rows = g.op("Slice", flat, self.first, end, number(g, 2))
        cut = g.op("Reshape", rows, g.op("Concat", zero, zero, self.length, shorter, axis=0))
        return g.op("Slice", cut, zero, self.length, number(g, 3))

    def by_head(self, x: str) -> str:
        """``[batch, tokens, hidden]`` to ``[batch, heads, tokens, d]``."""
        g, a = self.graph, self.architecture
        split = g.op("Reshape", x, g.constant([0, 0, a.heads, a.head_size], "int64"))
        return g.op("Transpose", split, perm=[0, 2, 1, 3])

    def _rows(self, table: str, index: str) -> str:
        """The rows of distances, as a right operand: ``[heads, d, distances]``."""
        g = self.graph
        return g.op("Transpose", g.op("Gather", table, index, axis=1), perm=[0, 2, 1])

    def _tables(self, layer: Layer) -> tuple[str, str]:
        """The tables that queries and keys are multiplied with, stored once for each layer; ``""`` where there is none."""
        if self._last is None or self._last[0] is not layer:
            c2p, p2c, scale = layer.position_key, layer.position_query, self.architecture.scale
            by_query = "" if c2p is None else self._table("position_key", c2p * self._scale)
            self._last = layer, by_query, "" if p2c is None else self._table("position_query", p2c * scale)
        return self._last[1:]

    def _table(self, name: str, values: NDArray[Any]) -> str:
        return self._store(name, values.astype(np.float32))

    def _shared_bias(self, table: NDArray[Any]) -> str:
        """MPNet's, made once: ``[1, heads, tokens, tokens]``."""
        if not self._bias:
            g = self.graph
            row = g.op("Gather", self._table("position_bias", table), self.falling, axis=1)  # [heads, 2 tokens]
            row = g.op("Unsqueeze", row, g.constant([0, 2], "int64"))
            shape = g.op("Concat", number(g, 1), number(g, self.architecture.heads), self.length, self.twice, axis=0)
            rows = self.skew(g.op("Expand", row, shape))
            self._bias = g.op("Transpose", rows, perm=[1, 0, 2, 3]) if self._heads_first else rows
        return self._bias
