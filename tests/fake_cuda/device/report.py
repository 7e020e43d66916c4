"""A report of a model on the fake CUDA device: kernels by capability and shape, memory, and the host's part of a call.

``.venv-cuda/bin/python tests/fake_cuda/device/report.py ARTIFACT`` writes one JSON document (``make test-cuda`` creates that
environment). Nothing is computed, so large models cost nothing. All times are those of this machine's host code, none of a GPU.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

CAPABILITIES = (75, 80, 89, 90)
SHAPES = ((1, 128), (16, 128), (8, 384), (8, 512))
ATTENTION = ("fmha", "attention_kernel", "cudnn", "flash_fwd", "oftmax")
SOAK = 10_000


def drive(artifact: str, what: str) -> dict[str, Any]:
    """Measure in this process, which its parent started with the libraries and a capability."""
    import fusedbert.engine.hardware.device as device
    import fusedbert.engine.load.open_cuda as opening
    from fusedbert.engine import Classifier
    from fusedbert.engine.text.tokenizer import Row

    device.gpu_present = lambda root=Path("/"): True
    opening.verify = lambda *_: "not verified, as nothing is computed"
    clf = Classifier.from_pretrained(artifact, device="cuda")
    runner: Any = clf.model.open()
    parts = {"padded": runner.padded, "packed": runner.packed}

    def rows(texts: int, tokens: int) -> list[Row]:
        return [Row(ids=[7] * tokens, types=[0] * tokens, truncated=False) for _ in range(texts)]

    def batch(part: Any, texts: int, tokens: int) -> dict[str, Any]:
        return launched(lambda: part.execute(part.prepare(rows(texts, tokens))))

    if what == "kernels":
        return {f"{n}x{t}": {name: batch(part, n, t) for name, part in parts.items()} for n, t in SHAPES}
    if what == "memory":
        return soak(runner, Row)
    text = "a gorgeous , witty , seductive movie and one of the best films of the year " * 8
    result = {}
    for name, part in parts.items():
        prepared = part.prepare(rows(1, 128))
        result[f"{name}_1x128_us"] = median_us(lambda p=part, b=prepared: p.execute(b))
        result[f"{name}_1x128_prepare_us"] = median_us(lambda p=part: p.prepare(rows(1, 128)))
    return result | {"text_us": median_us(lambda: clf.predict_proba([text])), "text_tokens": 130}


def launched(run: Callable[[], object]) -> dict[str, Any]:
    """Run, count the kernels and products in the trace, and name those of attention."""
    trace = Path(os.environ["FAKE_CUDA_TRACE"])
    start = trace.stat().st_size
    run()
    lines = trace.read_bytes()[start:].decode().splitlines()
    names = [line.split()[1] for line in lines if line.startswith(("KERNEL", "GEMM"))]
    chosen = Counter(name for name in names if any(part in name for part in ATTENTION))
    plain = subprocess.run(["c++filt"], input="\n".join(chosen), capture_output=True, text=True, check=True).stdout.splitlines()
    return {"kernels": len(names), "attention": dict(zip((name.split("(")[0] for name in plain), chosen.values(), strict=True))}


def soak(runner: Any, row: Any) -> dict[str, int]:
    """Run batches of random shapes; return the MiB of the device after loading and after some of them."""
    library = ctypes.CDLL("libcudart.so.13")
    library.fake_cuda_used.restype = ctypes.c_size_t
    rng, result = np.random.default_rng(0), {"loaded": library.fake_cuda_used() >> 20}
    for number in range(1, SOAK + 1):
        lengths = rng.integers(3, 129, size=int(rng.integers(1, 33)))
        runner.execute(runner.prepare([row(ids=[7] * int(n), types=[0] * int(n), truncated=False) for n in lengths]))
        if number in (1, 100, 1000, 2000, 5000, SOAK):
            result[f"after {number}"] = library.fake_cuda_used() >> 20
    gc.collect()
    return result


def median_us(run: Callable[[], object], runs: int = 1000) -> float:
    """Return the median time of a call, in microseconds."""
    times = []
    for _ in range(50 + runs):
        begun = perf_counter()
        run()
        times.append(perf_counter() - begun)
    return round(1e6 * float(np.median(times[50:])), 1)


def main(artifact: str) -> None:
    """Build the libraries, and take each measurement in a new process."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    import onnxruntime

    from device import build

    document: dict[str, Any] = {
        "device": "none: ONNX Runtime's CUDA provider on a fake CUDA device, nothing is computed; times are the host's",
        "onnxruntime": onnxruntime.__version__,
        "host": f"{platform.machine()}, {os.cpu_count()} cores",
        "artifact": Path(artifact).name,
    }
    with tempfile.TemporaryDirectory() as folder:
        libraries = build(Path(folder))

        def child(what: str, **settings: str) -> Any:
            environment = {**os.environ, **libraries, "FAKE_CUDA_COMPUTE": "0", **settings}
            command = [sys.executable, __file__, artifact, what]
            done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
            if done.returncode:
                sys.exit(done.stderr)
            return json.loads(done.stdout)

        trace = str(Path(folder) / "trace")
        Path(trace).touch()
        kernels = {c: child("kernels", FAKE_CUDA_CAPABILITY=str(c), FAKE_CUDA_TRACE=trace) for c in CAPABILITIES}
        document |= {"kernels": kernels, "memory_mib": child("memory"), "host_times": child("host")}
    print(json.dumps(document, indent=2))


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(json.dumps(drive(sys.argv[1], sys.argv[2])))
    elif len(sys.argv) == 2:
        main(sys.argv[1])
    else:
        sys.exit("usage: report.py ARTIFACT")
