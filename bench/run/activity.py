"""How busy the machine was with other things while something was measured, from the system's own account of CPU time."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Iterable
from pathlib import Path

from fusedbert.engine.hardware.cpu import affinity

BUSY = 0.10  # other processes at more than this share of the CPUs make a round noisy
_IDLE = (3, 4)  # columns of /proc/stat: idle, iowait


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reading:
    """CPU time so far.

    Attributes:
        at: The clock, in seconds.
        busy: Seconds that the CPUs in reach were not idle.
        own: Seconds of them that went to the processes that measure.
        cpus: Number of CPUs in reach.
    """

    at: float
    busy: float
    own: float
    cpus: int


def read(pids: Iterable[int], root: Path = Path("/proc")) -> Reading | None:
    """Read the CPU time of the machine and of some processes, this one among them; None where there is no /proc/stat."""
    cpus = affinity()
    try:
        lines = (root / "stat").read_text().splitlines()
        hertz = os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, AttributeError):
        return None
    busy = 0
    seen = 0
    for line in lines:
        name, *columns = line.split()
        if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in cpus:
            values = [int(value) for value in columns[:8]]  # guests' time is already in user's
            busy += sum(value for column, value in enumerate(values) if column not in _IDLE)
            seen += 1
    if not seen or not busy:
        return None
    own = sum(_of(pid, root) for pid in {os.getpid(), *pids})
    return Reading(at=time.monotonic(), busy=busy / hertz, own=own / hertz, cpus=seen)


def others_share(before: Reading | None, after: Reading | None) -> float | None:
    """Return the share of the CPUs that went to other processes between two readings; None where it is not known.

    The system counts in steps of 10 ms or so: of less than a fifth of a second nothing is said.
    """
    if before is None or after is None or after.at - before.at < 0.2:
        return None
    others = (after.busy - before.busy) - (after.own - before.own)
    return round(min(1.0, max(0.0, others / ((after.at - before.at) * after.cpus))), 3)


def _of(pid: int, root: Path) -> int:
    """Return a process's CPU time in clock ticks, all its threads included; 0 where it is gone."""
    try:
        text = (root / str(pid) / "stat").read_text()
    except OSError:
        return 0
    fields = text.rpartition(")")[2].split()  # the name before it may hold anything
    return int(fields[11]) + int(fields[12])  # user, system
