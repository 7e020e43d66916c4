"""Windows in the packed graph: blocks over the tokens of all texts, which lie in one row (``engine.run.batches``).

A block's queries, two windows long, see four windows of keys. So each key is copied twice. No shape is read, so every node runs
on the GPU.
"""

from __future__ import annotations

import numpy as np

from fusedbert.engine.artifact import WINDOW_BLOCKS, WINDOW_TEXTS

from ..blocks import Attend, number
from ..builder import Graph
from .rotary import MASKED

_MULTIPLE = 8  # of a unit, which the fused kernel takes under a mask


class RowBlocks:
    """Attention of all layers with one window."""

    def __init__(self, g: Graph, window: int, *, hidden: int) -> None:
        """Declare the inputs, and make the mask ``[blocks, 1, 2 unit, 4 unit]``."""
        self.graph, self.window, self.hidden = g, window, hidden
        unit = -(-max(window, 1) // _MULTIPLE) * _MULTIPLE
        self.seen = g.input(WINDOW_BLOCKS, "int32", ["blocks", 4])
        texts = g.input(WINDOW_TEXTS, "int32", ["blocks", 4 * unit])  # of the keys
        with g.scope("blocks"):
            self.rows = g.constant([-1, 2 * unit, hidden], "int64")
            self.unit = g.constant([-1, unit * hidden], "int64")
            self.keys = g.constant([-1, 4 * unit, hidden], "int64")
            own = g.op("Slice", texts, number(g, unit), number(g, 3 * unit), number(g, 1))
            query = g.op("Unsqueeze", own, g.constant([1, 3], "int64"))
            key = g.op("Unsqueeze", texts, g.constant([1, 2], "int64"))
            apart = g.cast(g.op("Not", g.op("Equal", query, key)), "float16")
            distance = np.abs(np.arange(4 * unit) - (np.arange(2 * unit)[:, None] + unit))
            band = g.weight("band", np.where(distance > window, MASKED, 0).astype(np.float16))
            self.mask = g.op("Add", g.op("Mul", apart, g.constant(MASKED, "float16")), band)

    def attend(self, q: str, k: str, v: str, attend: Attend) -> str:
        """Attend in blocks: ``[1, tokens, hidden]``."""
        g = self.graph
        y = attend(g.op("Reshape", q, self.rows), self._around(k), self._around(v), self.mask)  # [blocks, 2 unit, hidden]
        return g.op("Reshape", y, g.constant([1, -1, self.hidden], "int64"))

    def _around(self, x: str) -> str:
        """``[1, tokens, hidden]`` to each block's keys, ``[blocks, 4 unit, hidden]``."""
        g = self.graph
        return g.op("Reshape", g.op("Gather", g.op("Reshape", x, self.unit), self.seen, axis=0), self.keys)
