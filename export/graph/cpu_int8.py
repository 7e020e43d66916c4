"""CPU in int8: products, attention and their epilogues in the operators of ``operators``.

CPUs with VNNI multiply uint8 activations by int8 weights four at a time. Each GEMM's epilogue rounds the result to uint8 for
the next. Only the residual and the head are float32.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..checkpoint.architecture import Architecture
from ..checkpoint.weights import Dense, Embeddings, Layer, Norm
from .builder import FLOAT16_MAX
from .cpu_fp32 import CpuFp32
from .int8_weights import FOUR, QuantizedDense, QuantParams, quantize_table
from .operators import ACTIVATIONS, DOMAIN, function, to_panels

SIXTEEN = 16  # numbers of a register; the attention kernel takes heads of a multiple of this width
HALF_FROM = 4096  # numbers from which a weight in floating point is stored as float16


class CpuInt8(CpuFp32):
    """``onnx/model_int8.onnx``."""

    file: ClassVar[str] = "onnx/model_int8.onnx"
    precision: ClassVar[str] = "int8"
    opset: ClassVar[int] = 24
    onnxruntime: ClassVar[str] = "1.25"  # 1.24 loads it, and gives padding a part in the scores
    attention_ops: ClassVar[tuple[str, ...]] = (f"{DOMAIN}:Attention", "Attention")

    @classmethod
    def unsupported(cls, a: Architecture) -> str | None:
        """Refuse widths that are not a multiple of four, and activations that are not close to x for large x."""
        if a.hidden_size % FOUR:
            return f"hidden_size {a.hidden_size} is not a multiple of {FOUR}"
        if a.activation not in ACTIVATIONS:
            return f"its operators know the activations {', '.join(ACTIVATIONS)}, and this model's is {a.activation}"
        return None

    def _mask(self) -> None:
        """Count each text's tokens, ``[batch]``, which ``Attention`` of opset 24 takes instead of a mask.

        It is -1 if padding is not on the right, which ONNX Runtime refuses by name (``nonpad_kv_seqlen``).
        """
        g = self.graph
        count = g.op("ReduceSum", "attention_mask", g.constant([1], "int64"), keepdims=0)  # [batch]
        last = g.op("ArgMax", g.cast("attention_mask", "int32"), axis=1, keepdims=0, select_last_index=1)  # of the last 1
        behind = g.op("Equal", g.op("Add", last, g.constant(1, "int64")), count)
        self.tokens = g.op("Where", behind, count, g.constant(-1, "int64"))

    def embed(self, tables: Embeddings) -> str:
        """As in fp32."""
        self._quantized: dict[str, str] = {}  # float tensors, and the uint8 form that an operator gave with them
        return super().embed(tables)

    def attend(self, x: str, layer: Layer, *, cls_only: bool) -> str:
        """Three products of the uint8 form of ``x``, and attention in uint8: ``[rows, hidden]``."""
        g, a = self.graph, self.architecture
        query, key, value = (_int8(dense) for dense in (layer.query, layer.key, layer.value))
        query = query.times(1 / math.sqrt(a.head_size))
        x8 = self._quantize("query_key_value", x, query)  # [batch, seq, hidden]
        if cls_only:
            first = self._product("query", self.cls_rows(x8), query)  # [batch, hidden]
            q = g.op("Unsqueeze", first, g.constant([1], "int64"))  # [batch, 1, hidden]
        else:
            q = self._product("query", x8, query)
        k, v = self._product("key", x8, key), self._product("value", x8, value)  # [batch, seq, hidden] each
        for keys_or_values in (k, v):  # else ONNX Runtime infers a width of 0 when it runs the function, and warns
            g.declare(keys_or_values, "float32", ["batch", "sequence", a.hidden_size])
        context = self._attention(q, k, v, _int8(layer.attention_output))
        # [batch, 1, hidden] to [batch, hidden], or [batch, seq, hidden] as it is
        return g.op("Squeeze", context, g.constant([1], "int64")) if cls_only else context

    def _attention(self, q: str, k: str, v: str, following: QuantizedDense) -> str:
        """``softmax(q k^T) v`` in uint8; our kernel takes heads by sixteens, ONNX Runtime all others."""
        g, heads = self.graph, self.architecture.heads
        scale, zero_point = self._constants("context", following.input)
        if self.architecture.head_size % SIXTEEN:
            absent = ("", "", "")  # no mask, nothing past
            y = g.op("Attention", q, k, v, *absent, self.tokens, q_num_heads=heads, kv_num_heads=heads, scale=1.0)
            return g.op("QuantizeLinear", y, scale, zero_point)
        return self._operator("Attention", 1, q, k, v, self.tokens, scale, zero_point, num_heads=heads)[0]

    def cls_rows(self, x: str) -> str:
        """``[batch, seq, hidden]`` to ``[batch, hidden]``."""
        return self.graph.op("Gather", x, self.graph.constant(0, "int64"), axis=1)

    def _flat(self, x: str, width: int) -> str:
        """Keep ``[batch, seq, hidden]``, which the uint8 product takes, unlike ``Gemm``."""
        return x

    def _project(self, x: str, weights: Dense) -> str:
        """As in fp32, and not quantized."""
        projected = super()._project(super()._flat(x, len(weights.weight)), weights)
        return self.graph.op("Reshape", projected, self.sequences)

    def dense(self, name: str, x: str, weights: Dense) -> str:
        """An int8 product, or one in fp32 from weights stored as float16."""
        if isinstance(weights, QuantizedDense):
            return self._product(name, self._quantize(name, x, weights), weights)
        weight, bias = self._stored(f"{name}.weight", weights.weight), self.graph.weight(f"{name}.bias", weights.bias)
        return self.graph.op("Gemm", x, weight, bias)

    def dense_activation(self, name: str, x: str, weights: Dense, kind: str) -> str:
        """One operator with a uint8 result; in the head, as in fp32."""
        if not isinstance(weights, QuantizedDense):
            return super().dense_activation(name, x, weights, kind)
        assert weights.following is not None  # the second feed-forward follows the first
        operands = self._operands(name, self._quantize(name, x, weights), weights)
        return self._operator(f"Dense{ACTIVATIONS[kind]}", 1, *operands, *self._constants(name, weights.following))[0]

    def dense_add_norm(self, name: str, x: str, weights: Dense, residual: str, norm: Norm) -> str:
        """One operator with a float32 result and, for the next product, a uint8 one."""
        dense, g = _int8(weights), self.graph
        assert dense.residual is not None  # every product with a residual has its factor
        factor, gamma, beta = (
            g.weight(f"{name}.{part}", array)
            for part, array in (("residual", dense.residual), ("norm.weight", norm.weight), ("norm.bias", norm.bias))
        )
        output = self._constants(f"{name}.norm", dense.following or QuantParams(scale=1.0, zero_point=0))
        operands = (*self._operands(name, x, dense), residual, factor, gamma, beta, *output)
        y, y8 = self._operator("DenseAddNorm", 2, *operands, epsilon=self.architecture.norm_eps)
        self._quantized[y] = y8
        return y

    def _quantize(self, name: str, x: str, weights: QuantizedDense) -> str:
        """Return ``x`` in uint8, from the operator that made it if possible."""
        if x not in self._quantized:
            self._quantized[x] = self.graph.op("QuantizeLinear", x, *self._constants(f"{name}.input", weights.input))
        return self._quantized[x]

    def _product(self, name: str, x8: str, weights: QuantizedDense) -> str:
        return self._operator("Dense", 1, *self._operands(name, x8, weights))[0]

    def _operands(self, name: str, x8: str, weights: QuantizedDense) -> tuple[str, ...]:
        """Input, its zero point, weight, scales of the outputs, bias."""
        g = self.graph
        return (
            x8,
            g.constant(weights.input.zero_point, "uint8"),
            g.weight(f"{name}.weight", to_panels(weights.weight)),
            g.weight(f"{name}.scale", weights.scale * np.float32(weights.input.scale)),
            g.weight(f"{name}.bias", weights.bias),
        )

    def _constants(self, name: str, params: QuantParams) -> tuple[str, str]:
        scale = self.graph.weight(f"{name}.y_scale", np.asarray(params.scale, dtype=np.float32))
        return scale, self.graph.constant(params.zero_point, "uint8")

    def _operator(self, name: str, outputs: int, *operands: str, **attributes: float) -> list[str]:
        for needed in ("Dense", name):
            self.graph.define(function(needed))
        return self.graph.ops(name, outputs, *operands, domain=DOMAIN, **attributes)

    def _words(self, table: NDArray[Any]) -> str:
        """Gather int8 rows and their scales: ``[batch, seq, width]``."""
        g = self.graph
        rows, scale = quantize_table(table)
        words = g.cast(g.op("Gather", g.weight("word", rows), "input_ids"), "float32")
        return g.op("Mul", words, g.op("Gather", g.weight("word_scale", scale), "input_ids"))

    def _stored(self, name: str, array: NDArray[Any]) -> str:
        """Store a large weight as float16; ONNX Runtime widens it at load."""
        if array.size < HALF_FROM or float(np.abs(array).max(initial=0.0)) > FLOAT16_MAX:
            return self.graph.weight(name, array)
        return self.graph.cast(self.graph.weight(name, array.astype(np.float16)), "float32")


def _int8(dense: Dense) -> QuantizedDense:
    assert isinstance(dense, QuantizedDense)  # all products of the encoder are
    return dense
