"""Which execution provider of ONNX Runtime to use, and why; CUDA is never lost in silence.

Ways in which CUDA does not engage, each with its own sentence: the CPU wheel is installed, both wheels are (the CPU
one then hides the other), no GPU is visible, the CUDA libraries do not load, the driver refuses the device.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from ..errors import DeviceError, MissingDependencyError
from ..options import Device, DeviceKind
from .packages import installed

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
WHEELS = ("onnxruntime", "onnxruntime-gpu")
_TELEMETRY = ("ORT_DISABLE_TELEMETRY", "ORT_TELEMETRY_DISABLED")  # of 1.32, and of the versions before it


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choice:
    """An execution provider, its device, and the reason for it.

    Attributes:
        provider: ONNX Runtime's name of it.
        index: The CUDA device.
        why: The reason.
        surprising: Whether a user would have expected CUDA, so that the reason is worth a warning.
    """

    provider: str
    index: int = 0
    why: str
    surprising: bool = False

    @property
    def device(self) -> str:
        """The device as a caller writes it: ``cpu`` or ``cuda:0``."""
        return f"cuda:{self.index}" if self.provider == CUDA else "cpu"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Offer:
    """What this environment offers for CUDA.

    Attributes:
        providers: ONNX Runtime's execution providers.
        wheels: Installed wheels of ONNX Runtime, with their versions.
        gpu: Whether an NVIDIA GPU is visible.
    """

    providers: tuple[str, ...]
    wheels: tuple[tuple[str, str], ...]
    gpu: bool

    @property
    def both_wheels(self) -> bool:
        """Whether the CPU wheel and the GPU wheel are installed, and the CPU's hides the other's CUDA provider.

        The GPU wheel may also stand before the CPU's on the path, in an environment that sees the system's packages.
        """
        return set(WHEELS) <= {name for name, _ in self.wheels} and CUDA not in self.providers

    def obstacle(self) -> str | None:
        """Return why CUDA cannot engage, as far as it shows before a session is made, or None."""
        if self.both_wheels:
            return (
                "onnxruntime and onnxruntime-gpu are both installed and hide each other: "
                'pip uninstall onnxruntime onnxruntime-gpu, then pip install "fusedbert[gpu]"'
            )
        if not self.gpu:
            return "no NVIDIA GPU is visible (a container gets one with --gpus all, a pod with a limit of nvidia.com/gpu)"
        if CUDA not in self.providers:
            return 'this ONNX Runtime has no CUDA provider: pip uninstall onnxruntime, then pip install "fusedbert[gpu]"'
        return None

    @property
    def expected(self) -> bool:
        """Whether a user would expect CUDA here, so that its absence is worth a warning."""
        return self.gpu or CUDA in self.providers or self.both_wheels


@contextlib.contextmanager
def _without_telemetry() -> Iterator[None]:
    """Have ONNX Runtime start without its telemetry, unless the user's environment says otherwise.

    From 1.29 on its wheels start a thread that reports to Microsoft, when they are imported. A library inside somebody's
    service should not; and in a forked child, where that thread is not there, the process would wait for it at its end.
    Only the environment turns it off whole, and the decision is made at the import; the variables are gone again after it.
    """
    if "onnxruntime" in sys.modules or any(name in os.environ for name in _TELEMETRY):
        yield
        return
    os.environ |= dict.fromkeys(_TELEMETRY, "1")
    try:
        yield
    finally:
        for name in _TELEMETRY:
            os.environ.pop(name, None)


def import_onnxruntime() -> ModuleType:
    """Import ONNX Runtime, without its telemetry.

    Raises:
        MissingDependencyError: It is not installed; the message names both extras.
    """
    try:
        with _without_telemetry():
            import onnxruntime
    except ImportError as error:
        if importlib.util.find_spec("onnxruntime") is not None:
            raise MissingDependencyError(
                f"ONNX Runtime is installed but does not load ({error}): reinstall it, or check its system libraries"
            ) from error
        raise MissingDependencyError(
            'ONNX Runtime is needed to run a graph, and is not installed: pip install "fusedbert[cpu]", '
            'or "fusedbert[gpu]" on a machine with an NVIDIA GPU'
        ) from None
    if not hasattr(onnxruntime, "InferenceSession"):
        raise MissingDependencyError(
            "what is left of ONNX Runtime cannot be used (one of its two wheels was removed over the other): "
            'pip uninstall onnxruntime onnxruntime-gpu, then pip install "fusedbert[cpu]"'
        )
    assert isinstance(onnxruntime, ModuleType)
    return onnxruntime


def inspect_offer(runtime: ModuleType, root: Path = Path("/")) -> Offer:
    """Look at the providers, the installed wheels and the GPU."""
    return Offer(providers=tuple(runtime.get_available_providers()), wheels=installed(WHEELS), gpu=gpu_present(root))


def gpu_present(root: Path = Path("/")) -> bool:
    """Tell whether an NVIDIA driver and device are visible to this process."""
    files = ("proc/driver/nvidia/version", "dev/dxg")  # the last one under WSL
    # A container that was given the fourth GPU alone has /dev/nvidia3 and no /dev/nvidia0.
    return any((root / file).exists() for file in files) or any((root / "dev").glob("nvidia[0-9]*"))


def load_cuda_libraries(runtime: ModuleType) -> str:
    """Load CUDA's and cuDNN's libraries from their pip packages; return what ONNX Runtime printed about failures."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(OSError):
        getattr(runtime, "preload_dlls", lambda: None)()
    return " ".join(printed.getvalue().split())


def choose(device: Device, offer: Offer) -> Choice:
    """Choose the provider that a session is to be tried with.

    Raises:
        DeviceError: ``cuda`` was asked for and cannot engage; the message gives the reason.
    """
    if device.kind is DeviceKind.CPU:
        return Choice(provider=CPU, why="the CPU was asked for")
    obstacle = offer.obstacle()
    if obstacle is None:
        asked = "CUDA was asked for" if device.kind is DeviceKind.CUDA else "CUDA is available"
        return Choice(provider=CUDA, index=device.index, why=asked)
    return fall_back(device, offer, obstacle)


def fall_back(device: Device, offer: Offer, reason: str) -> Choice:
    """Return the CPU with the reason, once ``auto`` could not have CUDA.

    Raises:
        DeviceError: ``cuda`` was asked for, so that there is nothing to fall back to.
    """
    if device.kind is DeviceKind.CUDA:
        raise DeviceError(f"device={str(device)!r} cannot be used: {reason}; or use device='cpu'")
    return Choice(provider=CPU, why=f"CPU, because {reason}", surprising=offer.expected)
