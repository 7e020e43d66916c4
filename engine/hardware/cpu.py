"""The processor: the cores that this process may really use, and the instructions that decide on int8.

A process is limited by its affinity mask and by the CPU quota of its control groups (v1 and v2,
https://docs.kernel.org/admin-guide/cgroup-v2.html). Hyperthreads share the units that compute matrix products.
"""

from __future__ import annotations

import ctypes
import dataclasses
import enum
import math
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from ..kernels import cpu_features

FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "neon", "dotprod")
# They sum four 8-bit products in 32 bits.
EXACT_FEATURES = frozenset({"avx512_vnni", "avx_vnni", "amx_int8", "dotprod"})
_ARM_NAMES = {"asimd": "neon", "asimddp": "dotprod"}
_ARM_BITS = {"neon": 1, "dotprod": 20}  # HWCAP_ASIMD, HWCAP_ASIMDDP of Linux's asm/hwcap.h
_AT_HWCAP = 16


class Int8(enum.StrEnum):
    """The kind of a processor's products of uint8 and int8."""

    EXACT = "exact"  # and fast
    SATURATING = "saturating"  # fast; two products are summed in 16 bits (vpmaddubsw of AVX2, and of AVX-512 without VNNI)
    SLOW = "slow"  # no faster than float32


@dataclasses.dataclass(frozen=True, kw_only=True)
class Machine:
    """The processor and its limits."""

    cpu: str  # model name
    features: tuple[str, ...]  # those of ``FEATURES``
    logical: int  # CPUs of the affinity mask
    physical: int  # cores of these
    quota: float | None  # CPUs' worth of time that the control groups allow; None if unlimited
    cores: int  # worth using: the smallest of the above, at least 1

    @property
    def int8(self) -> Int8:
        """The kind of ONNX Runtime's 8-bit products on this processor."""
        if not EXACT_FEATURES.isdisjoint(self.features):
            return Int8.EXACT
        return Int8.SATURATING if "avx2" in self.features else Int8.SLOW


def inspect_machine(root: Path = Path("/")) -> Machine:
    """Read affinity, control groups and CPU; ``root`` replaces ``/`` for /proc and /sys."""
    cpus = affinity()
    physical = physical_cores(cpus, root)
    quota = cpu_quota(root)
    model, features = cpu_model(root)
    if root == Path("/") and (asked := ask_processor()) is not None:  # an emulator shows another machine's /proc/cpuinfo
        model = model if not features or set(features) & set(asked) else platform.machine()
        features = asked
    cores = min(physical, usable_cores(quota)) if quota is not None else physical
    return Machine(cpu=model, features=features, logical=len(cpus), physical=physical, quota=quota, cores=cores)


def ask_processor() -> tuple[str, ...] | None:
    """Return the features that the processor itself reports, or None if it cannot be asked.

    On x86-64 the library of kernels asks by cpuid; on ARM, Linux says it to each process (AT_HWCAP, getauxval(3)).
    """
    if sys.platform == "linux" and platform.machine() == "aarch64":
        getauxval = ctypes.CDLL(None).getauxval
        getauxval.argtypes, getauxval.restype = (ctypes.c_ulong,), ctypes.c_ulong
        bits = getauxval(_AT_HWCAP)
        return tuple(name for name, bit in _ARM_BITS.items() if bits >> bit & 1)
    return cpu_features()


def affinity() -> frozenset[int]:
    """Return the logical CPUs that this process may be scheduled on."""
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def usable_cores(quota: float) -> int:
    """Round a CPU quota down to threads; 1.9 is 2."""
    return max(1, math.floor(quota + 0.1))  # more threads, which spin while they wait, get the process throttled


def physical_cores(cpus: frozenset[int], root: Path = Path("/")) -> int:
    """Count the physical cores of logical CPUs; each CPU is one if the system has no topology."""
    topology = root / "sys/devices/system/cpu"
    siblings = {_read(topology / f"cpu{cpu}/topology/thread_siblings_list").strip() or str(cpu) for cpu in cpus}
    return max(1, len(siblings))


def cpu_quota(root: Path = Path("/")) -> float | None:
    """Return the CPUs' worth of time that the control groups allow, or None if unlimited."""
    limits = [limit for folder in _group_folders(root) if (limit := _limit(folder)) is not None]
    return min(limits, default=None)


def _limit(folder: Path) -> float | None:
    """Read one group's limit: ``cpu.max`` (v2) or ``cpu.cfs_quota_us`` and ``cpu.cfs_period_us`` (v1)."""
    words = (_read(folder / "cpu.max") or f"{_read(folder / 'cpu.cfs_quota_us')} {_read(folder / 'cpu.cfs_period_us')}").split()
    try:
        quota, period = map(int, words)
    except ValueError:  # "max 100000", or no such files
        return None
    return quota / period if quota > 0 and period > 0 else None


def _group_folders(root: Path) -> Iterator[Path]:
    """Yield the process's groups that may limit the CPU, and all visible groups above."""
    mounts = list(_mounts(root))
    for line in _read(root / "proc/self/cgroup").splitlines():
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
    for line in _read(root / "proc/self/mountinfo").splitlines():
        left, _, right = line.partition(" - ")
        where, what = left.split(), right.split()
        if len(where) > 4 and len(what) > 2 and what[0] in ("cgroup", "cgroup2"):
            yield what[0], what[2].split(","), where[3], where[4]


def cpu_model(root: Path = Path("/")) -> tuple[str, tuple[str, ...]]:
    """Return model name and features of the first processor in /proc/cpuinfo."""
    fields: dict[str, str] = {}
    try:
        with (root / "proc/cpuinfo").open(encoding="utf-8", errors="replace") as lines:
            for line in lines:  # line by line: the kernel is slow to generate the whole file on a large machine
                name, colon, value = line.partition(":")
                if not colon and fields:
                    break
                fields.setdefault(name.strip().lower(), value.strip())
    except OSError:
        # No /proc: macOS and Windows. Each Apple CPU that runs arm64 has both features; those of others are not known.
        apple = platform.system() == "Darwin" and platform.machine() == "arm64"
        return platform.processor() or platform.machine() or "unknown", ("neon", "dotprod") if apple else ()
    flags = {_ARM_NAMES.get(flag, flag) for flag in (fields.get("flags") or fields.get("features") or "").split()}
    name = fields.get("model name") or fields.get("cpu model") or platform.machine() or "unknown"
    return name, tuple(feature for feature in FEATURES if feature in flags)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
