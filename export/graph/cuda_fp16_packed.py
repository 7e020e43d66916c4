"""CUDA in fp16 without padding: the tokens of all texts in one row, with the offsets of the texts as inputs.

The host computes the inputs (``fusedbert.engine.run.batches``), all int32:

* ``input_ids``, ``position_ids``, ``token_type_ids`` ``[tokens]``;
* ``cumulative_lengths`` ``[batch + 1]``: the first row of each text, and the end;
* ``token_offset`` ``[batch, sequence]``: the place of each row in the padded batch, then the places of the padding.

So the graph does not need ``RemovePadding``, whose sizes would be copied back from the GPU. ``PackedAttention`` wants as many
queries as keys, so the last layer attends for every token, and the rows of [CLS] are gathered after it.
"""

from __future__ import annotations

import math
from typing import ClassVar

from fusedbert.engine.artifact import PACKED

from ..checkpoint.architecture import Architecture
from ..checkpoint.weights import Embeddings, Layer
from .builder import MICROSOFT
from .cuda_fp16 import HEAD_MULTIPLE, CudaFp16


class CudaFp16Packed(CudaFp16):
    """``onnx/model_fp16_packed.onnx``."""

    file: ClassVar[str] = "onnx/model_fp16_packed.onnx"
    layout: ClassVar[str] = PACKED
    attention_ops: ClassVar[tuple[str, ...]] = (f"{MICROSOFT}:PackedAttention",)

    @classmethod
    def unsupported(cls, a: Architecture) -> str | None:
        """Refuse heads for which the kernel would pad inside."""
        if a.head_size % HEAD_MULTIPLE:
            return f"heads of width {a.head_size} have no fused kernel for packed texts, it takes multiples of {HEAD_MULTIPLE}"
        return None

    def inputs(self) -> None:
        """Declare the inputs that the host computes."""
        g = self.graph
        names = ["input_ids", "position_ids", *(["token_type_ids"] if self.architecture.has_segments else [])]
        self.ids, self.positions, *types = [g.input(name, "int32", ["tokens"]) for name in names]
        self.types = types[0] if types else ""
        self.offset = g.input("token_offset", "int32", ["batch", "sequence"])
        self.ends = g.input("cumulative_lengths", "int32", ["bounds"])  # [batch + 1]

    def embed(self, tables: Embeddings) -> str:
        """One node for one row of all tokens, with explicit positions: ``[tokens, hidden]``."""
        g, a = self.graph, self.architecture
        first = g.constant([0], "int64")
        ids, positions, types = (
            g.op("Unsqueeze", part, first) if part else ""  # [1, tokens]
            for part in (self.ids, self._counted_positions() if a.position_offset else self.positions, self.types)
        )
        word, position = self._half("word", tables.word), self._half("position", tables.position)
        segments = "" if tables.token_type is None else self._half("token_type", tables.token_type)
        gamma, beta = self._half("norm.weight", tables.norm.weight), self._half("norm.bias", tables.norm.bias)
        operands = (ids, types, word, position, segments, gamma, beta, "", positions)
        x, _ = g.ops("EmbedLayerNormalization", 2, *operands, domain=MICROSOFT, epsilon=a.norm_eps)
        return self._project(g.op("Squeeze", x, first), tables)  # [tokens, embedding] to [tokens, hidden]

    def _counted_positions(self) -> str:
        """As ``count_positions``: the running count, minus its value at the start of the row's text, ``[tokens]``."""
        g, axis = self.graph, self.graph.constant(0, "int64")
        padding = g.constant(self.architecture.padding_id, "int32")
        real = g.cast(g.op("Not", g.op("Equal", self.ids, padding)), "int32")
        row = g.op("CumSum", g.cast(g.op("Equal", self.ids, self.ids), "int32"), axis, exclusive=1)
        before = g.op("CumSum", real, axis, exclusive=1)  # tokens that are not padding, in the rows above
        at_start = g.op("Gather", before, g.op("Sub", row, self.positions))
        count = g.op("Sub", g.op("Add", before, real), at_start)
        return g.op("Add", g.op("Mul", count, real), padding)

    def attend(self, x: str, layer: Layer, *, cls_only: bool) -> str:
        """Attend for all tokens; in the last layer, take the rows of [CLS]."""
        context = self._attend_all(x, layer)  # [tokens, hidden]
        return self.cls_rows(context) if cls_only else context

    def _attend_all(self, x: str, layer: Layer) -> str:
        weight, bias = self._query_key_value(layer)
        heads, scale = self.architecture.heads, 1 / math.sqrt(self.architecture.head_size)
        return self.graph.op(
            "PackedAttention", x, weight, bias, self.offset, self.ends, domain=MICROSOFT, num_heads=heads, scale=scale
        )

    def cls_rows(self, x: str) -> str:
        """``[tokens, hidden]`` to ``[batch, hidden]``: the first row of each text."""
        g = self.graph
        zero = g.constant([0], "int64")
        return g.op("Gather", x, g.op("Slice", self.ends, zero, g.constant([-1], "int64"), zero), axis=0)
