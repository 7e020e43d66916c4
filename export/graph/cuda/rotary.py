"""ModernBERT's steps in fp16 on CUDA, which the padded graph and the packed one share.

RoPE turns queries and keys between their products and attention, so the three products are separate. Their heads' halves are
interleaved, to be turned as one head: ONNX Runtime's kernel has a block of threads for each. A window is attention in
blocks, as no fused operator skips what it hides.
"""

from __future__ import annotations

import abc
import functools
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fusedbert.engine.artifact import PACKED
from fusedbert.engine.errors import ExportError

from ...checkpoint.weights import Dense, Embeddings, Layer, Norm
from ..blocks import Attend
from ..builder import FLOAT16_MAX, MICROSOFT
from ..lowering import Lowering, activate, clip_activation
from ..rotary import rope_tables

_FUSED_ACTIVATIONS = {"gelu": "BiasGelu", "gelu_10": "BiasGelu", "gelu_new": "FastGelu"}
_THREADS = 1024  # of a block, one for each number
MASKED = -30_000.0  # added to a score, twice at most: float16 holds it, and exp() of it is 0


class Blocks(Protocol):
    """Blocks of queries."""

    def attend(self, q: str, k: str, v: str, attend: Attend) -> str:
        """Attend in blocks: ``[batch, tokens, hidden]``."""
        ...


class RotaryFp16(Lowering):
    """Steps that ModernBERT has in place of BERT's, or besides."""

    ids: str  # token ids, int32
    types: str  # segments, int32, if the model has some

    def half(self, name: str, array: NDArray[np.float32]) -> str:
        """Store a weight in float16; raise ``ExportError`` if it does not fit."""
        largest = float(np.abs(array).max(initial=0.0))
        if largest > FLOAT16_MAX:
            raise ExportError(f"weight {name} reaches {largest:.3g}, float16 ends at {FLOAT16_MAX:g}: use --for cpu")
        return self.graph.weight(name, array.astype(np.float16))

    def norm_rows(self, name: str, x: str, norm: Norm, eps: float) -> str:
        """``LayerNormalization``."""
        gamma, beta = self.half("norm.weight", norm.weight), self.half("norm.bias", norm.bias)
        return self.graph.op("LayerNormalization", x, gamma, beta, axis=-1, epsilon=eps)

    def embed_words(self, tables: Embeddings) -> str:
        """Look the words up, and normalize."""
        g = self.graph
        words = g.op("Gather", self.half("word", tables.word), self.ids)
        if tables.token_type is not None:
            words = g.op("Add", words, g.op("Gather", self.half("token_type", tables.token_type), self.types))
        return self.norm_rows("norm", words, tables.norm, self.architecture.norm_eps)

    def dense(self, name: str, x: str, weights: Dense) -> str:
        """``MatMul``, and ``Add`` if there is a bias."""
        product = self.graph.op("MatMul", x, self.half(f"{name}.weight", weights.weight))
        return self.graph.op("Add", product, self.half(f"{name}.bias", weights.bias)) if weights.bias.any() else product

    def dense_activation(self, name: str, x: str, weights: Dense, kind: str) -> str:
        """``MatMul``, then bias and activation, in one node if there is a kernel."""
        g = self.graph
        product = g.op("MatMul", x, self.half(f"{name}.weight", weights.weight))
        bias = self.half(f"{name}.bias", weights.bias)
        if kind in _FUSED_ACTIVATIONS:
            y = g.op(_FUSED_ACTIVATIONS[kind], product, bias, domain=MICROSOFT)
            return clip_activation(g, y, "float16") if kind == "gelu_10" else y
        return activate(g, g.op("Add", product, bias), kind, opset=self.opset, dtype="float16")

    def dense_gated(self, name: str, x: str, weights: Dense, gate: Dense, kind: str) -> str:
        """Two products."""
        return self.graph.op("Mul", self.dense_activation(name, x, weights, kind), self.dense("gate", x, gate))

    @functools.cached_property
    def _ropes(self) -> dict[float, tuple[str, str]]:
        return {}

    def interleaved(self, part: Dense) -> Dense:
        """Queries or keys whose pairs, which RoPE turns, lie together."""
        a = self.architecture
        order = np.arange(a.hidden_size).reshape(a.heads, 2, a.head_size // 2).transpose(0, 2, 1)
        return part.columns(order.ravel())

    def turn(self, x: str, i: int, places: str) -> str:
        """RoPE of ``x`` ``[batch, tokens, hidden]``, interleaved; ``places`` is the first position, or all."""
        a = self.architecture
        theta = a.thetas[i]
        together = max(n for n in range(1, a.heads + 1) if a.heads % n == 0 and (n == 1 or n * a.head_size <= _THREADS))
        if theta not in self._ropes:
            tables = rope_tables(theta, a.head_size, a.max_tokens)
            cos, sin = (np.tile(table, together) for table in tables)
            self._ropes[theta] = self.half("cos", cos), self.half("sin", sin)
        kind = {"interleaved": 1, "num_heads": a.heads // together}
        packed = {"is_packed_batching": 1} if self.layout == PACKED else {}  # rows of many texts
        return self.graph.op("RotaryEmbedding", x, places, *self._ropes[theta], domain=MICROSOFT, **kind, **packed)

    def attend_in_window(self, q: str, k: str, v: str, mask: str) -> str:
        """Attend to the keys of a block."""
        a = self.architecture
        scale = a.scale
        return self.graph.op("MultiHeadAttention", q, k, v, "", "", mask, domain=MICROSOFT, num_heads=a.heads, scale=scale)

    def attend_rotary(self, x: str, layer: Layer, i: int) -> str:
        """Three products of ``x``, RoPE, and attention of all tokens."""
        window = self.architecture.window(i)
        q, k, v = (
            self.by_text(self.dense(name, x, part))
            for name, part in (
                ("query", self.interleaved(layer.query)),
                ("key", self.interleaved(layer.key)),
                ("value", layer.value),
            )
        )
        q, k = self.turn(q, i, self.places), self.turn(k, i, self.places)
        if window is None:
            return self.attend_to_all(q, k, v)
        return self.by_row(self.window_blocks(window).attend(q, k, v, self.attend_in_window))

    @property
    @abc.abstractmethod
    def places(self) -> str:
        """Positions, int64, as ``turn`` takes them."""

    @abc.abstractmethod
    def window_blocks(self, window: int) -> Blocks:
        """Lay out a window's blocks, once."""

    @abc.abstractmethod
    def attend_to_all(self, q: str, k: str, v: str) -> str:
        """Attend to all keys, in one node."""

    def by_text(self, x: str) -> str:
        """The graph's layout to ``[batch, tokens, hidden]``."""
        return x

    def by_row(self, x: str) -> str:
        """``[batch, tokens, hidden]`` to the graph's layout."""
        return x
