"""Candidate operators for packed attention, timed beside the present one.

All of it runs on the CPU too, as in ``cuda_timing``; the times then mean nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np

from fusedbert.engine.hardware.device import CPU, CUDA, Choice, import_onnxruntime
from fusedbert.engine.run.batches import Batch
from fusedbert.engine.run.cuda.flash import attention_kernels
from fusedbert.engine.run.cuda.graphs import GraphCache
from fusedbert.engine.run.cuda.provider import provider_options
from fusedbert.engine.run.session import open_session
from fusedbert.export.checkpoint.architecture import describe, read_config
from fusedbert.export.checkpoint.weights import Layer, Weights
from fusedbert.export.graph.bert import build
from fusedbert.export.graph.builder import MICROSOFT
from fusedbert.export.graph.cuda.packed import CudaFp16Packed
from fusedbert.export.parity.graphs import PackedStandIn

from .cuda_timing import mean_ms


class PackedWhole(CudaFp16Packed):
    """``PackedAttention``, which contains the product, and never runs Flash Attention: the graph of earlier artifacts."""

    attention_ops: ClassVar[tuple[str, ...]] = (f"{MICROSOFT}:PackedAttention",)

    def _attend_all(self, x: str, layer: Layer) -> str:
        g, a = self.graph, self.architecture
        inputs = (x, *self._query_key_value(layer), self.offset, self.ends)
        return g.op("PackedAttention", *inputs, domain=MICROSOFT, num_heads=a.heads, scale=1 / math.sqrt(a.head_size))


class PackedHeads(CudaFp16Packed):
    """``PackedMultiHeadAttention`` with separate queries, keys and values: Flash Attention 2 at any length."""

    def _attend_all(self, x: str, layer: Layer) -> str:
        g, a = self.graph, self.architecture
        weight, bias = self._query_key_value(layer)
        q, k, v = g.ops("Split", 3, g.op("MatMul", x, weight), axis=-1)  # [tokens, hidden] each
        inputs = (q, k, v, bias, self.offset, self.ends)
        scale = 1 / math.sqrt(a.head_size)
        return g.op("PackedMultiHeadAttention", *inputs, domain=MICROSOFT, num_heads=a.heads, scale=scale)


# The graph's lowering, and options of the CUDA provider that are added to fusedbert's. Flash Attention 2 runs at any length if
# ``sdpa_kernel`` asks for it, else by the rule of ``fusedbert.engine.run.cuda.flash``.
CANDIDATES: Mapping[str, tuple[type[CudaFp16Packed], Mapping[str, str]]] = {
    "PackedMultiHeadAttention, in one": (CudaFp16Packed, {}),
    "PackedMultiHeadAttention, apart": (PackedHeads, {}),
    "PackedAttention": (PackedWhole, {}),
    "PackedMultiHeadAttention, in one, flash": (CudaFp16Packed, {"sdpa_kernel": "1"}),  # AttentionBackend::FLASH_ATTENTION
}


def time_candidates(source: Path, batches: Mapping[str, Batch], *, seconds: float, on_cpu: bool) -> dict[str, dict[str, float]]:
    """Build each candidate's graph of the checkpoint ``source``, and time it on packed batches, ``seconds`` for each.

    Without a GPU, ``on_cpu`` times the equivalent in standard operators instead. Returns for each candidate milliseconds by
    batch, and ``max_abs_difference`` of a logit from the first candidate's.
    """
    runtime, path = import_onnxruntime(), source / "candidate.onnx"
    choice = Choice(provider=CPU if on_cpu else CUDA, why="measured")
    a, layout = describe(read_config(source))
    weights = Weights(source, a, layout)
    times: dict[str, dict[str, float]] = {}
    first: dict[str, np.ndarray] = {}
    for name, (lowering, user) in CANDIDATES.items():
        for each in (lowering, PackedStandIn) if on_cpu else (lowering,):  # a dry run builds both, and times the last
            build(a, weights, each).write(path, name, opset=each.opset, metadata={})
        options = provider_options(graphs=not on_cpu, user=user)
        with attention_kernels(choice.index, user, cudnn=False):
            session = open_session(runtime, path, choice, threads=2, provider_options=options)
        graphs = GraphCache(runtime, session, labels=2, device="cpu" if on_cpu else "cuda", graphs=True)
        times[name] = {"max_abs_difference": 0.0}
        for label, batch in batches.items():
            logits = [graphs.run(batch) for _ in range(3)][-1]
            difference = float(np.abs(logits - first.setdefault(label, logits)).max())
            times[name]["max_abs_difference"] = max(times[name]["max_abs_difference"], difference)
            times[name][f"{label}_ms"] = mean_ms(graphs.run, batch, seconds)
    return times
