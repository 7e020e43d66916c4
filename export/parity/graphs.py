"""Parity checks of attention weights, and of the packed graph on a machine without a GPU.

Logits do not show attention weights in the wrong order, or of another text. So each weight is compared with the float64
reference, and has to be exactly 0 on padding.

``PackedMultiHeadAttention`` runs only on CUDA. So a stand-in is checked on the CPU: attention in standard operators, under a
mask made from the same cumulative lengths.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fusedbert.engine.artifact import WINDOW_BLOCKS, WINDOW_TEXTS, Parity
from fusedbert.engine.errors import ExportError
from fusedbert.engine.text.tokenizer import Row, pad

from ..graph.blocks import number
from ..graph.cuda.packed import CudaFp16Packed
from .baseline import DirectBaseline, Progress
from .gates import MOST_ROUNDING, OWN_ROUNDING, check_limits, open_scratch, open_session, run_batch, run_graph
from .heads import compare_heads
from .reference import Float64, Trace, forward

TOLERANCE = 1e-5  # of an attention weight
_LONGEST = 128  # tokens: weights grow with the square, and the reference holds them in float64
MEASURED_ON = "the same graph with PackedMultiHeadAttention in standard operators"
_MASKED = -1e4  # float16 holds it, and exp() of it is 0


def check_attentions(path: Path, baseline: DirectBaseline, progress: Progress) -> None:
    """Raise ``ExportError`` if attention weights of short texts differ by more than rounding, or are not 0 on padding."""
    progress(f"checking the attention weights of {path.parent.name}/{path.name}")
    a, texts = baseline.architecture, baseline.checks.texts
    batches = [batch for batch in baseline.checks.batches if max(len(texts[row].ids) for row in batch) <= _LONGEST]
    rows = sorted({row for batch in batches for row in batch})
    expected = _attentions(baseline, rows, np.float64)
    differences: list[float] = []
    padding: list[float] = []
    session = open_session(path)
    for batch in batches:
        arrays = pad([texts[row] for row in batch], a.padding_id)
        (weights,) = run_batch(session, ["attentions"], arrays)  # [layers, batch, heads, query, key]
        for place, row in enumerate(batch):
            n = expected[row].shape[-1]
            differences.append(float(np.abs(weights[:, place, :, :n, :n] - expected[row]).max()))
            padding.append(float(weights[:, place, :, :n, n:].max(initial=0.0)))
    limit, difference, attended = TOLERANCE, np.max(differences), np.max(padding)  # NaN if one of them is
    if not difference <= limit:  # as with logits: large weights magnify rounding
        own = _attentions(baseline, rows, np.float32)
        rounding = OWN_ROUNDING * max(float(np.abs(own[row] - expected[row]).max()) for row in rows)
        limit = max(limit, min(rounding, MOST_ROUNDING))
    if not difference <= limit:
        raise ExportError(
            f"{path.name} gives an attention weight that is off by {difference:.2g}, at most {limit:.2g} is accepted: "
            "please report the checkpoint's config.json"
        )
    if attended != 0.0:
        raise ExportError(f"{path.name} gives padding an attention weight of {attended:.2g}, expected 0: please report this")


def _attentions(baseline: DirectBaseline, rows: Sequence[int], dtype: type[np.floating]) -> dict[int, Float64]:
    """Return the reference's weights of these texts, ``[layers, heads, query, key]`` each."""
    a, recorded = baseline.architecture, dict[int, list[Float64]]()
    forward(a, baseline.weights, [baseline.checks.texts[row] for row in rows], Trace(attentions=recorded), dtype)
    return {rows[i]: np.stack(heads).reshape(a.layers, a.heads, *heads[0].shape) for i, heads in recorded.items()}


class PackedStandIn(CudaFp16Packed):
    """The packed graph with ``PackedMultiHeadAttention`` in standard operators."""

    def inputs(self) -> None:
        """Declare the same inputs; compute the mask ``[1, tokens, tokens]``."""
        super().inputs()
        g = self.graph
        with g.scope("mask"):
            one, zero = g.constant([1], "int64"), g.constant([0], "int64")
            row = g.op("CumSum", g.cast(g.op("Equal", self.ids, self.ids), "int32"), g.constant(0, "int64"), exclusive=1)
            begun = g.op("GreaterOrEqual", g.op("Unsqueeze", row, one), g.op("Unsqueeze", self.ends, zero))  # [tokens, bounds]
            text = g.op("ReduceSum", g.cast(begun, "int32"), one, keepdims=0)  # [tokens]: number of the row's text, from 1
            same = g.op("Equal", g.op("Unsqueeze", text, one), g.op("Unsqueeze", text, zero))  # [tokens, tokens]
            apart = g.cast(g.op("Not", same), "float16")
            self.mask = g.op("Mul", apart, g.constant(_MASKED, "float16"))

    def attend_under(self, q: str, k: str, v: str, added: str, bias: str = "") -> str:
        """Attend to the rows of the same text, or under ``added`` in padded texts; take the rows of ``token_offset`` then."""
        g, zero, parts = self.graph, number(self.graph, 0), [q, k, v] if k else self._split_heads(q)  # [tokens, hidden] each
        if bias:
            parts = [g.op("Add", *pair) for pair in zip(parts, g.ops("Split", 3, bias, axis=0), strict=True)]
        if not added:
            return self._attend_by_head([self._by_head(self.by_text(part)) for part in parts], self.mask)
        heads = (self._by_head(self.by_place(part)) for part in parts)
        context = self._attend_by_head(heads, g.op("Add", added, self.padding))
        places = g.op("Slice", g.op("Reshape", self.offset, number(g, -1)), zero, g.op("Shape", self.ids), zero)
        return g.op("Gather", context, places, axis=0)

    def _split_heads(self, together: str) -> list[str]:
        """``[tokens, heads, 3, head]`` to queries, keys and values, ``[tokens, hidden]`` each."""
        g, rows = self.graph, self.graph.constant([-1, self.architecture.hidden_size], "int64")
        return [g.op("Reshape", part, rows) for part in g.ops("Split", 3, together, axis=2)]

    def _by_head(self, x: str) -> str:
        """``[batch, tokens, hidden]`` to ``[batch, heads, tokens, head]``."""
        g, a = self.graph, self.architecture
        return g.op("Transpose", g.op("Reshape", x, g.constant([0, 0, a.heads, a.head_size], "int64")), perm=[0, 2, 1, 3])

    def _attend_by_head(self, heads: Iterable[str], added: str) -> str:
        """Compute softmax(scale q k^T + added) v of ``[batch, heads, tokens, head]``: ``[batch tokens, hidden]``."""
        g, a, (q, k, v) = self.graph, self.architecture, heads
        scale = g.constant(a.scale, "float16")
        scores = g.op("MatMul", g.op("Mul", q, scale), g.op("Transpose", k, perm=[0, 1, 3, 2]))  # [..., tokens, tokens]
        context = g.op("MatMul", g.op("Softmax", g.op("Add", scores, added), axis=-1), v)  # [batch, heads, tokens, head]
        rows = g.op("Transpose", context, perm=[0, 2, 1, 3])  # [batch, tokens, heads, head]
        return g.op("Reshape", rows, g.constant([-1, a.hidden_size], "int64"))


def check_packed(path: Path, baseline: DirectBaseline, progress: Progress) -> Parity:
    """Compare a stand-in for the packed graph ``path`` with the reference; raise ``ExportError`` as ``check_parity``."""
    file = f"{path.parent.name}/{path.name}"
    progress(f"checking {file} by a stand-in against the reference")
    stand_in = open_scratch(baseline.architecture, baseline.weights, PackedStandIn, path.parent)
    inputs = {node.name: node.shape for node in stand_in.get_inputs()}
    arrays = functools.partial(packed_arrays, block=inputs[WINDOW_TEXTS][1] // 2 if WINDOW_TEXTS in inputs else 1)
    results = run_graph(stand_in, baseline.checks, baseline.architecture.padding_id, arrays)
    parity = compare_heads(results, baseline.reference, baseline.outputs, baseline.terms)
    check_limits(parity, PackedStandIn.precision, file)
    return dataclasses.replace(parity, measured_on=MEASURED_ON)


def packed_arrays(texts: Sequence[Row], padding_id: int, block: int = 1) -> dict[str, NDArray[np.int32]]:
    """Lay out texts without padding, in whole blocks, as in ``graph.cuda.packed``."""
    lengths = np.array([len(text.ids) for text in texts])
    filled = -lengths.sum() % block  # rows of no text
    real = np.arange(max(lengths.max(), -(-(lengths.sum() + filled) // len(texts)))) < lengths[:, None]  # [batch, longest]
    places = np.concatenate([np.flatnonzero(real), np.flatnonzero(~real)])
    arrays = {
        "input_ids": np.concatenate([*(text.ids for text in texts), [padding_id] * filled]),
        "position_ids": np.concatenate([np.nonzero(real)[1], [0] * filled]),
        "token_type_ids": np.concatenate([*(text.types for text in texts), [0] * filled]),
        "cumulative_lengths": np.concatenate([[0], np.cumsum(lengths)]),
        "token_offset": places.reshape(real.shape),
    }
    if block > 1:
        owners = np.concatenate([np.repeat(np.arange(len(texts)), lengths), [len(texts)] * filled]) + 1  # of each row
        unit, last = block // 2, 2 * len(owners) // block - 1
        around, starts = np.concatenate([[0] * unit, owners, [0] * unit]), range(0, len(owners), block)
        arrays[WINDOW_TEXTS] = np.stack([around[start : start + 2 * block] for start in starts])
        arrays[WINDOW_BLOCKS] = np.array([[min(max(start // unit + i, 0), last) for i in (-1, 0, 1, 2)] for start in starts])
    return {name: array.astype(np.int32) for name, array in arrays.items()}
