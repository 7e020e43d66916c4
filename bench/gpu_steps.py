"""The steps of ``fusedbert.bench.gpu_check``: each measures one thing on a GPU and returns plain values for JSON.

With ``dry_run`` they run on the CPU with models of two layers, and the packed graph's equivalent in standard operators: the
figures mean nothing, but no line runs for the first time on a GPU.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

import numpy as np

from fusedbert.engine import Classifier
from fusedbert.engine.artifact import PACKED, PADDED, read_manifest
from fusedbert.engine.errors import DeviceError
from fusedbert.engine.hardware.device import CPU, CUDA, Choice, import_onnxruntime
from fusedbert.engine.hardware.storage import staged_folder
from fusedbert.engine.load import Options
from fusedbert.engine.load.open import load
from fusedbert.engine.run.batches import plan
from fusedbert.engine.run.cuda.graphs import GraphCache
from fusedbert.engine.run.cuda.provider import RECORD
from fusedbert.engine.run.cuda.runners import ChoosingRunner, PackedRunner, PaddedCudaRunner
from fusedbert.engine.run.prefetch import prefetch
from fusedbert.engine.run.runner import Prepared, Runner
from fusedbert.engine.run.session import open_session
from fusedbert.engine.text.inputs import check_items
from fusedbert.engine.text.tokenizer import Row, TextTokenizer

from .corpus.texts import built_in, read_corpus
from .engines.batches import read_vocabulary
from .engines.packed_attention import time_candidates
from .engines.random_models import BASE, LARGE, TINY, build_artifact, write_checkpoint
from .run.machine import gpu_memory_mib
from .run.stats import sample, warm_up

T = TypeVar("T")
ROOT = Path(__file__).resolve().parents[1]
EMBEDDED = ROOT / "models" / "sst2-mini"
MANY = 9000  # sentences, for rates
PLAIN = 32  # texts of a plain batch: in their order, padded to the longest
PADDING = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4)


class CudaLayouts:
    """An artifact's two CUDA graphs, padded and packed, and the runner that chooses between them.

    Attributes:
        runner: Chooses between ``runner.padded`` and ``runner.packed`` for each batch.
        layouts: The three runners by name: ``engine``, ``padded``, ``packed``.
        tokenizer: The artifact's.
        why: What the engine chose and verified.

    Raises:
        DeviceError: CUDA does not engage, or one of the graphs does not work there; the message says why.
    """

    def __init__(self, folder: Path, *, on_cpu: bool) -> None:
        self.tokenizer = TextTokenizer.load(folder, read_manifest(folder).max_length)
        self._vocabulary = read_vocabulary(folder)
        self._provider = CPU if on_cpu else CUDA
        if on_cpu:
            self.runner, self.why = self._open_on_cpu(folder), "a dry run on the CPU"
        else:
            loaded = load(folder, Options.parse(device="cuda"))
            if not isinstance(loaded.runner, ChoosingRunner):
                raise DeviceError(f"{folder} runs without one of its graphs: {loaded.runtime.why}")
            self.runner, self.why = loaded.runner, loaded.runtime.why
        runners: dict[str, Runner] = {"engine": self.runner, "padded": self.runner.padded, "packed": self.runner.packed}
        self.layouts: Mapping[str, Runner] = runners

    def _open_on_cpu(self, folder: Path) -> ChoosingRunner:
        runtime, manifest, pad_id = import_onnxruntime(), read_manifest(folder), self.tokenizer.pad_id
        caches = []
        for layout in (PADDED, PACKED):
            variant = manifest.variant(target="cuda", precision="fp16", layout=layout)
            assert variant is not None
            choice = Choice(provider=CPU, why="a dry run")
            session = open_session(runtime, folder / variant.file, choice, threads=2, session_options={RECORD: "1"})
            labels = len(manifest.labels)
            caches.append(GraphCache(runtime, session, labels=labels, device="cpu", graphs=True, pin=lambda *_: None))
        padded = PaddedCudaRunner(graphs=caches[0], pad_id=pad_id, max_length=manifest.max_length)
        return ChoosingRunner(padded=padded, packed=PackedRunner(graphs=caches[1], pad_id=pad_id))

    def attention_nodes(self) -> int | None:
        """Count the attention nodes on the device, of the graph with fewer; None if this ONNX Runtime does not record it."""
        counts = []
        for part in (self.runner.padded, self.runner.packed):
            try:
                assigned = part.graphs.session.raw.get_provider_graph_assignment_info()
            except Exception:  # an ONNX Runtime that does not record it
                return None
            nodes = [node for each in assigned if each.ep_name == self._provider for node in each.get_nodes()]
            counts.append(sum("Attention" in node.op_type for node in nodes))
        return min(counts)

    def random_rows(self, lengths: Sequence[int], rng: np.random.Generator) -> list[Row]:
        """Draw texts of random word pieces, of these lengths."""
        v = self._vocabulary
        drawn = [[v.first, *rng.choice(v.ordinary, size=length - 2).tolist(), v.last] for length in lengths]
        return [Row(ids=ids, types=[0] * len(ids), truncated=False) for ids in drawn]

    def batches(self, runner: Runner, texts: Sequence[str], *, plain: bool) -> Iterator[Prepared]:
        """Tokenize texts and prepare their batches: planned by length, or ``PLAIN`` texts in their order."""
        for start in range(0, len(texts), runner.chunk):
            rows = self.tokenizer.encode(check_items(texts[start : start + runner.chunk]))
            cuts = (range(i, min(i + PLAIN, len(rows))) for i in range(0, len(rows), PLAIN))
            for batch in cuts if plain else plan([len(row.ids) for row in rows], runner.budget):
                yield runner.prepare([rows[i] for i in batch])

    def texts_per_second(self, runner: Runner, texts: Sequence[str], *, plain: bool = False) -> float:
        """Score texts, tokenizing included and prefetched; return the rate of the best of three passes after a warm-up pass."""
        rates = []
        for _ in range(4):
            begun = perf_counter()
            for prepared in prefetch(self.batches(runner, texts, plain=plain)):
                runner.execute(prepared)
            rates.append(len(texts) / (perf_counter() - begun))
        return max(rates[1:])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Check:
    """Settings of a run, shared by all steps."""

    work: Path  # folder of the models, kept between steps
    dry_run: bool  # tiny models on the CPU
    sst2: Path | None  # SST-2's dev.tsv, or None for made-up sentences

    @property
    def seconds(self) -> float:
        """Time for one figure."""
        return 0.1 if self.dry_run else 4.0

    def texts(self, least: int = 1) -> list[str]:
        """Return the sentences to score, repeated up to about ``least``: few short ones would be one batch, over at once.

        Raises:
            FusedBertError: The file cannot be read.
        """
        texts = list((built_in() if self.sst2 is None else read_corpus(self.sst2)).texts)
        return texts[:12] if self.dry_run else texts * max(1, least // len(texts))

    def checkpoint(self, name: str) -> Path:
        """Return the checkpoint ``mini`` (the embedded one), ``base`` or ``large`` (random weights, made once)."""
        if name == "mini":
            return EMBEDDED
        folder = self.work / name
        if not folder.exists():
            with staged_folder(folder) as stage:
                write_checkpoint(stage, TINY if self.dry_run else {"base": BASE, "large": LARGE}[name], EMBEDDED)
        return folder

    def artifact(self, name: str) -> Path:
        """Return the artifact of a checkpoint, made once."""
        folder = self.work / f"{name}-artifact"
        if not folder.exists():
            with staged_folder(folder) as stage:
                build_artifact(self.checkpoint(name), stage, on_cpu=self.dry_run)
        return folder

    def model(self, name: str) -> CudaLayouts:
        """Open an artifact's graphs for CUDA."""
        return CudaLayouts(self.artifact(name), on_cpu=self.dry_run)


def run_step(_state: object, request: Mapping[str, Any]) -> dict[str, Any]:
    """Run the step ``step`` as a worker's task, with the fields of ``Check``; return its figures."""
    sst2 = request["sst2"]
    check = Check(work=Path(request["work"]), dry_run=request["dry_run"], sst2=None if sst2 is None else Path(sst2))
    figures: dict[str, Any] = globals()[request["step"]](check)
    return figures


def median_ms(run: Callable[[T], object], inputs: Sequence[T], seconds: float) -> float:
    """Time ``run`` on one input after the other, over and over, after a warm-up; return the median in milliseconds."""
    source = itertools.cycle(inputs)

    def once() -> float:
        each = next(source)
        begun = perf_counter()
        run(each)
        return perf_counter() - begun

    warm_up(once, cap=seconds / 2)
    return 1e3 * float(np.median(sample(once, least_samples=20, least_seconds=seconds / 4, most_seconds=seconds / 2)))


def _run(runner: Runner, rows: Sequence[Row]) -> None:
    runner.execute(runner.prepare(rows))


def _of_at_least(tokens: int, tokenizer: TextTokenizer, texts: Sequence[str]) -> str:
    """Join texts, in their order, until they have so many tokens."""
    joined = itertools.accumulate(texts, "{} {}".format)
    return next((text for text in joined if len(tokenizer.encode(check_items([text]))[0].ids) >= tokens), " ".join(texts))


def _rates(check: Check, model: CudaLayouts, tokens: int, batches: Sequence[int]) -> dict[int, float]:
    """Run equal batches of each size, each prepared while another runs; return texts per second by batch size."""
    rng, rates = np.random.default_rng(0), {}
    for batch in (2,) if check.dry_run else batches:
        drawn = [model.random_rows([tokens] * batch, rng) for _ in range(4)]
        source = prefetch(model.runner.prepare(rows) for rows in itertools.cycle(drawn))
        for _ in range(3):  # buffers, and cuBLAS's choice of kernels
            model.runner.execute(next(source))
        begun, done = perf_counter(), 0
        while (spent := perf_counter() - begun) < check.seconds or not done:
            model.runner.execute(next(source))
            done += batch
        source.close()
        rates[batch] = done / spent
    return rates


def parity(check: Check) -> dict[str, Any]:
    """Labels and logits of fp16, padded and packed, compared with fp32 on the CPU; embedded model."""
    texts, model = check.texts(), check.model("mini")
    with Classifier.from_pretrained(check.artifact("mini"), device="cpu", precision="fp32") as fp32:
        expected = fp32.decision_function(texts)
    layouts = {}
    for name, runner in model.layouts.items():
        logits = np.concatenate([runner.execute(batch) for batch in model.batches(runner, texts, plain=True)])
        same = float(np.mean(logits.argmax(axis=1) == expected.argmax(axis=1)))
        layouts[name] = {"label_agreement": same, "max_abs_logit": float(np.abs(logits - expected).max())}
    return {
        "label_agreement": min(each["label_agreement"] for each in layouts.values()),
        "max_abs_logit": max(each["max_abs_logit"] for each in layouts.values()),
        "texts": len(texts),
        "layouts": layouts,
        "why": model.why,
    }


def latency(check: Check) -> dict[str, Any]:
    """Milliseconds of small batches by layout, from token ids and from text; placement; BERT-base in shape."""
    model, rng = check.model("base"), np.random.default_rng(0)
    figures: dict[str, Any] = {"attention_nodes_on_cuda": model.attention_nodes()}
    for batch, tokens in ((1, 16), (1, 128), (8, 128)):
        rows = [model.random_rows([tokens] * batch, rng) for _ in range(100)]
        for name, runner in model.layouts.items():
            figures[f"{name}_{batch}x{tokens}_p50_ms"] = median_ms(functools.partial(_run, runner), rows, check.seconds / 2)
    figures["latency_1x128_p50_ms"] = figures["engine_1x128_p50_ms"]
    tokenizer = dataclasses.replace(model.tokenizer, max_length=128)
    long_texts = [_of_at_least(128, tokenizer, rng.permutation(check.texts()[:800]).tolist()) for _ in range(100)]

    def from_text(text: str) -> None:
        _run(model.runner, tokenizer.encode(check_items([text])))

    figures["text_1_p50_ms"] = median_ms(from_text, long_texts, check.seconds)
    figures["captured_graphs"] = {name: getattr(model.runner, name).graphs.captured for name in ("padded", "packed")}
    return figures


def throughput(check: Check) -> dict[str, Any]:
    """Texts of 128 tokens a second by batch, and sentences a second from text by layout; BERT-base in shape."""
    model, texts = check.model("base"), check.texts(MANY)
    rates = _rates(check, model, 128, (64, 128, 256, 512))
    by_layout = {name: model.texts_per_second(runner, texts) for name, runner in model.layouts.items()}
    by_layout["padded_plain"] = model.texts_per_second(model.runner.padded, texts, plain=True)
    over = by_layout["packed"] / by_layout["padded_plain"]
    return {"seq128_per_s": max(rates.values()), "by_batch": rates, "texts_per_s": by_layout, "packed_over_padded": over}


def padding(check: Check) -> dict[str, Any]:
    """Packed compared with padded by the share of padding: where the runner's threshold belongs."""
    model, rng = check.model("base"), np.random.default_rng(0)
    table = []
    for texts, longest in ((4, 64),) if check.dry_run else ((64, 128), (256, 128), (64, 384)):
        for share in PADDING:
            lengths = np.clip(rng.uniform(1 - 2 * share, 1, size=texts) * longest, 4, longest).astype(int)
            lengths[0] = longest
            rows = model.random_rows(lengths.tolist(), rng)
            row = {"texts": texts, "longest": longest, "padding": float(1 - lengths.sum() / (texts * longest))}
            for name in ("padded", "packed"):
                runner = model.layouts[name]
                row[f"{name}_ms"] = median_ms(runner.execute, [runner.prepare(rows)], check.seconds / 8)
            table.append(row)
    return {"crossover": table}


def peers(check: Check) -> dict[str, Any]:
    """Transformers and torch.compile in fp16, by ``fusedbert bench latency`` and ``corpus``; BERT-base in shape."""
    for module in ("torch", "transformers"):
        __import__(module)
    artifact, texts = check.artifact("base"), check.work / "sentences.txt"
    texts.write_text("".join(f"{' '.join(text.split())}\n" for text in check.texts(MANY)), encoding="utf-8")
    device, precision, engines = "cuda", "fp16", ["transformers-fp16", "transformers-compile-fp16"]
    shapes, few = "1x16,1x128,8x128,64x128", ["--rounds", "5"]
    if check.dry_run:  # without torch.compile, which needs a C++ compiler and minutes
        device, precision, engines = "cpu", "fp32", ["transformers-fp32"]
        shapes, few = "1x16", ["--rounds", "1", "--seconds", "0.02"]
    common = ["-m", str(artifact), "--checkpoint", str(check.checkpoint("base")), "--json"]
    common += ["--device", device, "--precision", precision]
    latency = _bench(check, "latency", *common, *few, "--shapes", shapes, "--against", ",".join(engines))
    corpus = _bench(check, "corpus", str(texts), *common, *few[:2], "--against", engines[0])
    return {
        "over_transformers_fp16": next((1 / each["geometric_mean"] for each in corpus["summary"]), None),
        "p50_ms": {each["name"]: {row["shape"]: row["p50_ms"] for row in each["results"]} for each in latency["contenders"]},
        "texts_per_s": {each["name"]: row["texts_per_second"] for each in corpus["contenders"] for row in each["results"]},
        "ratios": {"latency": latency["summary"], "corpus": corpus["summary"]},
        "absent": {each["name"]: each["why"] for each in latency["contenders"] if each["status"] != "measured"},
    }


def _bench(check: Check, *arguments: str) -> Any:
    """Run ``fusedbert bench``, with this Python as the environment of transformers; return its document."""
    variables = {"FUSEDBERT_BENCH": str(check.work / "bench"), "FUSEDBERT_BENCH_TRANSFORMERS": sys.executable}
    command = [sys.executable, "-c", "from fusedbert.bench.cli import bench; bench()", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, env={**os.environ, **variables}, check=True)
    return json.loads(done.stdout)


def large(check: Check) -> dict[str, Any]:
    """Texts of 384 tokens a second; BERT-large in shape."""
    rates = _rates(check, check.model("large"), 384, (64, 128))
    return {"seq384_per_s": max(rates.values()), "by_batch": rates}


def kernels(check: Check) -> dict[str, Any]:
    """Microseconds by kernel of one run, by torch's profiler (CUPTI); BERT-base in shape."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    activity = ProfilerActivity.CPU if check.dry_run else ProfilerActivity.CUDA
    with profile(activities=[activity]):  # CUPTI has to be there before a graph is captured
        torch.zeros(1, device="cpu" if check.dry_run else "cuda")
    model, rng, figures = check.model("base"), np.random.default_rng(0), dict[str, Any]()
    for texts in (1, 2 if check.dry_run else 128):
        for name in ("padded", "packed"):
            runner = model.layouts[name]
            prepared = runner.prepare(model.random_rows([128] * texts, rng))
            host_ms = median_ms(runner.execute, [prepared], check.seconds / 8)
            with profile(activities=[activity]) as recorded:
                runner.execute(prepared)
            spent: dict[str, list[float]] = {}
            for event in recorded.events() or ():
                if "CPU" not in str(event.device_type):
                    spent.setdefault(event.name[:100], []).append(float(event.time_range.elapsed_us()))
            by_time = sorted(spent.items(), key=lambda item: -sum(item[1]))
            figures[f"{name}_{texts}x128"] = {
                "host_ms": host_ms,
                "busy_us": sum(map(sum, spent.values())),
                "kernels": [{"kernel": kernel, "runs": len(us), "us": sum(us)} for kernel, us in by_time],
            }
    return figures


def candidates(check: Check) -> dict[str, Any]:
    """Candidate operators for packed attention, on short texts and on long ones of equal length."""
    model, rng, n = check.model("base"), np.random.default_rng(0), 4 if check.dry_run else 64
    lengths = {"short": rng.integers(5, 60, size=4 * n).tolist(), "128": [128] * n, "384": [384] * (n // 4)}
    batches = {name: model.runner.packed.prepare(model.random_rows(sizes, rng)) for name, sizes in lengths.items()}
    return dict(time_candidates(check.checkpoint("base"), batches, seconds=check.seconds / 8, on_cpu=check.dry_run))


def tests(check: Check) -> dict[str, Any]:
    """The tests marked ``gpu``; a dry run only collects them."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests/engine/run/cuda/test_gpu.py"]
    command += ["--collect-only"] if check.dry_run else []
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"pytest exited with status {done.returncode}: {done.stdout[-900:]}")
    return {"last_line": (done.stdout.strip().splitlines() or [""])[-1]}


def soak(check: Check) -> dict[str, Any]:
    """GPU memory over 10,000 batches of random lengths; BERT-base in shape."""
    model, rng = check.model("base"), np.random.default_rng(0)
    count = 30 if check.dry_run else 10_000
    memory: dict[int, int | None] = {}
    for number in range(1, count + 1):
        lengths = rng.integers(3, 129, size=int(rng.integers(1, 33)))
        _run(model.runner, model.random_rows(lengths.tolist(), rng))
        if number % (count // 10) == 0:
            memory[number] = gpu_memory_mib()
    return {"batches": count, "memory_used_mib": memory}
