"""Candidate operators for packed attention on CUDA, each timed in a whole graph.

Without a GPU an equivalent in standard operators runs on the CPU provider: the times mean nothing, but every line has run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from time import perf_counter

import numpy as np

from fusedbert.engine.hardware.device import CPU, CUDA, Choice, import_onnxruntime
from fusedbert.engine.run.batches import Batch
from fusedbert.engine.run.cuda.graphs import GraphCache
from fusedbert.engine.run.cuda.provider import provider_options
from fusedbert.engine.run.session import open_session
from fusedbert.export.checkpoint.architecture import describe, read_config
from fusedbert.export.checkpoint.weights import Layer, Weights
from fusedbert.export.graph.bert import build
from fusedbert.export.graph.builder import MICROSOFT
from fusedbert.export.graph.cuda_fp16_packed import CudaFp16Packed
from fusedbert.export.parity.graphs import PackedStandIn


class PackedHeads(CudaFp16Packed):
    """``PackedMultiHeadAttention`` with separate queries, keys and values: Flash Attention 2 at any length."""

    def _attend_all(self, x: str, layer: Layer) -> str:
        g, a = self.graph, self.architecture
        weight, bias = self._query_key_value(layer)
        q, k, v = g.ops("Split", 3, g.op("MatMul", x, weight), axis=-1)  # [tokens, hidden] each
        inputs = (q, k, v, bias, self.offset, self.ends)
        scale = 1 / math.sqrt(a.head_size)
        return g.op("PackedMultiHeadAttention", *inputs, domain=MICROSOFT, num_heads=a.heads, scale=scale)


class PackedTogether(CudaFp16Packed):
    """``PackedMultiHeadAttention`` with queries, keys and values in one tensor: as many kernels as ``PackedAttention``.

    The columns of the product are in the order of the operator's input, ``[tokens, heads, 3, head]``. Flash Attention 2 runs at
    any length if the provider option ``sdpa_kernel`` asks for it, else from 513 tokens on.
    """

    def _attend_all(self, x: str, layer: Layer) -> str:
        g, a = self.graph, self.architecture
        parts = (layer.query, layer.key, layer.value)
        columns = np.stack([part.weight.reshape(-1, a.heads, a.head_size) for part in parts], axis=2)  # [in, heads, 3, head]
        product = g.op("MatMul", x, self._half("query_key_value.weight", columns.reshape(len(columns), -1)))
        shape = g.constant([-1, a.heads, 3, a.head_size], "int64")
        bias = self._half("query_key_value.bias", np.concatenate([part.bias for part in parts]))
        inputs = (g.op("Reshape", product, shape), "", "", bias, self.offset, self.ends)
        scale = 1 / math.sqrt(a.head_size)
        return g.op("PackedMultiHeadAttention", *inputs, domain=MICROSOFT, num_heads=a.heads, scale=scale)


FLASH = {"sdpa_kernel": "1"}  # onnxruntime's AttentionBackend::FLASH_ATTENTION
# The graph's lowering, and options of the CUDA provider that are added to fusedbert's.
CANDIDATES: Mapping[str, tuple[type[CudaFp16Packed], Mapping[str, str]]] = {
    "PackedAttention": (CudaFp16Packed, {}),
    "PackedMultiHeadAttention, apart": (PackedHeads, {}),
    "PackedMultiHeadAttention, in one": (PackedTogether, {}),
    "PackedMultiHeadAttention, in one, flash": (PackedTogether, FLASH),
}


def time_candidates(source: Path, batches: Mapping[str, Batch], *, seconds: float, on_cpu: bool) -> dict[str, dict[str, float]]:
    """Build each candidate's graph and time it.

    Args:
        source: A checkpoint.
        batches: Packed batches by name.
        seconds: Time for each candidate and batch.
        on_cpu: Whether to time the equivalent in standard operators instead, without a GPU.

    Returns:
        For each candidate, milliseconds by batch, and ``max_abs_difference`` of a logit from the first candidate's.
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
        session = open_session(runtime, path, choice, threads=2, provider_options=options)
        graphs = GraphCache(runtime, session, labels=2, device="cpu" if on_cpu else "cuda", graphs=True)
        times[name] = {"max_abs_difference": 0.0}
        for label, batch in batches.items():
            logits = [graphs.run(batch) for _ in range(3)][-1]
            difference = float(np.abs(logits - first.setdefault(label, logits)).max())
            times[name]["max_abs_difference"] = max(times[name]["max_abs_difference"], difference)
            begun, runs = perf_counter(), 0
            while perf_counter() - begun < seconds or not runs:
                graphs.run(batch)
                runs += 1
            times[name][f"{label}_ms"] = 1e3 * (perf_counter() - begun) / runs
    return times
