"""The CPU in fp32 for older runtimes: the same graph in an operator set that has no ``Attention`` yet, 17 to 22.

Attention is written out: query by key, the mask added, softmax, by value, with the heads laid apart before and side by side
after. ``LayerNormalization`` is an operator from 17 on, which is why nothing older is offered. ``Gelu`` is one from 20 on;
what ``activations`` writes below that, ONNX Runtime turns back into its own ``Gelu`` when it loads the graph.

The graph is for runtimes that cannot load ``CpuFp32``'s. Where both load, this one is as fast or a little slower, and the
engine has no kernels of its own for it.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from ...checkpoint.weights import Dense, Layer
from .cpu_fp32 import CpuFp32


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dated:
    """What goes with an operator set.

    Attributes:
        ir_version: The file format of its time, which whatever reads the operator set reads too.
        onnxruntime: The first ONNX Runtime that runs it, measured with every version from 1.12 to 1.23: the one before has
            not the operator set, or lacks a kernel (1.15: ``Shape`` of opset 19).
    """

    ir_version: int
    onnxruntime: str


SLOWER = "up to 7 %"  # bench/NOTES.md
OPSETS: Mapping[int, Dated] = {
    17: Dated(ir_version=8, onnxruntime="1.12"),
    18: Dated(ir_version=8, onnxruntime="1.14"),
    19: Dated(ir_version=9, onnxruntime="1.16"),
    20: Dated(ir_version=9, onnxruntime="1.17"),
    21: Dated(ir_version=10, onnxruntime="1.18"),
    22: Dated(ir_version=10, onnxruntime="1.21"),
}


class CpuPlain(CpuFp32):
    """``onnx/model.onnx`` in an operator set without ``Attention``; ``at`` gives the class for one."""

    attention_ops: ClassVar[tuple[str, ...]] = ()

    @staticmethod
    def at(opset: int) -> type[CpuPlain]:
        """Return the lowering to one of ``OPSETS``."""
        about = OPSETS[opset]
        values = {"opset": opset, "onnxruntime": about.onnxruntime, "ir_version": about.ir_version, "note": _note(opset)}
        return type(f"CpuPlain{opset}", (CpuPlain,), values)

    @functools.cached_property
    def heads_apart(self) -> str:
        """The shape ``[batch, seq, heads, head]``."""
        g, a = self.graph, self.architecture
        heads = g.constant([a.heads, a.head_size], "int64")
        return g.op("Concat", g.op("Shape", "input_ids", end=1), self.length, heads, axis=0)

    def _mask(self) -> None:
        """One row for all queries: ``Add`` repeats it."""
        self.cls_mask = self._padding()

    def attend(self, x: str, layer: Layer, *, cls_only: bool) -> str:
        """softmax(q k^T / sqrt(d) + mask) v for each head, in five nodes and those that lay heads apart and together."""
        g, a = self.graph, self.architecture
        scale = np.float32(1 / math.sqrt(a.head_size))
        query = Dense(layer.query.weight * scale, layer.query.bias * scale)
        if cls_only:
            one = g.constant([-1, a.heads, 1, a.head_size], "int64")
            q = g.op("Reshape", self.dense("query", self.cls_rows(x), query), one)  # [batch, heads, 1, head]
        else:
            q = self._by_head("query", x, query, (0, 2, 1, 3))  # [batch, heads, query, head]
        k = self._by_head("key", x, layer.key, (0, 2, 3, 1))  # [batch, heads, head, key]
        v = self._by_head("value", x, layer.value, (0, 2, 1, 3))  # [batch, heads, key, head]
        scores = g.op("Add", g.op("MatMul", q, k), self.cls_mask)  # [batch, heads, query, key]
        context = g.op("MatMul", g.op("Softmax", scores, axis=-1), v)  # [batch, heads, query, head]
        if not cls_only:
            context = g.op("Transpose", context, perm=(0, 2, 1, 3))  # [batch, query, heads, head]
        return g.op("Reshape", context, g.constant([-1, a.hidden_size], "int64"))  # [rows, hidden]

    def _by_head(self, name: str, x: str, weights: Dense, perm: tuple[int, ...]) -> str:
        """``x W + b``, laid apart by head, its axes in the order ``perm``."""
        g = self.graph
        return g.op("Transpose", g.op("Reshape", self.dense(name, x, weights), self.heads_apart), perm=perm)


def _note(opset: int) -> str:
    return (
        f"opset {opset} has no Attention operator, so attention is not fused, which was measured to take {SLOWER} longer: "
        f"leave it at {CpuFp32.opset} for ONNX Runtime {CpuFp32.onnxruntime} or newer"
    )
