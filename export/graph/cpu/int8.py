"""CPU in int8: products, attention and their epilogues in the operators of ``operators``.

CPUs with VNNI multiply uint8 activations by int8 weights four at a time. Each product's epilogue rounds the result to uint8 for
the next. Only the residual and the head are float32. Feed-forwards that ``QuantizedWeights`` keeps are in bfloat16.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ...checkpoint.weights import Dense, Embeddings, Norm
from ..int8.weights import FOUR, QuantizedDense, QuantizedEmbeddings, QuantParams, quantize_table
from ..operators import ACTIVATIONS, DOMAIN, GLUS, to_panels
from .bf16 import Bf16Products
from .narrow import SIXTEEN, Words, interleaved


class CpuInt8(Bf16Products):
    """``onnx/model_int8.onnx``."""

    file: ClassVar[str] = "onnx/model_int8.onnx"
    precision: ClassVar[str] = "int8"
    attention_ops: ClassVar[tuple[str, ...]] = (
        f"{DOMAIN}:Attention",
        f"{DOMAIN}:WindowAttention",
        f"{DOMAIN}:DisentangledAttention",
        "Attention",
    )
    takes: ClassVar[int] = FOUR
    divided: ClassVar[tuple[str, ...]] = ("hidden_size",)  # the neurons are rounded up with zeros

    def _scaled(self, query: Dense) -> Dense:
        """Fold 1/sqrt(d) into the scales."""
        return _int8(query).times(self.architecture.scale)

    def stored_words(self, tables: Embeddings) -> Words:
        """Words as int8 rows with their scales."""
        assert isinstance(tables, QuantizedEmbeddings)  # those without a projection are
        table, scale = self._rows(tables.word)
        return Words("Embed", table, (scale, *self._constants("norm", tables.following)))

    def narrow(self, name: str, x: str, weights: Dense) -> str:
        """Return ``x`` in uint8, from the operator that made it if possible."""
        if x not in self._narrow:
            self._narrow[x] = self.graph.op("QuantizeLinear", x, *self._constants(f"{name}.input", _int8(weights).input))
        return self._narrow[x]

    def product(self, name: str, narrow: str, weights: Dense) -> str:
        """Compute ``x W + b`` in float32."""
        y = self.operator("Dense", 1, *self._operands(name, narrow, _int8(weights)))[0]
        if name in ("key", "value"):  # else ONNX Runtime infers a width of 0 when it runs the function, and warns
            self.graph.declare(y, "float32", ["batch", "sequence", self.architecture.hidden_size])
        return y

    def turned_product(self, name: str, narrow: str, weights: Dense, rope: tuple[str, str]) -> str:
        """Compute ``rope(x W + b)`` in float32."""
        y = self.operator("DenseRope", 1, *self._operands(name, narrow, _int8(weights)), *rope)[0]
        self.graph.declare(y, "float32", ["batch", "sequence", self.architecture.hidden_size])
        return y

    def narrow_attention(
        self, q: str, k: str, v: str, lengths: str, following: Dense, window: int | None, positions: tuple[str, ...]
    ) -> str:
        """``softmax(q k^T) v`` in uint8; our kernel takes heads by sixteens, ONNX Runtime all others."""
        g, heads = self.graph, self.architecture.heads
        scale, zero_point = self._constants("context", _int8(following).input)
        if self.architecture.head_size % SIXTEEN:
            assert not positions  # such a model is refused (``unsupported``)
            absent = ("", "", "")  # no mask, nothing past
            y = g.op("Attention", q, k, v, *absent, lengths, q_num_heads=heads, kv_num_heads=heads, scale=1.0)
            return g.op("QuantizeLinear", y, scale, zero_point)
        operands = (q, k, v, lengths, scale, zero_point)
        if positions:
            return self.operator("DisentangledAttention", 1, *operands, *positions, num_heads=heads)[0]
        if window is not None:
            return self.operator("WindowAttention", 1, *operands, num_heads=heads, window=window)[0]
        return self.operator("Attention", 1, *operands, num_heads=heads)[0]

    def dense(self, name: str, x: str, weights: Dense) -> str:
        """An int8 product, or one in fp32."""
        if isinstance(weights, QuantizedDense):
            return self.product(name, self.narrow(name, x, weights), weights)
        return super().dense(name, x, weights)

    def dense_activation(self, name: str, x: str, weights: Dense, kind: str) -> str:
        """One operator with a uint8 or bfloat16 result; in the head, as in fp32."""
        if not isinstance(weights, QuantizedDense):
            if name == "intermediate":
                return self.bf16_activation(name, self.graph.cast(x, "bfloat16"), weights, kind)
            return super().dense_activation(name, x, weights, kind)
        assert weights.following is not None  # the second feed-forward follows the first
        operands = self._operands(name, self.narrow(name, x, weights), weights)
        return self.operator(f"Dense{ACTIVATIONS[kind]}", 1, *operands, *self._constants(name, weights.following))[0]

    def dense_gated(self, name: str, x: str, weights: Dense, gate: Dense, kind: str) -> str:
        """One operator with a uint8 or bfloat16 result, the weights of both side by side."""
        if not isinstance(weights, QuantizedDense):
            return self.bf16_gated(name, self.graph.cast(x, "bfloat16"), weights, gate, kind)
        assert weights.following is not None  # the second feed-forward follows the first
        both, operator = interleaved(weights, gate), GLUS[ACTIVATIONS[kind]]
        operands = self._operands(name, self.narrow(name, x, weights), _int8(both))
        return self.operator(f"Dense{operator}", 1, *operands, *self._constants(name, weights.following))[0]

    def dense_add_norm(
        self, name: str, x: str, weights: Dense, residual: str, norm: Norm, *, final: bool = False
    ) -> tuple[str, str]:
        """One operator with a float32 result and, for the next product, a uint8 one."""
        kept = self.architecture.pre_norm and not final
        if not isinstance(weights, QuantizedDense):
            y, _ = self.bf16_add_norm(name, x, weights, residual, norm, pre_norm=kept)
            return y, self._norm(y, norm) if kept else y
        dense, g = weights, self.graph
        assert dense.residual is not None  # every product with a residual has its factor
        factor, gamma, beta = (
            g.weight(f"{name}.{part}", array)
            for part, array in (("residual", dense.residual), ("norm.weight", norm.weight), ("norm.bias", norm.bias))
        )
        output = self._constants(f"{name}.norm", dense.following or QuantParams(scale=1.0, zero_point=0))
        operands = (*self._operands(name, x, dense), residual, factor, gamma, beta, *output)
        operator = "DenseAddPreNorm" if kept else "DenseAddNorm"
        y, y8 = self.operator(operator, 2, *operands, epsilon=self.architecture.norm_eps)
        if not kept:
            self._narrow[y] = y8
            return y, y
        if dense.following is None:  # a product in bfloat16 takes it
            return y, self._norm(y, norm)
        self._narrow[y8] = y8
        return y, y8

    def _operands(self, name: str, x8: str, weights: QuantizedDense) -> tuple[str, ...]:
        """Input, its zero point, weight, scales of the outputs, bias."""
        g = self.graph
        return (
            x8,
            g.constant(weights.input.zero_point, "uint8"),
            g.weight(f"{name}.weight", to_panels(weights.weight, FOUR)),
            g.weight(f"{name}.scale", weights.scale * np.float32(weights.input.scale)),
            self.bias(name, weights),
        )

    def _constants(self, name: str, params: QuantParams) -> tuple[str, str]:
        scale = self.graph.weight(f"{name}.y_scale", np.asarray(params.scale, dtype=np.float32))
        return scale, self.graph.constant(params.zero_point, "uint8")

    def _words(self, table: NDArray[Any]) -> str:
        """Gather int8 rows and their scales: ``[batch, seq, width]``."""
        g = self.graph
        rows, scale = self._rows(table)
        words = g.cast(g.op("Gather", rows, "input_ids"), "float32")
        return g.op("Mul", words, g.op("Gather", scale, "input_ids"))

    def _rows(self, table: NDArray[Any]) -> tuple[str, str]:
        rows, scale = quantize_table(table)
        return self.graph.weight("word", rows), self.graph.weight("word_scale", scale)


def _int8(dense: Dense) -> QuantizedDense:
    assert isinstance(dense, QuantizedDense)  # all products of the encoder are
    return dense
