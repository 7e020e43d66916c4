"""The ceiling: the best rate of a matrix product and of reading memory here, measured before anything else.

A result as a share of the ceiling says how much there is left to win, and it gives away what cannot be: an engine above
100 % does not do the work. The products have the sizes of a base model's feed-forward and of a large square; what is
quantized runs as ``DynamicQuantizeMatMul``, what is fp16 on the GPU alone.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fusedbert.engine.errors import MissingDependencyError
from fusedbert.engine.hardware.device import CPU, CUDA

from ..run.process import ContenderFailedError, Worker

SIZES = ((1024, 768, 3072), (1024, 3072, 768), (4096, 1024, 4096))  # rows, inner, columns
LIMIT = 300.0
SECONDS = 0.4
HOW = (
    "best iteration of ONNX Runtime's MatMul (int8: DynamicQuantizeMatMul) over {sizes}; memory: summing 256 MiB; "
    "{threads} threads"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ceiling:
    """What was measured.

    Attributes:
        gemm: Operations per second by precision, a multiplication and an addition each counted.
        bandwidth: Bytes per second, or None where it was not measured.
        how: In words; the reason, where nothing was measured.
    """

    gemm: Mapping[str, float]
    bandwidth: float | None
    how: str

    def entry(self) -> dict[str, Any]:
        """Return the document's ``ceiling``: billions of operations per second, and GB/s."""
        return {
            "gemm": {name: round(rate / 1e9, 1) for name, rate in self.gemm.items()},
            "bandwidth_gb_s": None if self.bandwidth is None else round(self.bandwidth / 1e9, 2),
            "how": self.how,
        }

    def or_better(self, other: Ceiling) -> Ceiling:
        """Return the higher of each figure: what disturbed one measurement, before or after a run, need not the other."""
        rates = {name: max(rate, other.gemm.get(name, 0.0)) for name, rate in {**other.gemm, **self.gemm}.items()}
        known = [each for each in (self.bandwidth, other.bandwidth) if each is not None]
        how = self.how if self.gemm else other.how
        return Ceiling(gemm=rates, bandwidth=max(known, default=None), how=how)

    def share(self, flops: float, seconds: float, precision: str) -> float | None:
        """Return which share of the ceiling of its precision a result is; None where that ceiling was not measured."""
        rate = self.gemm.get(precision.partition("+")[0])
        return flops / seconds / rate if rate else None


def measure_ceiling(device: str, threads: int, variables: Mapping[str, str], *, seconds: float = SECONDS) -> Ceiling:
    """Measure in a process of its own, each product for some ``seconds``."""
    try:
        with tempfile.TemporaryDirectory(prefix="fusedbert-ceiling-") as folder, Worker.start(None, variables) as worker:
            products = write_products(Path(folder), device)
            provider = CUDA if device == "cuda" else CPU
            found = worker.call(
                "ceiling", timeout=LIMIT, products=products, threads=threads, provider=provider, seconds=seconds
            )
    except (ContenderFailedError, MissingDependencyError) as error:
        return Ceiling(gemm={}, bandwidth=None, how=f"not measured: {error}")
    sizes = ", ".join("x".join(map(str, size)) for size in SIZES)
    return Ceiling(gemm=found["gemm"], bandwidth=found["bandwidth"], how=HOW.format(sizes=sizes, threads=threads))


def write_products(folder: Path, device: str) -> list[dict[str, Any]]:
    """Write the graphs, and return what the task ``ceiling`` takes.

    Raises:
        MissingDependencyError: onnx, which writes graphs, is not installed.
    """
    from fusedbert.export.graph.builder import MICROSOFT, Graph

    random = np.random.default_rng(0)
    products = []
    for rows, inner, columns in SIZES:
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
            operations = 2.0 * rows * inner * columns
            about = {"rows": rows, "columns": inner, "operations": operations, "precision": precision}
            products.append({"file": str(file), **about})
    return products
