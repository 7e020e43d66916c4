"""Timing on CUDA: runners by batch, and the kernels of a run.

All of it runs on the CPU too, so that no line runs for the first time on a GPU; the times then mean nothing.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import timeit
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np

from fusedbert.engine import Classifier
from fusedbert.engine.run.cuda.graphs import GraphCache
from fusedbert.engine.run.prefetch import prefetch
from fusedbert.engine.run.runner import Runner

from ..engines.random.models import random_rows
from .stats import sample, warm_up

T = TypeVar("T")


def median_ms(run: Callable[[T], object], inputs: Sequence[T], seconds: float) -> float:
    """Time ``run`` on one input after the other, over and over, after a warm-up; return the median in milliseconds."""
    once = _timer(run, itertools.cycle(inputs))
    warm_up(once, cap=seconds / 2)
    return 1e3 * float(np.median(sample(once, least_samples=20, least_seconds=seconds / 4, most_seconds=seconds / 2)))


def mean_ms(run: Callable[[T], object], item: T, seconds: float) -> float:
    """Run one input over and over for so many seconds, at least once; return the mean in milliseconds."""
    return 1e3 * _mean_seconds(_timer(run, itertools.repeat(item)), seconds)


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
