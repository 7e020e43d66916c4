"""The steps of ``fusedbert.bench.gpu_check``: each measures one thing on a GPU and returns plain values for JSON."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fusedbert.engine import Classifier
from fusedbert.engine.run.batches import COARSE, Budget
from fusedbert.engine.run.runner import run

from .corpus.texts import built_in, read_corpus
from .engines.random.models import Models, classifier, random_rows
from .gpu_check import ROOT
from .run import cuda_candidates
from .run import cuda_timing as timing
from .run.machine import gpu_memory_mib

PLAIN = Budget(tokens=32 * 512, rows=32, waste=1.0)  # of batches of 32 texts as they come, tokenized and padded together


@dataclasses.dataclass(frozen=True, kw_only=True)
class Check(Models):
    """Settings of a run, shared by all steps."""

    sst2: Path | None  # SST-2's dev.tsv, or None for made-up sentences

    @property
    def seconds(self) -> float:
        """Time for one figure."""
        return 0.1 if self.dry_run else 4.0

    def texts(self, least: int = 9000) -> list[str]:
        """Return the sentences, or raise ``FusedBertError`` for a bad file.

        They are repeated up to about ``least``: few short ones would be one batch, over at once.
        """
        texts = list((built_in() if self.sst2 is None else read_corpus(self.sst2)).texts)
        return texts[:12] if self.dry_run else texts * max(1, least // len(texts))

    def reviews(self) -> list[str]:
        """Return texts of the lengths that film reviews have, 290 words on average and 20 to 512, made of the sentences."""
        rng, words = np.random.default_rng(0), itertools.cycle(" ".join(self.texts()).split())
        lengths = np.clip(rng.lognormal(5.6, 0.6, size=12 if self.dry_run else 4000), 20, 512).astype(int)
        return [" ".join(itertools.islice(words, length)) for length in lengths.tolist()]


def run_step(_state: object, request: Mapping[str, Any]) -> dict[str, Any]:
    """Run the step ``step`` as a worker's task, with the fields of ``Check``; return its figures."""
    sst2 = request["sst2"] and Path(request["sst2"])
    check = Check(work=Path(request["work"]), dry_run=request["dry_run"], sst2=sst2)
    return dict(globals()[request["step"]](check))


def parity(check: Check) -> dict[str, Any]:
    """Labels and logits of fp16, padded and packed, compared with fp32 on the CPU; embedded model."""
    texts, (loaded, runners) = check.texts(1), check.open("mini")
    expected = Classifier.from_pretrained(loaded.folder, device="cpu", precision="fp32").decision_function(texts)
    layouts = {}
    for name, runner in runners.items():
        logits = classifier(loaded, runner).decision_function(texts)
        same = float(np.mean(logits.argmax(axis=1) == expected.argmax(axis=1)))
        layouts[name] = {"label_agreement": same, "max_abs_logit": float(np.abs(logits - expected).max())}
    agreement = min(each["label_agreement"] for each in layouts.values())
    largest, why = max(each["max_abs_logit"] for each in layouts.values()), loaded.runtime.why
    return {"label_agreement": agreement, "max_abs_logit": largest, "texts": len(texts), "layouts": layouts, "why": why}


def latency(check: Check) -> dict[str, Any]:
    """Milliseconds of small batches by layout, from token ids and from text; placement; BERT-base in shape."""
    (loaded, runners), rng = check.open("base"), np.random.default_rng(0)
    parts = {name: runners[name].graphs for name in ("padded", "packed")}
    figures: dict[str, Any] = {"attention_nodes_on_cuda": timing.count_attention_nodes(parts.values(), loaded.runtime.provider)}
    for n, tokens in ((1, 16), (1, 128), (8, 128)):
        rows = [random_rows([tokens] * n, rng) for _ in range(100)]
        for name, runner in runners.items():
            figures[f"{name}_{n}x{tokens}_p50_ms"] = timing.median_ms(functools.partial(run, runner), rows, check.seconds / 2)
    figures["latency_1x128_p50_ms"] = figures["engine_1x128_p50_ms"]
    words = [word for word in sorted(loaded.tokenizer.raw.get_vocab()) if word.isascii() and word.isalpha()]
    texts = [[" ".join(drawn)] for drawn in rng.choice(words, size=(100, 126)).tolist()]  # 128 tokens with [CLS] and [SEP]
    figures["text_1_p50_ms"] = timing.median_ms(classifier(loaded, loaded.runner).decision_function, texts, check.seconds)
    figures["captured_graphs"] = {name: graphs.captured for name, graphs in parts.items()}
    return figures


def throughput(check: Check) -> dict[str, Any]:
    """Texts of 128 tokens a second by batch, and sentences a second from text by layout; BERT-base in shape."""
    (loaded, runners), texts = check.open("base"), check.texts()
    rates = timing.equal_texts_per_second(runners["engine"], 128, (2,) if check.dry_run else (64, 128, 256, 512), check.seconds)
    runners["padded_plain"] = dataclasses.replace(runners["padded"], budget=PLAIN, chunk=PLAIN.rows)
    by_layout = {
        name: max(timing.texts_per_second(classifier(loaded, runner), texts, 4)[1:]) for name, runner in runners.items()
    }
    over = by_layout["packed"] / by_layout["padded_plain"]
    return {"seq128_per_s": max(rates.values()), "by_batch": rates, "texts_per_s": by_layout, "packed_over_padded": over}


def reviews(check: Check) -> dict[str, Any]:
    """Texts a second of reviews' lengths, from text, at each pass: first passes meet new shapes; BERT-base in shape.

    By the padded graph also on a coarser ladder of shapes, which goes first: few of its shapes are met on the other.
    """
    (loaded, runners), texts = check.open("base"), check.reviews()
    by_ladder = {"padded_coarse": dataclasses.replace(runners["padded"], fineness=COARSE), "padded": runners["padded"]}
    by_layout = {"packed": runners["packed"], **by_ladder}
    passes = {name: timing.texts_per_second(classifier(loaded, runner), texts, 4) for name, runner in by_layout.items()}
    return {"texts": len(texts), "passes_texts_per_s": passes}


def padding(check: Check) -> dict[str, Any]:
    """Packed compared with padded by the share of padding."""
    (_, runners), rng, table = check.open("base"), np.random.default_rng(0), []
    sizes = [(4, 64)] if check.dry_run else [(64, 128), (256, 128), (64, 384)]
    for (texts, longest), share in itertools.product(sizes, (0.0, 0.02, 0.05, 0.1, 0.2, 0.4)):
        lengths = np.clip(rng.uniform(1 - 2 * share, 1, size=texts) * longest, 4, longest).astype(int)
        lengths[0] = longest
        rows = random_rows(lengths.tolist(), rng)
        row = {"texts": texts, "longest": longest, "padding": float(1 - lengths.sum() / (texts * longest))}
        for name in ("padded", "packed"):
            row[f"{name}_ms"] = timing.median_ms(runners[name].execute, [runners[name].prepare(rows)], check.seconds / 8)
        table.append(row)
    return {"crossover": table}


def run_program(code: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess[Any]:
    """Run a Python program, with the options of ``subprocess.run``; on Linux it does not outlive this process."""
    bound = f"from fusedbert.bench.run.worker import end_with_parent; end_with_parent({os.getpid()}); {code}"
    return subprocess.run([sys.executable, "-c", bound, *arguments], **options)


def peers(check: Check) -> dict[str, Any]:
    """Transformers and torch.compile in fp16, by ``fusedbert bench latency`` and ``corpus``; BERT-base in shape."""
    for module in ("torch", "transformers"):
        __import__(module)
    corpora = {"sentences": check.texts(), "reviews": check.reviews()[:1000]}
    where = ["-m", str(check.artifact("base")), "--checkpoint", str(check.checkpoint("base")), "--json"]
    how = "--device cpu --precision fp32 --rounds 1" if check.dry_run else "--device cuda --precision fp16 --rounds 5"
    shapes = "--shapes 1x16 --seconds 0.02" if check.dry_run else "--shapes 1x16,1x128,8x128,64x128"
    engine = "transformers-fp32" if check.dry_run else "transformers-fp16"
    against = engine if check.dry_run else f"{engine},transformers-compile-fp16"  # which needs a C++ compiler and minutes

    def bench(*arguments: str) -> Any:
        code = "from fusedbert.bench.cli import bench; bench()"
        variables = {"FUSEDBERT_BENCH": str(check.work / "bench"), "FUSEDBERT_BENCH_TRANSFORMERS": sys.executable}
        env = {**os.environ, **variables}
        done = run_program(code, *arguments, *where, *how.split(), stdout=subprocess.PIPE, env=env, check=True)
        return json.loads(done.stdout)

    latency = bench("latency", *shapes.split(), "--against", against)
    measured, rates = dict[str, Any](), dict[str, Any]()
    for name, texts in corpora.items():
        file = check.work / f"{name}.txt"
        file.write_text("".join(f"{' '.join(text.split())}\n" for text in texts), encoding="utf-8")
        measured[name] = bench("corpus", str(file), "--against", engine)
        found = measured[name]["contenders"]
        rates[name] = {each["name"]: row["texts_per_second"] for each in found for row in each["results"]}
    return {
        "over_transformers_fp16": next((1 / each["geometric_mean"] for each in measured["sentences"]["summary"]), None),
        "p50_ms": {each["name"]: {row["shape"]: row["p50_ms"] for row in each["results"]} for each in latency["contenders"]},
        "texts_per_s": rates,
        "ratios": {"latency": latency["summary"], **{name: found["summary"] for name, found in measured.items()}},
        "absent": {each["name"]: each["why"] for each in latency["contenders"] if each["status"] != "measured"},
        "compiled": {each["name"]: each["compiled"] for each in latency["contenders"] if each.get("compiled")},
        "cautions": latency["cautions"],
    }


def large(check: Check) -> dict[str, Any]:
    """Texts of 384 tokens a second; BERT-large in shape."""
    _, runners = check.open("large")
    rates = timing.equal_texts_per_second(runners["engine"], 384, (2,) if check.dry_run else (64, 128), check.seconds)
    return {"seq384_per_s": max(rates.values()), "by_batch": rates}


def families(check: Check) -> dict[str, Any]:
    """Milliseconds of ModernBERT's and DeBERTa-v3's batches by layout, and how far the logits of two layouts are apart."""
    rng, figures = np.random.default_rng(0), dict[str, Any]()
    sizes = ((1, 16), (1, 128), (8, 128), (64, 128), (1, 512), (16, 512))[: 2 if check.dry_run else None]
    opened = {name: check.open(name)[1] for name in ("modernbert", "deberta")}
    for name, (texts, tokens) in itertools.product(opened, sizes):
        rows, logits = random_rows([tokens] * texts, rng), list[Any]()
        for layout, runner in opened[name].items():
            if layout != "engine":  # which is the packed one
                prepared = runner.prepare(rows)
                milliseconds = timing.median_ms(runner.execute, [prepared], check.seconds / 4)
                figures[f"{name}_{layout}_{texts}x{tokens}_p50_ms"] = milliseconds
                logits.append(runner.execute(prepared))
        if len(logits) > 1:
            figures[f"{name}_{texts}x{tokens}_max_abs_difference"] = float(np.ptp(logits, axis=0).max())
    return figures


def kernels(check: Check) -> dict[str, Any]:
    """Microseconds by kernel of one run, by torch's profiler (CUPTI); BERT-base in shape."""
    import torch

    timing.time_kernels(functools.partial(torch.zeros, device="cpu" if check.dry_run else "cuda"), 1, on_cpu=check.dry_run)
    (_, runners), rng, figures = check.open("base"), np.random.default_rng(0), dict[str, Any]()
    for texts, name in itertools.product((1, 2 if check.dry_run else 128), ("padded", "packed")):
        execute, prepared = runners[name].execute, runners[name].prepare(random_rows([128] * texts, rng))
        host_ms = timing.median_ms(execute, [prepared], check.seconds / 8)
        figures[f"{name}_{texts}x128"] = {"host_ms": host_ms, **timing.time_kernels(execute, prepared, on_cpu=check.dry_run)}
    return figures


def candidates(check: Check) -> dict[str, Any]:
    """Candidate operators for packed attention, on short texts, on long ones of equal length, and on a single text."""
    (_, runners), rng, n = check.open("base"), np.random.default_rng(0), 4 if check.dry_run else 64
    lengths = {"short": rng.integers(5, 60, size=4 * n).tolist(), "128": [128] * n, "384": [384] * (n // 4), "1x128": [128]}
    batches = {name: runners["packed"].prepare(random_rows(sizes, rng)) for name, sizes in lengths.items()}
    base, mini = (
        cuda_candidates.open_candidates(check.checkpoint(model), check.work, on_cpu=check.dry_run) for model in ("base", "mini")
    )
    trained = cuda_candidates.compare_candidates(mini, batches.values())  # whose biases are not zero
    timed = cuda_candidates.time_candidates(base, batches, check.seconds / 8)
    return {name: {**each, "trained_max_abs_difference": trained[name]} for name, each in timed.items()}


def tests(check: Check) -> dict[str, Any]:
    """The tests marked ``gpu``; a dry run only collects them."""
    code, arguments = "import sys, pytest; sys.exit(pytest.main())", ["-q", "-m", "gpu", "tests/engine/run/cuda/test_gpu.py"]
    arguments += ["--collect-only"] if check.dry_run else []
    done = run_program(code, *arguments, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"pytest exited with status {done.returncode}: {done.stdout[-900:]}")
    return {"last_line": (done.stdout.strip().splitlines() or [""])[-1]}


def soak(check: Check) -> dict[str, Any]:
    """GPU memory over 10,000 batches of random lengths; BERT-base in shape."""
    (_, runners), rng, memory = check.open("base"), np.random.default_rng(0), dict[int, int | None]()
    count = 30 if check.dry_run else 10_000
    for number in range(1, count + 1):
        lengths = rng.integers(3, 129, size=int(rng.integers(1, 33)))
        run(runners["engine"], random_rows(lengths.tolist(), rng))
        if number % (count // 10) == 0:
            memory[number] = gpu_memory_mib()
    return {"batches": count, "memory_used_mib": memory}
