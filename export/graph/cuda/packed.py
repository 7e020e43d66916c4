"""CUDA in fp16 without padding: the tokens of all texts in one row, with the offsets of the texts as inputs.

The host computes the inputs (``fusedbert.engine.run.batches``), all int32:

* ``input_ids``, ``position_ids``, ``token_type_ids`` ``[tokens]``;
* ``cumulative_lengths`` ``[batch + 1]``: the first row of each text, and the end;
* ``token_offset`` ``[batch, sequence]``: the place of each row in the padded batch, then the places of the padding;
* where layers have a window, ``window_blocks`` and ``window_texts`` (``windows``).
"""

from __future__ import annotations

import functools
from typing import ClassVar

import numpy as np

from fusedbert.engine.artifact import PACKED

from ...checkpoint.architecture import Architecture
from ...checkpoint.weights import Embeddings, Layer
from ..blocks import number
from ..builder import MICROSOFT
from .fp16 import HEAD_MULTIPLE, CudaFp16
from .windows import RowBlocks

_END = 2**31 - 1  # of a slice, beyond all rows


class CudaFp16Packed(CudaFp16):
    """``onnx/model_fp16_packed.onnx``."""

    file: ClassVar[str] = "onnx/model_fp16_packed.onnx"
    layout: ClassVar[str] = PACKED
    attention_ops: ClassVar[tuple[str, ...]] = (f"{MICROSOFT}:PackedMultiHeadAttention", f"{MICROSOFT}:MultiHeadAttention")

    @classmethod
    def unsupported(cls, a: Architecture) -> str | None:
        """Refuse heads for which the kernel would pad inside."""
        if reason := super().unsupported(a):
            return reason
        if a.relative is not None:
            return "relative positions are added to the scores of padded texts"
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
        window, hidden = self.architecture.shared_window, self.architecture.hidden_size
        self.blocks = None if window is None else RowBlocks(g, window, hidden=hidden)

    def embed(self, tables: Embeddings) -> str:
        """One node for one row of all tokens, with explicit positions: ``[tokens, hidden]``."""
        g, a = self.graph, self.architecture
        if tables.position is None:
            return self.embed_words(tables)
        first = g.constant([0], "int64")
        ids, positions, types = (
            g.op("Unsqueeze", part, first) if part else ""  # [1, tokens]
            for part in (self.ids, self._counted_positions() if a.position_offset else self.positions, self.types)
        )
        word, position = self.half("word", tables.word), self.half("position", tables.position)
        segments = "" if tables.token_type is None else self.half("token_type", tables.token_type)
        gamma, beta = self.half("norm.weight", tables.norm.weight), self.half("norm.bias", tables.norm.bias)
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

    def attend(self, x: str, layer: Layer, i: int, *, cls_only: bool) -> str:
        """Attend for all tokens; in the last layer, take the rows of [CLS]."""
        context = (
            self.attend_rotary(x, layer, i) if self.architecture.thetas else self._attend_all(x, layer)
        )  # [tokens, hidden]
        return self.cls_rows(context) if cls_only else context

    def _attend_all(self, x: str, layer: Layer) -> str:
        g, a = self.graph, self.architecture
        # One tensor, so that nothing has to be split. In the last layer too there are as many queries as keys.
        together, bias = self._project_heads(x, layer)
        inputs = (together, "", "", bias, self.offset, self.ends)
        scale = a.scale
        return g.op("PackedMultiHeadAttention", *inputs, domain=MICROSOFT, num_heads=a.heads, scale=scale)

    def _project_heads(self, x: str, layer: Layer) -> tuple[str, str]:
        """Return the product ``[tokens, heads, 3, head]``, and the bias that is still to be added, ``[3 hidden]``."""
        g, a = self.graph, self.architecture
        parts = (layer.query, layer.key, layer.value)
        columns = np.stack([part.weight.reshape(-1, a.heads, a.head_size) for part in parts], axis=2)  # [in, heads, 3, head]
        product = g.op("MatMul", x, self.half("query_key_value.weight", columns.reshape(len(columns), -1)))
        bias = self.half("query_key_value.bias", np.concatenate([part.bias for part in parts]))
        return g.op("Reshape", product, g.constant([-1, a.heads, 3, a.head_size], "int64")), bias

    @property
    def places(self) -> str:
        """The position of each token in its text, int64 ``[1, tokens]``."""
        return self._places

    @functools.cached_property
    def _places(self) -> str:
        return self.graph.op("Unsqueeze", self.graph.cast(self.positions, "int64"), number(self.graph, 0))

    def by_text(self, x: str) -> str:
        """``[tokens, hidden]`` to ``[1, tokens, hidden]``, as if they were one text."""
        return self.graph.op("Unsqueeze", x, number(self.graph, 0))

    def by_row(self, x: str) -> str:
        """``[1, tokens, hidden]`` to ``[tokens, hidden]``."""
        return self.graph.op("Squeeze", x, number(self.graph, 0))

    def attend_to_all(self, q: str, k: str, v: str) -> str:
        """Attend to all keys of a text, in one fused node: ``[tokens, hidden]``."""
        a, rows = self.architecture, (self.by_row(part) for part in (q, k, v))
        inputs, scale = (*rows, "", self.offset, self.ends), a.scale
        return self.graph.op("PackedMultiHeadAttention", *inputs, domain=MICROSOFT, num_heads=a.heads, scale=scale)

    def window_blocks(self, window: int) -> RowBlocks:
        """Those of ``inputs``: a model has one window."""
        assert self.blocks is not None and self.blocks.window == window
        return self.blocks

    def mean_rows(self, x: str) -> str:
        """The mean in float32, by a running sum."""
        g, zero = self.graph, number(self.graph, 0)
        sums = g.op("CumSum", g.cast(x, "float32"), g.constant(0, "int64"))  # [tokens, hidden]
        ends = g.op("Slice", self.ends, number(g, 1), number(g, _END), zero)  # [batch]
        starts = g.op("Slice", self.ends, zero, number(g, -1), zero)
        last = g.op("Gather", sums, g.op("Sub", ends, g.constant(1, "int32")), axis=0)
        first_row = g.op("Mul", g.op("Slice", sums, zero, number(g, 1), zero), g.constant(0.0, "float32"))
        before = g.op("Gather", g.op("Concat", first_row, sums, axis=0), starts, axis=0)
        count = g.cast(g.op("Unsqueeze", g.op("Sub", ends, starts), number(g, 1)), "float32")
        return g.cast(g.op("Div", g.op("Sub", last, before), count), "float16")

    def cls_rows(self, x: str) -> str:
        """``[tokens, hidden]`` to ``[batch, hidden]``: the first row of each text."""
        g = self.graph
        zero = g.constant([0], "int64")
        return g.op("Gather", x, g.op("Slice", self.ends, zero, g.constant([-1], "int64"), zero), axis=0)
