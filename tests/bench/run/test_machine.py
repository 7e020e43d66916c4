import os
import sys
import types

import pytest

from fusedbert.bench.run.machine import CpuTime, gpu_memory_mib, gpus, need, others_share, read_cpu_time
from fusedbert.engine.errors import MissingDependencyError
from fusedbert.engine.hardware.cpu import affinity


@pytest.fixture
def proc(tmp_path):
    """Write a /proc with CPU times in ticks: busy time of every usable CPU, and of some processes."""

    def write(busy, **processes):
        cpus = "\n".join(f"cpu{cpu} {busy} 0 0 12345 99 0 0 0 0 0" for cpu in affinity())
        (tmp_path / "stat").write_text(f"cpu 1 2 3 4 5\n{cpus}\ncpu4711 999999 0 0 0 0 0 0 0\nintr 1 2 3\n")
        for pid, ticks in processes.items():
            folder = tmp_path / pid.lstrip("p")
            folder.mkdir(exist_ok=True)
            (folder / "stat").write_text(f"7 (a (b) c) S {' '.join(['0'] * 10)} {ticks} 0 0 0")
        return tmp_path

    return write


def test_only_usable_cpus_count_and_idle_time_is_not_busy(proc):
    own = f"p{os.getpid()}"
    found = read_cpu_time([], root=proc(200, **{own: 50, "p1": 10}))
    ticks = os.sysconf("SC_CLK_TCK")
    assert found is not None
    assert found.cpus == len(affinity())
    assert found.busy == pytest.approx(200 * found.cpus / ticks)
    assert found.own == pytest.approx(50 / ticks)
    with_worker = read_cpu_time([1], root=proc(200))
    assert with_worker is not None and with_worker.own == pytest.approx(60 / ticks)


def test_the_share_of_other_processes_leaves_out_our_time_and_idle_time():
    before = CpuTime(at=10.0, busy=100.0, own=30.0, cpus=2)
    after = CpuTime(at=12.0, busy=103.0, own=32.0, cpus=2)
    assert others_share(before, after) == pytest.approx(1.0 / 4.0)


def test_no_load_is_reported_for_a_short_time_or_without_proc(tmp_path):
    one = CpuTime(at=1.0, busy=1.0, own=1.0, cpus=1)
    assert others_share(one, CpuTime(at=1.1, busy=1.1, own=1.0, cpus=1)) is None
    assert others_share(None, one) is None
    assert read_cpu_time([], root=tmp_path) is None


# The extra `bench`, and the GPU


def test_a_missing_package_is_reported_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(MissingDependencyError, match=r'scipy is needed .* pip install "fusedbert\[bench\]"'):
        need("scipy", "compare engines")


@pytest.fixture
def nvml(monkeypatch):
    """Replace pynvml by a stand-in with two GPUs; returns the calls it received."""
    asked = []
    names = {0: "NVIDIA A", 1: b"NVIDIA B", "GPU-b": "NVIDIA B"}

    def handle(which):
        asked.append(which)
        return which

    fake = types.SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlSystemGetDriverVersion=lambda: "580.95.05",
        nvmlDeviceGetCount=lambda: 2,
        nvmlDeviceGetHandleByIndex=handle,
        nvmlDeviceGetHandleByUUID=handle,
        nvmlDeviceGetName=names.__getitem__,
        nvmlDeviceGetMemoryInfo=lambda _: types.SimpleNamespace(total=80 << 30, used=3 << 30),
    )
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return asked


def test_only_visible_gpus_are_listed(nvml, monkeypatch):
    assert [gpu["name"] for gpu in gpus()] == ["NVIDIA A", "NVIDIA B"]
    assert gpus()[0] == {"name": "NVIDIA A", "driver": "580.95.05", "memory": "81920 MiB"}
    for visible in ("1", "GPU-b"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert [gpu["name"] for gpu in gpus()] == ["NVIDIA B"]
    assert gpu_memory_mib() == 3072 and nvml[-1] == "GPU-b"


def test_without_a_driver_there_are_none(nvml, monkeypatch):
    def fail():
        raise OSError("NVML Shared Library Not Found")

    monkeypatch.setattr(sys.modules["pynvml"], "nvmlInit", fail)
    assert gpus() == [] and gpu_memory_mib() is None
