"""The task ``ceiling``: what the machine can do at best, in the same runtime and with the same threads as what is timed."""

from __future__ import annotations

from time import perf_counter
from typing import Any

import numpy as np

from ..run.state import State
from ..stats.timing import sample

BYTES = 256 << 20  # far beyond any cache


def run(state: State, request: dict[str, Any]) -> dict[str, Any]:
    """Run matrix products, and read memory.

    Args:
        state: Not used.
        request: ``products``: each with ``file`` (a graph that multiplies its input ``a``), ``rows`` and ``columns`` of
            ``a``, ``operations`` of one run, and ``precision``; ``threads``; ``provider``; ``seconds`` for each
            product. The best of its iterations counts, for a ceiling is what was reached once.

    Returns:
        ``gemm``: for each precision the best operations per second of its products; ``bandwidth``, bytes per second.
    """
    del state
    gemm: dict[str, float] = {}
    for product in request["products"]:
        rate = product["operations"] / _best(product, request)
        gemm[product["precision"]] = max(gemm.get(product["precision"], 0.0), rate)
    on_cpu = request["provider"].startswith("CPU")
    return {"gemm": gemm, "bandwidth": _bandwidth(request["threads"], request["seconds"]) if on_cpu else None}


def _best(product: dict[str, Any], request: dict[str, Any]) -> float:
    """Return the seconds of a product's quickest run, its arrays where it computes."""
    import onnxruntime

    threads, provider, seconds = request["threads"], request["provider"], request["seconds"]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(product["file"], sess_options=options, providers=[provider])
    dtype = np.float16 if product["precision"] == "fp16" else np.float32
    a = np.random.default_rng(0).standard_normal((product["rows"], product["columns"])).astype(dtype)
    device = "cpu" if provider.startswith("CPU") else "cuda"
    binding = session.io_binding()
    binding.bind_ortvalue_input("a", onnxruntime.OrtValue.ortvalue_from_numpy(a, device, 0))
    binding.bind_output("c", device, 0)

    def once() -> float:
        begun = perf_counter()
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        return perf_counter() - begun

    sample(once, least_samples=3, least_seconds=seconds / 2, most_seconds=seconds)
    return min(sample(once, least_samples=5, least_seconds=seconds, most_seconds=2 * seconds))


def _bandwidth(threads: int, seconds: float) -> float:
    """Sum an array as long as ``BYTES`` in as many threads, each its part; NumPy lets the others run meanwhile."""
    from concurrent.futures import ThreadPoolExecutor

    parts = np.array_split(np.ones(BYTES // 8), threads)  # each its part of one array
    with ThreadPoolExecutor(threads) as pool:

        def once() -> float:
            begun = perf_counter()
            list(pool.map(np.sum, parts))
            return perf_counter() - begun

        once()
        return BYTES / min(sample(once, least_samples=5, least_seconds=seconds, most_seconds=2 * seconds))
