"""CUDA engages, fails with its reason, or falls back with it: each case in a simulated environment."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from fusedbert.engine import Classifier, DeviceError, MissingDependencyError
from fusedbert.engine.hardware import device as device_module
from fusedbert.engine.hardware.device import CPU, CUDA, Device, Offer, choose, gpu_present, import_onnxruntime
from fusedbert.engine.hardware.packages import installed
from fusedbert.engine.load import open as loading

CPU_WHEEL = (("onnxruntime", "1.32.0"),)
GPU_WHEEL = (("onnxruntime-gpu", "1.32.0"),)


def offer(*, cuda: bool, gpu: bool, wheels: tuple[tuple[str, str], ...]) -> Offer:
    return Offer(providers=(CUDA, CPU) if cuda else (CPU,), wheels=wheels, gpu=gpu)


def test_cuda_is_chosen_where_everything_is_installed() -> None:
    full = offer(cuda=True, gpu=True, wheels=GPU_WHEEL)
    assert choose(Device.parse("auto"), full).device == "cuda:0"
    assert choose(Device.parse("cuda:1"), full).device == "cuda:1"
    assert choose(Device.parse("cpu"), full).device == "cpu"


@pytest.mark.parametrize(
    ("found", "reason", "expected"),
    [
        (offer(cuda=False, gpu=False, wheels=CPU_WHEEL), "no NVIDIA GPU", False),
        (offer(cuda=False, gpu=True, wheels=CPU_WHEEL), r"no CUDA provider.*fusedbert\[gpu\]", True),
        (offer(cuda=False, gpu=True, wheels=CPU_WHEEL + GPU_WHEEL), "pip uninstall onnxruntime onnxruntime-gpu", True),
        (offer(cuda=False, gpu=False, wheels=CPU_WHEEL + GPU_WHEEL), "both installed", True),
        # The GPU wheel comes first on the path.
        (offer(cuda=True, gpu=False, wheels=CPU_WHEEL + GPU_WHEEL), "no NVIDIA GPU", True),
        (offer(cuda=True, gpu=False, wheels=GPU_WHEEL), "no NVIDIA GPU", True),
    ],
)
def test_each_obstacle_to_cuda_is_named(found: Offer, reason: str, expected: bool) -> None:
    with pytest.raises(DeviceError, match=rf"device='cuda:0' cannot be used: .*{reason}"):
        choose(Device.parse("cuda"), found)
    choice = choose(Device.parse("auto"), found)
    assert choice.provider == CPU and choice.why.startswith("CPU, because")
    assert choice.surprising == expected


@pytest.mark.parametrize("name", ["nvidia0", "nvidia3"])  # a container may have only the fourth GPU
def test_a_gpu_is_detected_by_its_device_files(name: str, tmp_path: Path) -> None:
    assert not gpu_present(tmp_path)
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/nvidiactl").touch()
    assert not gpu_present(tmp_path)
    (tmp_path / "dev" / name).touch()
    assert gpu_present(tmp_path)


def test_installed_packages_are_found_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("onnxruntime-1.30.0.dist-info", "onnxruntime_gpu-1.31.0.dist-info", "other-1.dist-info"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr("sys.path", [str(tmp_path), str(tmp_path / "missing")])
    assert installed(device_module.WHEELS) == (("onnxruntime", "1.30.0"), ("onnxruntime-gpu", "1.31.0"))


def test_without_onnxruntime_the_error_names_both_extras(monkeypatch: pytest.MonkeyPatch, artifact: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    monkeypatch.setattr(device_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"fusedbert\[cpu\].*fusedbert\[gpu\]") as caught:
        Classifier.from_pretrained(artifact)
    assert isinstance(caught.value, ImportError)


def test_a_half_removed_onnxruntime_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", SimpleNamespace())
    with pytest.raises(MissingDependencyError, match="uninstall"):
        import_onnxruntime()


class FakeRuntime:
    """ONNX Runtime as its GPU wheel behaves where CUDA's libraries do not load: it prints, and gives a CPU session."""

    def __init__(self, real: Any) -> None:
        self._real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def get_available_providers(self) -> list[str]:
        return [CUDA, CPU]

    def preload_dlls(self) -> None:
        print("Failed to load libcudnn.so.9")

    def InferenceSession(self, path: str, *, providers: list[Any], **options: Any) -> Any:
        return self._real.InferenceSession(path, providers=[CPU], **options)


@pytest.fixture
def broken_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeRuntime(import_onnxruntime())
    monkeypatch.setattr(loading, "import_onnxruntime", lambda: fake)
    monkeypatch.setattr(loading, "inspect_offer", lambda runtime: offer(cuda=True, gpu=True, wheels=GPU_WHEEL))


@pytest.mark.usefixtures("broken_cuda")
def test_a_session_that_silently_fell_back_to_the_cpu_is_detected(artifact: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DeviceError, match=r"cuda:0 did not engage.*libcudnn\.so\.9"):
        Classifier.from_pretrained(artifact, device="cuda")
    with pytest.warns(RuntimeWarning, match="did not engage") as caught:
        clf = Classifier.from_pretrained(artifact)
    assert len(caught) == 1 and caught[0].filename == __file__
    assert clf.runtime.device == "cpu" and "libcudnn" in clf.runtime.why
    assert clf("good movie")[0]["label"] in clf.classes_
    assert capfd.readouterr().out == ""  # output of ONNX Runtime does not reach stdout


def test_onnxruntime_is_imported_without_its_telemetry_unless_the_user_said_otherwise(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    names = device_module.TELEMETRY
    (tmp_path / "onnxruntime.py").write_text("import os\nseen = dict(os.environ)\nclass InferenceSession: pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in names:
        monkeypatch.delenv(name, raising=False)

    def seen() -> list[str | None]:
        module = import_onnxruntime()
        return [module.seen.get(name) for name in names]

    imported_before = ModuleType("onnxruntime")
    imported_before.InferenceSession = imported_before.seen = os.environ  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "onnxruntime", imported_before)
    assert seen() == [None, None]  # too late for the setting
    del sys.modules["onnxruntime"]
    assert seen() == ["1", "1"]
    assert not any(name in os.environ for name in names)
    del sys.modules["onnxruntime"]
    monkeypatch.setenv(names[0], "0")
    assert seen() == ["0", None]
    assert os.environ[names[0]] == "0"
