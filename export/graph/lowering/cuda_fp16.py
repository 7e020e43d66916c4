"""CUDA in fp16: ONNX Runtime's fused operators, which its CUDA provider has kernels for.

A padded batch, as transformers makes it: ``com.microsoft:EmbedLayerNormalization``, ``Attention`` with the lengths of
the texts as mask (padding on the right), ``SkipLayerNormalization`` and ``BiasGelu`` with the bias of the product
before them. In the last layer ``MultiHeadAttention`` with one query, because ``Attention`` ties queries to keys.
Weights and activations are float16; the classifier works in float32, and so leave the logits.

Which mask keeps a fused kernel differs between the two operators (bench/NOTES.md, "CUDA"): ``Attention`` wants one
length a text, ``MultiHeadAttention`` with fewer queries than keys the lengths and the starts of queries and keys. Where
the heads fit no fused kernel it wants lengths, too: its other kernel takes the second part of a longer mask for where the
keys begin.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fusedbert.engine.errors import ExportError

from ...checkpoint.weights import Dense, Embeddings, Layer, Norm
from ...parity.gates import FLOAT16_MAX
from .. import activations
from ..builder import MICROSOFT
from .base import Lowering

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

    def inputs(self) -> None:
        """Declare token ids, attention mask and segments, as int64 like any transformers model's; kernels want int32."""
        g = self.graph
        names = ["input_ids", "attention_mask", *(["token_type_ids"] if self.architecture.has_segments else [])]
        with g.scope("inputs"):
            narrow = [g.op("Cast", g.input(name, "int64", ["batch", "sequence"]), to=6) for name in names]
        self.ids, self.mask = narrow[:2]
        self.types = narrow[2] if len(narrow) > 2 else ""

    def embed(self, tables: Embeddings) -> str:
        """``EmbedLayerNormalization``: ``[batch, seq, hidden]``, and the length of each text, ``[batch]``."""
        g, a = self.graph, self.architecture
        positions = self._counted_positions() if a.position_offset else ""
        types = "" if tables.token_type is None else self._half("token_type", tables.token_type)
        x, self.lengths = g.ops(
            "EmbedLayerNormalization",
            2,
            self.ids,
            self.types,
            self._half("word", tables.word),
            self._half("position", tables.position),
            types,
            self._half("norm.weight", tables.norm.weight),
            self._half("norm.bias", tables.norm.bias),
            self.mask,
            *([positions] if positions else []),
            domain=MICROSOFT,
            epsilon=a.norm_eps,
        )
        if tables.projection is not None:
            product = g.op("MatMul", x, self._half("projection.weight", tables.projection.weight))
            x = g.op("Add", product, self._half("projection.bias", tables.projection.bias))
        return x

    def _counted_positions(self) -> str:
        """RoBERTa numbers the tokens that are not padding, from ``padding_id + 1`` up; padding stays at ``padding_id``."""
        g = self.graph
        padding = g.constant(self.architecture.padding_id, "int32")
        real = g.op("Cast", g.op("Not", g.op("Equal", self.ids, padding)), to=6)  # [batch, seq]
        return g.op("Add", g.op("Mul", g.op("CumSum", real, g.constant(1, "int64")), real), padding)

    def attend(self, x: str, layer: Layer, *, cls_only: bool) -> str:
        """The fused node projects and attends; for one query a text, ``MultiHeadAttention`` after the projections."""
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
        """Where each text's one query and its keys lie in the padded batch, int32 ``[3 batch + 2]``.

        Lengths of the keys, then the starts of the queries and the end, then the starts of the keys and the end. Made by
        running sums, and not from the shape, so that no node leaves the GPU.
        """
        g = self.graph
        zero, axis = g.constant([0], "int32"), g.constant(0, "int64")
        every = g.op("Cast", g.op("Equal", self.mask, self.mask), to=6)  # [batch, seq], ones
        width = g.op("ReduceSum", every, g.constant([1], "int64"), keepdims=0)  # [batch], seq each
        single = g.op("Cast", g.op("Equal", width, width), to=6)  # [batch], ones
        starts = (g.op("Concat", zero, g.op("CumSum", part, axis), axis=0) for part in (single, width))  # [batch + 1]
        return g.op("Concat", self.lengths, *starts, axis=0)

    def cls_rows(self, x: str) -> str:
        """``[batch, seq, hidden]`` to ``[batch, hidden]``."""
        return self.graph.op("Gather", x, self.graph.constant(0, "int64"), axis=1)

    def dense_activation(self, name: str, x: str, weights: Dense, kind: str) -> str:
        """``MatMul``, then the activation together with the bias where there is a kernel for both."""
        g = self.graph
        product = g.op("MatMul", x, self._half(f"{name}.weight", weights.weight))
        bias = self._half(f"{name}.bias", weights.bias)
        if kind in _FUSED_ACTIVATIONS:
            y = g.op(_FUSED_ACTIVATIONS[kind], product, bias, domain=MICROSOFT)
            return activations.clip(g, y, "float16") if kind == "gelu_10" else y
        return activations.emit(g, g.op("Add", product, bias), kind, opset=self.opset, dtype="float16")

    def dense_add_norm(self, name: str, x: str, weights: Dense, residual: str, norm: Norm) -> str:
        """``MatMul``, then bias, residual and normalization in one ``SkipLayerNormalization``."""
        g = self.graph
        product = g.op("MatMul", x, self._half(f"{name}.weight", weights.weight))
        gain, shift = self._half("norm.weight", norm.weight), self._half("norm.bias", norm.bias)
        bias = self._half(f"{name}.bias", weights.bias)
        eps = self.architecture.norm_eps
        return g.op("SkipLayerNormalization", product, residual, gain, shift, bias, domain=MICROSOFT, epsilon=eps)

    def classify(self, pooled: str, weights: Dense) -> None:
        """``logits`` ``[batch, labels]``, float32 from the pooled vector on."""
        g = self.graph
        wide = g.op("Cast", pooled, to=1)
        product = g.op("MatMul", wide, g.weight("classifier.weight", weights.weight))
        logits = g.op("Add", product, g.weight("classifier.bias", weights.bias))
        g.output("logits", logits, "float32", ["batch", len(weights.bias)])

    def _half(self, name: str, array: NDArray[np.float32]) -> str:
        largest = float(np.abs(array).max(initial=0.0))
        if largest > FLOAT16_MAX:
            raise ExportError(f"weight {name} reaches {largest:.3g}, float16 ends at {FLOAT16_MAX:g}: use --for cpu")
        half: NDArray[Any] = array.astype(np.float16)
        return self.graph.weight(name, half)
