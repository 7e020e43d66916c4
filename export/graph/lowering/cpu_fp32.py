"""The CPU in fp32: standard ONNX alone (opset 23), shaped for ONNX Runtime's CPU provider.

Which form is fast there was measured (bench/NOTES.md): ``Attention`` of opset 23 pays; the contrib fusions of CUDA
(``SkipLayerNormalization``, ``EmbedLayerNormalization``, contrib ``Attention``) do not. Because every operator is
standard, any ONNX runtime with opset 23 can run this graph, and its inputs are those of a transformers model.
"""

from __future__ import annotations

import functools
import math
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ...checkpoint.weights import Dense, Embeddings, Layer, Norm
from .. import activations
from .base import Lowering

MASKED = -1e9  # added to a score: exp() of it is exactly 0 in fp32, and it stays finite


class CpuFp32(Lowering):
    """``onnx/model.onnx``."""

    file: ClassVar[str] = "onnx/model.onnx"
    target: ClassVar[str] = "cpu"
    precision: ClassVar[str] = "fp32"
    opset: ClassVar[int] = 23
    onnxruntime: ClassVar[str] = "1.23"  # 1.22 has no opset 23
    attention_ops: ClassVar[tuple[str, ...]] = ("Attention",)

    def inputs(self) -> None:
        """Declare token ids, attention mask and segments; make the mask that is added to the scores."""
        g = self.graph
        g.input("input_ids", "int64", ["batch", "sequence"])
        g.input("attention_mask", "int64", ["batch", "sequence"])
        if self.architecture.has_segments:
            g.input("token_type_ids", "int64", ["batch", "sequence"])
        with g.scope("shape"):
            self.length = g.op("Shape", "input_ids", start=1)
        with g.scope("mask"):
            self._mask()

    @functools.cached_property
    def sequences(self) -> str:
        """The shape ``[batch, seq, hidden]``."""
        g = self.graph
        batch, width = g.op("Shape", "input_ids", end=1), g.constant([self.architecture.hidden_size], "int64")
        return g.op("Concat", batch, self.length, width, axis=0)

    def _mask(self) -> None:
        """Make what keeps attention off padding out of ``attention_mask``, wherever its zeros stand."""
        g = self.graph
        self.cls_mask = self._padding()
        # [batch, 1, query, key]: ONNX Runtime's CPU Attention needs the query axis written out.
        batch = g.op("Shape", "input_ids", end=1)
        wanted = g.op("Concat", batch, g.constant([1], "int64"), self.length, self.length, axis=0)
        self.mask = g.op("Expand", self.cls_mask, wanted)

    def _padding(self) -> str:
        """What is added to the scores of a key, for every head and query: ``[batch, 1, 1, key]``."""
        g = self.graph
        dropped = g.op("Sub", g.constant(1.0, "float32"), g.op("Cast", "attention_mask", to=1))  # [batch, seq], 1 = padding
        bias = g.op("Mul", dropped, g.constant(MASKED, "float32"))
        return g.op("Unsqueeze", bias, g.constant([1, 2], "int64"))

    def embed(self, tables: Embeddings) -> str:
        """Word + position + segment, normalized: ``[tokens, hidden]``, the texts of the batch one below the other."""
        g, a = self.graph, self.architecture
        x = self._words(tables.word)  # [batch, seq, width]
        table = self._stored("position", tables.position)
        if a.position_offset:
            position = g.op("Gather", table, self._counted_positions())  # [batch, seq, width]
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
        """From the width of the tables to ``hidden``, where they differ (ELECTRA)."""
        return self.dense("projection", x, weights)

    def _words(self, table: NDArray[Any]) -> str:
        """Look the word vectors up: ``[batch, seq, width]``."""
        return self.graph.op("Gather", self.graph.weight("word", table), "input_ids")

    def _stored(self, name: str, array: NDArray[Any]) -> str:
        """Keep a weight in the graph, to be used in float32."""
        return self.graph.weight(name, array)

    def _counted_positions(self) -> str:
        """RoBERTa numbers the tokens that are not padding, from ``padding_id + 1`` up; padding stays at ``padding_id``."""
        g, a = self.graph, self.architecture
        padding = g.constant(a.padding_id, "int64")
        real = g.op("Cast", g.op("Not", g.op("Equal", "input_ids", padding)), to=7)  # [batch, seq]
        counted = g.op("Mul", g.op("CumSum", real, g.constant(1, "int64")), real)
        return g.op("Add", counted, padding)

    def attend(self, x: str, layer: Layer, *, cls_only: bool) -> str:
        """Queries, keys and values, then the fused ``Attention`` node: softmax(q k^T / sqrt(d)) v for each head.

        Three products, because one of three times the width would have to be split, which copies its result. The scale
        1/sqrt(d) is folded into the query's weights.
        """
        g, a = self.graph, self.architecture
        scale = np.float32(1 / math.sqrt(a.head_size))
        query = Dense(layer.query.weight * scale, layer.query.bias * scale)
        if cls_only:
            first = self.dense("query", self.cls_rows(x), query)  # [batch, hidden]
            q = g.op("Unsqueeze", first, g.constant([1], "int64"))  # [batch, 1, hidden]
        else:
            q = self._by_text("query", x, query)
        k, v = self._by_text("key", x, layer.key), self._by_text("value", x, layer.value)
        mask = self.cls_mask if cls_only else self.mask
        context = g.op("Attention", q, k, v, mask, q_num_heads=a.heads, kv_num_heads=a.heads, scale=1.0)
        return g.op("Reshape", context, g.constant([-1, a.hidden_size], "int64"))  # [rows, hidden]

    def _by_text(self, name: str, x: str, weights: Dense) -> str:
        """``x W + b`` for each text: ``[tokens, hidden]`` to ``[batch, seq, hidden]``."""
        return self.graph.op("Reshape", self.dense(name, x, weights), self.sequences)

    def cls_rows(self, x: str) -> str:
        """``[tokens, hidden]`` to ``[batch, hidden]``."""
        return self.graph.op("Gather", self.graph.op("Reshape", x, self.sequences), self.graph.constant(0, "int64"), axis=1)

    def dense(self, name: str, x: str, weights: Dense) -> str:
        """``Gemm``, which adds the bias as it goes: 2 to 5 % faster than ``MatMul`` and ``Add``."""
        g = self.graph
        return g.op("Gemm", x, g.weight(f"{name}.weight", weights.weight), g.weight(f"{name}.bias", weights.bias))

    def dense_add_norm(self, name: str, x: str, weights: Dense, residual: str, norm: Norm) -> str:
        """``Add`` and ``LayerNormalization``: on the CPU faster than ``SkipLayerNormalization``."""
        return self._norm(self.graph.op("Add", self.dense(name, x, weights), residual), norm)

    def _norm(self, x: str, norm: Norm) -> str:
        g = self.graph
        gain, shift = g.weight("norm.weight", norm.weight), g.weight("norm.bias", norm.bias)
        return g.op("LayerNormalization", x, gain, shift, axis=-1, epsilon=self.architecture.norm_eps)

    def dense_activation(self, name: str, x: str, weights: Dense, kind: str) -> str:
        """The activation in standard operators: ``Gelu`` where the operator set has it, ``Relu``, ``Tanh``, or a few nodes."""
        return activations.emit(self.graph, self.dense(name, x, weights), kind, opset=self.opset)

    def classify(self, pooled: str, weights: Dense) -> None:
        """``logits`` ``[batch, labels]``."""
        self.graph.output("logits", self.dense("classifier", pooled, weights), "float32", ["batch", len(weights.bias)])
