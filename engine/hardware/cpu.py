"""What this machine gives to this process: cores it may really use, and CPU instructions that decide on int8.

A container often sees 64 cores and may use two of them. Three things limit a process: its affinity mask, the CPU quota
of its control group and of every group above it (cgroup v1 and v2, https://docs.kernel.org/admin-guide/cgroup-v2.html),
and that two hyperthreads share the units that a matrix product keeps busy.
"""

from __future__ import annotations

import dataclasses
import math
import os
import platform
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "neon", "dotprod")
# Instructions that add up four 8-bit products in 32 bits. Without one, u8 x s8 products pass through 16 bits and saturate.
INT8_FEATURES = frozenset({"avx512_vnni", "avx_vnni", "amx_int8", "dotprod"})
_ARM_NAMES = {"asimd": "neon", "asimddp": "dotprod"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Machine:
    """What was found.

    Attributes:
        cpu: The CPU's model name.
        features: Those of ``FEATURES`` that the CPU has.
        logical: Logical CPUs of the affinity mask.
        physical: Cores that these are on (hyperthreads of one core count once).
        quota: CPUs' worth of time that the control groups allow, or None where unlimited.
        cores: Cores worth using: the smallest of the above, at least 1.
    """

    cpu: str
    features: tuple[str, ...]
    logical: int
    physical: int
    quota: float | None
    cores: int

    @property
    def int8(self) -> bool:
        """Whether 8-bit products are exact and fast here."""
        return not INT8_FEATURES.isdisjoint(self.features)


def inspect_machine(root: Path = Path("/")) -> Machine:
    """Look at affinity, control groups and CPU; ``root`` stands in for ``/`` where /proc and /sys are read."""
    cpus = affinity()
    physical = physical_cores(cpus, root)
    quota = cpu_quota(root)
    model, features = cpu_model(root)
    cores = min(physical, usable_cores(quota)) if quota is not None else physical
    return Machine(cpu=model, features=features, logical=len(cpus), physical=physical, quota=quota, cores=cores)


def affinity() -> frozenset[int]:
    """Return the logical CPUs that this process may be scheduled on."""
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def usable_cores(quota: float) -> int:
    """Turn a CPU quota into a number of threads.

    Rounded down, because threads beyond the quota, which spin while they wait, get the whole process stopped for the
    rest of the period, and that is what a tail latency is made of. A tenth is forgiven: 1.9 is 2.
    """
    return max(1, math.floor(quota + 0.1))


def physical_cores(cpus: frozenset[int], root: Path = Path("/")) -> int:
    """Count the cores that a set of logical CPUs is on; each CPU is one where the system does not tell."""
    siblings = set()
    for cpu in cpus:
        text = _read(root / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        siblings.add(text.strip() if text and text.strip() else str(cpu))
    return max(1, len(siblings))


def cpu_quota(root: Path = Path("/")) -> float | None:
    """Return the CPUs' worth of time that the process's control groups allow, or None where there is no limit."""
    limits = [limit for folder in _group_folders(root) if (limit := _limit(folder)) is not None]
    return min(limits, default=None)


def _limit(folder: Path) -> float | None:
    """Read one group's limit: ``cpu.max`` (v2) or ``cpu.cfs_quota_us`` and ``cpu.cfs_period_us`` (v1)."""
    words = (_read(folder / "cpu.max") or "").split()
    if not words:
        words = f"{_read(folder / 'cpu.cfs_quota_us') or ''} {_read(folder / 'cpu.cfs_period_us') or ''}".split()
    try:
        quota, period = (int(word) for word in words)
    except ValueError:  # "max 100000", or no such files
        return None
    return quota / period if quota > 0 and period > 0 else None


def _group_folders(root: Path) -> Iterator[Path]:
    """Yield the process's group of each hierarchy that can hold a CPU limit, and every group above it that is visible."""
    mounts = list(_mounts(root))
    for line in (_read(root / "proc/self/cgroup") or "").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        kind = "cgroup" if controllers else "cgroup2"
        if controllers and "cpu" not in controllers.split(","):
            continue
        for fstype, options, mount_root, point in mounts:
            if fstype != kind or (controllers and "cpu" not in options):
                continue
            # In a container without a cgroup namespace the path is the host's, and the mount shows a part of the tree.
            inner = PurePosixPath(group)
            inner = inner.relative_to(mount_root) if inner.is_relative_to(mount_root) else PurePosixPath()
            for part in (inner, *inner.parents):
                yield root / point.lstrip("/") / str(part).lstrip("/")


def _mounts(root: Path) -> Iterator[tuple[str, list[str], str, str]]:
    """Yield (type, options, root, mount point) of each control group mount of /proc/self/mountinfo."""
    for line in (_read(root / "proc/self/mountinfo") or "").splitlines():
        left, _, right = line.partition(" - ")
        where, what = left.split(), right.split()
        if len(where) > 4 and len(what) > 2 and what[0] in ("cgroup", "cgroup2"):
            yield what[0], what[2].split(","), where[3], where[4]


def cpu_model(root: Path = Path("/")) -> tuple[str, tuple[str, ...]]:
    """Return the CPU's model name and its features, as the first processor of /proc/cpuinfo tells them."""
    fields: dict[str, str] = {}
    try:
        with (root / "proc/cpuinfo").open(encoding="utf-8", errors="replace") as lines:
            for line in lines:  # line by line: the whole file is slow to make on a large machine
                name, colon, value = line.partition(":")
                if not colon and fields:
                    break
                fields.setdefault(name.strip().lower(), value.strip())
    except OSError:
        # No /proc: macOS and Windows. Each Apple CPU that runs arm64 has both; elsewhere nothing is known, nothing claimed.
        apple = platform.system() == "Darwin" and platform.machine() == "arm64"
        return platform.processor() or platform.machine() or "unknown", ("neon", "dotprod") if apple else ()
    flags = {_ARM_NAMES.get(flag, flag) for flag in (fields.get("flags") or fields.get("features") or "").split()}
    name = fields.get("model name") or fields.get("cpu model") or platform.machine() or "unknown"
    return name, tuple(feature for feature in FEATURES if feature in flags)


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
