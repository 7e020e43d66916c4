"""``make gpu-check``: measure a machine with an NVIDIA GPU, in named steps in order of value (docs/cuda.md).

Each step (``fusedbert.bench.gpu_steps``) runs in a separate process with its own time limit. Until one does, only the standard
library is imported: as a script, this file first makes its environment. The result is one file, ``bench/results/<GPU>.json``,
written after every step; what was not measured is null:

* ``gpu``, ``driver``, ``onnxruntime``: what was measured on; ``dry_run``
* ``bert_base``: ``latency_1x128_p50_ms`` from token ids to logits on the host, ``text_1_p50_ms`` from 126 random words by
  ``Classifier``, ``seq128_per_s`` texts of 128 tokens a second in large batches; ``bert_large``: ``seq384_per_s``
* ``sst2``: ``label_agreement`` of fp16 with fp32 on the CPU, for the embedded model; ``packed_over_padded`` and
  ``over_transformers_fp16``: texts a second from text, BERT-base in shape, packed compared with padded in plain batches, and
  fusedbert with transformers in fp16
* ``attention_nodes_on_cuda``: attention nodes that CUDA runs, of BERT-base's 12
* ``steps``: for each step ``status`` (``ok``, ``failed`` or ``timed out``), ``why``, ``seconds`` and all its ``figures``
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
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
    "reviews": (180, "texts of reviews' lengths from text, at the first pass and later"),
    "padding": (120, "packed compared with padded by the share of padding"),
    "peers": (900, "transformers and torch.compile in fp16"),  # which compiles each shape, up to a minute each
    "large": (180, "BERT-large in shape"),
    "kernels": (150, "time by kernel"),
    "candidates": (180, "candidate operators for packed attention"),
    "families": (240, "ModernBERT and DeBERTa-v3, small batches and large ones"),
    "tests": (420, "the tests marked gpu"),
    "soak": (400, "memory over 10,000 batches"),
}
SUMMARY: Mapping[str, Mapping[str, str]] = {  # field of the result -> the step that measures it
    "bert_base": {"latency_1x128_p50_ms": "latency", "text_1_p50_ms": "latency", "seq128_per_s": "throughput"},
    "bert_large": {"seq384_per_s": "large"},
    "sst2": {"label_agreement": "parity", "packed_over_padded": "throughput", "over_transformers_fp16": "peers"},
}
# Modules, and the requirement that brings each.
ENGINE = {"numpy": "numpy>=1.26", "tokenizers": "tokenizers>=0.20,<1", "click": "click>=8.1", "tqdm": "tqdm>=4.66"}
TOOLS = {"onnx": "onnx>=1.18", "safetensors": "safetensors>=0.4.3", "scipy": "scipy>=1.15", "pytest": "pytest>=8"}
NEEDED = {**ENGINE, **TOOLS, "pynvml": "nvidia-ml-py>=12", "onnxruntime": "onnxruntime-gpu[cuda,cudnn]>=1.31"}
DRY_RUN = {**NEEDED, "onnxruntime": "onnxruntime>=1.31"}
PEERS = {"torch": "torch>=2.6", "transformers": "transformers>=5"}  # without these, two steps fail and the others go on
NO_GPU = "make gpu-check GPU_CHECK=--dry-run goes through every step on the CPU"


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
        python = str(make_environment(options.environment))
        again = [python, "-P", "-m", "fusedbert.bench.gpu_check", *(arguments or sys.argv[1:])]
        os.execv(python, again)  # in this process's place, so that Ctrl-C leaves the other one the time to end its worker
    if options.environment is not None and not install_missing(options.wheels, dry_run=options.dry_run):
        return 1
    return run_until_stopped(names, options)


def run_until_stopped(names: Sequence[str], options: argparse.Namespace) -> int:
    """Run steps until all are done, the result cannot be written, or Ctrl-C or SIGTERM ends them; say which."""
    from fusedbert.engine.cli.process import TerminatedError, terminable
    from fusedbert.engine.errors import FusedBertError

    try:
        with terminable():
            return run_steps(names, options)
    except (KeyboardInterrupt, TerminatedError):
        _say("stopped; the steps before are written, and GPU_CHECK=--resume runs the others")
        return 130
    except FusedBertError as error:
        _say(str(error))
        return 1


def run_steps(names: Sequence[str], options: argparse.Namespace) -> int:
    """Run steps one after the other, and write the result after each."""
    from fusedbert.engine.hardware.device import import_onnxruntime, inspect_offer
    from fusedbert.engine.hardware.storage import write_whole

    from .run.machine import record_machine

    if not options.dry_run and (reason := inspect_offer(import_onnxruntime()).obstacle()):
        _say(f"{reason}; {NO_GPU}")
        return 1
    machine = record_machine()
    gpu = {"name": "dry run on the CPU", "driver": None} if options.dry_run else next(iter(machine["gpus"]), {})
    head = {"gpu": gpu.get("name"), "driver": gpu.get("driver"), "machine": machine, "dry_run": options.dry_run}
    file = options.output / f"{re.sub(r'[^a-zA-Z0-9_.-]+', '-', gpu.get('name') or 'unknown-gpu')}.json"
    steps: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):  # there is no earlier result
        steps = json.loads(file.read_text(encoding="utf-8")).get("steps", {})
    begun = time.monotonic()
    for number, name in enumerate(names, start=1):
        if options.resume and steps.get(name, {}).get("status") == "ok":
            continue
        if time.monotonic() - begun > 60 * options.minutes:
            steps[name] = {"status": "timed out", "why": "the time was up before it began", "seconds": 0.0, "figures": {}}
        else:
            _say(f"{name} ({number} of {len(names)})")
            steps[name] = run_apart(name, options)
        document = rounded(summarize(head, steps))
        write_whole(file, (json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())
        if steps[name]["status"] != "ok":
            _say(f"{name} {steps[name]['status']}: {steps[name]['why']}")
    done = sum(steps[name]["status"] == "ok" for name in names)
    _say(f"{done} of {len(names)} steps done, {file}")
    return 0 if done == len(names) else 1


def summarize(head: Mapping[str, Any], steps: Mapping[str, Any]) -> dict[str, Any]:
    """Return the result: the figures that are compared from machine to machine, then every step."""
    figures = {name: step.get("figures", {}) for name, step in steps.items()}
    versions = head["machine"]["versions"]
    return {
        **head,
        "onnxruntime": versions.get("onnxruntime-gpu") or versions.get("onnxruntime"),
        **{key: {name: figures.get(step, {}).get(name) for name, step in names.items()} for key, names in SUMMARY.items()},
        "attention_nodes_on_cuda": figures.get("latency", {}).get("attention_nodes_on_cuda"),
        "steps": {name: steps[name] for name in STEPS if name in steps},
    }


def rounded(document: Any) -> Any:
    """Round the numbers of a document to four digits, because the fifth differs from run to run; NaN becomes null."""
    return json.loads(json.dumps(document), parse_float=lambda text: float(f"{float(text):.4g}"), parse_constant=lambda _: None)


def run_apart(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Run a step in a worker process, which is ended with all its children at the step's time limit."""
    from .run.process import EngineFailedError, Worker

    work = str(options.work.absolute() / ("dry-run" if options.dry_run else ""))
    sst2 = options.sst2 and str(options.sst2.absolute())
    limit, begun = STEPS[name][0], time.monotonic()
    outcome: dict[str, Any] = {"status": "ok", "why": "", "figures": {}}
    try:
        with Worker(variables={"PYTHONNOUSERSITE": ""}) as worker:  # torch may lie in the user's site-packages
            settings = {"work": work, "dry_run": options.dry_run, "sst2": sst2}
            outcome["figures"] = worker.call("gpu_step", timeout=limit, step=name, **settings)
    except EngineFailedError as error:
        outcome |= {"status": "timed out" if time.monotonic() - begun >= limit else "failed", "why": str(error)}
    return {**outcome, "seconds": round(time.monotonic() - begun, 1)}


def _say(text: str) -> None:
    print(f"gpu-check: {text}", file=sys.stderr, flush=True)


def make_environment(folder: Path) -> Path:
    """Make a virtual environment that sees the repository's packages and this Python's; return its interpreter.

    ``system_site_packages`` means the base interpreter's. If this one is an environment's, a ``.pth`` file names its folders
    and those of environments around it: of a folder that a ``.pth`` file names, Python does not read the ``.pth`` files.
    """
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, system_site_packages=True, with_pip=True)
    packages = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder)}))
    begun_in = Path(__file__).resolve().parent  # on the path of a script, and no package of anybody's
    outer = [path for path in dict.fromkeys((*site.getsitepackages(), *sys.path)) if path and Path(path) != begun_in]
    lines = "".join(f"{path}\n" for path in (ROOT / ".imports", *outer))
    (packages / "fusedbert_and_outer.pth").write_text(lines, encoding="utf-8")
    return python


def install_missing(wheels: Path | None, *, dry_run: bool) -> bool:
    """Install what is missing, from a folder of wheels or the package index; return whether all that is needed is there."""
    from fusedbert.engine.hardware.device import gpu_present

    def install(modules: Mapping[str, str]) -> list[str]:
        absent = missing(modules)
        source = ["--no-index", "--find-links", str(wheels)] if wheels else ["--retries", "1", "--timeout", "10"]
        pip = [sys.executable, "-m", "pip", "install", "-qq", "--disable-pip-version-check", *source]
        for names, options in ((modules, []), (["onnxruntime"], ["--no-deps"])):  # its CUDA libraries may be torch's
            if wanted := [name for name in absent if name in names]:
                _say(f"installing {', '.join(wanted)}{'' if dry_run else ' (onnxruntime-gpu brings about 2 GB, torch 5)'}")
                subprocess.run([*pip, *options, *(modules[name] for name in wanted)], check=False)
                absent = missing(modules)
        return absent

    if not dry_run and not gpu_present():  # before gigabytes are downloaded for nothing
        _say(f"no NVIDIA GPU is visible (a container gets one with --gpus all); {NO_GPU}")
        return False
    if absent := install(DRY_RUN if dry_run else NEEDED):
        _say(f"{', '.join(absent)} could not be installed: bring the wheels in a folder, make gpu-check WHEELS=FOLDER")
    elif peers := (missing if dry_run else install)(PEERS):  # five gigabytes are too many for a trial
        end = ", unless PYTHON names an interpreter that has them" if dry_run else ""
        why = "not installed by a dry run" if dry_run else "could not be installed"
        _say(f"{', '.join(peers)} {why}: the steps peers and kernels will fail{end}")
    return not absent


def missing(modules: Mapping[str, str]) -> list[str]:
    """List the modules that a fresh process cannot import, or has without CUDA where the requirement brings it."""
    cuda = "; assert 'CUDAExecutionProvider' in onnxruntime.get_available_providers()"
    code = {name: f"import {name}{cuda if '-gpu' in requirement else ''}" for name, requirement in modules.items()}
    python = [sys.executable, "-P", "-c"]
    return [name for name in modules if subprocess.run([*python, code[name]], capture_output=True, check=False).returncode]


if __name__ == "__main__":
    sys.exit(main())
