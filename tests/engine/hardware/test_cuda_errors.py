"""Each known cause of a CUDA error, recognized by its real message; the messages are from bug reports and from runs."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fusedbert.engine.cli import doctor as doctor_module
from fusedbert.engine.cli.doctor import Status, examine
from fusedbert.engine.hardware import cuda_probe as probe
from fusedbert.engine.hardware.cuda_errors import CAUSES, diagnose, explain, loadable_cuda
from fusedbert.engine.hardware.device import CPU, CUDA, Choice, Offer
from fusedbert.engine.load import Options
from fusedbert.engine.run.session import first_line

CALL = (
    "/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_call.cc:129 std::conditional_t<THRW, void, "
    "onnxruntime::common::Status> onnxruntime::CudaCall(ERRTYPE, const char*, const char*, SUCCTYPE, const char*, const char*, "
    "int) [with ERRTYPE = cudaError; bool THRW = true; SUCCTYPE = cudaError; std::conditional_t<THRW, void, common::Status> = "
    "void] {} ; GPU=-1 ; hostname=c4327188c000000 ; "
    "file=/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_execution_provider.cc ; line=336 ; "
    "expr=cudaSetDevice(info_.device_id);"
)
LOAD = (
    "2026-11-22 19:14:15.586469623 [E:onnxruntime:Default, provider_bridge_ort.cc:2458 operator()] "
    "/onnxruntime_src/onnxruntime/core/session/provider_bridge_ort.cc:2043 onnxruntime::Provider& "
    "onnxruntime::ProviderLibrary::Get() [ONNXRuntimeError] : 1 : FAIL : Failed to load library "
    "libonnxruntime_providers_cuda.so with error: {}: cannot open shared object file: No such file or directory \n"
    "2026-11-22 19:14:15.586478206 [W:onnxruntime:Default, onnxruntime_pybind_state.cc:1295 "
    "CreateExecutionProviderFactoryInstance] Failed to create CUDAExecutionProvider. Require cuDNN 9.* and CUDA 13.*. Please "
    "install all dependencies as mentioned in the GPU requirements page, make sure they're in the PATH, and that your GPU is "
    "supported."
)
PRELOAD = (
    "Failed to load {0}: {0}: cannot open shared object file: No such file or directory Please follow "
    "https://onnxruntime.ai/docs/install/#cuda-and-cudnn to install CUDA."
)
NODE = (
    "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running Mul node. Name:'head/Mul' Status Message: "
    "CUDA error cudaErrorNoKernelImageForDevice:no kernel image is available for execution on the device"
)
ARENA = (
    "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Non-zero status code returned while running Mul node. Status Message: "
    "/onnxruntime_src/onnxruntime/core/framework/bfc_arena.cc:331 void* onnxruntime::BFCArena::AllocateRawInternal(size_t, "
    "bool) Failed to allocate memory for requested buffer of size 8388608000"
)
MESSAGES = [
    (CALL.format("CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version"), "driver_too_old"),
    (CALL.format("CUDA failure 100: no CUDA-capable device is detected"), "no_device"),
    (CALL.format("CUDA failure 101: invalid device ordinal"), "no_such_device"),
    ("Invalid device ID: 99, must be between 0 and 1 (inclusive).", "no_such_device"),
    ("bfc_arena.cc:376 Available memory of 1048576 is smaller than requested bytes of 8388608", "out_of_memory"),
    (CALL.format("CUDA failure 804: forward compatibility was attempted on non supported HW"), "driver_mismatch"),
    ("Error 803: system has unsupported display driver / cuda driver combination", "driver_mismatch"),
    (CALL.format("CUDA failure 3: initialization error"), "forked"),
    (CALL.format("CUDA failure 46: all CUDA-capable devices are busy or unavailable"), "busy"),
    (CALL.format("CUDA failure 802: system not yet initialized"), "no_fabric"),
    (CALL.format("CUDA failure 700: an illegal memory access was encountered"), "context_lost"),
    (CALL.format("CUDA failure 719: unspecified launch failure"), "context_lost"),
    (LOAD.format("libcuda.so.1"), "no_driver"),
    (LOAD.format("libcudnn.so.9"), "cudnn_missing"),
    (LOAD.format("libcudnn_adv.so.9"), "cudnn_missing"),
    ('Error loading "onnxruntime_providers_cuda.dll" which depends on "cudnn64_9.dll" which is missing.', "cudnn_missing"),
    (LOAD.format("libcublasLt.so.13"), "cuda_libraries_missing"),
    (PRELOAD.format("libcublasLt.so.13"), "cuda_libraries_missing"),
    (PRELOAD.format("libcurand.so.10"), "cuda_libraries_missing"),
    (
        "Failed to load {0}: {0}: file too short ".format("/a folder/libcublas.so.13") + PRELOAD.format("libcublas.so.13"),
        "cuda_library_damaged",
    ),
    (PRELOAD.format("libcufft.so.12"), "cuda_libraries_missing"),
    (NODE, "gpu_not_supported"),
    (ARENA, "out_of_memory"),
    (
        "UserWarning: Specified provider 'CUDAExecutionProvider' is not in available provider names.Available providers: "
        "'AzureExecutionProvider, CPUExecutionProvider'",
        "no_cuda_provider",
    ),
    (
        "[W:onnxruntime:Default, onnxruntime_pybind_state.cc:861 CreateExecutionProviderInstance] Failed to create "
        "CUDAExecutionProvider. Please reference https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html",
        "provider_not_created",
    ),
]


@pytest.mark.parametrize(("text", "name"), MESSAGES, ids=[f"{name}-{i}" for i, (_, name) in enumerate(MESSAGES)])
def test_each_cuda_error_is_explained(text: str, name: str) -> None:
    cause = diagnose(text)
    assert cause is not None and cause.name == name


def test_the_shown_text_begins_with_the_cause() -> None:
    """It does not begin with a function's signature, which would leave no room for the cause."""
    new = first_line(RuntimeError(CALL.format("CUDA failure 998: something new")))
    assert new.startswith("CUDA failure 998: something new")
    option = 'cuda_execution_provider_info.cc:63 FromProviderOptions() Parse Unknown provider option: "nonsense".'
    assert first_line(RuntimeError("x" * 400 + option)) == 'Unknown provider option: "nonsense".'
    assert first_line(RuntimeError("plain\nmore")) == "plain" and first_line(KeyboardInterrupt()) == "KeyboardInterrupt"


def test_every_cause_has_a_message_and_a_way_out() -> None:
    assert {name for _, name in MESSAGES} == {cause.name for cause in CAUSES}
    assert all(cause.says and cause.way_out for cause in CAUSES)


def test_libraries_of_another_cuda_are_named() -> None:
    cuda_12 = (("nvidia-cublas-cu12", "12.9.1.4"), ("nvidia-cuda-runtime-cu12", "12.9.79"))
    cuda_13 = (("nvidia-cublas", "13.1.0.3"),)
    text = LOAD.format("libcublasLt.so.13")
    cause = diagnose(text, cuda_12)
    assert cause is not None and cause.name == "other_cuda"
    assert cause.says == "this ONNX Runtime is built for CUDA 13, and the CUDA 12 libraries are installed"
    assert "onnxruntime-gpu[cuda,cudnn]<1.27" in cause.way_out
    back = diagnose(LOAD.format("libcublasLt.so.12"), cuda_13)
    assert back is not None and back.name == "other_cuda" and "CUDA 12, and the CUDA 13" in back.says
    same = diagnose(text, cuda_13)
    assert same is not None and same.name == "cuda_libraries_missing"


@pytest.mark.parametrize(
    "words", ["file too short", "invalid ELF header", "wrong ELF class: ELFCLASS32", "cannot read file data"]
)
def test_a_damaged_library_is_named(words: str) -> None:
    """The loader says the second line of any library that it could not load before."""
    file = "/a folder/nvidia/cu13/lib/libcublasLt.so.13"
    cause = diagnose(f"Failed to load {file}: {file}: {words} {PRELOAD.format('libcublasLt.so.13')}")
    assert cause is not None and cause.says == f"{file} is damaged" and "--force-reinstall" in cause.way_out


def test_an_unknown_error_gets_no_invented_cause() -> None:
    assert diagnose("") is None and diagnose("ReduceMean: axes out of range") is None and explain("fine") is None


class Refusing:
    """ONNX Runtime's GPU build on a machine where CUDA does not start."""

    __version__ = "1.31.1"

    def __init__(self, raised: str, logged: str = "") -> None:
        self.raised = raised
        self.logged = logged

    def SessionOptions(self) -> Any:
        return SimpleNamespace()

    def InferenceSession(self, *args: Any, **rest: Any) -> Any:
        os.write(2, self.logged.encode())
        if self.raised:
            raise RuntimeError(self.raised)
        return SimpleNamespace(get_providers=lambda: [CPU], run=lambda *_: [[-1.0]])

    def preload_dlls(self) -> None:
        pass

    def get_available_providers(self) -> list[str]:
        return [CUDA, CPU]


def test_messages_logged_by_native_code_are_captured(capfd: pytest.CaptureFixture[str]) -> None:
    found = probe.try_cuda(Refusing("", LOAD.format("libcudnn.so.9")))
    assert found is not None and "libcudnn.so.9: cannot open" in found
    assert capfd.readouterr().err == ""
    os.write(2, b"afterwards\n")
    assert capfd.readouterr().err == "afterwards\n"  # and stderr is restored


@pytest.mark.parametrize(("device", "status"), [("auto", Status.NOTE), ("cuda", Status.FAIL)])
def test_the_doctor_reports_the_cause(monkeypatch: pytest.MonkeyPatch, device: str, status: Status) -> None:
    fake = Refusing(MESSAGES[0][0])
    monkeypatch.setattr(doctor_module, "import_onnxruntime", lambda: fake)
    offer = Offer(providers=(CUDA, CPU), wheels=(("onnxruntime-gpu", "1.31.1"),), gpu=True)
    monkeypatch.setattr(doctor_module, "inspect_offer", lambda _: offer)
    found = {finding.name: finding for finding in examine(None, Options.parse(device=device))}["cuda"]
    assert found.status is status and found.value["cause"] == "driver_too_old" and found.value["works"] is False
    assert found.advice is not None and "update the driver" in found.advice


def test_the_doctor_shows_the_loader_s_words_and_what_was_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Refusing("something new", LOAD.format("libcublasLt.so.13") + " words" * 200)
    fake.preload_dlls = lambda: print(PRELOAD.format("libcublasLt.so.13"))  # type: ignore[method-assign]
    monkeypatch.setattr(doctor_module, "import_onnxruntime", lambda: fake)
    monkeypatch.setattr(doctor_module, "inspect_offer", lambda _: Offer(providers=(CUDA, CPU), wheels=(), gpu=True))
    found = {finding.name: finding for finding in examine(None, Options.parse(device="cuda"))}["cuda"].value["found"]
    assert found.startswith("Failed to load libcublasLt.so.13: ") and found.endswith("something new") and len(found) < 1300


def test_another_cuda_version_of_the_system_is_recognized(monkeypatch: pytest.MonkeyPatch) -> None:
    """An image with CUDA 12 and a build for CUDA 13: no package says so, only the loader."""

    def load(name: str) -> object:
        if name != "libcublasLt.so.12":
            raise OSError(name)
        return object()

    monkeypatch.setattr("fusedbert.engine.hardware.cuda_errors.ctypes.CDLL", load)
    assert loadable_cuda() == (("libcublasLt", "12.0"),)
    cause = diagnose(LOAD.format("libcublasLt.so.13"), loadable_cuda())
    assert cause is not None and cause.name == "other_cuda" and "CUDA 12 libraries are installed" in cause.says


@pytest.mark.parametrize("words", [None, "libcudnn.so.9: cannot open shared object file: No such file or directory"])
def test_the_doctor_reports_a_missing_cudnn_where_all_else_works(monkeypatch: pytest.MonkeyPatch, words: str | None) -> None:
    """ONNX Runtime from 1.28 on starts without cuDNN, without a message."""
    monkeypatch.setattr(doctor_module, "import_onnxruntime", lambda: Refusing(""))
    offer = Offer(providers=(CUDA, CPU), wheels=(("onnxruntime-gpu", "1.32.0"),), gpu=True)
    monkeypatch.setattr(doctor_module, "inspect_offer", lambda _: offer)
    monkeypatch.setattr(probe, "try_cuda", lambda *_: None)
    monkeypatch.setattr(probe, "without_cudnn", lambda: words)
    found = {finding.name: finding for finding in examine(None, Options.parse(device="auto"))}["cuda"]
    assert found.value == {"works": True, "cause": "cudnn_missing" if words else None}
    assert (found.status, found.advice is None) == ((Status.NOTE, False) if words else (Status.OK, True))


@pytest.mark.parametrize("message", [ARENA, "CUBLAS_STATUS_ALLOC_FAILED in cublasCreate", "CUDNN_STATUS_NOT_INITIALIZED"])
def test_a_gpu_that_is_full_at_load_is_a_device_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, message: str) -> None:
    """So device='auto' falls back to the CPU."""
    from fusedbert.engine.errors import DeviceError
    from fusedbert.engine.run.session import open_session

    fake = Refusing(message)
    graph = tmp_path / "model.onnx"
    graph.touch()
    fake.ExecutionMode = SimpleNamespace(ORT_SEQUENTIAL=0)  # type: ignore[attr-defined]
    monkeypatch.setattr(Refusing, "SessionOptions", type("SessionOptions", (SimpleNamespace,), {}))
    with pytest.raises(DeviceError, match="cuda:0 refused the session"):
        open_session(fake, graph, Choice(provider=CUDA, why="x"), threads=1)  # type: ignore[arg-type]


def test_a_refused_session_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from fusedbert.engine.errors import DeviceError
    from fusedbert.engine.run.session import open_session

    fake = Refusing(MESSAGES[1][0])
    graph = tmp_path / "model.onnx"
    graph.touch()
    fake.ExecutionMode = SimpleNamespace(ORT_SEQUENTIAL=0)  # type: ignore[attr-defined]
    monkeypatch.setattr(Refusing, "SessionOptions", type("SessionOptions", (SimpleNamespace,), {}))
    choice = Choice(provider=CUDA, why="CUDA was asked for")
    with pytest.raises(DeviceError, match=r"cuda:0 refused the session: CUDA sees no device: .*--gpus all"):
        open_session(fake, graph, choice, threads=1)  # type: ignore[arg-type]
