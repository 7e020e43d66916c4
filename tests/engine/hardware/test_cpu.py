"""Affinity, control groups and CPU features, read from made-up /proc and /sys."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from fusedbert.engine.hardware.cpu import (
    FEATURES,
    Int8,
    affinity,
    cpu_model,
    cpu_quota,
    inspect_machine,
    physical_cores,
    usable_cores,
)

V2_MOUNT = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
V1_MOUNT = (
    "33 25 0:28 / /sys/fs/cgroup/memory rw shared:12 - cgroup cgroup rw,memory\n"
    "34 25 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:13 - cgroup cgroup rw,cpu,cpuacct\n"
)


def write(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        ({"sys/fs/cgroup/cpu.max": "max 100000\n"}, None),
        ({"sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1.5),
        ({"sys/fs/cgroup/a/b/cpu.max": "400000 100000", "sys/fs/cgroup/a/cpu.max": "200000 100000"}, 2.0),
        ({"sys/fs/cgroup/a/b/cpu.max": "50000 100000", "sys/fs/cgroup/a/cpu.max": "max 100000"}, 0.5),
        ({"sys/fs/cgroup/a/cpu.max": "garbage"}, None),
        ({"sys/fs/cgroup/other/cpu.max": "100000 100000"}, None),
    ],
)
def test_quota_of_version_2_counts_the_groups_above(tmp_path: Path, files: dict[str, str], expected: float | None) -> None:
    root = write(tmp_path, {"proc/self/cgroup": "0::/a/b\n", "proc/self/mountinfo": V2_MOUNT, **files})
    assert cpu_quota(root) == expected


def test_quota_of_version_1(tmp_path: Path) -> None:
    group = "sys/fs/cgroup/cpu,cpuacct/docker/x"
    root = write(
        tmp_path,
        {
            "proc/self/cgroup": "5:memory:/docker/x\n4:cpu,cpuacct:/docker/x\n1:name=systemd:/docker/x\n",
            "proc/self/mountinfo": V1_MOUNT,
            f"{group}/cpu.cfs_quota_us": "300000\n",
            f"{group}/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
        },
    )
    assert cpu_quota(root) == 3.0


def test_quota_in_a_container_that_sees_the_path_of_the_host(tmp_path: Path) -> None:
    mount = V1_MOUNT.replace("0:29 / ", "0:29 /docker/x ")
    files = {"cpu.cfs_quota_us": "250000", "cpu.cfs_period_us": "100000"}
    root = write(
        tmp_path,
        {
            "proc/self/cgroup": "4:cpu,cpuacct:/docker/x\n",
            "proc/self/mountinfo": mount,
            **{f"sys/fs/cgroup/cpu,cpuacct/{name}": text for name, text in files.items()},
        },
    )
    assert cpu_quota(root) == 2.5


def test_quota_of_version_1_counts_the_groups_above(tmp_path: Path) -> None:
    controller = "sys/fs/cgroup/cpu,cpuacct"
    root = write(
        tmp_path,
        {
            "proc/self/cgroup": "4:cpu,cpuacct:/kubepods/burstable/pod1/x\n",
            "proc/self/mountinfo": V1_MOUNT,
            f"{controller}/kubepods/burstable/pod1/x/cpu.cfs_quota_us": "-1\n",
            f"{controller}/kubepods/burstable/pod1/x/cpu.cfs_period_us": "100000\n",
            f"{controller}/kubepods/burstable/pod1/cpu.cfs_quota_us": "150000\n",
            f"{controller}/kubepods/burstable/pod1/cpu.cfs_period_us": "100000\n",
        },
    )
    assert cpu_quota(root) == 1.5


def test_quota_on_a_machine_with_both_versions(tmp_path: Path) -> None:
    # systemd's hybrid layout: the CPU controller is in version 1, version 2 only names the unit.
    mounts = V1_MOUNT + V2_MOUNT.replace("/sys/fs/cgroup rw", "/sys/fs/cgroup/unified rw")
    root = write(
        tmp_path,
        {
            "proc/self/cgroup": "4:cpu,cpuacct:/system.slice/app\n0::/system.slice/app\n",
            "proc/self/mountinfo": mounts,
            "sys/fs/cgroup/cpu,cpuacct/system.slice/app/cpu.cfs_quota_us": "200000\n",
            "sys/fs/cgroup/cpu,cpuacct/system.slice/app/cpu.cfs_period_us": "100000\n",
        },
    )
    assert cpu_quota(root) == 2.0


def test_quota_in_a_separate_namespace(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        {"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": V2_MOUNT, "sys/fs/cgroup/cpu.max": "50000 100000\n"},
    )
    assert cpu_quota(root) == 0.5 and inspect_machine(root).cores == 1
    moved = V2_MOUNT.replace("0:26 / ", "0:26 /../../.. ")  # how a mount from outside the namespace is shown
    write(tmp_path, {"proc/self/mountinfo": moved})
    assert cpu_quota(root) == 0.5


@pytest.mark.parametrize(("quota", "cores"), [(0.1, 1), (1.0, 1), (1.5, 1), (1.9, 2), (2.0, 2), (3.5, 3), (16.0, 16)])
def test_a_quota_gives_whole_cores(quota: float, cores: int) -> None:
    assert usable_cores(quota) == cores


def test_hyperthreads_of_a_core_count_once(tmp_path: Path) -> None:
    siblings = {0: "0,4", 1: "1,5", 4: "0,4", 5: "1,5"}
    root = write(
        tmp_path,
        {f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list": f"{text}\n" for cpu, text in siblings.items()},
    )
    assert physical_cores(frozenset({0, 1, 4, 5}), root) == 2
    assert physical_cores(frozenset({0, 4}), root) == 1
    assert physical_cores(frozenset({7, 8, 9}), root) == 3  # nothing known: each is a core


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux")
def test_affinity_is_read_from_the_process() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert affinity() == {min(before)}
        assert inspect_machine().cores == 1
    finally:
        os.sched_setaffinity(0, before)


def test_quota_limits_the_cores(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        {"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": V2_MOUNT, "sys/fs/cgroup/cpu.max": "100000 100000"},
    )
    machine = inspect_machine(root)
    assert (machine.cores, machine.quota) == (1, 1.0)


X86 = "processor\t: 0\nmodel name\t: Some CPU @ 2 GHz: x\nflags\t\t: fpu avx2 avx512f avx512_vnni amx_int8\n\nprocessor : 1\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd evtstrm asimddp\nCPU implementer\t: 0x41\n\n"


def test_cpu_features_are_read_from_cpuinfo(tmp_path: Path) -> None:
    name, features = cpu_model(write(tmp_path / "x86", {"proc/cpuinfo": X86}))
    assert name == "Some CPU @ 2 GHz: x"
    assert features == ("avx2", "avx512f", "avx512_vnni", "amx_int8")
    assert cpu_model(write(tmp_path / "arm", {"proc/cpuinfo": ARM}))[1] == ("neon", "dotprod")
    assert set(features) < set(FEATURES)


@pytest.mark.parametrize("seen", [(), ("avx2",)])
def test_what_the_processor_says_counts_more_than_cpuinfo(monkeypatch: pytest.MonkeyPatch, seen: tuple[str, ...]) -> None:
    monkeypatch.setattr("fusedbert.engine.hardware.cpu.cpu_features", lambda: seen)
    assert inspect_machine().features == seen
    monkeypatch.setattr("fusedbert.engine.hardware.cpu.cpu_features", lambda: None)  # no library
    assert inspect_machine().features == cpu_model()[1]


def test_linux_on_arm_is_asked_and_not_the_cpuinfo_of_an_emulators_host(monkeypatch: pytest.MonkeyPatch) -> None:
    def getauxval(number: int) -> int:
        return (1 << 1 | 1 << 20) if number == 16 else 0  # AT_HWCAP: HWCAP_ASIMD and HWCAP_ASIMDDP

    monkeypatch.setattr("fusedbert.engine.hardware.cpu.platform.machine", lambda: "aarch64")
    monkeypatch.setattr("fusedbert.engine.hardware.cpu.sys.platform", "linux")
    monkeypatch.setattr("fusedbert.engine.hardware.cpu.ctypes.CDLL", lambda _: SimpleNamespace(getauxval=getauxval))
    monkeypatch.setattr("fusedbert.engine.hardware.cpu.cpu_model", lambda _: ("A host's CPU", ("avx2", "avx512f")))
    machine = inspect_machine()
    assert (machine.cpu, machine.features, machine.int8) == ("aarch64", ("neon", "dotprod"), Int8.EXACT)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("avx2 avx512f avx512_vnni", Int8.EXACT),
        ("avx2 avx_vnni", Int8.EXACT),
        ("avx2 avx512f avx512_vnni amx_int8", Int8.EXACT),
        ("asimd asimddp", Int8.EXACT),
        ("avx2", Int8.SATURATING),
        ("avx2 avx512f", Int8.SATURATING),
        ("sse4_1 avx", Int8.SLOW),
        ("asimd", Int8.SLOW),
    ],
)
def test_8_bit_dot_products_are_exact_and_those_of_avx2_saturate(tmp_path: Path, flags: str, expected: Int8) -> None:
    assert inspect_machine(write(tmp_path, {"proc/cpuinfo": f"processor\t: 0\nflags\t: fpu {flags}\n\n"})).int8 is expected
