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

    @classmethod
    def prepare(cls, subject: Subject, tell: Progress) -> Parameters:
        """Calibrate on the built-in texts, or the user's, and quantize."""
        from fusedbert.export.calibrate import calibrate, calibration_texts  # which builds graphs itself

        texts = calibration_texts(subject)
        tell(f"calibrating {cls.file} on {len(texts)} texts")
        return QuantizedWeights(subject.weights, calibrate(subject, texts))

    def attend(self, x: str, layer: Layer, *, cls_only: bool) -> str:
        """As in fp32; the eight bits of ``x`` serve queries, keys and values."""
        g, a = self.graph, self.architecture
        query, key, value = layer.query, layer.key, layer.value
        assert isinstance(query, QuantizedDense) and isinstance(key, QuantizedDense) and isinstance(value, QuantizedDense)
        query = query.times(1 / math.sqrt(a.head_size))
        q8 = self._eight_bits("query_key_value", x, query)  # [tokens, hidden]
        if cls_only:
            first = self._product("query", self.cls_rows(q8), query)  # [batch, hidden]
            q = g.op("Unsqueeze", first, g.constant([1], "int64"))  # [batch, 1, hidden]
            k, v = self._apart("key_value", q8, key, value)  # [batch, seq, hidden] each
        else:
            q, k, v = self._apart("query_key_value", q8, query, key, value)
        mask = self.cls_mask if cls_only else self.mask
        context = g.op("Attention", q, k, v, mask, q_num_heads=a.heads, kv_num_heads=a.heads, scale=1.0)
        return g.op("Reshape", context, g.constant([-1, a.hidden_size], "int64"))  # [rows, hidden]

    def _apart(self, name: str, q8: str, *parts: QuantizedDense) -> list[str]:
        """Project once to the width of all parts, then split."""
        joined = QuantizedDense(
            np.concatenate([part.weight for part in parts], axis=1),
            np.concatenate([part.bias for part in parts]),
            np.concatenate([part.scale for part in parts]),
            parts[0].input_scale,
            parts[0].zero_point,
        )
        return self._split(self._product(name, q8, joined), len(parts))

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
