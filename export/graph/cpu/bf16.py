"""CPU in bfloat16: products, attention and their epilogues in the operators of ``operators``.

CPUs with AVX-512 BF16 multiply pairs of bfloat16 and add them up in float32, at twice the speed of fp32, from half the memory.
A number keeps the range of float32 and 8 bits of its precision, so nothing needs a scale or calibration.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ...checkpoint.weights import Dense, Embeddings, Norm
from ..operators import ACTIVATIONS, DOMAIN, GLUS, bfloat16, to_panels
from .narrow import SIXTEEN, CpuOperators, Words, fits_float16, interleaved, rows_filled

PAIR = 2  # inputs that the instruction takes at once


class Bf16Products(CpuOperators):
    """Products in bfloat16 with their epilogues; the int8 graph has some of them too."""

    def bf16_activation(self, name: str, x16: str, weights: Dense, kind: str) -> str:
        """``act(x W + b)`` in bfloat16."""
        return self.bf16_dense(f"Bf16Dense{ACTIVATIONS[kind]}", name, x16, weights)

    def bf16_gated(self, name: str, x16: str, weights: Dense, gate: Dense, kind: str) -> str:
        """``act(x W + b) * (x V + c)`` in bfloat16, the weights of both side by side."""
        return self.bf16_dense(f"Bf16Dense{GLUS[ACTIVATIONS[kind]]}", name, x16, interleaved(weights, gate))

    def bf16_add_norm(
        self, name: str, x16: str, weights: Dense, residual: str, norm: Norm, *, pre_norm: bool = False
    ) -> tuple[str, str]:
        """``norm(x W + b + residual)`` in float32 and in bfloat16, or if ``pre_norm`` the sum in float32 and its norm."""
        g = self.graph
        weights = rows_filled(weights) if self.architecture.gated else weights
        gamma, beta = g.weight(f"{name}.norm.weight", norm.weight), g.weight(f"{name}.norm.bias", norm.bias)
        operands = (*self.bf16_operands(name, x16, weights), residual, gamma, beta)
        sizes = {"width": weights.weight.shape[1], "epsilon": self.architecture.norm_eps}
        y, y16 = self.operator("Bf16DenseAddPreNorm" if pre_norm else "Bf16DenseAddNorm", 2, *operands, **sizes)
        return y, y16

    def bf16_dense(self, operator: str, name: str, x16: str, weights: Dense) -> str:
        """A product, by the name of its operator."""
        return self.operator(operator, 1, *self.bf16_operands(name, x16, weights), width=weights.weight.shape[1])[0]

    def bf16_operands(self, name: str, x16: str, weights: Dense) -> tuple[str, ...]:
        """Input, weight, bias."""
        panels = to_panels(bfloat16(weights.weight), PAIR)
        return x16, self.graph.weight(f"{name}.weight", panels), self.bias(name, weights)


class CpuBf16(Bf16Products):
    """``onnx/model_bf16.onnx``."""

    file: ClassVar[str] = "onnx/model_bf16.onnx"
    precision: ClassVar[str] = "bf16"
    attention_ops: ClassVar[tuple[str, ...]] = (
        f"{DOMAIN}:Bf16Attention",
        f"{DOMAIN}:Bf16WindowAttention",
        f"{DOMAIN}:Bf16DisentangledAttention",
        "Attention",
    )
    takes: ClassVar[int] = PAIR
    divided: ClassVar[tuple[str, ...]] = ("hidden_size", "intermediate_size")

    def stored_words(self, tables: Embeddings) -> Words | None:
        """Words as float16, which rounds less than bfloat16."""
        return Words("Bf16Embed", self._halves(tables.word)) if fits_float16(tables.word) else None

    def narrow(self, name: str, x: str, weights: Dense) -> str:
        """Return ``x`` in bfloat16, from the operator that made it if possible."""
        if x not in self._narrow:
            self._narrow[x] = self.graph.cast(x, "bfloat16")
        return self._narrow[x]

    def product(self, name: str, narrow: str, weights: Dense) -> str:
        """Compute ``x W + b`` in bfloat16."""
        y = self.bf16_dense("Bf16Dense", name, narrow, weights)
        if name in ("key", "value"):  # its shape cannot be inferred from panels
            self.graph.declare(y, "bfloat16", ["batch", "sequence", self.architecture.hidden_size])
        return y

    def turned_product(self, name: str, narrow: str, weights: Dense, rope: tuple[str, str]) -> str:
        """Compute ``rope(x W + b)`` in bfloat16."""
        width = self.architecture.hidden_size
        y = self.operator("Bf16DenseRope", 1, *self.bf16_operands(name, narrow, weights), *rope, width=width)[0]
        self.graph.declare(y, "bfloat16", ["batch", "sequence", width])
        return y

    def turn_narrow(self, x: str, i: int) -> str:
        """RoPE by a separate node, in float32."""
        return self.graph.cast(super().turn_narrow(self.graph.cast(x, "float32"), i), "bfloat16")

    def narrow_attention(
        self, q: str, k: str, v: str, lengths: str, following: Dense, window: int | None, positions: tuple[str, ...]
    ) -> str:
        """``softmax(q k^T) v`` in bfloat16; our kernel takes heads by sixteens, ONNX Runtime all others, in fp32."""
        g, heads = self.graph, self.architecture.heads
        if self.architecture.head_size % SIXTEEN:
            assert not positions  # such a model is refused (``unsupported``)
            absent = ("", "", "")  # no mask, nothing past
            wide = (g.cast(each, "float32") for each in (q, k, v))
            y = g.op("Attention", *wide, *absent, lengths, q_num_heads=heads, kv_num_heads=heads, scale=1.0)
            return g.cast(y, "bfloat16")
        if positions:
            return self.operator("Bf16DisentangledAttention", 1, q, k, v, lengths, *positions, num_heads=heads)[0]
        if window is not None:
            return self.operator("Bf16WindowAttention", 1, q, k, v, lengths, num_heads=heads, window=window)[0]
        return self.operator("Bf16Attention", 1, q, k, v, lengths, num_heads=heads)[0]

    def dense_activation(self, name: str, x: str, weights: Dense, kind: str) -> str:
        """One operator with a bfloat16 result; in the head, as in fp32."""
        if name != "intermediate":
            return super().dense_activation(name, x, weights, kind)
        return self.bf16_activation(name, self.narrow(name, x, weights), weights, kind)

    def dense_gated(self, name: str, x: str, weights: Dense, gate: Dense, kind: str) -> str:
        """One operator with a bfloat16 result."""
        return self.bf16_gated(name, self.narrow(name, x, weights), weights, gate, kind)

    def dense_add_norm(
        self, name: str, x: str, weights: Dense, residual: str, norm: Norm, *, final: bool = False
    ) -> tuple[str, str]:
        """One operator with a float32 result and, for the next product, a bfloat16 one."""
        kept = self.architecture.pre_norm and not final
        y, y16 = self.bf16_add_norm(name, x, weights, residual, norm, pre_norm=kept)
        normed = y16 if kept else y
        self._narrow[normed] = y16
        return y, normed

    def _words(self, table: NDArray[Any]) -> str:
        """Gather rows stored as float16: ``[batch, seq, width]``."""
        g = self.graph
        if not fits_float16(table):
            return super()._words(table)
        return g.cast(g.op("Gather", self._halves(table), "input_ids"), "float32")

    def _halves(self, table: NDArray[Any]) -> str:
        return self.graph.weight("word", table.astype(np.float16))
