"""``make gpu-check``: what a CUDA machine has to show, measured in one go of at most a quarter of an hour.

It writes two files into bench/results/, named after the GPU. ``NAME.json`` holds the figures that are compared from
machine to machine:

* ``gpu``, ``driver``, ``onnxruntime``: what it was measured on;
* ``bert_base``: ``latency_1x128_p50_ms`` from token ids to logits on the host, ``text_1_p50_ms`` the same from text,
  ``seq128_per_s`` texts of 128 tokens a second in large batches;
* ``bert_large``: ``seq384_per_s``;
* ``sst2``: ``label_agreement`` of fp16 on CUDA with fp32 on the CPU, for the embedded default; ``packed_over_padded`` and
  ``over_transformers_fp16``: texts a second from text, BERT-base in shape, packed against padded in plain batches, and the
  engine against transformers in fp16 with sdpa on sorted texts;
* ``attention_nodes_on_cuda``: attention nodes that CUDA runs, of BERT-base's 12.

What could not be measured is null there, and ``NAME.details.json`` says why, beside every figure that led to these.
``--dry-run`` goes the same way on the CPU with models of two layers, so that no line runs for the first time on a GPU.
"""

from __future__ import annotations

import csv
import dataclasses
import datetime
import itertools
import json
import math
import re
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

import click
import numpy as np

from fusedbert.bench import gpu_peers
from fusedbert.bench.gpu_candidates import time_candidates
from fusedbert.bench.gpu_engine import (
    GpuEngine,
    latency_from_ids,
    latency_from_text,
    sequences_per_second,
    texts_per_second,
)
from fusedbert.bench.gpu_models import BASE, LARGE, TINY, ModelShape, build_artifact, write_checkpoint
from fusedbert.bench.machine import record_machine
from fusedbert.engine import Classifier
from fusedbert.engine.device import import_onnxruntime, inspect_offer
from fusedbert.engine.errors import FusedBertError, StorageError
from fusedbert.export import export_checkpoint
from fusedbert.export.texts import CHECK_TEXTS, ROUNDING_TEXTS

ROOT = Path(__file__).resolve().parents[1]
MINUTES = 14.0
SOAK = 10_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """How large everything is: as asked for, or tiny for a dry run."""

    base: ModelShape
    large: ModelShape
    batches: tuple[int, ...]
    seconds: float
    soak: int
    texts: int
    crossover: int
    peer_shapes: tuple[tuple[int, int], ...]

    @classmethod
    def make(cls, *, dry_run: bool) -> Plan:
        """Return the sizes."""
        if dry_run:
            return cls(base=TINY, large=TINY, batches=(2,), seconds=0.1, soak=30, texts=12, crossover=4, peer_shapes=((1, 16),))
        return cls(
            base=BASE,
            large=LARGE,
            batches=(64, 128, 256, 512),
            seconds=4.0,
            soak=SOAK,
            texts=10**9,
            crossover=64,
            peer_shapes=((1, 128), (8, 128), (64, 128)),
        )


@dataclasses.dataclass(kw_only=True)
class Check:
    """The state of one go: what was measured, and what was not and why.

    Attributes:
        plan: Sizes.
        dry_run: Whether it runs on the CPU.
        folder: Where models are made.
        texts: SST-2's sentences, or made-up ones.
        deadline: When to stop beginning anything, on the monotonic clock.
        result: The figures.
        details: All else.
    """

    plan: Plan
    dry_run: bool
    folder: Path
    texts: list[str]
    deadline: float
    result: dict[str, Any] = dataclasses.field(
        default_factory=lambda: {
            "gpu": None,
            "driver": None,
            "onnxruntime": None,
            "bert_base": {"latency_1x128_p50_ms": None, "text_1_p50_ms": None, "seq128_per_s": None},
            "bert_large": {"seq384_per_s": None},
            "sst2": {"label_agreement": None, "packed_over_padded": None, "over_transformers_fp16": None},
            "attention_nodes_on_cuda": None,
        }
    )
    details: dict[str, Any] = dataclasses.field(default_factory=lambda: {"not_measured": {}})

    def step(self, name: str, measure: Callable[[Check], None]) -> None:
        """Run one part; what fails is noted, and the others go on."""
        if monotonic() > self.deadline:
            self.details["not_measured"][name] = "the time was up"
            return
        begun = monotonic()
        click.echo(f"gpu-check: {name}", err=True)
        try:
            measure(self)
        except FusedBertError as error:
            self.details["not_measured"][name] = str(error)
        except Exception as error:  # a peer's, or a driver's: the figures so far are worth keeping
            self.details["not_measured"][name] = f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
        self.details.setdefault("seconds", {})[name] = round(monotonic() - begun, 1)

    def engine(self, name: str, shape: ModelShape) -> GpuEngine:
        """Make a random model once, and open it."""
        artifact = self.folder / f"{name}-artifact"
        if not artifact.exists():
            checkpoint = write_checkpoint(self.folder / name, shape, ROOT / "models" / "sst2-mini")
            build_artifact(checkpoint, artifact, on_cpu=self.dry_run)
        return GpuEngine.open(artifact, on_cpu=self.dry_run)


def machine(check: Check) -> None:
    """Note the GPU, its driver and ONNX Runtime."""
    import onnxruntime

    check.result["onnxruntime"] = onnxruntime.__version__
    check.details["machine"] = record_machine()
    if check.dry_run:
        check.result["gpu"] = "dry run on the CPU"
        return
    name, driver, memory = nvidia_smi("name", "driver_version", "memory.total")
    check.result |= {"gpu": name, "driver": driver}
    check.details["memory_total_mib"] = int(memory)


def tests(check: Check) -> None:
    """Run the tests marked ``gpu``; a dry run only collects them."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests/cuda/test_gpu.py"]
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
    figures["latency_1x128_p50_ms"] = latency_from_ids(engine, 128, most_seconds=seconds)
    figures["text_1_p50_ms"] = latency_from_text(engine, 128, check.texts, most_seconds=seconds)
    rates = {n: sequences_per_second(engine, n, 128, seconds=seconds) for n in check.plan.batches}
    figures["seq128_per_s"] = max(rates.values())
    runner = engine.runner
    packed = texts_per_second(engine, runner.packed, check.texts)
    padded = texts_per_second(engine, runner.padded, check.texts)
    plain = texts_per_second(engine, runner.padded, check.texts, plain=True)
    chosen = texts_per_second(engine, runner, check.texts)
    check.result["sst2"]["packed_over_padded"] = packed / plain
    check.details["bert_base"] = {
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
    """Transformers in fp16 on the same texts and shapes, and compiled."""
    device = "cpu" if check.dry_run else "cuda"
    if reason := gpu_peers.why_not(device):
        check.details["not_measured"]["peers"] = reason
        return
    ours = check.details["bert_base"]["texts_per_s"]["engine"]
    peer = gpu_peers.Transformers.load(check.folder / "base", device)
    theirs = peer.texts_per_second(check.texts, max_length=512, batches=(64, 256))
    check.result["sst2"]["over_transformers_fp16"] = ours / theirs
    engine, rng = check.engine("base", check.plan.base), np.random.default_rng(0)
    vocabulary = int(engine.vocabulary.ordinary.max())
    table = check.details["peers"] = {"transformers_texts_per_s": theirs, "latency_ms": {}}
    for batch, tokens in check.plan.peer_shapes:
        rows = engine.random_rows(batch, tokens, rng)
        prepared = engine.runner.prepare(rows)
        times = [engine_time(engine, prepared) for _ in range(60)][10:]
        row = table["latency_ms"][f"{batch}x{tokens}"] = {"fusedbert": 1e3 * float(np.median(times))}
        for name, compiled in (("transformers", False), ("torch_compile", True)):
            if monotonic() < check.deadline and not (compiled and check.dry_run):
                row[name] = peer.latency_ms(batch, tokens, vocabulary, compiled=compiled, most_seconds=check.plan.seconds)


def engine_time(engine: GpuEngine, prepared: Any) -> float:
    """Time one run of a batch that is laid out already."""
    begun = monotonic()
    engine.runner.execute(prepared)
    return monotonic() - begun


def soak(check: Check) -> None:
    """Run batches of random shapes, and note the GPU's memory after the first tenth and at the end."""
    engine, rng = check.engine("base", check.plan.base), np.random.default_rng(0)
    memory: dict[int, int | None] = {}
    for number in range(1, check.plan.soak + 1):
        lengths = rng.integers(3, 129, size=int(rng.integers(1, 33)))
        engine.runner.execute(engine.runner.prepare([engine.random_rows(1, int(n), rng)[0] for n in lengths]))
        if number % max(1, check.plan.soak // 10) == 0:
            memory[number] = None if check.dry_run else int(nvidia_smi("memory.used")[0])
            if monotonic() > check.deadline:
                break
    check.details["soak"] = {"batches": number, "memory_used_mib": memory}


STEPS: tuple[tuple[str, Callable[[Check], None]], ...] = (
    ("machine", machine),
    ("agreement", agreement),
    ("bert_base", base),
    ("bert_large", large),
    ("peers", peers),
    ("tests", tests),
    ("candidates", candidates),
    ("soak", soak),
)


def nvidia_smi(*fields: str) -> list[str]:
    """Ask the driver about the first GPU."""
    command = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits", "--id=0"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [value.strip() for value in done.stdout.strip().splitlines()[0].split(",")]


def rounded(value: Any) -> Any:
    """Round every number in a document to four digits: the fifth differs from run to run. What is no number becomes null."""
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    if isinstance(value, list):
        return [rounded(each) for each in value]
    if isinstance(value, float):
        return float(f"{value:.4g}") if math.isfinite(value) else None
    return value


def write(check: Check, output: Path) -> None:
    """Write what there is so far: a driver that takes the process down leaves the figures before it."""
    name = re.sub(r"[^\w.-]+", "-", str(check.result["gpu"] or "unknown"))
    for suffix, document in ((".json", check.result), (".details.json", check.details)):
        text = json.dumps(rounded(document), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        (output / f"{name}{suffix}").write_text(text, encoding="utf-8")


def read_texts(file: Path | None, most: int) -> list[str]:
    """Read the column ``sentence`` or ``text`` of a tab-separated file; made-up texts, as many as SST-2's, where there is none.

    Raises:
        StorageError: The file cannot be read, or has no such column.
    """
    if file is None:
        return list(itertools.islice(itertools.cycle([*CHECK_TEXTS[1:], *ROUNDING_TEXTS]), min(872, most)))
    try:
        with file.open(encoding="utf-8", newline="") as lines:
            rows = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    except OSError as error:
        raise StorageError(f"{file} cannot be read: {error.strerror or error}") from None
    column = next((name for name in ("sentence", "text") if rows and name in rows[0]), None)
    if column is None:
        raise StorageError(f"{file} has no column 'sentence' or 'text': give a tab-separated file with a header")
    return [row[column] for row in rows[:most]]


@click.command()
@click.option("--sst2", type=click.Path(path_type=Path), help="SST-2's dev.tsv; left out, made-up sentences.")
@click.option("--output", type=click.Path(path_type=Path), default=ROOT / "bench" / "results", help="Folder of the results.")
@click.option("--minutes", type=float, default=MINUTES, show_default=True, help="Begin nothing new after that.")
@click.option("--dry-run", is_flag=True, help="On the CPU, with tiny models; the figures mean nothing.")
def main(sst2: Path | None, output: Path, minutes: float, dry_run: bool) -> None:
    """Measure this machine's GPU and write bench/results/<gpu name>.json."""
    plan = Plan.make(dry_run=dry_run)
    if not dry_run and (reason := inspect_offer(import_onnxruntime()).obstacle()):
        raise click.ClickException(f"{reason}; --dry-run goes through every step on the CPU")
    try:
        texts = read_texts(sst2, plan.texts)
    except FusedBertError as error:
        raise click.ClickException(str(error)) from None
    with tempfile.TemporaryDirectory() as folder:
        check = Check(plan=plan, dry_run=dry_run, folder=Path(folder), texts=texts, deadline=monotonic() + 60 * minutes)
        check.details |= {
            "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "texts": "made up" if sst2 is None else sst2.name,
            "dry_run": dry_run,
        }
        output.mkdir(parents=True, exist_ok=True)
        for name, measure in STEPS:
            check.step(name, measure)
            write(check, output)
    click.echo(json.dumps(rounded(check.result), indent=2, ensure_ascii=False))
    failed = check.details.get("tests", {}).get("exit", 1) or check.details["not_measured"].keys() - {"peers"}
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
