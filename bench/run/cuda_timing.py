"""Timing on CUDA: runners by batch, the kernels of a run, and candidate operators for packed attention.

All of it runs on the CPU too, so that no line runs for the first time on a GPU; the times then mean nothing.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import timeit
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np

from fusedbert.engine import Classifier
from fusedbert.engine.hardware.device import CPU, CUDA, Choice, import_onnxruntime
from fusedbert.engine.run.batches import Batch
from fusedbert.engine.run.cuda.flash import attention_kernels
from fusedbert.engine.run.cuda.graphs import GraphCache
from fusedbert.engine.run.cuda.provider import provider_options
from fusedbert.engine.run.prefetch import prefetch
from fusedbert.engine.run.runner import Runner
from fusedbert.engine.run.session import open_session
from fusedbert.export.checkpoint.architecture import describe, read_config
from fusedbert.export.checkpoint.weights import Layer, Weights
from fusedbert.export.graph.bert import build
from fusedbert.export.graph.builder import MICROSOFT
from fusedbert.export.graph.cuda.packed import CudaFp16Packed
from fusedbert.export.parity.graphs import PackedStandIn

from ..engines.random.models import random_rows
from .stats import sample, warm_up

T = TypeVar("T")


def median_ms(run: Callable[[T], object], inputs: Sequence[T], seconds: float) -> float:
    """Time ``run`` on one input after the other, over and over, after a warm-up; return the median in milliseconds."""
    once = _timer(run, itertools.cycle(inputs))
    warm_up(once, cap=seconds / 2)
    return 1e3 * float(np.median(sample(once, least_samples=20, least_seconds=seconds / 4, most_seconds=seconds / 2)))


def equal_texts_per_second(runner: Runner, tokens: int, sizes: Iterable[int], seconds: float) -> dict[int, float]:
    """Run batches of random texts of so many tokens, each prepared while another runs; return the rate by batch size."""
    random, rates = np.random.default_rng(0), dict[int, float]()
    for size in sizes:
        batches = [random_rows([tokens] * size, random) for _ in range(4)]
        with contextlib.closing(prefetch(map(runner.prepare, itertools.cycle(batches)))) as prepared:
            once = _timer(runner.execute, prepared)
            for _ in range(3):  # buffers, and cuBLAS's choice of kernels
                once()
            rates[size] = size / _mean_seconds(once, seconds)
    return rates


def texts_per_second(classifier: Classifier, texts: Sequence[str], passes: int) -> list[float]:
    """Score texts, tokenizing included; return the rate of each pass. The first one meets new shapes."""
    seconds = timeit.repeat(functools.partial(classifier.decision_function, texts), number=1, repeat=passes)
    return [len(texts) / each for each in seconds]


def _timer(run: Callable[[T], object], inputs: Iterator[T]) -> Callable[[], float]:
    """Return the function that runs the next input, and returns its seconds."""
    return functools.partial(timeit.Timer(lambda: run(next(inputs))).timeit, 1)


def _mean_seconds(once: Callable[[], float], seconds: float) -> float:
    """Return the mean time of the runs of so many seconds, at least one."""
    return float(np.mean(sample(once, least_samples=1, least_seconds=seconds, most_seconds=seconds)))


def count_attention_nodes(graphs: Iterable[GraphCache], provider: str) -> int | None:
    """Count the attention nodes that a provider runs, of the graph with fewer; None if this ONNX Runtime has no record."""
    counts = []
    for each in graphs:
        try:
            parts = each.session.raw.get_provider_graph_assignment_info()
        except Exception:  # an older version
            return None
        nodes = [node for part in parts if part.ep_name == provider for node in part.get_nodes()]
        counts.append(sum("Attention" in node.op_type for node in nodes))
    return min(counts)


def time_kernels(run: Callable[[T], object], item: T, *, on_cpu: bool) -> dict[str, Any]:
    """Run one input under torch's profiler (CUPTI), which must have run before the first CUDA graph is captured.

    Returns ``busy_us`` of all kernels, and ``kernels`` with the ``runs`` and ``us`` of each, the longest first.
    """
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU if on_cpu else ProfilerActivity.CUDA]) as recorded:
        run(item)
    spent: dict[str, list[float]] = defaultdict(list)
    for event in recorded.events() or ():
        if "CPU" not in str(event.device_type):
            spent[event.name[:100]].append(float(event.time_range.elapsed_us()))
    by_time = sorted(spent.items(), key=lambda item: -sum(item[1]))
    kernels = [{"kernel": kernel, "runs": len(us), "us": sum(us)} for kernel, us in by_time]
    return {"busy_us": sum(map(sum, spent.values())), "kernels": kernels}


# Candidate operators


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
            times[name][f"{label}_ms"] = 1e3 * _mean_seconds(_timer(graphs.run, itertools.repeat(batch)), seconds)
    return times
