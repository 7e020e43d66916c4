"""CPU in fp32: standard ONNX in the form that was measured to be fastest in ONNX Runtime's CPU provider (bench/NOTES.md).

``Attention`` of opset 23 pays; the contrib fusions of CUDA (``SkipLayerNormalization``, ``EmbedLayerNormalization``, contrib
``Attention``) do not.

``CpuPlain`` is for older runtimes: operator sets 17 (the first with ``LayerNormalization``) to 22, with attention written out.
It is as fast or a little slower, and our kernels do not apply.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...checkpoint.architecture import Architecture
from ...checkpoint.weights import Dense, Embeddings, Layer, Norm
from ..blocks import LONG, MASKED, LongBlocks, WindowBlocksOrWhole, concat, number
from ..builder import Graph
from ..lowering import Logits, Lowering, activate, count_positions
from ..positions import RelativeScores
from ..rotary import rope_tables

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

    def __init__(self, graph: Graph, architecture: Architecture) -> None:
        super().__init__(graph, architecture)
        self._ropes: dict[float, tuple[str, str]] = {}  # by theta
        self._places: dict[str, str] = {}  # positions [batch, tokens], by the number of tokens

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
    def batch(self) -> str:
        """The shape ``[batch]``."""
        return self.graph.op("Shape", "input_ids", end=1)

    @functools.cached_property
    def sequences(self) -> str:
        """The shape ``[batch, seq, hidden]``."""
        return concat(self.graph, self.batch, self.length, self.architecture.hidden_size)

    def _mask(self) -> None:
        """Compute the bias of padding from ``attention_mask``, whose zeros may be anywhere."""
        g = self.graph
        self.cls_mask = self._padding()
        self._lay_out_blocks()
        # [batch, 1, query, key]: ONNX Runtime's CPU Attention needs the query axis written out.
        if self.long is None:
            self.mask = g.op("Expand", self.cls_mask, concat(g, self.batch, 1, self.length, self.length))

    def _lay_out_blocks(self) -> None:
        """Lay out attention in blocks, of windows and of long texts."""
        g, a, batch, length = self.graph, self.architecture, self.batch, self.length
        sizes = sorted({window for window in a.windows if window is not None})
        hidden, padding = a.hidden_size, self.cls_mask
        self.windows = {
            size: WindowBlocksOrWhole(g, size, batch=batch, length=length, hidden=hidden, padding=padding) for size in sizes
        }
        blocks = a.max_tokens > LONG and a.relative is None
        self.long = LongBlocks(g, batch=batch, length=length, hidden=hidden) if blocks else None
        self.relative = None if a.relative is None else RelativeScores(g, a, length)

    def _padding(self) -> str:
        """The bias of each key's scores, the same for every head and query: ``[batch, 1, 1, key]``."""
        g = self.graph
        dropped = g.op("Sub", g.constant(1.0, "float32"), g.cast("attention_mask", "float32"))  # [batch, seq], 1 = padding
        bias = g.op("Mul", dropped, g.constant(MASKED, "float32"))
        return g.op("Unsqueeze", bias, g.constant([1, 2], "int64"))

    def embed(self, tables: Embeddings) -> str:
        """Word + position + segment, normalized: ``[tokens, hidden]``."""
        g = self.graph
        x = self._words(tables.word)  # [batch, seq, width]
        if tables.position is not None:
            x = g.op("Add", x, self._positions(tables.position))
        if tables.token_type is not None:
            x = g.op("Add", x, g.op("Gather", g.weight("token_type", tables.token_type), "token_type_ids"))
        x = self._norm(self._flat(x, tables.word.shape[1]), tables.norm)
        return x if tables.projection is None else self._project(x, tables.projection)

    def _positions(self, table: NDArray[Any]) -> str:
        """Look up the positions: ``[seq, width]``, or ``[batch, seq, width]`` if texts differ."""
        g, a = self.graph, self.architecture
        stored = self._stored("position", table)
        if a.position_offset:
            return g.op("Gather", stored, count_positions(g, "input_ids", a.padding_id, "int64"))
        zero = g.constant([0], "int64")
        return g.op("Slice", stored, zero, self.length, zero)

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

    def attend(self, x: str, layer: Layer, i: int, *, cls_only: bool) -> str:
        """Three products, because splitting one copies its result, then softmax(q k^T / sqrt(d)) v by head in one node."""
        g, a = self.graph, self.architecture
        query, window = self._scaled(layer.query), a.window(i)
        if cls_only:
            first = self.dense("query", self.cls_rows(x), query)  # [batch, hidden]
            q = g.op("Unsqueeze", first, g.constant([1], "int64"))  # [batch, 1, hidden]
            k, v, mask = self._keys_of_cls(x, layer, i)
            if self.relative is not None:
                mask = g.op("Add", self.relative.scores_of_first(q, k, layer), mask)
            context = self.attention(q, k, v, mask)
        else:
            q = self._turned("query", x, query, i)
            k, v = self._turned("key", x, layer.key, i), self._by_text("value", x, layer.value)
            if self.relative is not None:
                context = self.relative.attend(q, k, v, layer, self.cls_mask, self.attention)
            elif window is not None:
                context = self.windows[window].attend(q, k, v, self.attention)
            elif self.long is not None:
                context = self.long.attend(q, k, v, self.cls_mask, self.attention)
            else:
                context = self.attention(q, k, v, self.mask)
        return g.op("Reshape", context, g.constant([-1, a.hidden_size], "int64"))  # [rows, hidden]

    def attention(self, q: str, k: str, v: str, mask: str) -> str:
        """``softmax(q k^T + mask) v`` by head, in one node: ``[batch, queries, hidden]``."""
        heads = self.architecture.heads
        return self.graph.op("Attention", q, k, v, mask, q_num_heads=heads, kv_num_heads=heads, scale=1.0)

    def _keys_of_cls(self, x: str, layer: Layer, i: int) -> tuple[str, str, str]:
        """Keys, values and mask of the tokens that [CLS] sees: in a window they are the first."""
        g, a, window = self.graph, self.architecture, self.architecture.window(i)
        if window is None:
            k, v = self._turned("key", x, layer.key, i), self._by_text("value", x, layer.value)
            return k, v, self.cls_mask
        zero, end = number(g, 0), number(g, window + 1)
        seen = g.op("Slice", g.op("Reshape", x, self.sequences), zero, end, number(g, 1))  # [batch, seen, hidden]
        shape, rows = g.op("Shape", seen), self._flat(seen, a.hidden_size)
        k, v = (g.op("Reshape", self.dense(*part), shape) for part in (("key", rows, layer.key), ("value", rows, layer.value)))
        return self._turn(k, i, g.op("Min", self.length, end)), v, g.op("Slice", self.cls_mask, zero, end, number(g, 3))

    def _turned(self, name: str, x: str, weights: Dense, i: int) -> str:
        """``x W + b`` for each text, with RoPE if the layer has it."""
        y = self._by_text(name, x, weights)
        return self._turn(y, i, self.length) if self.architecture.thetas else y

    def _turn(self, x: str, i: int, length: str) -> str:
        """RoPE in one node; ``x`` is ``[batch, tokens, hidden]``, and ``length`` has its tokens."""
        cos, sin = self.rope(self.architecture.thetas[i])
        g, a = self.graph, self.architecture
        if length not in self._places:
            places = g.op("Range", g.constant(0, "int64"), g.op("Squeeze", length), g.constant(1, "int64"))
            self._places[length] = g.op("Expand", places, concat(g, self.batch, length))
        return g.op("RotaryEmbedding", x, cos, sin, self._places[length], num_heads=a.heads)

    def rope(self, theta: float) -> tuple[str, str]:
        """Tables of cosines and sines ``[positions, d / 2]``, one for all layers with the same base."""
        if theta not in self._ropes:
            a = self.architecture
            cos, sin = rope_tables(theta, a.head_size, a.max_tokens)
            self._ropes[theta] = self.graph.weight("cos", cos), self.graph.weight("sin", sin)
        return self._ropes[theta]

    def _scaled(self, query: Dense) -> Dense:
        """Fold 1/sqrt(d) into the query's weights."""
        scale = np.float32(self.architecture.scale)
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

    def dense_gated(self, name: str, x: str, weights: Dense, gate: Dense, kind: str) -> str:
        """Two ``Gemm``, because splitting the result of one copies it."""
        return self.graph.op("Mul", self.dense_activation(name, x, weights, kind), self.dense("gate", x, gate))

    def dense_add_norm(
        self, name: str, x: str, weights: Dense, residual: str, norm: Norm, *, final: bool = False
    ) -> tuple[str, str]:
        """``Add`` and ``LayerNormalization``: on the CPU faster than ``SkipLayerNormalization``."""
        total = self.graph.op("Add", self.dense(name, x, weights), residual)
        normed = self._norm(total, norm)
        return (total if self.architecture.pre_norm and not final else normed), normed

    def mean_rows(self, x: str) -> str:
        """A running sum, whose last row does not depend on padding, and the division."""
        g = self.graph
        real = g.op("Unsqueeze", g.cast("attention_mask", "float32"), number(g, 2))  # [batch, seq, 1], 0 = padding
        sums = g.op("CumSum", g.op("Mul", g.op("Reshape", x, self.sequences), real), g.constant(1, "int64"))
        total = g.op("Gather", sums, g.constant(-1, "int64"), axis=1)  # [batch, hidden]
        return g.op("Div", total, g.op("ReduceSum", real, number(g, 1), keepdims=0))

    def norm_rows(self, name: str, x: str, norm: Norm, eps: float) -> str:
        """``LayerNormalization``."""
        return self._norm(x, norm, eps)

    def _norm(self, x: str, norm: Norm, eps: float | None = None) -> str:
        g = self.graph
        eps = self.architecture.norm_eps if eps is None else eps
        gamma, beta = g.weight("norm.weight", norm.weight), g.weight("norm.bias", norm.bias)
        return g.op("LayerNormalization", x, gamma, beta, axis=-1, epsilon=eps)

    def dense_activation(self, name: str, x: str, weights: Dense, kind: str) -> str:
        """``Gemm``, and the activation in standard operators."""
        return activate(self.graph, self.dense(name, x, weights), kind, opset=self.opset)

    def token_rows(self, x: str) -> str:
        """As ``Gemm`` takes them."""
        return x

    def classify(self, pooled: str, weights: Dense) -> Logits:
        """``Gemm``."""
        return Logits(self.dense("classifier", pooled, weights), len(weights.bias))

    def by_place_of_token(self, logits: str, labels: int) -> str:
        """``[tokens, labels]`` to ``[batch, seq, labels]``."""
        g = self.graph
        return g.op("Reshape", logits, concat(g, self.batch, self.length, labels)) if self.architecture.by_token else logits


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

    def _mask(self) -> None:
        """One row for all queries: ``Add`` repeats it."""
        self.cls_mask = self.mask = self._padding()
        self._lay_out_blocks()

    def attention(self, q: str, k: str, v: str, mask: str) -> str:
        """softmax(q k^T + mask) v for each head, written out."""
        g = self.graph
        queries = self._by_head(q, (0, 2, 1, 3))  # [batch, heads, query, head]
        keys = self._by_head(k, (0, 2, 3, 1))  # [batch, heads, head, key]
        values = self._by_head(v, (0, 2, 1, 3))  # [batch, heads, key, head]
        scores = g.op("Add", g.op("MatMul", queries, keys), mask)  # [batch, heads, query, key]
        context = g.op("MatMul", g.op("Softmax", scores, axis=-1), values)  # [batch, heads, query, head]
        rows = g.op("Transpose", context, perm=(0, 2, 1, 3))  # [batch, query, heads, head]
        return g.op("Reshape", rows, g.constant([0, 0, self.architecture.hidden_size], "int64"))

    def _by_head(self, x: str, perm: tuple[int, ...]) -> str:
        """``[batch, tokens, hidden]`` by head, its axes in the order ``perm``."""
        g, a = self.graph, self.architecture
        return g.op("Transpose", g.op("Reshape", x, g.constant([0, 0, a.heads, a.head_size], "int64")), perm=perm)

    def _turn(self, x: str, i: int, length: str) -> str:
        """RoPE written out: each pair of halves is turned by its angle."""
        g, a = self.graph, self.architecture
        zero, one = number(g, 0), number(g, 1)
        cos, sin = (
            g.op("Unsqueeze", g.op("Slice", table, zero, length, zero), one) for table in self.rope(a.thetas[i])
        )  # [tokens, 1, d / 2]
        by_head = g.op("Reshape", x, g.constant([0, 0, a.heads, a.head_size], "int64"))
        first, second = g.ops("Split", 2, by_head, number_pair(g, a.head_size // 2), axis=-1)  # [batch, tokens, heads, d / 2]
        turned = g.op("Sub", g.op("Mul", first, cos), g.op("Mul", second, sin))
        other = g.op("Add", g.op("Mul", second, cos), g.op("Mul", first, sin))
        return g.op("Reshape", g.op("Concat", turned, other, axis=-1), g.constant([0, 0, a.hidden_size], "int64"))


def number_pair(g: Graph, value: int) -> str:
    """The same number twice, as sizes of a split."""
    return g.constant([value, value], "int64")


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
            self.layer_weights = g.op("Concat", one, self.batch, heads, self.length, self.length, axis=0)

    def _lay_out_blocks(self) -> None:
        """Lay out masks instead, because all weights are an output."""
        g, a = self.graph, self.architecture
        shape = concat(g, self.batch, 1, self.length, self.length)
        self.masks: dict[int | None, str] = {None: g.op("Expand", self.cls_mask, shape)}
        self.long, self.relative = None, None if a.relative is None else RelativeScores(g, a, self.length)
        for window in sorted({window for window in a.windows if window is not None}):
            zero, one = g.constant(0, "int64"), g.constant(1, "int64")
            place = g.op("Range", zero, g.op("Squeeze", self.length), one)
            apart = g.op("Abs", g.op("Sub", place, g.op("Unsqueeze", place, number(g, 1))))  # [query, key]
            far = g.cast(g.op("Greater", apart, number(g, window)), "float32")
            self.masks[window] = g.op("Add", g.op("Mul", far, g.constant(MASKED, "float32")), self.cls_mask)

    def attend(self, x: str, layer: Layer, i: int, *, cls_only: bool) -> str:
        """Attend for all tokens, also in the last layer; 1/sqrt(d) is in the node, so that queries are the paper's."""
        g, a = self.graph, self.architecture
        q, k = self._turned("query", x, layer.query, i), self._turned("key", x, layer.key, i)  # [batch, seq, hidden]
        v, mask = self._by_text("value", x, layer.value), self.masks[a.window(i)]
        if self.relative is not None:
            scaled = g.op("Mul", q, g.constant(a.scale, "float32"))
            mask = g.op("Add", self.relative.scores(scaled, k, layer), self.cls_mask)
        heads, scale, mode = a.heads, a.scale, AFTER_SOFTMAX
        context, _, _, weights = g.ops(
            "Attention", 4, q, k, v, mask, q_num_heads=heads, kv_num_heads=heads, scale=scale, qk_matmul_output_mode=mode
        )  # [batch, seq, hidden], and [batch, heads, query, key]
        self._shown["attentions"].append(g.op("Reshape", weights, self.layer_weights))
        for name, value in (("queries", q), ("keys", k)):
            self._shown[name].append(g.op("Unsqueeze", value, g.constant([0], "int64")))
        rows = g.op("Reshape", context, g.constant([-1, a.hidden_size], "int64"))  # [tokens, hidden]
        return self.cls_rows(rows) if cls_only else rows

    def output(self, heads: Sequence[Logits]) -> None:
        """``logits``, and the other outputs, stacked by layer."""
        super().output(heads)
        a = self.architecture
        for name, values in self._shown.items():
            shape = (a.heads, "sequence", "sequence") if name == "attentions" else ("sequence", a.hidden_size)
            stack = self.graph.op("Concat", *values, axis=0)
            self.graph.output(name, stack, "float32", (a.layers, "batch", *shape))
