"""The CPU in int8: the fp32 graph with its products in eight bits.

``QuantizeLinear`` with a constant scale, then ``com.microsoft:MatMulIntegerToFloat``: unsigned activations by signed
weights, which CPUs with VNNI or AMX multiply four at a time. Attention, normalizations and activations stay in fp32,
and so does the head. The scales are constants, not taken from the batch: a text's score does not depend on what it runs beside.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fusedbert.export.checkpoint import Dense, Layer, Norm, Parameters
from fusedbert.export.graph import MICROSOFT
from fusedbert.export.lowering.cpu import CpuFp32
from fusedbert.export.quantized import QuantizedDense, QuantizedWeights, quantize_table

if TYPE_CHECKING:
    from fusedbert.export.subject import Progress, Subject

HALF_FROM = 4096  # numbers from which a weight that stays in floating point is stored as float16


class CpuInt8(CpuFp32):
    """``onnx/model_int8.onnx``."""

    file: ClassVar[str] = "onnx/model_int8.onnx"
    precision: ClassVar[str] = "int8"
    opset: ClassVar[int] = 24

    @classmethod
    def prepare(cls, subject: Subject, tell: Progress) -> Parameters:
        """Calibrate on the built-in texts, or the user's, and quantize."""
        from fusedbert.export.calibrate import calibrate, calibration_texts  # which builds graphs itself

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

    def attend(self, x: str, layer: Layer, *, cls_only: bool) -> str:
        """As in fp32; the eight bits of ``x`` serve queries, keys and values."""
        g, a = self.graph, self.architecture
        query, key, value = layer.query, layer.key, layer.value
        assert isinstance(query, QuantizedDense) and isinstance(key, QuantizedDense) and isinstance(value, QuantizedDense)
        query = query.times(1 / math.sqrt(a.head_size))
        x8 = self._eight_bits("query_key_value", x, query)  # [batch, seq, hidden]
        if cls_only:
            first = self._product("query", self.cls_rows(x8), query)  # [batch, hidden]
            q = g.op("Unsqueeze", first, g.constant([1], "int64"))  # [batch, 1, hidden]
        else:
            q = self._product("query", x8, query)
        k, v = self._product("key", x8, key), self._product("value", x8, value)  # [batch, seq, hidden] each
        absent = ("", "", "")  # no mask, nothing past
        context = g.op("Attention", q, k, v, *absent, self.tokens, q_num_heads=a.heads, kv_num_heads=a.heads, scale=1.0)
        # [batch, 1, hidden] to [batch, hidden], or [batch, seq, hidden] as it is
        return g.op("Reshape", context, g.constant([-1, a.hidden_size], "int64")) if cls_only else context

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

    def dense_add_norm(self, name: str, x: str, weights: Dense, residual: str, norm: Norm) -> str:
        """As in fp32, the residual multiplied by what smoothing took from it."""
        if isinstance(weights, QuantizedDense) and weights.residual is not None:
            residual = self.graph.op("Mul", residual, self.graph.weight("residual", weights.residual))
        return super().dense_add_norm(name, x, weights, residual, norm)

    def _eight_bits(self, name: str, x: str, weights: QuantizedDense) -> str:
        g = self.graph
        scale = g.weight(f"{name}.input_scale", np.asarray(weights.input_scale, dtype=np.float32))
        return g.op("QuantizeLinear", x, scale, g.constant(weights.zero_point, "uint8"))

    def _product(self, name: str, q8: str, weights: QuantizedDense) -> str:
        g = self.graph
        return g.op(
            "MatMulIntegerToFloat",
            q8,
            g.weight(f"{name}.weight", weights.weight),
            g.weight(f"{name}.product_scale", np.asarray(weights.input_scale, dtype=np.float32)),
            g.weight(f"{name}.weight_scale", weights.scale),
            g.constant(weights.zero_point, "uint8"),
            "",
            g.weight(f"{name}.bias", weights.bias),
            domain=MICROSOFT,
        )

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
