"""``make gpu-check``: what to measure on a machine with an NVIDIA GPU, as named steps in order of value.

    python -m fusedbert.bench.gpu_check [--steps parity,latency] [--resume] [--list] [--dry-run]

Each step (``fusedbert.bench.gpu_steps``) runs in a separate process with its own time limit. The result is one file,
``bench/results/<GPU>.json``, written after every step; ``--resume`` skips the steps that it holds. Its fields:

* ``gpu``, ``driver``, ``onnxruntime``: what was measured on; ``dry_run``
* ``bert_base``: ``latency_1x128_p50_ms`` from token ids to logits on the host, ``text_1_p50_ms`` the same from text,
  ``seq128_per_s`` texts of 128 tokens a second in large batches; ``bert_large``: ``seq384_per_s``
* ``sst2``: ``label_agreement`` of fp16 with fp32 on the CPU, for the embedded model; ``packed_over_padded`` and
  ``over_transformers_fp16``: texts a second from text, BERT-base in shape, packed compared with padded in plain batches, and
  fusedbert with transformers in fp16
* ``attention_nodes_on_cuda``: attention nodes that CUDA runs, of BERT-base's 12
* ``steps``: for each step ``status`` (``ok``, ``failed`` or ``timed out``), ``why``, ``seconds`` and all its ``figures``

What was not measured is null. ``--dry-run`` takes every step on the CPU with models of two layers.

As a script, ``python bench/gpu_check.py --environment FOLDER [--wheels FOLDER]``, it first makes a virtual environment on top
of this Python's packages; so this file imports only the standard library until a step runs.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import site
import subprocess
import sys
import sysconfig
import time
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
STEPS: Mapping[str, tuple[float, str]] = {  # seconds at most, summary
    "parity": (240, "labels and logits of fp16, padded and packed, compared with fp32 on the CPU"),
    "latency": (150, "small batches by layout, from token ids and from text"),
    "throughput": (180, "large batches, and sentences from text"),
    "padding": (120, "packed compared with padded by the share of padding"),
    "peers": (600, "transformers and torch.compile in fp16"),
    "large": (180, "BERT-large in shape"),
    "kernels": (150, "time by kernel"),
    "candidates": (180, "candidate operators for packed attention"),
    "tests": (420, "the tests marked gpu"),
    "soak": (400, "memory over 10,000 batches"),
}
SUMMARY: Mapping[str, Mapping[str, str]] = {  # field of the result -> the step that measures it
    "bert_base": {"latency_1x128_p50_ms": "latency", "text_1_p50_ms": "latency", "seq128_per_s": "throughput"},
    "bert_large": {"seq384_per_s": "large"},
    "sst2": {"label_agreement": "parity", "packed_over_padded": "throughput", "over_transformers_fp16": "peers"},
}
# Modules, and the requirement that brings each.
NEEDED: Mapping[str, str] = {
    "numpy": "numpy>=1.26",
    "tokenizers": "tokenizers>=0.20,<1",
    "click": "click>=8.1",
    "tqdm": "tqdm>=4.66",
    "onnx": "onnx>=1.18",
    "safetensors": "safetensors>=0.4.3",
    "scipy": "scipy>=1.15",
    "pynvml": "nvidia-ml-py>=12",
    "pytest": "pytest>=8",
    "onnxruntime": "onnxruntime-gpu[cuda,cudnn]>=1.31",
}
DRY_RUN = {**NEEDED, "onnxruntime": "onnxruntime>=1.31"}
PEERS = {"torch": "torch>=2.6", "transformers": "transformers>=5"}  # without these, two steps fail and the others go on
_ASK = """
import importlib, json, sys
missing, modules = [], json.loads(sys.argv[1])
for name in modules:
    try:
        module = importlib.import_module(name)
    except Exception:
        missing.append(name)
    else:
        wants_cuda = "onnxruntime-gpu" in modules[name]
        if wants_cuda and "CUDAExecutionProvider" not in getattr(module, "get_available_providers", list)():
            missing.append(name)
print(json.dumps(missing))
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the steps; return 0 if all that ran succeeded."""
    parser = argparse.ArgumentParser(prog="gpu_check", description="Measure this machine's GPU.")
    parser.add_argument("--steps", default=",".join(STEPS), help="names with commas between; default: all")
    parser.add_argument("--resume", action="store_true", help="skip the steps that the result holds already")
    parser.add_argument("--list", action="store_true", help="list the steps")
    parser.add_argument("--dry-run", action="store_true", help="on the CPU, with tiny models; the figures mean nothing")
    parser.add_argument("--sst2", type=Path, help="SST-2's dev.tsv; default: built-in sentences")
    parser.add_argument("--output", type=Path, default=ROOT / "bench" / "results", help="folder of the result")
    parser.add_argument("--work", type=Path, default=ROOT / "artifacts" / "gpu-check", help="folder of the models")
    parser.add_argument("--minutes", type=float, default=60.0, help="begin no step after that")
    parser.add_argument("--environment", type=Path, help="make a virtual environment there first, and run in it")
    parser.add_argument("--wheels", type=Path, help="folder of wheels to install from, without network")
    options = parser.parse_args(arguments)
    names = [name for name in options.steps.split(",") if name]
    if unknown := [name for name in names if name not in STEPS]:
        parser.error(f"unknown step {unknown[0]!r}: give some of {', '.join(STEPS)}")
    if options.list:
        print("".join(f"{name:12}{limit:5.0f} s  {summary}\n" for name, (limit, summary) in STEPS.items()), end="")
        return 0
    if options.environment is not None and options.environment.resolve() != Path(sys.prefix).resolve():
        if status := make_environment(options.environment, options.wheels, dry_run=options.dry_run):
            return status
        again = [options.environment / "bin" / "python", "-m", "fusedbert.bench.gpu_check", *(arguments or sys.argv[1:])]
        return subprocess.run(again, check=False).returncode
    return run_steps(names, options)


def run_steps(names: Sequence[str], options: argparse.Namespace) -> int:
    """Run steps one after the other, and write the result after each."""
    from fusedbert.engine.hardware.device import import_onnxruntime, inspect_offer
    from fusedbert.engine.hardware.storage import write_whole

    from .run.machine import record_machine

    if not options.dry_run and (reason := inspect_offer(import_onnxruntime()).obstacle()):
        _say(f"{reason}; --dry-run goes through every step on the CPU")
        return 1
    machine = record_machine()
    gpu = {"name": "dry run on the CPU", "driver": None} if options.dry_run else next(iter(machine["gpus"]), {})
    file = options.output / f"{re.sub(r'[^a-zA-Z0-9_.-]+', '-', gpu.get('name') or 'unknown-gpu')}.json"
    steps = {name: step for name, step in _read(file).get("steps", {}).items() if name in STEPS}
    begun = time.monotonic()
    for number, name in enumerate(names, start=1):
        if options.resume and steps.get(name, {}).get("status") == "ok":
            continue
        if time.monotonic() - begun > 60 * options.minutes:
            steps[name] = {"status": "timed out", "why": "the time was up before it began", "seconds": 0.0, "figures": {}}
        else:
            _say(f"{name} ({number} of {len(names)})")
            steps[name] = _run_apart(name, options)
        head = {"gpu": gpu.get("name"), "driver": gpu.get("driver"), "machine": machine, "dry_run": options.dry_run}
        document = rounded(summarize(head, steps))
        write_whole(file, (json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())
    failed = {name: steps[name]["why"] for name in names if steps[name]["status"] != "ok"}
    for name, why in failed.items():
        _say(f"{name} {steps[name]['status']}: {why}")
    _say(f"{len(names) - len(failed)} of {len(names)} steps done, {file}")
    return 1 if failed else 0


def summarize(head: Mapping[str, Any], steps: Mapping[str, Any]) -> dict[str, Any]:
    """Return the result: the figures that are compared from machine to machine, then every step."""

    def figure(name: str, step: str) -> Any:
        return steps.get(step, {}).get("figures", {}).get(name)

    fields = {field: {name: figure(name, step) for name, step in names.items()} for field, names in SUMMARY.items()}
    versions = head["machine"]["versions"]
    runtime = versions.get("onnxruntime-gpu") or versions.get("onnxruntime")
    nodes = figure("attention_nodes_on_cuda", "latency")
    ordered = {name: steps[name] for name in STEPS if name in steps}
    return {**head, "onnxruntime": runtime, **fields, "attention_nodes_on_cuda": nodes, "steps": ordered}


def _run_apart(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Run a step in a worker process, which is ended with all its children at the step's time limit."""
    from .run.process import EngineFailedError, Worker

    limit, begun = STEPS[name][0], time.monotonic()
    work = options.work.absolute() / ("dry-run" if options.dry_run else "")
    sst2 = options.sst2 and str(options.sst2.absolute())
    outcome: dict[str, Any] = {"status": "ok", "why": "", "figures": {}}
    try:
        with Worker(variables={"PYTHONNOUSERSITE": ""}) as worker:  # torch may lie in the user's site-packages
            outcome["figures"] = worker.call(
                "gpu_step", timeout=limit, step=name, work=str(work), dry_run=options.dry_run, sst2=sst2
            )
    except EngineFailedError as error:
        outcome |= {"status": "timed out" if time.monotonic() - begun >= limit else "failed", "why": str(error)}
    return {**outcome, "seconds": round(time.monotonic() - begun, 1)}


def rounded(value: Any) -> Any:
    """Round the numbers of a document to four digits, because the fifth differs from run to run; NaN becomes null."""
    if isinstance(value, Mapping):
        return {str(key): rounded(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(each) for each in value]
    if isinstance(value, float):
        return float(f"{value:.4g}") if math.isfinite(value) else None
    return value


def _read(file: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _say(text: str) -> None:
    print(f"gpu-check: {text}", file=sys.stderr, flush=True)


# The environment


def make_environment(folder: Path, wheels: Path | None, *, dry_run: bool) -> int:
    """Make a virtual environment that sees this Python's packages and the repository, and install what is then missing.

    Returns 0, or 1 if something is missing and cannot be installed. Without ``wheels`` the package index is asked.
    """
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, system_site_packages=True, with_pip=True)
    link(python)
    needed = DRY_RUN if dry_run else NEEDED
    if not dry_run and not _sees_gpu(python):  # before gigabytes are downloaded for nothing
        _say(
            "no NVIDIA GPU is visible (a container gets one with --gpus all); "
            "make gpu-check GPU_CHECK=--dry-run goes through every step on the CPU"
        )
        return 1
    install(python, needed, wheels, "a few hundred MB" if dry_run else "onnxruntime-gpu brings about 2 GB")
    if not dry_run and "onnxruntime" in missing(python, needed):
        # CUDA's libraries may be the system's, or torch's, and their wheels not at hand.
        install(python, {"onnxruntime": "onnxruntime-gpu>=1.31"}, wheels, "without CUDA's libraries", "--no-deps")
    if absent := missing(python, needed):
        _say(f"{', '.join(absent)} could not be installed: bring the wheels in a folder, make gpu-check WHEELS=FOLDER")
        return 1
    if not dry_run:
        install(python, PEERS, wheels, "torch brings about 5 GB")
        if absent := missing(python, PEERS):
            _say(f"{', '.join(absent)} could not be installed: the steps peers and kernels will fail")
    return 0


def link(python: Path) -> Path:
    """Add the repository's packages to an environment, then this Python's, by a ``.pth`` file.

    ``system_site_packages`` means those of the base interpreter: an environment that is made from another one would not see
    the outer one's, so they are named too.

    Returns:
        The folder of the namespace ``fusedbert``.
    """
    ask = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    packages = Path(subprocess.run([str(python), "-c", ask], capture_output=True, text=True, check=True).stdout.strip())
    imports = ROOT / ".imports"
    outer = dict.fromkeys(map(str, (imports, sysconfig.get_paths()["purelib"], *site.getsitepackages())))
    lines = "".join(f"{path}\n" for path in outer if Path(path) != packages)
    (packages / "fusedbert_and_outer.pth").write_text(lines, encoding="utf-8")
    return imports / "fusedbert"


def missing(python: Path, modules: Mapping[str, str] = NEEDED) -> list[str]:
    """List the modules that an interpreter cannot import, or has without CUDA."""
    command = [str(python), "-c", _ASK, json.dumps(dict(modules))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return list(json.loads(done.stdout.splitlines()[-1]))


def install(python: Path, modules: Mapping[str, str], wheels: Path | None, size: str, *options: str) -> None:
    """Install what is missing, from a folder of wheels if one is given, else from the package index."""
    if not (absent := missing(python, modules)):
        return
    source = ["--no-index", "--find-links", str(wheels)] if wheels else ["--retries", "1", "--timeout", "10"]
    _say(f"installing {', '.join(absent)} ({size})")
    pip = [str(python), "-m", "pip", "install", "-qq", "--disable-pip-version-check", *options, *source]
    subprocess.run([*pip, *(modules[name] for name in absent)], check=False)


def _sees_gpu(python: Path) -> bool:
    ask = "import sys; from fusedbert.engine.hardware.device import gpu_present; sys.exit(not gpu_present())"
    return subprocess.run([str(python), "-c", ask], check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
