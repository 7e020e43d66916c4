"""Makes the environment of ``make gpu-check``: standard library alone, and no network where nothing is missing.

``python bench/gpu_setup.py FOLDER [WHEELS] [--dry-run]`` makes a virtual environment that sees the system's packages, links
this repository's packages into it, and installs what is then still missing: from the folder WHEELS where one is given, else
from the package index. On a machine without network that has it all already, nothing is fetched; on one without a GPU
neither, unless it is for a dry run.
"""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STAGES = ("engine", "export", "bench", "models")
# What is imported, and what pip calls it.
NEEDED = {
    "numpy": "numpy>=1.26",
    "tokenizers": "tokenizers>=0.20,<1",
    "click": "click>=8.1",
    "tqdm": "tqdm>=4.66",
    "onnx": "onnx>=1.18",
    "safetensors": "safetensors>=0.4.3",
    "scipy": "scipy>=1.11",
    "pytest": "pytest>=8",
    "onnxruntime": "onnxruntime-gpu[cuda,cudnn]>=1.31",
}
DRY_RUN = {**NEEDED, "onnxruntime": "onnxruntime>=1.31"}
# What it is compared with: where it cannot be had, the check goes on without.
PEERS = {"torch": "torch>=2.6", "transformers": "transformers>=5"}
_ASK = """
import importlib, json, sys
missing = []
modules = json.loads(sys.argv[1])
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


def missing(python: Path, modules: Mapping[str, str] = NEEDED) -> list[str]:
    """List the modules that an interpreter cannot import, or has without CUDA."""
    command = [str(python), "-c", _ASK, json.dumps(dict(modules))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: list[str] = json.loads(done.stdout.splitlines()[-1])
    return found


def sees_gpu(python: Path) -> bool:
    """Tell whether a GPU is visible, as the engine tells it."""
    ask = "import sys; from fusedbert.engine.hardware.device import gpu_present; sys.exit(not gpu_present())"
    return subprocess.run([str(python), "-c", ask], check=False).returncode == 0


def link(python: Path, root: Path = ROOT) -> Path:
    """Link the repository's packages into the environment; return the namespace's folder."""
    where = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    done = subprocess.run([str(python), "-c", where], capture_output=True, text=True, check=True)
    folder = Path(done.stdout.strip()) / "fusedbert"
    folder.mkdir(parents=True, exist_ok=True)
    for stage in STAGES:
        place = folder / stage
        if not place.is_symlink():
            place.symlink_to(root / stage, target_is_directory=True)
    return folder


def main(arguments: list[str]) -> int:
    """Make the environment; 1 where something is missing and cannot be had."""
    dry_run = "--dry-run" in arguments
    arguments = [argument for argument in arguments if argument != "--dry-run"]
    if not 1 <= len(arguments) <= 2:
        sys.stderr.write("usage: gpu_setup.py FOLDER [WHEELS] [--dry-run]\n")
        return 2
    folder = Path(arguments[0])
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, system_site_packages=True, with_pip=True)
    link(python)
    if not dry_run and not sees_gpu(python):  # before gigabytes are fetched for nothing
        sys.stderr.write(
            "no NVIDIA GPU is visible (a container gets one with --gpus all); "
            "make gpu-check GPU_CHECK=--dry-run goes through every step on the CPU\n"
        )
        return 1
    wheels = Path(arguments[1]) if len(arguments) == 2 else None
    needed = DRY_RUN if dry_run else NEEDED
    install(python, needed, wheels, "a few hundred MB" if dry_run else "onnxruntime-gpu brings about 2 GB")
    if not dry_run and "onnxruntime" in missing(python):
        # CUDA's libraries may be the system's, or torch's, and their wheels not at hand.
        install(python, {"onnxruntime": "onnxruntime-gpu>=1.31"}, wheels, "without CUDA's libraries", "--no-deps")
    if absent := missing(python, needed):
        sys.stderr.write(
            f"{', '.join(absent)} could not be installed: bring the wheels in a folder, make gpu-check WHEELS=FOLDER\n"
        )
        return 1
    if dry_run:
        return 0  # with the peers, where they are there
    install(python, PEERS, wheels, "torch brings about 5 GB")
    if absent := missing(python, PEERS):
        sys.stderr.write(f"{', '.join(absent)} could not be installed: what needs it will not be compared with\n")
    return 0


def install(python: Path, modules: Mapping[str, str], wheels: Path | None, size: str, *options: str) -> None:
    """Install what is missing, from a folder of wheels where one is given, else from the package index."""
    absent = missing(python, modules)
    if not absent:
        return
    source = ["--no-index", "--find-links", str(wheels)] if wheels else ["--retries", "1", "--timeout", "10"]
    sys.stderr.write(f"Installing {', '.join(absent)} ({size})\n")
    pip = [str(python), "-m", "pip", "install", "-qq", "--disable-pip-version-check", *options, *source]
    subprocess.run([*pip, *(modules[name] for name in absent)], check=False)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
