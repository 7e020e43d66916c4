"""CPU in fewer bits: what the graphs in int8 and in bfloat16 have in common.

Embeddings, products, attention and their epilogues are operators of ``operators``. Each rounds its result to the narrow format,
in which the next product takes it. Only the residual and the head are float32.
"""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...checkpoint.architecture import Architecture
from ...checkpoint.relative import C2P, P2C, REACH
from ...checkpoint.weights import Dense, Embeddings, Layer
from ..blocks import LONG, number
from ..builder import FLOAT16_MAX
from ..operators import ACTIVATIONS, DOMAIN, PANEL, SPARE, bfloat16, embed_function, functions, to_columns
from .fp32 import CpuFp32

SIXTEEN = 16  # numbers of a register; the attention kernels take heads of a multiple of this width
HALF_FROM = 4096  # numbers from which a weight in floating point is stored as float16


class Words(NamedTuple):
    """An operator for embeddings, its table of words, and the operands at its end."""

    operator: str
    table: str
    rest: tuple[str, ...] = ()


class CpuOperators(CpuFp32):
    """The base class of both; ``narrow`` is the format that products take."""

    opset: ClassVar[int] = 24
    onnxruntime: ClassVar[str] = "1.25"  # 1.24 loads it, and gives padding a part in the scores
    takes: ClassVar[int]  # inputs of a product that an instruction takes at once
    divided: ClassVar[tuple[str, ...]]  # names of the widths that have to be multiples of it

    @classmethod
    def unsupported(cls, a: Architecture) -> str | None:
        """Refuse widths that an instruction does not divide, and activations that are not close to x for large x."""
        for name in cls.divided:
            if getattr(a, name) % cls.takes:
                return f"{name} {getattr(a, name)} is not a multiple of {cls.takes}"
        if a.windows and a.head_size % SIXTEEN:
            return (
                f"heads of width {a.head_size} are not a multiple of {SIXTEEN}, and its attention with a window takes no others"
            )
        if a.relative is not None and a.head_size % SIXTEEN:
            return (
                f"heads of width {a.head_size} are not a multiple of {SIXTEEN}, and its attention with relative positions "
                "takes no others"
            )
        if a.activation not in ACTIVATIONS:
            return f"its operators know the activations {', '.join(ACTIVATIONS)}, and this model's is {a.activation}"
        return None

    def _mask(self) -> None:
        """Count each text's tokens, ``[batch]``, which ``Attention`` of opset 24 takes instead of a mask.

        It is -1 if padding is not on the right, which ONNX Runtime refuses by name (``nonpad_kv_seqlen``).
        """
        self.tokens = self.operator("Lengths", 1, "attention_mask")[0]

    _buckets = ""  # of distances, once they are stored

    def embed(self, tables: Embeddings) -> str:
        """One operator, with a narrow result for the first products; before a projection as in fp32."""
        self._narrow: dict[str, str] = {}  # float tensors, and the narrow form that an operator gave with them
        words = None if tables.projection is not None else self.stored_words(tables)
        if words is None:
            return super().embed(tables)
        g, a = self.graph, self.architecture
        segments = tables.token_type is not None
        operands = (
            "input_ids",
            "token_type_ids" if segments else "",
            words.table,
            "" if tables.position is None else self._stored("position", tables.position),
            g.weight("token_type", tables.token_type) if tables.token_type is not None else "",
            g.weight("norm.weight", tables.norm.weight),
            g.weight("norm.bias", tables.norm.bias),
            *words.rest,
        )
        counted = {"padding_id": a.padding_id} if a.position_offset else {}
        g.define(
            embed_function(words.operator, segments=segments, counted=bool(counted), positioned=tables.position is not None)
        )
        y, narrow = g.ops(words.operator, 2, *operands, domain=DOMAIN, epsilon=a.norm_eps, **counted)
        self._narrow[y] = narrow
        return y

    @abc.abstractmethod
    def stored_words(self, tables: Embeddings) -> Words | None:
        """Store the word vectors, or return None if no operator takes them."""

    @abc.abstractmethod
    def narrow(self, name: str, x: str, weights: Dense) -> str:
        """Round ``x`` to the format that the product of ``weights`` takes."""

    @abc.abstractmethod
    def product(self, name: str, narrow: str, weights: Dense) -> str:
        """Compute ``x W + b`` in the format that attention takes."""

    @abc.abstractmethod
    def turned_product(self, name: str, narrow: str, weights: Dense, rope: tuple[str, str]) -> str:
        """Compute ``rope(x W + b)`` likewise, of weights with ``in_pairs``, by the tables of cos and sin."""

    @abc.abstractmethod
    def narrow_attention(
        self, q: str, k: str, v: str, lengths: str, following: Dense, window: int | None, positions: tuple[str, ...]
    ) -> str:
        """Compute ``softmax(q k^T) v`` in the format that the product of ``following`` takes; for ``positions`` see below."""

    def position_operands(self, layer: Layer) -> tuple[str, ...]:
        """Operands of relative positions: two tables, the bucket of each distance, a table of numbers."""
        g, a = self.graph, self.architecture
        if a.relative is None:
            return ()
        if not self._buckets:
            reach, (_, index) = min(REACH, a.max_tokens), a.relative.columns()
            self._buckets = g.weight("buckets", index[REACH - reach : REACH + reach - 1])  # from 1 - reach up
        tables = ((layer.position_key, 1.0), (layer.position_query, a.scale))  # queries bring their scale with them
        key, query = (
            g.weight(name, to_columns(bfloat16(table * scale))) if table is not None else ""
            for name, (table, scale) in zip(("position_key", "position_query"), tables, strict=True)
        )
        bias = layer.position_bias
        spare = np.zeros((a.heads, SPARE), np.float32)
        numbers = "" if bias is None else g.weight("position_bias", np.hstack([bias, spare]).astype(np.float32))
        return key, query, self._buckets, numbers

    def attend(self, x: str, layer: Layer, i: int, *, cls_only: bool) -> str:
        """Three products of the narrow form of ``x``, and attention: ``[batch, seq, hidden]``, or ``[batch, hidden]``."""
        g, window, lengths = self.graph, self.architecture.window(i), self.tokens
        query, key = self._paired(self._scaled(layer.query)), self._paired(layer.key)
        narrow = self.narrow("query_key_value", x, query)  # [batch, seq, hidden]
        if cls_only:
            first = self.product("query", self.cls_rows(narrow), query)  # [batch, hidden]; RoPE does not turn the first token
            q = g.op("Unsqueeze", first, g.constant([1], "int64"))  # [batch, 1, hidden]
            if window is not None:  # [CLS] sees the first tokens
                seen, zero, axis = number(g, window + 1), number(g, 0), number(g, 1)
                narrow, lengths, window = g.op("Slice", narrow, zero, seen, axis), g.op("Min", lengths, seen), None
        else:
            q = self._turned_product("query", narrow, query, i)
        k, v = self._turned_product("key", narrow, key, i), self.product("value", narrow, layer.value)
        context = self.narrow_attention(q, k, v, lengths, layer.attention_output, window, self.position_operands(layer))
        # [batch, 1, hidden] to [batch, hidden], or [batch, seq, hidden] as it is
        return g.op("Squeeze", context, g.constant([1], "int64")) if cls_only else context

    def _turned_product(self, name: str, narrow: str, weights: Dense, i: int) -> str:
        """``x W + b``, with RoPE."""
        a = self.architecture
        if not a.thetas:
            return self.product(name, narrow, weights)
        if a.head_size % PANEL == 0:
            return self.turned_product(name, narrow, weights, self.rope(a.thetas[i]))
        return self.turn_narrow(self.product(name, narrow, weights), i)

    def turn_narrow(self, x: str, i: int) -> str:
        """RoPE by a separate node, for heads that do not fill panels."""
        return self._turn(x, i, self.graph.op("Shape", x, start=1, end=2))

    def _paired(self, weights: Dense) -> Dense:
        """Queries or keys in the order in which a product turns them."""
        a = self.architecture
        return in_pairs(weights, a.head_size) if a.thetas and a.head_size % PANEL == 0 else weights

    def cls_rows(self, x: str) -> str:
        """``[batch, seq, hidden]`` to ``[batch, hidden]``."""
        return self.graph.op("Gather", x, self.graph.constant(0, "int64"), axis=1)

    def token_rows(self, x: str) -> str:
        """``[batch, seq, hidden]`` to ``[tokens, hidden]``, as the ``Gemm`` of a head takes it."""
        return super()._flat(x, self.architecture.hidden_size)

    def _flat(self, x: str, width: int) -> str:
        """Keep ``[batch, seq, hidden]``, which our products take, unlike ``Gemm``."""
        return x

    def _project(self, x: str, weights: Dense) -> str:
        """As in fp32."""
        projected = super()._project(super()._flat(x, len(weights.weight)), weights)
        return self.graph.op("Reshape", projected, self.sequences)

    def dense(self, name: str, x: str, weights: Dense) -> str:
        """A product in fp32, outside the encoder, from weights stored as float16."""
        return self.graph.op("Gemm", x, self._stored(f"{name}.weight", weights.weight), self.bias(name, weights))

    def operator(self, name: str, outputs: int, /, *operands: str, **attributes: float) -> list[str]:
        """Add a node of one of our operators, and its definition."""
        a = self.architecture
        terms = a.relative.terms if a.relative is not None else ()
        for function in functions(name, long=a.max_tokens > LONG, positions=(C2P in terms, P2C in terms)):
            self.graph.define(function)
        return self.graph.ops(name, outputs, *operands, domain=DOMAIN, **attributes)

    def _stored(self, name: str, array: NDArray[Any]) -> str:
        """Store a large weight as float16; ONNX Runtime widens it at load."""
        if array.size < HALF_FROM or not fits_float16(array):
            return self.graph.weight(name, array)
        return self.graph.cast(self.graph.weight(name, array.astype(np.float16)), "float32")


def in_pairs(weights: Dense, head_size: int) -> Dense:
    """Reorder the outputs of each head: a panel has the first halves of 16 of RoPE's pairs, then their second halves."""
    outputs = np.arange(weights.weight.shape[1]).reshape(-1, 2, head_size // PANEL, PANEL // 2)  # [heads, halves, panels, 16]
    return weights.columns(outputs.transpose(0, 2, 1, 3).ravel())


def interleaved(weights: Dense, gate: Dense) -> Dense:
    """Alternate the outputs of both by sixteens, filled up with zeros: a panel has 16 neurons and their gates."""
    filled = -weights.weight.shape[1] % (PANEL // 2)
    first, second = weights.filled(filled), gate.filled(filled)
    width = first.weight.shape[1]
    order = np.arange(2 * width).reshape(2, -1, PANEL // 2).transpose(1, 0, 2).ravel()
    return first.beside(second).columns(order)


def rows_filled(weights: Dense) -> Dense:
    """Fill the inputs up with zeros, as ``interleaved`` does the neurons."""
    return dataclasses.replace(weights, weight=np.pad(weights.weight, ((0, -len(weights.weight) % (PANEL // 2)), (0, 0))))


def fits_float16(array: NDArray[Any]) -> bool:
    """Return whether no number is beyond float16."""
    return float(np.abs(array).max(initial=0.0)) <= FLOAT16_MAX
