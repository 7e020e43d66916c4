"""CUDA in fp16: a padded batch in the fused operators of ONNX Runtime's CUDA provider.

Weights and activations are float16; the classifier and the logits are float32. Padding has to be on the right. The last layer
has ``MultiHeadAttention`` with one query, because ``Attention`` wants as many queries as keys.

Each needs another mask for its fused kernel (bench/NOTES.md, "CUDA"): ``Attention`` one length a text; ``MultiHeadAttention``
with fewer queries than keys the lengths and the starts of both, or only lengths if no fused kernel fits the heads.
"""

from __future__ import annotations

import functools
from typing import ClassVar

import numpy as np

from ...checkpoint.architecture import Architecture
from ...checkpoint.weights import Dense, Embeddings, Layer, Norm
from ..blocks import WindowBlocks, number
from ..builder import MICROSOFT
from ..lowering import Logits, count_positions
from ..positions import RelativeScores
from .rotary import MASKED, Blocks, RotaryFp16

HEAD_MULTIPLE = 8  # of a head's width: what the fused kernels behind MultiHeadAttention and PackedAttention take


class HalfBlocks(WindowBlocks):
    """Blocks whose mask is float16."""

    dtype, masked = "float16", MASKED


class CudaFp16(RotaryFp16):
    """``onnx/model_fp16.onnx``."""

    file: ClassVar[str] = "onnx/model_fp16.onnx"
    target: ClassVar[str] = "cuda"
    precision: ClassVar[str] = "fp16"
    opset: ClassVar[int] = 17
    onnxruntime: ClassVar[str] = "1.31"  # that of [gpu]; on the CPU it runs from 1.21 on, 1.18 to 1.20 give other logits there
    attention_ops: ClassVar[tuple[str, ...]] = (f"{MICROSOFT}:Attention", f"{MICROSOFT}:MultiHeadAttention")

    @classmethod
    def unsupported(cls, a: Architecture) -> str | None:
        """Refuse what the fused operators of embeddings and attention do not take."""
        if a.relative is not None and a.head_size % HEAD_MULTIPLE:
            return f"heads of width {a.head_size} have no fused attention under a mask, it takes multiples of {HEAD_MULTIPLE}"
        if a.thetas and a.head_size % HEAD_MULTIPLE:
            return f"heads of width {a.head_size} have no fused RoPE, it takes multiples of {HEAD_MULTIPLE}"
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
        if tables.position is None:
            self.lengths = g.op("ReduceSum", self.mask, number(g, 1), keepdims=0)
            return self.embed_words(tables)
        positions = [count_positions(g, self.ids, a.padding_id, "int32")] if a.position_offset else []
        segments = "" if tables.token_type is None else self.half("token_type", tables.token_type)
        word, position = self.half("word", tables.word), self.half("position", tables.position)
        gamma, beta = self.half("norm.weight", tables.norm.weight), self.half("norm.bias", tables.norm.bias)
        operands = (self.ids, self.types, word, position, segments, gamma, beta, self.mask, *positions)
        x, self.lengths = g.ops("EmbedLayerNormalization", 2, *operands, domain=MICROSOFT, epsilon=a.norm_eps)
        return self._project(x, tables)

    def _project(self, x: str, tables: Embeddings) -> str:
        if tables.projection is None:
            return x
        product = self.graph.op("MatMul", x, self.half("projection.weight", tables.projection.weight))
        return self.graph.op("Add", product, self.half("projection.bias", tables.projection.bias))

    def attend(self, x: str, layer: Layer, i: int, *, cls_only: bool) -> str:
        """One fused node; for only [CLS], ``MultiHeadAttention`` after three products."""
        g, a = self.graph, self.architecture
        if a.relative is not None:
            return self._attend_relative(x, layer, cls_only=cls_only)
        scale = a.scale
        if not cls_only:
            if a.thetas:
                return self.attend_rotary(x, layer, i)
            weight, bias = self._query_key_value(layer)
            # [batch, seq, hidden]
            return g.op("Attention", x, weight, bias, self.lengths, domain=MICROSOFT, num_heads=a.heads, scale=scale)
        query, key = (self.interleaved(part) if a.thetas else part for part in (layer.query, layer.key))
        zero, one = g.constant([0], "int64"), g.constant([1], "int64")
        first = g.op("Slice", x, zero, one, one)  # [batch, 1, hidden]
        real, lengths, window = self.mask, self.lengths, a.window(i)
        if window is not None:  # [CLS] sees the first tokens
            seen = number(g, window + 1)
            x, real = (g.op("Slice", part, zero, seen, one) for part in (x, self.mask))
            lengths = g.op("ReduceSum", real, one, keepdims=0)
        q = g.op("MatMul", first, self.half("query.weight", query.weight))
        k = g.op("MatMul", x, self.half("key.weight", key.weight))  # [batch, seq, hidden]
        v = g.op("MatMul", x, self.half("value.weight", layer.value.weight))
        bias = self.half("bias", np.concatenate([query.bias, key.bias, layer.value.bias]))
        if a.thetas:  # which do not turn the first token
            k = self.turn(g.op("Add", k, self.half("key.bias", key.bias)) if key.bias.any() else k, i, self.places)
            bias = self.half("bias", np.concatenate([query.bias, np.zeros_like(key.bias), layer.value.bias]))
        mask = lengths if a.head_size % HEAD_MULTIPLE else self._spans(real, lengths, one_query=True)
        context = g.op("MultiHeadAttention", q, k, v, bias, mask, domain=MICROSOFT, num_heads=a.heads, scale=scale)
        return g.op("Squeeze", context, one)  # [batch, 1, hidden] -> [batch, hidden]

    def _attend_relative(self, x: str, layer: Layer, *, cls_only: bool) -> str:
        """Three products, and one fused node under the scores of positions and the mask."""
        g, a = self.graph, self.architecture
        q = self.dense("query", g.op("Unsqueeze", self.cls_rows(x), number(g, 1)) if cls_only else x, layer.query)
        k, v = self.dense("key", x, layer.key), self.dense("value", x, layer.value)
        if not cls_only:
            return self.attend_to_positions(q, k, v, layer)
        k, v = self.by_place(k), self.by_place(v)
        added = g.op("Add", self.relative.scores_of_first(q, k, layer), self.padding)
        context = g.op("MultiHeadAttention", q, k, v, "", "", added, domain=MICROSOFT, num_heads=a.heads, scale=a.scale)
        return g.op("Squeeze", context, number(g, 1))  # [batch, 1, hidden] -> [batch, hidden]

    def attend_to_positions(self, q: str, k: str, v: str, layer: Layer) -> str:
        """Attend with scores of positions, in one fused node."""
        g, a = self.graph, self.architecture
        added = g.op("Add", self.relative.scores(q, k, layer), self.padding)
        return g.op("MultiHeadAttention", q, k, v, "", "", added, domain=MICROSOFT, num_heads=a.heads, scale=a.scale)

    def by_place(self, x: str) -> str:
        """The rows of each text, ``[batch, sequence, hidden]``."""
        return x

    @functools.cached_property
    def relative(self) -> RelativeScores:
        """The scores of positions."""
        a, length = self.architecture, self.longest
        return RelativeScores(self.graph, a, length, scale=a.scale, store=self.half, heads_first=True, most=self.most_places)

    @property
    def most_places(self) -> int:
        """The most tokens of a padded text."""
        return self.architecture.max_tokens

    @property
    def longest(self) -> str:
        """Tokens of the padded texts, ``[1]``."""
        return self.graph.op("Shape", self.ids, start=1)

    @functools.cached_property
    def padding(self) -> str:
        """The bias of each key's scores, ``[batch, 1, 1, key]``."""
        g = self.graph
        dropped = g.op("Sub", g.constant(1.0, "float16"), g.cast(self.mask, "float16"))  # 1 = padding
        return g.op("Unsqueeze", g.op("Mul", dropped, g.constant(MASKED, "float16")), g.constant([1, 2], "int64"))

    @property
    def places(self) -> str:
        """The first position, int64: the others follow."""
        return number(self.graph, 0)

    def attend_to_all(self, q: str, k: str, v: str) -> str:
        """Attend to all keys, in one fused node: ``[batch, seq, hidden]``."""
        a = self.architecture
        mask, scale = self._spans(self.mask, self.lengths, one_query=False), a.scale
        return self.graph.op("MultiHeadAttention", q, k, v, "", mask, domain=MICROSOFT, num_heads=a.heads, scale=scale)

    def window_blocks(self, window: int) -> Blocks:
        """Lay out a window's blocks, once."""
        g, blocks = self.graph, self._blocks.get(window)
        if blocks is None:
            batch, length = g.op("Shape", self.ids, end=1), g.op("Shape", self.ids, start=1)
            hidden = self.architecture.hidden_size
            blocks = HalfBlocks(g, window, batch=batch, length=length, hidden=hidden, padding=self.padding)
            self._blocks[window] = blocks
        return blocks

    @functools.cached_property
    def _blocks(self) -> dict[int, WindowBlocks]:
        return {}

    def _query_key_value(self, layer: Layer) -> tuple[str, str]:
        """Lay the three projections side by side: weight ``[hidden, 3 hidden]``, bias ``[3 hidden]``."""
        parts = (layer.query, layer.key, layer.value)
        weight = self.half("query_key_value.weight", np.concatenate([part.weight for part in parts], axis=1))
        return weight, self.half("query_key_value.bias", np.concatenate([part.bias for part in parts]))

    def _spans(self, real: str, lengths: str, *, one_query: bool) -> str:
        """Lengths of the keys, starts and end of the queries, starts and end of the keys: int32 ``[3 batch + 2]``."""
        g = self.graph  # by running sums, and not from the shape, so that no node leaves the GPU
        zero, axis = g.constant([0], "int32"), g.constant(0, "int64")
        every = g.cast(g.op("Equal", real, real), "int32")  # [batch, seq], ones
        width = g.op("ReduceSum", every, g.constant([1], "int64"), keepdims=0)  # [batch], seq each
        single = g.cast(g.op("Equal", width, width), "int32")  # [batch], ones
        queries = single if one_query else width
        starts = (g.op("Concat", zero, g.op("CumSum", part, axis), axis=0) for part in (queries, width))  # [batch + 1]
        return g.op("Concat", lengths, *starts, axis=0)

    def cls_rows(self, x: str) -> str:
        """``[batch, seq, hidden]`` to ``[batch, hidden]``."""
        return self.graph.op("Gather", x, self.graph.constant(0, "int64"), axis=1)

    def mean_rows(self, x: str) -> str:
        """The mean in float32: ``[batch, hidden]``."""
        g, axis = self.graph, number(self.graph, 1)
        real = g.op("Unsqueeze", g.cast(self.mask, "float32"), number(g, 2))  # [batch, seq, 1]
        total = g.op("ReduceSum", g.op("Mul", g.cast(x, "float32"), real), axis, keepdims=0)
        return g.cast(g.op("Div", total, g.op("ReduceSum", real, axis, keepdims=0)), "float16")

    def dense_add_norm(
        self, name: str, x: str, weights: Dense, residual: str, norm: Norm, *, final: bool = False
    ) -> tuple[str, str]:
        """``MatMul``, then bias, residual and normalization in one node."""
        g = self.graph
        product = g.op("MatMul", x, self.half(f"{name}.weight", weights.weight))
        gamma, beta = self.half("norm.weight", norm.weight), self.half("norm.bias", norm.bias)
        bias = self.half(f"{name}.bias", weights.bias)
        eps = self.architecture.norm_eps
        operands = (product, residual, gamma, beta, bias)
        if self.architecture.pre_norm and not final:
            normed, *_, total = g.ops("SkipLayerNormalization", 4, *operands, domain=MICROSOFT, epsilon=eps)
            return total, normed
        y = g.op("SkipLayerNormalization", *operands, domain=MICROSOFT, epsilon=eps)
        return y, y

    def token_rows(self, x: str) -> str:
        """``[batch, seq, hidden]``, which ``MatMul`` takes."""
        return x

    def classify(self, pooled: str, weights: Dense) -> Logits:
        """``MatMul`` in float32."""
        g = self.graph
        wide = g.cast(pooled, "float32")
        product = g.op("MatMul", wide, g.weight("classifier.weight", weights.weight))
        return Logits(g.op("Add", product, g.weight("classifier.bias", weights.bias)), len(weights.bias))
