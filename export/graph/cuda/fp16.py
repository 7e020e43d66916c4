"""CUDA in fp16: a padded batch in the fused operators of ONNX Runtime's CUDA provider.

Weights and activations are float16; the classifier and the logits are float32. Padding has to be on the right. The last layer
has ``MultiHeadAttention`` with one query, because ``Attention`` wants as many queries as keys.

Each needs another mask for its fused kernel (bench/NOTES.md, "CUDA"): ``Attention`` one length a text; ``MultiHeadAttention``
with fewer queries than keys the lengths and the starts of both, or only lengths if no fused kernel fits the heads.
"""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fusedbert.engine.errors import ExportError

from ...checkpoint.architecture import Architecture
from ...checkpoint.weights import Dense, Embeddings, Layer, Norm
from ..builder import FLOAT16_MAX, MICROSOFT
from ..lowering import Lowering, activate, clip_activation, count_positions

_FUSED_ACTIVATIONS = {"gelu": "BiasGelu", "gelu_10": "BiasGelu", "gelu_new": "FastGelu"}
HEAD_MULTIPLE = 8  # of a head's width: what the fused kernels behind MultiHeadAttention and PackedAttention take


class CudaFp16(Lowering):
    """``onnx/model_fp16.onnx``."""

    file: ClassVar[str] = "onnx/model_fp16.onnx"
    target: ClassVar[str] = "cuda"
    precision: ClassVar[str] = "fp16"
    opset: ClassVar[int] = 17
    onnxruntime: ClassVar[str] = "1.31"  # that of [gpu]; on the CPU it runs from 1.21 on, 1.18 to 1.20 give other logits there
    attention_ops: ClassVar[tuple[str, ...]] = (f"{MICROSOFT}:Attention", f"{MICROSOFT}:MultiHeadAttention")

    @classmethod
    def unsupported(cls, a: Architecture) -> str | None:
        """Refuse RoPE and windows, which the fused operators of this graph do not know, and heads that are not built here."""
        if a.pre_norm:
            return "its operators do not know RoPE and windows yet"
        if a.pooling != "cls":
            return f"its head reads the vector of the first token, and this model's the {a.pooling} of all"
        if any(step.activation is None for step in a.head):
            return "its head has no normalization, and this model's has one"
        return None

    def inputs(self) -> None:
        """Declare int64 inputs as in transformers, and cast them to int32 for the kernels."""
        g = self.graph
        names = ["input_ids", "attention_mask", *(["token_type_ids"] if self.architecture.has_segments else [])]
        with g.scope("inputs"):
            narrow = [g.cast(g.input(name, "int64", ["batch", "sequence"]), "int32") for name in names]
        self.ids, self.mask = narrow[:2]
        self.types = narrow[2] if len(narrow) > 2 else ""

    def embed(self, tables: Embeddings) -> str:
        """One node: ``[batch, seq, hidden]``, and the length of each text, ``[batch]``."""
        g, a = self.graph, self.architecture
        positions = [count_positions(g, self.ids, a.padding_id, "int32")] if a.position_offset else []
        segments = "" if tables.token_type is None else self._half("token_type", tables.token_type)
        word, position = self._half("word", tables.word), self._position(tables)
        gamma, beta = self._half("norm.weight", tables.norm.weight), self._half("norm.bias", tables.norm.bias)
        operands = (self.ids, self.types, word, position, segments, gamma, beta, self.mask, *positions)
        x, self.lengths = g.ops("EmbedLayerNormalization", 2, *operands, domain=MICROSOFT, epsilon=a.norm_eps)
        return self._project(x, tables)

    def _position(self, tables: Embeddings) -> str:
        assert tables.position is not None  # ``unsupported`` says so
        return self._half("position", tables.position)

    def _project(self, x: str, tables: Embeddings) -> str:
        if tables.projection is None:
            return x
        product = self.graph.op("MatMul", x, self._half("projection.weight", tables.projection.weight))
        return self.graph.op("Add", product, self._half("projection.bias", tables.projection.bias))

    def attend(self, x: str, layer: Layer, i: int, *, cls_only: bool) -> str:
        """One fused node; for only [CLS], ``MultiHeadAttention`` after three products."""
        g, a = self.graph, self.architecture
        scale = 1 / math.sqrt(a.head_size)
        if not cls_only:
            weight, bias = self._query_key_value(layer)
            # [batch, seq, hidden]
            return g.op("Attention", x, weight, bias, self.lengths, domain=MICROSOFT, num_heads=a.heads, scale=scale)
        zero, one = g.constant([0], "int64"), g.constant([1], "int64")
        first = g.op("Slice", x, zero, one, one)  # [batch, 1, hidden]
        q = g.op("MatMul", first, self._half("query.weight", layer.query.weight))
        k = g.op("MatMul", x, self._half("key.weight", layer.key.weight))  # [batch, seq, hidden]
        v = g.op("MatMul", x, self._half("value.weight", layer.value.weight))
        bias = self._half("bias", np.concatenate([layer.query.bias, layer.key.bias, layer.value.bias]))
        mask = self.lengths if a.head_size % HEAD_MULTIPLE else self._spans()
        context = g.op("MultiHeadAttention", q, k, v, bias, mask, domain=MICROSOFT, num_heads=a.heads, scale=scale)
        return g.op("Squeeze", context, one)  # [batch, 1, hidden] -> [batch, hidden]

    def _query_key_value(self, layer: Layer) -> tuple[str, str]:
        """Lay the three projections side by side: weight ``[hidden, 3 hidden]``, bias ``[3 hidden]``."""
        parts = (layer.query, layer.key, layer.value)
        weight = self._half("query_key_value.weight", np.concatenate([part.weight for part in parts], axis=1))
        return weight, self._half("query_key_value.bias", np.concatenate([part.bias for part in parts]))

    def _spans(self) -> str:
        """Lengths of the keys, starts and end of the queries, starts and end of the keys: int32 ``[3 batch + 2]``."""
        g = self.graph  # by running sums, and not from the shape, so that no node leaves the GPU
        zero, axis = g.constant([0], "int32"), g.constant(0, "int64")
        every = g.cast(g.op("Equal", self.mask, self.mask), "int32")  # [batch, seq], ones
        width = g.op("ReduceSum", every, g.constant([1], "int64"), keepdims=0)  # [batch], seq each
        single = g.cast(g.op("Equal", width, width), "int32")  # [batch], ones
        starts = (g.op("Concat", zero, g.op("CumSum", part, axis), axis=0) for part in (single, width))  # [batch + 1]
        return g.op("Concat", self.lengths, *starts, axis=0)

    def cls_rows(self, x: str) -> str:
        """``[batch, seq, hidden]`` to ``[batch, hidden]``."""
        return self.graph.op("Gather", x, self.graph.constant(0, "int64"), axis=1)

    def dense_activation(self, name: str, x: str, weights: Dense, kind: str) -> str:
        """``MatMul``, then bias and activation, in one node if there is a kernel."""
        g = self.graph
        product = g.op("MatMul", x, self._half(f"{name}.weight", weights.weight))
        bias = self._half(f"{name}.bias", weights.bias)
        if kind in _FUSED_ACTIVATIONS:
            y = g.op(_FUSED_ACTIVATIONS[kind], product, bias, domain=MICROSOFT)
            return clip_activation(g, y, "float16") if kind == "gelu_10" else y
        return activate(g, g.op("Add", product, bias), kind, opset=self.opset, dtype="float16")

    def dense_add_norm(
        self, name: str, x: str, weights: Dense, residual: str, norm: Norm, *, final: bool = False
    ) -> tuple[str, str]:
        """``MatMul``, then bias, residual and normalization in one node."""
        g = self.graph
        product = g.op("MatMul", x, self._half(f"{name}.weight", weights.weight))
        gamma, beta = self._half("norm.weight", norm.weight), self._half("norm.bias", norm.bias)
        bias = self._half(f"{name}.bias", weights.bias)
        eps = self.architecture.norm_eps
        y = g.op("SkipLayerNormalization", product, residual, gamma, beta, bias, domain=MICROSOFT, epsilon=eps)
        return y, y

    def classify(self, pooled: str, weights: Dense) -> None:
        """``logits`` ``[batch, labels]``, in float32."""
        g = self.graph
        wide = g.cast(pooled, "float32")
        product = g.op("MatMul", wide, g.weight("classifier.weight", weights.weight))
        logits = g.op("Add", product, g.weight("classifier.bias", weights.bias))
        g.output("logits", logits, "float32", ["batch", len(weights.bias)])

    def _half(self, name: str, array: NDArray[np.float32]) -> str:
        largest = float(np.abs(array).max(initial=0.0))
        if largest > FLOAT16_MAX:
            raise ExportError(f"weight {name} reaches {largest:.3g}, float16 ends at {FLOAT16_MAX:g}: use --for cpu")
        return self.graph.weight(name, array.astype(np.float16))
