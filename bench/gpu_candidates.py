"""Operators that could compute packed attention, timed beside each other: the exporter takes what wins."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from time import perf_counter

import numpy as np

from fusedbert.engine.hardware.device import CPU, CUDA, Choice, import_onnxruntime
from fusedbert.engine.run.cuda.graphs import ShapedSession
from fusedbert.engine.run.cuda.options import CudaOptions
from fusedbert.engine.run.packing import Batch
from fusedbert.engine.run.session import open_session
from fusedbert.export.checkpoint.architecture import describe, read_config
from fusedbert.export.checkpoint.weights import Layer, Weights
from fusedbert.export.graph.bert import build
from fusedbert.export.graph.builder import MICROSOFT
from fusedbert.export.graph.lowering.cuda_fp16_packed import CudaFp16Packed
from fusedbert.export.parity.packed import PackedStandIn


class PackedHeads(CudaFp16Packed):
    """``PackedMultiHeadAttention`` with queries, keys and values apart, which Flash Attention 2 takes at any length."""

    def _attend_all(self, x: str, layer: Layer) -> str:
        g, a = self.graph, self.architecture
        weight, bias = self._query_key_value(layer)
        q, k, v = g.ops("Split", 3, g.op("MatMul", x, weight), axis=-1)  # [tokens, hidden] each
        scale = 1 / math.sqrt(a.head_size)
        inputs = (q, k, v, bias, self.offset, self.ends)
        return g.op("PackedMultiHeadAttention", *inputs, domain=MICROSOFT, num_heads=a.heads, scale=scale)


class PackedTogether(CudaFp16Packed):
    """``PackedMultiHeadAttention`` with queries, keys and values in one: as many kernels as ``PackedAttention`` launches.

    The columns of the product are laid out as the operator wants its input, ``[tokens, heads, 3, head]``. It gets Flash
    Attention 2 at any length where the provider option ``sdpa_kernel`` asks for it, from 513 tokens on where not.
    """

    def _attend_all(self, x: str, layer: Layer) -> str:
        g, a = self.graph, self.architecture
        parts = (layer.query, layer.key, layer.value)
        columns = np.stack([part.weight.reshape(-1, a.heads, a.head_size) for part in parts], axis=2)  # [in, heads, 3, head]
        product = g.op("MatMul", x, self._half("query_key_value.weight", columns.reshape(len(columns), -1)))
        shape = g.constant([-1, a.heads, 3, a.head_size], "int64")
        bias = self._half("query_key_value.bias", np.concatenate([part.bias for part in parts]))
        scale = 1 / math.sqrt(a.head_size)
        inputs = (g.op("Reshape", product, shape), "", "", bias, self.offset, self.ends)
        return g.op("PackedMultiHeadAttention", *inputs, domain=MICROSOFT, num_heads=a.heads, scale=scale)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Candidate:
    """A graph, and the options of the CUDA provider that choose its kernel.

    Attributes:
        lowering: Builds it.
        options: Laid over ours.
    """

    lowering: type[CudaFp16Packed]
    options: Mapping[str, str] = dataclasses.field(default_factory=dict)


FLASH = {"sdpa_kernel": "1"}  # onnxruntime's AttentionBackend::FLASH_ATTENTION
CANDIDATES: Mapping[str, Candidate] = {
    "PackedAttention": Candidate(lowering=CudaFp16Packed),
    "PackedMultiHeadAttention, apart": Candidate(lowering=PackedHeads),
    "PackedMultiHeadAttention, in one": Candidate(lowering=PackedTogether),
    "PackedMultiHeadAttention, in one, flash": Candidate(lowering=PackedTogether, options=FLASH),
}


def time_candidates(source: Path, batches: Mapping[str, Batch], *, seconds: float, on_cpu: bool) -> dict[str, dict[str, float]]:
    """Build each candidate's graph and time it.

    Args:
        source: A checkpoint.
        batches: Packed batches by name.
        seconds: For each candidate and batch.
        on_cpu: Whether the stand-in is timed in their place, for want of a GPU.

    Returns:
        For each candidate, milliseconds by batch, and ``max_abs_difference`` of a logit from the first candidate's.
    """
    runtime = import_onnxruntime()
    a, layout = describe(read_config(source))
    found: dict[str, dict[str, float]] = {}
    first: dict[str, np.ndarray] = {}
    for name, candidate in CANDIDATES.items():
        path, lowering = source / "candidate.onnx", candidate.lowering
        build(a, Weights(source, a, layout), lowering).write(path, name, opset=lowering.opset, metadata={})
        if on_cpu:
            build(a, Weights(source, a, layout), PackedStandIn).write(path, name, opset=lowering.opset, metadata={})
        choice = Choice(provider=CPU if on_cpu else CUDA, why="measured")
        options = CudaOptions(graphs=not on_cpu, others=candidate.options).provider_options()
        session = open_session(runtime, path, choice, threads=2, provider_options=options)
        shaped = ShapedSession(runtime, session, labels=2, device="cpu" if on_cpu else "cuda", graphs=True)
        found[name] = {}
        for label, batch in batches.items():
            logits = [shaped.run(batch) for _ in range(3)][-1]
            found[name]["max_abs_difference"] = max(
                found[name].get("max_abs_difference", 0.0), float(np.abs(logits - first.setdefault(label, logits)).max())
            )
            begun, runs = perf_counter(), 0
            while perf_counter() - begun < seconds or not runs:
                shaped.run(batch)
                runs += 1
            found[name][f"{label}_ms"] = 1e3 * (perf_counter() - begun) / runs
    return found
