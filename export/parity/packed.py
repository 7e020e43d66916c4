"""Holding the packed graph against the reference on a machine without a GPU.

``PackedAttention`` runs on CUDA alone. So the graph is built a second time with attention written out in standard
operators, under a mask that keeps each text to itself, which is made from the same cumulative lengths; all else is node
for node the same, with the same rounded weights and the same inputs. That graph runs on the CPU in the kept one's place,
and the manifest says so. What float16 could lose there by overflow, the reference bounds.
"""

from __future__ import annotations

import dataclasses
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fusedbert.engine.artifact import Parity

from ..checkpoint.weights import Layer
from ..graph.bert import build
from ..graph.lowering.cuda_fp16_packed import CudaFp16Packed
from . import gates as check
from .baseline import Progress, Subject
from .reference import Encoded

MEASURED_ON = "the same graph with PackedAttention in standard operators"
_MASKED = -1e4  # float16 holds it, and exp() of it is 0


class PackedStandIn(CudaFp16Packed):
    """The packed graph without its one operator that runs on CUDA alone."""

    def inputs(self) -> None:
        """Declare the plan's inputs; make the mask ``[1, tokens, tokens]`` that is added to the scores."""
        super().inputs()
        g = self.graph
        with g.scope("mask"):
            one, zero = g.constant([1], "int64"), g.constant([0], "int64")
            row = g.op("CumSum", g.op("Cast", g.op("Equal", self.ids, self.ids), to=6), g.constant(0, "int64"), exclusive=1)
            begun = g.op("GreaterOrEqual", g.op("Unsqueeze", row, one), g.op("Unsqueeze", self.ends, zero))  # [tokens, bounds]
            text = g.op("ReduceSum", g.op("Cast", begun, to=6), one, keepdims=0)  # [tokens]: number of the row's text, from 1
            same = g.op("Equal", g.op("Unsqueeze", text, one), g.op("Unsqueeze", text, zero))  # [tokens, tokens]
            apart = g.op("Cast", g.op("Not", same), to=10)
            self.mask = g.op("Mul", apart, g.constant(_MASKED, "float16"))

    def _attend_all(self, x: str, layer: Layer) -> str:
        """The equations: softmax(q k^T / sqrt(d) + mask) v, head by head, in float16 operators."""
        g, a = self.graph, self.architecture
        weight, bias = self._query_key_value(layer)
        joined = g.op("Add", g.op("MatMul", x, weight), bias)  # [tokens, 3 hidden]
        shape = g.constant([0, 3 * a.heads, a.head_size], "int64")
        parts = g.op("Transpose", g.op("Reshape", joined, shape), perm=[1, 0, 2])  # [3 heads, tokens, head]
        q, k, v = g.ops("Split", 3, parts, axis=0)
        scale = g.constant(1 / math.sqrt(a.head_size), "float16")
        scores = g.op("MatMul", g.op("Mul", q, scale), g.op("Transpose", k, perm=[0, 2, 1]))  # [heads, tokens, tokens]
        context = g.op("MatMul", g.op("Softmax", g.op("Add", scores, self.mask), axis=-1), v)  # [heads, tokens, head]
        rows = g.op("Transpose", context, perm=[1, 0, 2])  # [tokens, heads, head]
        return g.op("Reshape", rows, g.constant([0, a.hidden_size], "int64"))


def weigh_packed(file: str, path: Path, subject: Subject, tell: Progress) -> Parity:
    """Run the stand-in on the check texts and hold it against the packed graph's gate.

    Args:
        file: The packed graph's name in the artifact, for messages.
        path: Where it was written; the stand-in is written beside it, and removed.
        subject: The checkpoint.
        tell: Called with the step's name.

    Raises:
        ExportError: The stand-in fails, or does not pass.
    """
    tell(f"checking {file} by a stand-in against the reference")
    graph = build(subject.architecture, subject.weights, PackedStandIn)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".stand-in.") as folder:
        stand_in = Path(folder) / path.name
        graph.write(stand_in, "stand-in", opset=PackedStandIn.opset, metadata={})
        del graph
        results = check.run_graph(check.open_session(stand_in), subject.checks, subject.architecture.padding_id, packed_arrays)
    parity = check.measure(results, subject.reference, subject.problem_type, subject.terms)
    check.gate(parity, PackedStandIn.precision, file)
    return dataclasses.replace(parity, measured_on=MEASURED_ON)


def packed_arrays(texts: Sequence[Encoded], padding_id: int) -> dict[str, NDArray[np.int32]]:
    """Lay texts one after the other, as ``lowering.cuda_packed`` describes its inputs; nothing is padded.

    Returns:
        ``input_ids``, ``position_ids``, ``token_type_ids`` ``[tokens]``, ``cumulative_lengths`` ``[batch + 1]`` and
        ``token_offset`` ``[batch, longest]``, int32.
    """
    lengths = np.array([len(text.ids) for text in texts])
    real = np.arange(lengths.max()) < lengths[:, None]  # [batch, longest]
    places = np.concatenate([np.flatnonzero(real), np.flatnonzero(~real)])
    arrays = {
        "input_ids": np.concatenate([text.ids for text in texts]),
        "position_ids": np.nonzero(real)[1],
        "token_type_ids": np.concatenate([text.types for text in texts]),
        "cumulative_lengths": np.concatenate([[0], np.cumsum(lengths)]),
        "token_offset": places.reshape(real.shape),
    }
    return {name: array.astype(np.int32) for name, array in arrays.items()}
