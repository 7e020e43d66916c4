"""What ``make gpu-check`` measures, a function a part; each writes into the state that it is given."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import warnings
from collections.abc import Callable
from time import monotonic

import numpy as np

from fusedbert.engine import Classifier
from fusedbert.engine.run.runner import Runner
from fusedbert.export import export_checkpoint

from . import gpu_device, gpu_peers
from .gpu_candidates import time_candidates
from .gpu_engine import GpuEngine, latency_from_ids, latency_from_text, sequences_per_second, texts_per_second
from .gpu_models import TINY, write_checkpoint
from .gpu_plan import ROOT, Check
from .run.machine import record_machine

PEER_SECONDS = 200.0  # for one peer, its preparation included


def machine(check: Check) -> None:
    """Note the GPU, its driver and ONNX Runtime."""
    import onnxruntime

    check.result["onnxruntime"] = onnxruntime.__version__
    check.details["machine"] = record_machine()
    if check.dry_run:
        check.result["gpu"] = "dry run on the CPU"
        return
    check.result |= {"gpu": gpu_device.device_name(), "driver": gpu_device.driver_version()}
    check.details["memory_total_mib"] = gpu_device.memory_mib()[1]


def tests(check: Check) -> None:
    """Run the tests marked ``gpu``; a dry run only collects them."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests/engine/run/cuda/test_gpu.py"]
    command += ["--collect-only"] if check.dry_run else []
    left = max(1.0, min(420.0, check.deadline - monotonic()))
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=left, check=False)
    check.details["tests"] = {"exit": done.returncode, "last_line": (done.stdout.strip().splitlines() or [""])[-1]}
    if done.returncode:
        check.details["tests"]["output"] = done.stdout[-6000:]


def agreement(check: Check) -> None:
    """Export the embedded default, and compare the labels of fp16 on CUDA with those of fp32 on the CPU."""
    artifact, source = check.folder / "sst2-mini", ROOT / "models" / "sst2-mini"
    if check.dry_run:
        source = write_checkpoint(check.folder / "tiny", TINY, source)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # random weights may lose their int8 graph, which is not asked for here
        export_checkpoint(source, artifact, target="all", required=not check.dry_run)
    device, precision = ("cpu", "fp32") if check.dry_run else ("cuda", "fp16")
    with (
        Classifier.from_pretrained(artifact, device="cpu", precision="fp32") as judge,
        Classifier.from_pretrained(artifact, device=device, precision=precision) as ours,
    ):
        expected, found = judge.decision_function(check.texts), ours.decision_function(check.texts)
        check.details["runtime"] = {k: str(v) for k, v in dataclasses.asdict(ours.runtime).items() if k != "file"}
    check.result["sst2"]["label_agreement"] = float(np.mean(found.argmax(axis=1) == expected.argmax(axis=1)))
    check.details["max_abs_logit"] = float(np.abs(found - expected).max())


def base(check: Check) -> None:
    """BERT-base in shape: placement, latency, throughput, packed against padded."""
    engine, seconds = check.engine("base", check.plan.base), check.plan.seconds
    check.result["attention_nodes_on_cuda"] = engine.attention_nodes()
    figures = check.result["bert_base"]
    figures["latency_1x128_p50_ms"] = latency_from_ids(engine, engine.runner, 128, most_seconds=seconds)
    figures["text_1_p50_ms"] = latency_from_text(engine, 128, check.texts, most_seconds=seconds)
    rates = {n: sequences_per_second(engine, n, 128, seconds=seconds) for n in check.plan.batches}
    figures["seq128_per_s"] = max(rates.values())
    runner = engine.runner
    packed = texts_per_second(engine, runner.packed, check.texts)
    padded = texts_per_second(engine, runner.padded, check.texts)
    plain = texts_per_second(engine, runner.padded, check.texts, plain=True)
    chosen = texts_per_second(engine, runner, check.texts)
    check.result["sst2"]["packed_over_padded"] = packed / plain
    layouts: dict[str, Runner] = {"padded": runner.padded, "packed": runner.packed}
    check.details["bert_base"] = {
        "latency_1x128_p50_ms": {
            name: latency_from_ids(engine, part, 128, most_seconds=seconds / 2) for name, part in layouts.items()
        },
        "seq128_per_s_by_batch": rates,
        "texts_per_s": {"packed": packed, "padded_by_length": padded, "padded_plain": plain, "engine": chosen},
        "captured_graphs": {"padded": runner.padded.shaped.captured, "packed": runner.packed.shaped.captured},
    }
    check.details["crossover"] = crossover(engine, check.plan.crossover, seconds)


def crossover(engine: GpuEngine, texts: int, seconds: float) -> list[dict[str, float]]:
    """Time both graphs on batches with more and more padding: where the constant of the policy has to lie."""
    rng, found = np.random.default_rng(0), []
    for share in (0.0, 0.02, 0.05, 0.1, 0.2, 0.4):
        lengths = np.clip(rng.uniform(1 - 2 * share, 1, size=texts) * 128, 4, 128).astype(int)
        lengths[0] = 128
        rows = [engine.random_rows(1, int(n), rng)[0] for n in lengths]
        times = {}
        for name, runner in (("padded", engine.runner.padded), ("packed", engine.runner.packed)):
            prepared = runner.prepare(rows)
            runner.execute(prepared)
            begun, runs = monotonic(), 0
            while monotonic() - begun < seconds / 8 or not runs:
                runner.execute(prepared)
                runs += 1
            times[f"{name}_ms"] = 1e3 * (monotonic() - begun) / runs
        found.append({"padding": float(1 - lengths.sum() / (texts * 128)), **times})
    return found


def candidates(check: Check) -> None:
    """Operators that could compute packed attention, on short texts of many lengths and on long equal ones."""
    engine, rng = check.engine("base", check.plan.base), np.random.default_rng(0)
    n = check.plan.crossover
    lengths = {"short": rng.integers(5, 60, size=4 * n), "128": np.full(n, 128), "384": np.full(n // 4, 384)}
    batches = {
        name: engine.runner.packed.prepare([engine.random_rows(1, int(size), rng)[0] for size in sizes])
        for name, sizes in lengths.items()
    }
    seconds = check.plan.seconds / 8
    check.details["candidates"] = time_candidates(check.folder / "base", batches, seconds=seconds, on_cpu=check.dry_run)


def large(check: Check) -> None:
    """BERT-large in shape: throughput at 384 tokens."""
    engine = check.engine("large", check.plan.large)
    rates = {n: sequences_per_second(engine, n, 384, seconds=check.plan.seconds) for n in check.plan.batches[:2]}
    check.result["bert_large"]["seq384_per_s"] = max(rates.values())
    check.details["bert_large"] = {"seq384_per_s_by_batch": rates}


def peers(check: Check) -> None:
    """Transformers in fp16, the same compiled, and optimum's O4, on the same texts and shapes; each in a process of its own."""
    device = "cpu" if check.dry_run else "cuda"
    if reason := gpu_peers.why_not(device):
        check.details["not_measured"]["peers"] = reason
        return
    engine = check.engine("base", check.plan.base)
    table = check.details["peers"] = {"latency_ms": {"fusedbert": own_latencies(check, engine)}, "texts_per_s": {}}
    for name in gpu_peers.PEERS:
        if check.dry_run and name == gpu_peers.COMPILED:  # it needs a compiler, and minutes
            continue
        job = gpu_peers.Job(
            checkpoint=str(check.folder / "base"),
            device=device,
            shapes=check.plan.peer_shapes,
            seconds=check.plan.seconds,
            texts=check.texts if name == gpu_peers.TRANSFORMERS else [],
            vocabulary=int(engine.vocabulary.ordinary.max()),
        )
        try:
            found = gpu_peers.measure(name, job, timeout=max(1.0, min(PEER_SECONDS, check.deadline - monotonic())))
        except gpu_peers.PeerError as error:
            check.details["not_measured"][f"peers: {name}"] = str(error)
            continue
        table["latency_ms"][name] = found["latency_ms"]
        if "texts_per_s" in found:
            rates = {"fusedbert": check.details["bert_base"]["texts_per_s"]["engine"], name: found["texts_per_s"]}
            table["texts_per_s"] = rates
            check.result["sst2"]["over_transformers_fp16"] = rates["fusedbert"] / rates[name]
    times = table["latency_ms"]
    ours = times["fusedbert"]
    table["times_faster"] = {name: {shape: times[name][shape] / ours[shape] for shape in ours} for name in [*times][1:]}


def own_latencies(check: Check, engine: GpuEngine) -> dict[str, float]:
    """Time the engine on the shapes that the peers are timed on, from ids to logits on the host; medians in milliseconds."""
    rng, found = np.random.default_rng(0), {}
    for batch, tokens in check.plan.peer_shapes:
        times = []
        for _ in range(60):
            rows = engine.random_rows(batch, tokens, rng)
            begun = monotonic()
            engine.runner.execute(engine.runner.prepare(rows))
            times.append(monotonic() - begun)
        found[f"{batch}x{tokens}"] = 1e3 * float(np.median(times[10:]))
    return found


def soak(check: Check) -> None:
    """Run batches of random shapes, and note the GPU's memory after each tenth."""
    engine, rng = check.engine("base", check.plan.base), np.random.default_rng(0)
    memory: dict[int, int | None] = {}
    for number in range(1, check.plan.soak + 1):
        lengths = rng.integers(3, 129, size=int(rng.integers(1, 33)))
        engine.runner.execute(engine.runner.prepare([engine.random_rows(1, int(n), rng)[0] for n in lengths]))
        late = monotonic() > check.deadline
        if late or number % max(1, check.plan.soak // 10) == 0:
            memory[number] = None if check.dry_run else gpu_device.memory_mib()[0]
        if late:
            break
    check.details["soak"] = {"batches": number, "memory_used_mib": memory}


# The figures first, then what shows that they can be trusted; what may take long and be ended by the clock comes last.
STEPS: tuple[tuple[str, Callable[[Check], None]], ...] = (
    ("machine", machine),
    ("agreement", agreement),
    ("bert_base", base),
    ("bert_large", large),
    ("tests", tests),
    ("soak", soak),
    ("peers", peers),
    ("candidates", candidates),
)
