"""CPU in fp32: standard ONNX in the form that was measured to be fastest in ONNX Runtime's CPU provider (bench/NOTES.md).

``Attention`` of opset 23 pays; the contrib fusions of CUDA (``SkipLayerNormalization``, ``EmbedLayerNormalization``, contrib
``Attention``) do not.

``CpuPlain`` is for older runtimes: operator sets 17 (the first with ``LayerNormalization``) to 22, with attention written out.
It is as fast or a little slower, and our kernels do not apply.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...checkpoint.architecture import Architecture
from ...checkpoint.weights import Dense, Embeddings, Layer, Norm
from ..builder import Graph
from ..lowering import Lowering, activate, count_positions

MASKED = -1e9  # added to a score: exp() of it is exactly 0 in fp32, and it stays finite
SLOWER = "up to 7 %"  # without the fused operator; bench/NOTES.md


class Release(NamedTuple):
    """File format of an operator set, and the first ONNX Runtime that runs the graph in it."""

    ir_version: int
    onnxruntime: str


# Measured with every version from 1.12 to 1.23: the one before does not have the operator set, or lacks a kernel
# (1.15: ``Shape`` of opset 19).
OPSETS: Mapping[int, Release] = {
    17: Release(ir_version=8, onnxruntime="1.12"),
    18: Release(ir_version=8, onnxruntime="1.14"),
    19: Release(ir_version=9, onnxruntime="1.16"),
    20: Release(ir_version=9, onnxruntime="1.17"),
    21: Release(ir_version=10, onnxruntime="1.18"),
    22: Release(ir_version=10, onnxruntime="1.21"),
}


class CpuFp32(Lowering):
    """``onnx/model.onnx``."""

    file: ClassVar[str] = "onnx/model.onnx"
    target: ClassVar[str] = "cpu"
    precision: ClassVar[str] = "fp32"
    opset: ClassVar[int] = 23
    onnxruntime: ClassVar[str] = "1.23"  # 1.22 has no opset 23
    attention_ops: ClassVar[tuple[str, ...]] = ("Attention",)

    def inputs(self) -> None:
        """Declare token ids, attention mask and segments."""
        g = self.graph
        g.input("input_ids", "int64", ["batch", "sequence"])
        g.input("attention_mask", "int64", ["batch", "sequence"])
        if self.architecture.has_segments:
            g.input("token_type_ids", "int64", ["batch", "sequence"])
        with g.scope("mask"):
            self._mask()

    @functools.cached_property
    def length(self) -> str:
        """The shape ``[seq]``."""
        return self.graph.op("Shape", "input_ids", start=1)

    @functools.cached_property
    def sequences(self) -> str:
        """The shape ``[batch, seq, hidden]``."""
        g = self.graph
        batch, width = g.op("Shape", "input_ids", end=1), g.constant([self.architecture.hidden_size], "int64")
        return g.op("Concat", batch, self.length, width, axis=0)

    def _mask(self) -> None:
        """Compute the bias of padding from ``attention_mask``, whose zeros may be anywhere."""
        g = self.graph
        self.cls_mask = self._padding()
        # [batch, 1, query, key]: ONNX Runtime's CPU Attention needs the query axis written out.
        batch = g.op("Shape", "input_ids", end=1)
        wanted = g.op("Concat", batch, g.constant([1], "int64"), self.length, self.length, axis=0)
        self.mask = g.op("Expand", self.cls_mask, wanted)

    def _padding(self) -> str:
        """The bias of each key's scores, the same for every head and query: ``[batch, 1, 1, key]``."""
        g = self.graph
        dropped = g.op("Sub", g.constant(1.0, "float32"), g.cast("attention_mask", "float32"))  # [batch, seq], 1 = padding
        bias = g.op("Mul", dropped, g.constant(MASKED, "float32"))
        return g.op("Unsqueeze", bias, g.constant([1, 2], "int64"))

    def embed(self, tables: Embeddings) -> str:
        """Word + position + segment, normalized: ``[tokens, hidden]``."""
        g, a = self.graph, self.architecture
        x = self._words(tables.word)  # [batch, seq, width]
        table = self._stored("position", tables.position)
        if a.position_offset:
            positions = count_positions(g, "input_ids", a.padding_id, "int64")
            position = g.op("Gather", table, positions)  # [batch, seq, width]
        else:
            zero = g.constant([0], "int64")
            position = g.op("Slice", table, zero, self.length, zero)  # [seq, width]
        x = g.op("Add", x, position)
        if tables.token_type is not None:
            x = g.op("Add", x, g.op("Gather", g.weight("token_type", tables.token_type), "token_type_ids"))
        x = self._norm(self._flat(x, a.embedding_size), tables.norm)
        return x if tables.projection is None else self._project(x, tables.projection)

    def _flat(self, x: str, width: int) -> str:
        """``[batch, seq, width]`` to ``[tokens, width]``, as ``Gemm`` takes it."""
        return self.graph.op("Reshape", x, self.graph.constant([-1, width], "int64"))

    def _project(self, x: str, weights: Dense) -> str:
        return self.dense("projection", x, weights)

    def _words(self, table: NDArray[Any]) -> str:
        """Look up word vectors: ``[batch, seq, width]``."""
        return self.graph.op("Gather", self.graph.weight("word", table), "input_ids")

    def _stored(self, name: str, array: NDArray[Any]) -> str:
        return self.graph.weight(name, array)

    def attend(self, x: str, layer: Layer, *, cls_only: bool) -> str:
        """Three products, because splitting one copies its result, then softmax(q k^T / sqrt(d)) v by head in one node."""
        g, a = self.graph, self.architecture
        query = self._scaled(layer.query)
        if cls_only:
            first = self.dense("query", self.cls_rows(x), query)  # [batch, hidden]
            q = g.op("Unsqueeze", first, g.constant([1], "int64"))  # [batch, 1, hidden]
        else:
            q = self._by_text("query", x, query)
        k, v = self._by_text("key", x, layer.key), self._by_text("value", x, layer.value)
        mask = self.cls_mask if cls_only else self.mask
        context = g.op("Attention", q, k, v, mask, q_num_heads=a.heads, kv_num_heads=a.heads, scale=1.0)
        return g.op("Reshape", context, g.constant([-1, a.hidden_size], "int64"))  # [rows, hidden]

    def _scaled(self, query: Dense) -> Dense:
        """Fold 1/sqrt(d) into the query's weights."""
        scale = np.float32(1 / math.sqrt(self.architecture.head_size))
        return Dense(query.weight * scale, query.bias * scale)

    def _by_text(self, name: str, x: str, weights: Dense) -> str:
        """``x W + b`` for each text: ``[tokens, hidden]`` to ``[batch, seq, hidden]``."""
        return self.graph.op("Reshape", self.dense(name, x, weights), self.sequences)

    def cls_rows(self, x: str) -> str:
        """``[tokens, hidden]`` to ``[batch, hidden]``."""
        return self.graph.op("Gather", self.graph.op("Reshape", x, self.sequences), self.graph.constant(0, "int64"), axis=1)

    def dense(self, name: str, x: str, weights: Dense) -> str:
        """``Gemm``, which includes the bias: 2 to 5 % faster than ``MatMul`` and ``Add``."""
        return self.graph.op("Gemm", x, self.graph.weight(f"{name}.weight", weights.weight), self.bias(name, weights))

    def bias(self, name: str, weights: Dense) -> str:
        """The operand of a product's bias; zeros are left out."""
        return self.graph.weight(f"{name}.bias", weights.bias) if weights.bias.any() else ""

    def dense_add_norm(self, name: str, x: str, weights: Dense, residual: str, norm: Norm) -> str:
        """``Add`` and ``LayerNormalization``: on the CPU faster than ``SkipLayerNormalization``."""
        return self._norm(self.graph.op("Add", self.dense(name, x, weights), residual), norm)

    def _norm(self, x: str, norm: Norm) -> str:
        g = self.graph
        gamma, beta = g.weight("norm.weight", norm.weight), g.weight("norm.bias", norm.bias)
        return g.op("LayerNormalization", x, gamma, beta, axis=-1, epsilon=self.architecture.norm_eps)

    def dense_activation(self, name: str, x: str, weights: Dense, kind: str) -> str:
        """``Gemm``, and the activation in standard operators."""
        return activate(self.graph, self.dense(name, x, weights), kind, opset=self.opset)

    def classify(self, pooled: str, weights: Dense) -> None:
        """``logits`` ``[batch, labels]``."""
        self.graph.output("logits", self.dense("classifier", pooled, weights), "float32", ["batch", len(weights.bias)])


class CpuPlain(CpuFp32):
    """``onnx/model.onnx`` in an operator set without ``Attention``."""

    attention_ops: ClassVar[tuple[str, ...]] = ()

    @staticmethod
    def at(opset: int) -> type[CpuPlain]:
        """Return the lowering to one of ``OPSETS``."""
        note = (
            f"opset {opset} has no Attention operator, so attention is not fused, which was measured to take {SLOWER} longer: "
            f"leave it at {CpuFp32.opset} for ONNX Runtime {CpuFp32.onnxruntime} or newer"
        )
        ir_version, onnxruntime = OPSETS[opset]
        values = {"opset": opset, "onnxruntime": onnxruntime, "ir_version": ir_version, "note": note}
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
        """softmax(q k^T / sqrt(d) + mask) v for each head, written out."""
        g, a = self.graph, self.architecture
        query = self._scaled(layer.query)
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
        """``x W + b`` by head, its axes in the order ``perm``."""
        g = self.graph
        return g.op("Transpose", g.op("Reshape", self.dense(name, x, weights), self.heads_apart), perm=perm)


AFTER_SOFTMAX = 3  # of the operator's qk_matmul_output_mode


class CpuAttentions(CpuFp32):
    """``onnx/model_attentions.onnx``."""

    file: ClassVar[str] = "onnx/model_attentions.onnx"
    onnxruntime: ClassVar[str] = "1.24"  # 1.23 loads it and fails at each run: its Attention gives weights only with a past
    output_names: ClassVar[tuple[str, ...]] = ("logits", "attentions", "queries", "keys")
    folds_biases: ClassVar[bool] = False  # its keys are shown, and the paper's have a bias

    def __init__(self, graph: Graph, architecture: Architecture) -> None:
        super().__init__(graph, architecture)
        self._shown: dict[str, list[str]] = {name: [] for name in self.output_names[1:]}  # [1, ...] for each layer

    def inputs(self) -> None:
        """The same inputs, and the shape of a layer's weights: ONNX 1.23 infers 0 for its last axis."""
        super().inputs()
        g = self.graph
        with g.scope("shape"):
            one, heads = g.constant([1], "int64"), g.constant([self.architecture.heads], "int64")
            batch = g.op("Shape", "input_ids", end=1)
            self.layer_weights = g.op("Concat", one, batch, heads, self.length, self.length, axis=0)

    def attend(self, x: str, layer: Layer, *, cls_only: bool) -> str:
        """Attend for all tokens, also in the last layer; 1/sqrt(d) is in the node, so that queries are the paper's."""
        g, a = self.graph, self.architecture
        parts = (("query", layer.query), ("key", layer.key), ("value", layer.value))
        q, k, v = (self._by_text(name, x, weights) for name, weights in parts)  # [batch, seq, hidden] each
        heads, scale, mode = a.heads, 1 / math.sqrt(a.head_size), AFTER_SOFTMAX
        context, _, _, weights = g.ops(
            "Attention", 4, q, k, v, self.mask, q_num_heads=heads, kv_num_heads=heads, scale=scale, qk_matmul_output_mode=mode
        )  # [batch, seq, hidden], and [batch, heads, query, key]
        self._shown["attentions"].append(g.op("Reshape", weights, self.layer_weights))
        for name, value in (("queries", q), ("keys", k)):
            self._shown[name].append(g.op("Unsqueeze", value, g.constant([0], "int64")))
        rows = g.op("Reshape", context, g.constant([-1, a.hidden_size], "int64"))  # [tokens, hidden]
        return self.cls_rows(rows) if cls_only else rows

    def classify(self, pooled: str, weights: Dense) -> None:
        """``logits``, and the other outputs, stacked by layer."""
        super().classify(pooled, weights)
        a = self.architecture
        for name, values in self._shown.items():
            shape = (a.heads, "sequence", "sequence") if name == "attentions" else ("sequence", a.hidden_size)
            stack = self.graph.op("Concat", *values, axis=0)
            self.graph.output(name, stack, "float32", (a.layers, "batch", *shape))
