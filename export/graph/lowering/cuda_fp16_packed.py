"""CUDA in fp16 without padding: the tokens of all texts lie one after the other, and attention is told where texts end.

The host makes the plan (``fusedbert.engine.run.packing``) and feeds, all int32:

* ``input_ids``, ``position_ids``, ``token_type_ids`` ``[tokens]``;
* ``cumulative_lengths`` ``[batch + 1]``: the first row of each text, and the end;
* ``token_offset`` ``[batch, sequence]``: where each row stood in the padded batch, then the places of the padding.

So the graph needs no ``RemovePadding``, whose sizes would have to come back from the GPU before anything can go on.
``com.microsoft:PackedAttention`` ties queries to keys, so the last layer attends for every token, and the rows of [CLS]
are gathered right after it: what is left of the layer works on one row a text.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from fusedbert.engine.artifact import PACKED, Parity

from ...checkpoint.architecture import Architecture
from ...checkpoint.weights import Embeddings, Layer
from ..builder import MICROSOFT
from .cuda_fp16 import HEAD_MULTIPLE, CudaFp16

if TYPE_CHECKING:
    from ...parity.baseline import Progress, Subject


class CudaFp16Packed(CudaFp16):
    """``onnx/model_fp16_packed.onnx``."""

    file: ClassVar[str] = "onnx/model_fp16_packed.onnx"
    layout: ClassVar[str] = PACKED
    attention_ops: ClassVar[tuple[str, ...]] = (f"{MICROSOFT}:PackedAttention",)

    @classmethod
    def unfit(cls, a: Architecture) -> str | None:
        """Say why a model cannot have this graph: other heads would fall back to a kernel that pads inside."""
        if a.head_size % HEAD_MULTIPLE:
            return f"heads of width {a.head_size} have no fused kernel for packed texts, it takes multiples of {HEAD_MULTIPLE}"
        return None

    @classmethod
    def weigh(cls, path: Path, subject: Subject, tell: Progress) -> Parity | None:
        """Judge the graph by its stand-in: ``PackedAttention`` has no kernel on the CPU."""
        from ...parity.packed import weigh_packed  # it builds a lowering that derives from this one

        return weigh_packed(cls.file, path, subject, tell)

    def inputs(self) -> None:
        """Declare what the host's plan feeds."""
        g = self.graph
        names = ["input_ids", "position_ids", *(["token_type_ids"] if self.architecture.has_segments else [])]
        self.ids, self.positions, *types = [g.input(name, "int32", ["tokens"]) for name in names]
        self.types = types[0] if types else ""
        self.offset = g.input("token_offset", "int32", ["batch", "sequence"])
        self.ends = g.input("cumulative_lengths", "int32", ["bounds"])  # [batch + 1]

    def embed(self, tables: Embeddings) -> str:
        """``EmbedLayerNormalization`` of one row that holds every token, with its positions given: ``[tokens, hidden]``."""
        g, a = self.graph, self.architecture
        first = g.constant([0], "int64")
        ids, positions, types = (
            g.op("Unsqueeze", part, first) if part else ""  # [1, tokens]
            for part in (self.ids, self._counted_positions() if a.position_offset else self.positions, self.types)
        )
        x, _ = g.ops(
            "EmbedLayerNormalization",
            2,
            ids,
            types,
            self._half("word", tables.word),
            self._half("position", tables.position),
            "" if tables.token_type is None else self._half("token_type", tables.token_type),
            self._half("norm.weight", tables.norm.weight),
            self._half("norm.bias", tables.norm.bias),
            "",
            positions,
            domain=MICROSOFT,
            epsilon=a.norm_eps,
        )
        x = g.op("Squeeze", x, first)  # [tokens, embedding]
        if tables.projection is not None:
            product = g.op("MatMul", x, self._half("projection.weight", tables.projection.weight))
            x = g.op("Add", product, self._half("projection.bias", tables.projection.bias))
        return x

    def _counted_positions(self) -> str:
        """RoBERTa numbers the tokens that are not padding, from ``padding_id + 1`` up; padding stays at ``padding_id``.

        The running count over all rows, less what it was where the row's text begins: ``[tokens]``.
        """
        g, axis = self.graph, self.graph.constant(0, "int64")
        padding = g.constant(self.architecture.padding_id, "int32")
        real = g.op("Cast", g.op("Not", g.op("Equal", self.ids, padding)), to=6)
        row = g.op("CumSum", g.op("Cast", g.op("Equal", self.ids, self.ids), to=6), axis, exclusive=1)
        before = g.op("CumSum", real, axis, exclusive=1)  # tokens that are not padding, in the rows above
        at_start = g.op("Gather", before, g.op("Sub", row, self.positions))
        count = g.op("Sub", g.op("Add", before, real), at_start)
        return g.op("Add", g.op("Mul", count, real), padding)

    def attend(self, x: str, layer: Layer, *, cls_only: bool) -> str:
        """Attention over all, and in the last layer the rows of [CLS] right after it."""
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
