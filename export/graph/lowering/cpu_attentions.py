"""The CPU graph that also shows its attention: fp32, standard ONNX, for ``fusedbert explain`` and ``Classifier.attentions``.

It computes what ``onnx/model.onnx`` computes, and gives three more outputs, of every layer and for every token:

* ``attentions`` ``[layers, batch, heads, query, key]``, the probabilities after the softmax, out of the fused nodes themselves;
* ``queries`` and ``keys`` ``[layers, batch, sequence, hidden]``, heads side by side, from which the raw scores q.k follow.

Their size grows with the square of the text, so this graph is for looking at texts one by one, not for serving.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from ...checkpoint.architecture import Architecture
from ...checkpoint.weights import Dense, Layer
from ...parity.attentions import gate_attentions
from ..builder import Graph
from .cpu_fp32 import CpuFp32

if TYPE_CHECKING:
    from ...parity.baseline import Progress, Subject

AFTER_SOFTMAX = 3  # of the operator's qk_matmul_output_mode


class CpuAttentions(CpuFp32):
    """``onnx/model_attentions.onnx``."""

    file: ClassVar[str] = "onnx/model_attentions.onnx"
    onnxruntime: ClassVar[str] = "1.24"  # 1.23 loads it and fails at each run: its Attention gives weights only with a past
    output_names: ClassVar[tuple[str, ...]] = ("logits", "attentions", "queries", "keys")

    def __init__(self, graph: Graph, architecture: Architecture) -> None:
        super().__init__(graph, architecture)
        self._shown: dict[str, list[str]] = {name: [] for name in self.output_names[1:]}  # [1, ...] for each layer

    def inputs(self) -> None:
        """The same inputs, and the shape of a layer's weights.

        ONNX infers a size of 0 for their last axis (1.23), so that ONNX Runtime would warn at each run: it is written out.
        """
        super().inputs()
        g = self.graph
        with g.scope("shape"):
            one, heads = g.constant([1], "int64"), g.constant([self.architecture.heads], "int64")
            batch = g.op("Shape", "input_ids", end=1)
            self.layer_weights = g.op("Concat", one, batch, heads, self.length, self.length, axis=0)

    def attend(self, x: str, layer: Layer, *, cls_only: bool) -> str:
        """Attend for all tokens, in the last layer too, whose other rows are looked at and then dropped.

        The scale 1/sqrt(d) stays in the node, so that the queries are those of the paper.
        """
        g, a = self.graph, self.architecture
        parts = (("query", layer.query), ("key", layer.key), ("value", layer.value))
        q, k, v = (self._by_text(name, x, weights) for name, weights in parts)  # [batch, seq, hidden] each
        context, _, _, weights = g.ops(
            "Attention",
            4,
            *(q, k, v, self.mask),
            q_num_heads=a.heads,
            kv_num_heads=a.heads,
            scale=1 / math.sqrt(a.head_size),
            qk_matmul_output_mode=AFTER_SOFTMAX,
        )  # [batch, seq, hidden], and [batch, heads, query, key]
        self._shown["attentions"].append(g.op("Reshape", weights, self.layer_weights))
        for name, value in (("queries", q), ("keys", k)):
            self._shown[name].append(g.op("Unsqueeze", value, g.constant([0], "int64")))
        rows = g.op("Reshape", context, g.constant([-1, a.hidden_size], "int64"))  # [tokens, hidden]
        return self.cls_rows(rows) if cls_only else rows

    def classify(self, pooled: str, weights: Dense) -> None:
        """``logits``, and what the layers showed, one below the other along a new first axis."""
        super().classify(pooled, weights)
        a = self.architecture
        text: list[int | str] = ["batch", "sequence", a.hidden_size]
        shapes: dict[str, list[int | str]] = {
            "attentions": ["batch", a.heads, "sequence", "sequence"],
            "queries": text,
            "keys": text,
        }
        for name, values in self._shown.items():
            stack = self.graph.op("Concat", *values, axis=0)
            self.graph.output(name, stack, "float32", [a.layers, *shapes[name]])

    @classmethod
    def examine(cls, path: Path, subject: Subject, tell: Progress) -> None:
        """Hold the attention weights against the reference's."""
        tell(f"checking the attention weights of {cls.file}")
        gate_attentions(path, subject)
