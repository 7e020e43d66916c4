"""The machine: its record, which goes with every figure, and how busy other processes keep it during a measurement."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import os
import platform
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fusedbert.engine.errors import MissingDependencyError
from fusedbert.engine.hardware.cpu import affinity, inspect_machine
from fusedbert.engine.hardware.packages import versions

PACKAGES = ("fusedbert", "onnxruntime", "onnxruntime-gpu", "numpy", "tokenizers")
_IDLE = (3, 4)  # columns of /proc/stat: idle, iowait


def record_machine() -> dict[str, Any]:
    """Describe the machine as this process sees it, in plain values for JSON.

    ``logical`` CPUs and ``physical`` cores are those that the process may be scheduled on, ``quota`` is the control groups'
    limit in CPUs (None: no limit), ``cores`` those worth using, ``features`` the instructions that matter.
    """
    return {
        **dataclasses.asdict(inspect_machine()),
        "memory_bytes": _memory(),
        "gpus": gpus(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": versions(PACKAGES),
    }


def need(package: str, purpose: str) -> None:
    """Raise a ``MissingDependencyError`` with ``purpose`` if a package of the extra ``bench`` is not installed."""
    if importlib.util.find_spec(package) is None:
        raise MissingDependencyError.of(package, "bench", purpose)


def gpus() -> list[dict[str, str]]:
    """Return ``name``, ``driver`` and ``memory`` of each visible NVIDIA GPU; empty without a driver or pynvml."""
    try:
        import pynvml

        handles = _open_gpus(pynvml)
        texts = [pynvml.nvmlSystemGetDriverVersion(), *map(pynvml.nvmlDeviceGetName, handles)]
        driver, *names = (text.decode() if isinstance(text, bytes) else text for text in texts)  # bytes in old versions
        memory = [f"{int(pynvml.nvmlDeviceGetMemoryInfo(handle).total) >> 20} MiB" for handle in handles]
    except Exception:  # not installed, no driver, or no permission: NVMLError has a class for each
        return []
    return [{"name": name, "driver": driver, "memory": size} for name, size in zip(names, memory, strict=True)]


def gpu_memory_mib() -> int | None:
    """Return the MiB in use on the first visible GPU, by all processes; None without a driver or pynvml."""
    try:
        import pynvml

        return int(pynvml.nvmlDeviceGetMemoryInfo(_open_gpus(pynvml)[0]).used) >> 20
    except Exception:
        return None


def _open_gpus(pynvml: Any) -> list[Any]:
    """Open the GPUs. NVML numbers those of the machine, so CUDA_VISIBLE_DEVICES (numbers or UUIDs) is applied here."""
    pynvml.nvmlInit()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    wanted = [each.strip() for each in visible.split(",") if each.strip()] or map(str, range(pynvml.nvmlDeviceGetCount()))
    by_number, by_uuid = pynvml.nvmlDeviceGetHandleByIndex, pynvml.nvmlDeviceGetHandleByUUID
    return [by_number(int(each)) if each.isdigit() else by_uuid(each) for each in wanted]


def load_average() -> list[float] | None:
    """Return the run queue's length, averaged over 1, 5 and 15 minutes; None if the system does not report it."""
    try:
        return [round(value, 2) for value in os.getloadavg()]
    except (AttributeError, OSError):
        return None


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


@dataclasses.dataclass(frozen=True, kw_only=True)
class CpuTime:
    """CPU seconds until a moment."""

    at: float
    busy: float  # of all CPUs in reach
    own: float  # the part of the processes that measure
    cpus: int


def read_cpu_time(pids: Iterable[int], root: Path = Path("/proc")) -> CpuTime | None:
    """Read the CPU time of the machine and of some processes, this one included; None without /proc/stat."""
    names = {f"cpu{number}" for number in affinity()}
    try:
        rows = [line.split() for line in (root / "stat").read_text().splitlines()]
        hertz = os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, AttributeError):
        return None
    cpus = [[int(value) for value in columns[:8]] for name, *columns in rows if name in names]  # later columns: counted in user
    busy = sum(value for columns in cpus for column, value in enumerate(columns) if column not in _IDLE)
    if not busy:
        return None
    own = sum(_ticks(pid, root) for pid in {os.getpid(), *pids})
    return CpuTime(at=time.monotonic(), busy=busy / hertz, own=own / hertz, cpus=len(cpus))


def others_share(before: CpuTime | None, after: CpuTime | None) -> float | None:
    """Return the share of the CPUs that went to other processes between two readings; None if unknown.

    The system counts in steps of about 10 ms, so a period below a fifth of a second is not judged.
    """
    if before is None or after is None or after.at - before.at < 0.2:
        return None
    others = (after.busy - before.busy) - (after.own - before.own)
    return round(min(1.0, max(0.0, others / ((after.at - before.at) * after.cpus))), 3)


def family(pid: int, root: Path = Path("/proc")) -> list[int]:
    """Return a process and all that descend from it; only itself without /proc."""
    parents: dict[int, int] = {}
    for each in root.glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(each.parent.name)] = int(each.read_text().rpartition(")")[2].split()[1])
    found = [pid]
    for member in found:  # it grows on the way
        found.extend(child for child, parent in parents.items() if parent == member)
    return found


def cpu_seconds(pids: Iterable[int], root: Path = Path("/proc")) -> float:
    """Return the CPU time of some processes until now, with all their threads and ended children; 0 without /proc."""
    return sum(_ticks(pid, root) for pid in pids) / (os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100)


def _ticks(pid: int, root: Path) -> int:
    """Return a process's CPU time in clock ticks, with all its threads and ended children; 0 if it has ended."""
    try:
        text = (root / str(pid) / "stat").read_text()
    except OSError:
        return 0
    fields = text.rpartition(")")[2].split()  # the name before it may hold anything
    return sum(int(field) for field in fields[11:15])  # user and system, and the same of its children that have ended
