"""The CPU in int8: products, attention and what stands behind them in the operators of ``fusedbert.export.graph.operators``.

Unsigned activations by signed weights, which CPUs with VNNI multiply four at a time; what one product gives, activation,
normalization or attention included, is rounded to eight bits for the next. Only the residual stays in fp32 from layer to
layer, and so does the head. The scales are constants, not taken from the batch: a text's score does not depend on what it
runs beside.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ...checkpoint.architecture import Architecture
from ...checkpoint.weights import Dense, Embeddings, Layer, Norm, Parameters
from ...int8.weights import FOUR, EightBits, QuantizedDense, QuantizedWeights, quantize_table
from ..operators import ACTIVATIONS, DOMAIN, function, to_panels
from .cpu_fp32 import CpuFp32

if TYPE_CHECKING:
    from ...parity.baseline import Progress, Subject

SIXTEEN = 16  # numbers of a register: what the attention kernel takes of a head at once
HALF_FROM = 4096  # numbers from which a weight that stays in floating point is stored as float16


class CpuInt8(CpuFp32):
    """``onnx/model_int8.onnx``."""

    file: ClassVar[str] = "onnx/model_int8.onnx"
    precision: ClassVar[str] = "int8"
    opset: ClassVar[int] = 24
    onnxruntime: ClassVar[str] = "1.25"  # 1.24 loads it, and gives padding a part in the scores
    attention_ops: ClassVar[tuple[str, ...]] = (f"{DOMAIN}:Attention", "Attention")

    @classmethod
    def unfit(cls, a: Architecture) -> str | None:
        """A product takes inputs by fours, and the stairs of ``quantize`` want act(x) close to x where x is large."""
        if a.hidden_size % FOUR:
            return f"hidden_size {a.hidden_size} is no multiple of {FOUR}"
        if a.activation not in ACTIVATIONS:
            return f"its operators know the activations {', '.join(ACTIVATIONS)}, and this model's is {a.activation}"
        return None

    @classmethod
    def prepare(cls, subject: Subject, tell: Progress) -> Parameters:
        """Calibrate on the built-in texts, or the user's, and quantize."""
        from ...int8.calibrate import calibrate, calibration_texts  # which builds graphs itself

        texts = calibration_texts(subject)
        tell(f"calibrating {cls.file} on {len(texts)} texts")
        return QuantizedWeights(subject.weights, calibrate(subject, texts))

    def _mask(self) -> None:
        """Count each text's tokens, ``[batch]``: ``Attention`` of opset 24 then needs no mask ``[batch, 1, query, key]``.

        The count says where padding begins, so padding has to stand behind the text. Where it does not, the count
        becomes -1, which ONNX Runtime refuses by name (``nonpad_kv_seqlen``), for the numbers would be wrong.
        """
        g = self.graph
        count = g.op("ReduceSum", "attention_mask", g.constant([1], "int64"), keepdims=0)  # [batch]
        last = g.op("ArgMax", g.op("Cast", "attention_mask", to=6), axis=1, keepdims=0, select_last_index=1)  # of the last 1
        behind = g.op("Equal", g.op("Add", last, g.constant(1, "int64")), count)
        self.tokens = g.op("Where", behind, count, g.constant(-1, "int64"))

    def embed(self, tables: Embeddings) -> str:
        """As in fp32."""
        self._rounded: dict[str, str] = {}  # the eight bits that an operator gave beside a number
        return super().embed(tables)

    def attend(self, x: str, layer: Layer, *, cls_only: bool) -> str:
        """As in fp32; the eight bits of ``x`` serve queries, keys and values. Gives eight bits: ``[rows, hidden]``."""
        g, a = self.graph, self.architecture
        query, key, value = (_quantized(dense) for dense in (layer.query, layer.key, layer.value))
        query = query.times(1 / math.sqrt(a.head_size))
        x8 = self._eight_bits("query_key_value", x, query)  # [batch, seq, hidden]
        if cls_only:
            first = self._product("query", self.cls_rows(x8), query)  # [batch, hidden]
            q = g.op("Unsqueeze", first, g.constant([1], "int64"))  # [batch, 1, hidden]
        else:
            q = self._product("query", x8, query)
        k, v = self._product("key", x8, key), self._product("value", x8, value)  # [batch, seq, hidden] each
        for keys_or_values in (k, v):  # else ONNX Runtime infers a width of 0 where it has to run the function, and warns
            g.declare(keys_or_values, "float32", ["batch", "sequence", a.hidden_size])
        context = self._attention(q, k, v, _quantized(layer.attention_output))
        # [batch, 1, hidden] to [batch, hidden], or [batch, seq, hidden] as it is
        return g.op("Squeeze", context, g.constant([1], "int64")) if cls_only else context

    def _attention(self, q: str, k: str, v: str, following: QuantizedDense) -> str:
        """``softmax(q k^T) v`` in eight bits; the kernel takes heads by sixteen numbers, others are left to ONNX Runtime."""
        g, heads = self.graph, self.architecture.heads
        scale, zero_point = self._constants("context", EightBits(following.input_scale, following.zero_point))
        if self.architecture.head_size % SIXTEEN:
            absent = ("", "", "")  # no mask, nothing past
            y = g.op("Attention", q, k, v, *absent, self.tokens, q_num_heads=heads, kv_num_heads=heads, scale=1.0)
            return g.op("QuantizeLinear", y, scale, zero_point)
        return self._operator("Attention", 1, q, k, v, self.tokens, scale, zero_point, num_heads=heads)[0]

    def cls_rows(self, x: str) -> str:
        """``[batch, seq, hidden]`` to ``[batch, hidden]``."""
        return self.graph.op("Gather", x, self.graph.constant(0, "int64"), axis=1)

    def _flat(self, x: str, width: int) -> str:
        """Leave the texts apart: the eight-bit product takes ``[batch, seq, hidden]``, unlike ``Gemm``."""
        return x

    def _project(self, x: str, weights: Dense) -> str:
        """As in fp32, where it is not quantized either."""
        projected = super()._project(super()._flat(x, len(weights.weight)), weights)
        return self.graph.op("Reshape", projected, self.sequences)

    def dense(self, name: str, x: str, weights: Dense) -> str:
        """A product in eight bits where its weights are; else as in fp32, from weights stored in half the bytes."""
        if isinstance(weights, QuantizedDense):
            return self._product(name, self._eight_bits(name, x, weights), weights)
        weight, bias = self._stored(f"{name}.weight", weights.weight), self.graph.weight(f"{name}.bias", weights.bias)
        return self.graph.op("Gemm", x, weight, bias)

    def dense_activation(self, name: str, x: str, weights: Dense, kind: str) -> str:
        """Product and activation in one operator, which gives eight bits; in the head, as in fp32."""
        if not isinstance(weights, QuantizedDense):
            return super().dense_activation(name, x, weights, kind)
        assert weights.following is not None  # the second feed-forward follows the first
        operands = self._operands(name, self._eight_bits(name, x, weights), weights)
        return self._operator(f"Dense{ACTIVATIONS[kind]}", 1, *operands, *self._constants(name, weights.following))[0]

    def dense_add_norm(self, name: str, x: str, weights: Dense, residual: str, norm: Norm) -> str:
        """One operator; ``x`` is eight bits, and so is a second result for the product behind."""
        dense, g = _quantized(weights), self.graph
        assert dense.residual is not None  # every product that a residual is added to has one
        factor, gain, shift = (
            g.weight(f"{name}.{part}", array)
            for part, array in (("residual", dense.residual), ("norm.weight", norm.weight), ("norm.bias", norm.bias))
        )
        behind = self._constants(f"{name}.norm", dense.following or EightBits(1.0, 0))
        operands = (*self._operands(name, x, dense), residual, factor, gain, shift, *behind)
        y, y8 = self._operator("DenseAddNorm", 2, *operands, epsilon=self.architecture.norm_eps)
        self._rounded[y] = y8
        return y

    def _eight_bits(self, name: str, x: str, weights: QuantizedDense) -> str:
        """Return ``x`` in eight bits, as the operator that made it gave them, or rounded here."""
        if x not in self._rounded:
            scale, zero_point = self._constants(f"{name}.input", EightBits(weights.input_scale, weights.zero_point))
            self._rounded[x] = self.graph.op("QuantizeLinear", x, scale, zero_point)
        return self._rounded[x]

    def _product(self, name: str, x8: str, weights: QuantizedDense) -> str:
        return self._operator("Dense", 1, *self._operands(name, x8, weights))[0]

    def _operands(self, name: str, x8: str, weights: QuantizedDense) -> tuple[str, ...]:
        """Input, its zero point, weight, scale of an output, bias: what every product takes."""
        g = self.graph
        return (
            x8,
            g.constant(weights.zero_point, "uint8"),
            g.weight(f"{name}.weight", to_panels(weights.weight)),
            g.weight(f"{name}.scale", weights.scale * np.float32(weights.input_scale)),
            g.weight(f"{name}.bias", weights.bias),
        )

    def _constants(self, name: str, to: EightBits) -> tuple[str, str]:
        scale = self.graph.weight(f"{name}.y_scale", np.asarray(to.scale, dtype=np.float32))
        return scale, self.graph.constant(to.zero_point, "uint8")

    def _operator(self, name: str, outputs: int, *operands: str, **attributes: float) -> list[str]:
        """Add one of our operators, and bring its function along."""
        for needed in ("Dense", name):
            self.graph.define(function(needed))
        return self.graph.ops(name, outputs, *operands, domain=DOMAIN, **attributes)

    def _words(self, table: NDArray[Any]) -> str:
        """Gather int8 rows and their scales: ``[batch, seq, width]``."""
        g, quantized = self.graph, quantize_table(table)
        rows = g.op("Cast", g.op("Gather", g.weight("word", quantized.rows), "input_ids"), to=1)
        return g.op("Mul", rows, g.op("Gather", g.weight("word_scale", quantized.scale), "input_ids"))

    def _stored(self, name: str, array: NDArray[Any]) -> str:
        """Keep a larger weight as float16; ONNX Runtime widens it once, when the graph is loaded."""
        if array.size < HALF_FROM or float(np.abs(array).max(initial=0.0)) > np.finfo(np.float16).max:
            return self.graph.weight(name, array)
        return self.graph.op("Cast", self.graph.weight(name, array.astype(np.float16)), to=1)


def _quantized(dense: Dense) -> QuantizedDense:
    assert isinstance(dense, QuantizedDense)  # the products of the encoder all are
    return dense
