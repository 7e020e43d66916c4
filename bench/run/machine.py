"""The record that goes with every figure: on what machine, how busy, with which versions it was measured."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from typing import Any

from fusedbert.engine.hardware.cpu import inspect_machine

PACKAGES = ("fusedbert", "onnxruntime", "onnxruntime-gpu", "numpy", "tokenizers")


def record_machine() -> dict[str, Any]:
    """Describe the machine as this process sees it.

    Returns:
        Plain values that fit into JSON: the CPU's model and the instructions that matter, ``logical`` CPUs and
        ``physical`` cores that the process may be scheduled on, the control groups' ``quota`` in CPUs (None: no limit),
        the ``cores`` worth using, memory in bytes, ``gpus`` with their driver, the system, and versions.
    """
    machine = inspect_machine()
    return {
        "cpu": machine.cpu,
        "features": list(machine.features),
        "logical": machine.logical,
        "physical": machine.physical,
        "quota": machine.quota,
        "cores": machine.cores,
        "memory_bytes": _memory(),
        "gpus": gpus(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": versions(),
    }


def load_average() -> list[float] | None:
    """Return the run queue's length, averaged over 1, 5 and 15 minutes; None where the system keeps no such figure."""
    try:
        return [round(value, 2) for value in os.getloadavg()]
    except (AttributeError, OSError):
        return None


def versions(packages: tuple[str, ...] = PACKAGES) -> dict[str, str]:
    """Return the versions of those packages that are installed."""
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def gpus() -> list[dict[str, str]]:
    """Return ``name``, ``driver`` and ``memory`` of each NVIDIA GPU, as its driver's tool tells; empty where there is none."""
    command = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.SubprocessError):
        return []
    rows = (line.split(", ") for line in done.stdout.splitlines())
    return [dict(zip(("name", "driver", "memory"), row, strict=False)) for row in rows if len(row) == 3]


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
