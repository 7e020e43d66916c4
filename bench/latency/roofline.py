"""The roofline: the best rate of a matrix product by ONNX Runtime, and of reading memory, on this machine.

A result as a share of it says how much could still be won, and exposes what cannot be: an engine above 100 % leaves work out.
The products have the sizes of a base model's feed-forward and of a large square, and the threads of what is timed; fp16 runs
only on the GPU.
"""

from __future__ import annotations

import dataclasses
import functools
import tempfile
import timeit
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from fusedbert.engine.hardware.device import CPU, CUDA

from ..run.process import EngineFailedError, Worker
from ..run.stats import sample

SIZES = ((1024, 768, 3072), (1024, 3072, 768), (4096, 1024, 4096))  # rows, inner, columns
BYTES = 256 << 20  # far beyond any cache
LIMIT = 300.0
SECONDS = 0.4
HOW = (
    "best iteration of ONNX Runtime's MatMul (int8: DynamicQuantizeMatMul) over {sizes}; memory: summing 256 MiB; "
    "{threads} threads"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Roofline:
    """Measured limits of the machine."""

    gemm: Mapping[str, float]  # operations per second by precision; a multiplication and an addition are two
    bandwidth: float | None  # bytes per second; None if not measured
    how: str  # in words; the reason if nothing was measured

    def entry(self) -> dict[str, Any]:
        """Return the document's ``ceiling``: billions of operations per second, and GB/s."""
        return {
            "gemm": {name: round(rate / 1e9, 1) for name, rate in self.gemm.items()},
            "bandwidth_gb_s": None if self.bandwidth is None else round(self.bandwidth / 1e9, 2),
            "how": self.how,
        }

    def or_better(self, other: Roofline) -> Roofline:
        """Return the higher of each figure: a disturbance of one measurement, before or after a run, need not hit the other."""
        rates = {name: max(rate, other.gemm.get(name, 0.0)) for name, rate in {**other.gemm, **self.gemm}.items()}
        known = [each for each in (self.bandwidth, other.bandwidth) if each is not None]
        return Roofline(gemm=rates, bandwidth=max(known, default=None), how=self.how if self.gemm else other.how)

    def share(self, flops: float, seconds: float, precision: str) -> float | None:
        """Return a result as a share of its precision's limit; None if that was not measured."""
        rate = self.gemm.get(precision.partition("+")[0])
        return flops / seconds / rate if rate else None


def measure_roofline(device: str, threads: int, variables: Mapping[str, str], *, seconds: float = SECONDS) -> Roofline:
    """Measure in a separate process, each product for some ``seconds``."""
    try:
        with Worker(None, variables) as worker:
            found = worker.call("roofline", timeout=LIMIT, device=device, threads=threads, seconds=seconds, sizes=SIZES)
    except EngineFailedError as error:
        return Roofline(gemm={}, bandwidth=None, how=f"not measured: {error}")
    sizes = ", ".join("x".join(map(str, size)) for size in SIZES)
    return Roofline(gemm=found["gemm"], bandwidth=found["bandwidth"], how=HOW.format(sizes=sizes, threads=threads))


def write_products(folder: Path, device: str, sizes: Sequence[Sequence[int]]) -> list[dict[str, Any]]:
    """Write graphs that multiply their input ``a`` by a weight.

    Returns for each the ``file``, ``rows`` and ``columns`` of ``a``, the ``operations`` of a run, and the ``precision``.

    Raises:
        MissingDependencyError: onnx, which writes graphs, is not installed.
    """
    from fusedbert.export.graph.builder import MICROSOFT, Graph

    random = np.random.default_rng(0)
    products = []
    for rows, inner, columns in sizes:
        for precision in ("fp32", "fp16") if device == "cuda" else ("fp32", "int8"):
            graph = Graph()
            dtype = "float16" if precision == "fp16" else "float32"
            a = graph.input("a", dtype, ["rows", inner])
            if precision == "int8":
                b = graph.weight("b", random.integers(-127, 128, size=(inner, columns), dtype=np.int8))
                scale = graph.weight("scale", np.array(0.01, dtype=np.float32))
                c = graph.op("DynamicQuantizeMatMul", a, b, scale, domain=MICROSOFT)
            else:
                c = graph.op("MatMul", a, graph.weight("b", random.standard_normal((inner, columns)).astype(dtype)))
            graph.output("c", c, dtype, ["rows", columns])
            file = folder / f"{precision}-{rows}x{inner}x{columns}.onnx"
            graph.write(file, "product", opset=21, metadata={})
            size = {"rows": rows, "columns": inner, "operations": 2.0 * rows * inner * columns}
            products.append({"file": str(file), "precision": precision, **size})
    return products


def run_products(_state: object, request: dict[str, Any]) -> dict[str, Any]:
    """Run matrix products, and read memory; a task of the worker. The best iteration counts: what was reached once.

    The request has ``device``, ``threads``, ``seconds`` for each product, and ``sizes`` of the products, as in ``SIZES``.
    Returns ``gemm``, the best operations per second of each precision, and ``bandwidth``, bytes per second.
    """
    gemm: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="fusedbert-roofline-") as folder:
        for product in write_products(Path(folder), request["device"], request["sizes"]):
            rate = product["operations"] / _product_seconds(product, request)
            gemm[product["precision"]] = max(gemm.get(product["precision"], 0.0), rate)
    bandwidth = None
    if request["device"] == "cpu":
        parts = np.array_split(np.ones(BYTES // 8), request["threads"])
        with ThreadPoolExecutor(request["threads"]) as pool:  # NumPy releases the interpreter's lock while it adds
            bandwidth = BYTES / _fastest(lambda: list(pool.map(np.sum, parts)), request["seconds"])
    return {"gemm": gemm, "bandwidth": bandwidth}


def _product_seconds(product: dict[str, Any], request: dict[str, Any]) -> float:
    """Return the seconds of a product's fastest run, with its arrays on the device."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = request["threads"]
    options.log_severity_level = 4
    device = request["device"]
    providers = [CUDA if device == "cuda" else CPU]
    session = onnxruntime.InferenceSession(product["file"], sess_options=options, providers=providers)
    dtype = np.float16 if product["precision"] == "fp16" else np.float32
    a = np.random.default_rng(0).standard_normal((product["rows"], product["columns"])).astype(dtype)
    binding = session.io_binding()
    binding.bind_ortvalue_input("a", onnxruntime.OrtValue.ortvalue_from_numpy(a, device, 0))
    binding.bind_output("c", device, 0)

    def run() -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    return _fastest(run, request["seconds"])


def _fastest(run: Callable[[], object], seconds: float) -> float:
    """Return the seconds of the fastest iteration, after a warm-up."""
    once = functools.partial(timeit.Timer(run).timeit, 1)
    sample(once, least_samples=3, least_seconds=seconds / 2, most_seconds=seconds)
    return min(sample(once, least_samples=5, least_seconds=seconds, most_seconds=2 * seconds))
