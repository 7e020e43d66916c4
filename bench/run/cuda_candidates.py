"""Candidate operators for packed attention, timed next to the present one.

All of it runs on the CPU too, as in ``cuda_timing``. The times then mean nothing, the logits do: each candidate has a stand-in
with its own products and biases, and only its attention node in standard operators.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fusedbert.engine.hardware.device import CPU, CUDA, Choice, import_onnxruntime
from fusedbert.engine.run.batches import Batch
from fusedbert.engine.run.cuda.flash import attention_kernels
from fusedbert.engine.run.cuda.graphs import GraphCache, cuda_lock
from fusedbert.engine.run.cuda.provider import provider_options
from fusedbert.engine.run.session import open_session
from fusedbert.export.checkpoint.architecture import describe, read_config
from fusedbert.export.checkpoint.weights import Layer, Weights
from fusedbert.export.graph.bert import build
from fusedbert.export.graph.builder import MICROSOFT
from fusedbert.export.graph.cuda.packed import CudaFp16Packed
from fusedbert.export.parity.graphs import PackedStandIn

from .cuda_timing import mean_ms

ROUNDS = 3  # in which the candidates take turns


class PackedWhole(CudaFp16Packed):
    """``PackedAttention``, which contains the product, and never runs Flash Attention: the graph of earlier artifacts."""

    attention_ops: ClassVar[tuple[str, ...]] = (f"{MICROSOFT}:PackedAttention",)

    def _attend_all(self, x: str, layer: Layer) -> str:
        return self.attend_whole(x, *self._query_key_value(layer))

    def attend_whole(self, x: str, weight: str, bias: str) -> str:
        """Multiply and attend; the weight is ``[hidden, 3 hidden]``."""
        a, inputs = self.architecture, (x, weight, bias, self.offset, self.ends)
        return self.graph.op("PackedAttention", *inputs, domain=MICROSOFT, num_heads=a.heads, scale=a.scale)


class PackedHeads(CudaFp16Packed):
    """``PackedMultiHeadAttention`` with separate queries, keys and values: Flash Attention 2 at any length."""

    def _attend_all(self, x: str, layer: Layer) -> str:
        weight, bias = self._query_key_value(layer)
        q, k, v = self.graph.ops("Split", 3, self.graph.op("MatMul", x, weight), axis=-1)  # [tokens, hidden] each
        return self.attend_under(q, k, v, "", bias)


class PackedProducts(CudaFp16Packed):
    """Three products and no bias in ``PackedMultiHeadAttention``, so that it transposes nothing.

    ``fold_biases`` has left only the bias of queries. ``Gemm`` adds it, which takes one more kernel, as ``Add`` would.
    """

    def _attend_all(self, x: str, layer: Layer) -> str:
        g, query = self.graph, layer.query
        assert not layer.key.bias.any() and not layer.value.bias.any()
        q = g.op("Gemm", x, self.half("query.weight", query.weight), self.half("query.bias", query.bias))
        k, v = self.dense("key", x, layer.key), self.dense("value", x, layer.value)
        return self.attend_under(q, k, v, "")


class WholeStandIn(PackedWhole, PackedStandIn):
    """``PackedWhole`` on a CPU."""

    def attend_whole(self, x: str, weight: str, bias: str) -> str:
        """Multiply, split and attend."""
        q, k, v = self.graph.ops("Split", 3, self.graph.op("MatMul", x, weight), axis=-1)
        return self.attend_under(q, k, v, "", bias)


class HeadsStandIn(PackedHeads, PackedStandIn):
    """``PackedHeads`` on a CPU."""


class ProductsStandIn(PackedProducts, PackedStandIn):
    """``PackedProducts`` on a CPU."""


class Candidate(NamedTuple):
    """A graph, and options of the CUDA provider that are added to fusedbert's."""

    lowering: type[CudaFp16Packed]
    stand_in: type[PackedStandIn]
    options: Mapping[str, str] = {}


# Values of ``sdpa_kernel``, which names the kernels that may run; without it, ``fusedbert.engine.run.cuda.flash`` has the rule.
FLASH, EFFICIENT = {"sdpa_kernel": "1"}, {"sdpa_kernel": "2"}  # Flash Attention 2, and CUTLASS's memory-efficient one
PRESENT = "PackedMultiHeadAttention, in one"
PRODUCTS = "PackedMultiHeadAttention, three products"
CANDIDATES: Mapping[str, Candidate] = {
    PRESENT: Candidate(CudaFp16Packed, PackedStandIn),
    "PackedMultiHeadAttention, apart": Candidate(PackedHeads, HeadsStandIn),
    "PackedAttention": Candidate(PackedWhole, WholeStandIn),
    "PackedMultiHeadAttention, in one, flash": Candidate(CudaFp16Packed, PackedStandIn, FLASH),  # at any length
    PRODUCTS: Candidate(PackedProducts, ProductsStandIn),  # by itself it takes Flash Attention at any length
    f"{PRODUCTS}, memory-efficient": Candidate(PackedProducts, ProductsStandIn, EFFICIENT),
}


def open_candidates(source: Path, folder: Path, *, on_cpu: bool) -> dict[str, GraphCache]:
    """Build each candidate's graph of the checkpoint ``source``, in a file of ``folder`` for the moment, and open it.

    Without a GPU, ``on_cpu`` builds the graphs as well, and opens their stand-ins.
    """
    a, layout = describe(read_config(source))
    weights, path = Weights(source, a, layout), folder / "candidate.onnx"
    opened = {}
    for name, (lowering, stand_in, options) in CANDIDATES.items():
        for each in (lowering, stand_in) if on_cpu else (lowering,):
            build(a, weights, each).write(path, name, opset=each.opset, metadata={})
        opened[name] = _open(path, options, on_cpu=on_cpu)
        path.unlink()
    return opened


def _open(path: Path, user: Mapping[str, str], *, on_cpu: bool) -> GraphCache:
    runtime, choice = import_onnxruntime(), Choice(provider=CPU if on_cpu else CUDA, why="measured")
    with cuda_lock, attention_kernels(choice.index, user, cudnn=False):
        options = provider_options(graphs=not on_cpu, user=user)
        session = open_session(runtime, path, choice, threads=2, provider_options=options)
    return GraphCache(runtime, session, labels=2, device="cpu" if on_cpu else "cuda", graphs=True)


def compare_candidates(opened: Mapping[str, GraphCache], batches: Iterable[Batch]) -> dict[str, float]:
    """Return how far each candidate's logits are from the present graph's at most, the third run of each batch."""
    logits = {name: [[graphs.run(batch) for _ in range(3)][-1] for batch in batches] for name, graphs in opened.items()}
    return {name: max(map(_largest, found, logits[PRESENT])) for name, found in logits.items()}


def _largest(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    return float(np.abs(found - expected).max())


def time_candidates(
    opened: Mapping[str, GraphCache], batches: Mapping[str, Batch], seconds: float
) -> dict[str, dict[str, float]]:
    """Run packed batches by each candidate, ``seconds`` for each batch.

    Returns for each candidate ``max_abs_difference`` of a logit from the present graph's, the number of CUDA graphs that were
    ``captured``, and milliseconds by batch: the median of some rounds, in which the candidates take turns.
    """
    figures = {
        name: {"max_abs_difference": difference, "captured": opened[name].captured}
        for name, difference in compare_candidates(opened, batches.values()).items()
    }
    for label, batch in batches.items():
        rounds = [[mean_ms(graphs.run, batch, seconds / ROUNDS) for graphs in opened.values()] for _ in range(ROUNDS)]
        for name, *ms in zip(opened, *rounds, strict=True):
            figures[name][f"{label}_ms"] = float(np.median(ms))
    return figures
