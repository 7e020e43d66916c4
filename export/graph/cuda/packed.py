"""CUDA in fp16 without padding: the tokens of all texts in one row, with the offsets of the texts as inputs.

The host computes the inputs (``fusedbert.engine.run.batches``), all int32:

* ``input_ids``, ``position_ids``, ``token_type_ids`` ``[tokens]``;
* ``cumulative_lengths`` ``[batch + 1]``: the first row of each text, and the end;
* ``token_offset`` ``[batch, sequence]``: the place of each row in the padded batch, then the places of the padding;
* where layers have a window, ``window_blocks`` and ``window_texts`` (``windows``).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from fusedbert.engine.artifact import PACKED

from ...checkpoint.architecture import Architecture
from ...checkpoint.weights import Embeddings, Layer
from ..blocks import number
from ..builder import MICROSOFT
from .fp16 import HEAD_MULTIPLE, CudaFp16
from .rotary import MASKED
from .windows import RowBlocks

_LEAST = 16  # places of a text in the padded batch, at least (``engine.run.batches``)
_END = 2**31 - 1  # of a slice, beyond all rows


class CudaFp16Packed(CudaFp16):
    """``onnx/model_fp16_packed.onnx``."""

    file: ClassVar[str] = "onnx/model_fp16_packed.onnx"
    layout: ClassVar[str] = PACKED
    token_axes: ClassVar[Sequence[str]] = ("tokens",)
    attention_ops: ClassVar[tuple[str, ...]] = (f"{MICROSOFT}:PackedMultiHeadAttention", f"{MICROSOFT}:MultiHeadAttention")

    @classmethod
    def unsupported(cls, a: Architecture) -> str | None:
        """Refuse heads for which the kernel would pad inside."""
        if reason := super().unsupported(a):
            return reason
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
        if self.architecture.relative is not None:
            return self._attend_relative(x, layer, cls_only=cls_only)
        context = (
            self.attend_rotary(x, layer, i) if self.architecture.thetas else self._attend_all(x, layer)
        )  # [tokens, hidden]
        return self.cls_rows(context) if cls_only else context

    def attend_to_positions(self, q: str, k: str, v: str, layer: Layer) -> str:
        """Attend in one fused node, which takes the scores of padded texts: ``[tokens, hidden]``."""
        by_query = self.by_place(q) if layer.position_key is not None else ""  # what no table multiplies is not laid out
        by_key = self.by_place(k) if layer.position_query is not None else ""
        return self.attend_under(q, k, v, self.relative.scores(by_query, by_key, layer))

    def attend_under(self, q: str, k: str, v: str, added: str, bias: str = "") -> str:
        """Attend with ``added`` to the scores, ``[batch or 1, heads, sequence, sequence]``, if that is not ``""``.

        Without ``k`` and ``v``, ``q`` holds all three, ``[tokens, heads, 3, head]``; ``bias`` is ``[3 hidden]``.
        """
        a, inputs = self.architecture, (q, k, v, bias, self.offset, self.ends, added)
        return self.graph.op("PackedMultiHeadAttention", *inputs, domain=MICROSOFT, num_heads=a.heads, scale=a.scale)

    def by_place(self, x: str) -> str:
        """``[tokens, hidden]`` to ``[batch, sequence, hidden]``; ``RestorePadding`` does so, and waits for the GPU."""
        return self.graph.op("Gather", x, self._rows, axis=0)

    @property
    def most_places(self) -> int:
        """A power of two, to which the host rounds up."""
        return 1 << (max(self.architecture.max_tokens, _LEAST) - 1).bit_length()

    @property
    def longest(self) -> str:
        """Tokens of the padded texts, ``[1]``."""
        return self.graph.op("Shape", self.offset, start=1)

    @functools.cached_property
    def _columns(self) -> str:
        """0, 1, and so on, int32 ``[1, sequence]``."""
        g = self.graph
        every = g.weight("columns", np.arange(self.most_places, dtype=np.int32)[None])
        return g.op("Slice", every, number(g, 0), self.longest, number(g, 1))

    @functools.cached_property
    def _rows(self) -> str:
        """The row of each place; padding has those behind, up to the last: int32 ``[batch, sequence]``."""
        g, zero = self.graph, number(self.graph, 0)
        starts = g.op("Unsqueeze", g.op("Slice", self.ends, zero, number(g, -1), zero), number(g, 1))
        last = g.op("Sub", g.op("Slice", self.ends, number(g, -1), number(g, _END), zero), g.constant([1], "int32"))
        return g.op("Min", g.op("Add", starts, self._columns), last)

    @functools.cached_property
    def padding(self) -> str:
        """The bias of each key's scores, ``[batch, 1, 1, sequence]``."""
        g, zero = self.graph, number(self.graph, 0)
        ends = g.op("Slice", self.ends, number(g, 1), number(g, _END), zero)
        lengths = g.op("Sub", ends, g.op("Slice", self.ends, zero, number(g, -1), zero))
        beyond = g.op("GreaterOrEqual", self._columns, g.op("Unsqueeze", lengths, number(g, 1)))  # [batch, sequence]
        mask = g.op("Mul", g.cast(beyond, "float16"), g.constant(MASKED, "float16"))
        return g.op("Unsqueeze", mask, g.constant([1, 2], "int64"))

    def _attend_all(self, x: str, layer: Layer) -> str:
        # One tensor, so that nothing has to be split. In the last layer too there are as many queries as keys.
        together, bias = self._project_heads(x, layer)
        return self.attend_under(together, "", "", "", bias)

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
        return self.attend_under(self.by_row(q), self.by_row(k), self.by_row(v), "")

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
