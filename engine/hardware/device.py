"""The device, and the choice of ONNX Runtime's execution provider with the reason; CUDA is never lost silently."""

from __future__ import annotations

import dataclasses
import enum
import importlib.util
import os
import re
import sys
from pathlib import Path
from types import ModuleType

from ..errors import DeviceError, MissingDependencyError, OptionError, shown
from .packages import installed

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
WHEELS = ("onnxruntime", "onnxruntime-gpu")
TELEMETRY = ("ORT_DISABLE_TELEMETRY", "ORT_TELEMETRY_DISABLED")  # of 1.32, and of earlier versions


class DeviceKind(enum.StrEnum):
    """The kind of a device; ``auto`` takes CUDA if it engages, else the CPU."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Device:
    """A kind of device, and the number of the CUDA device."""

    kind: DeviceKind
    index: int = 0

    @classmethod
    def parse(cls, value: object) -> Device:
        """Parse ``auto``, ``cpu``, ``cuda`` or ``cuda:N``, or as transformers, N for ``cuda:N``, -1, or a ``torch.device``.

        Raises:
            OptionError: ``value`` is something else.

        Example:
            >>> Device.parse("cuda:1")
            Device(kind=<DeviceKind.CUDA: 'cuda'>, index=1)
        """
        text, kind = value, getattr(value, "type", None)
        if isinstance(kind, str):  # a torch.device, without importing torch
            text = "cpu" if kind == "cpu" else str(value)
        elif isinstance(value, int) and not isinstance(value, bool):
            text = "cpu" if value == -1 else f"cuda:{shown(value)}"
        match = re.fullmatch(r"(auto|cpu|cuda)|cuda:([0-9]{1,4})", text) if isinstance(text, str) else None
        if match is None:
            raise OptionError(f"device is {shown(value)}: give one of auto, cpu, cuda, cuda:N")
        return cls(kind=DeviceKind(match[1] or "cuda"), index=int(match[2] or 0))

    def __str__(self) -> str:
        return f"cuda:{self.index}" if self.kind is DeviceKind.CUDA else str(self.kind)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choice:
    """An execution provider, its device, and the reason; ``surprising`` if a user would have expected CUDA."""

    provider: str
    index: int = 0
    why: str
    surprising: bool = False

    @property
    def device(self) -> str:
        """``cpu`` or ``cuda:N``."""
        return f"cuda:{self.index}" if self.provider == CUDA else "cpu"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Offer:
    """The environment: ONNX Runtime's providers and wheels, and whether an NVIDIA GPU is visible."""

    providers: tuple[str, ...]
    wheels: tuple[tuple[str, str], ...]
    gpu: bool

    @property
    def both_wheels(self) -> bool:
        """True if both wheels are installed, and the CPU wheel hides the CUDA provider."""
        return set(WHEELS) <= {name for name, _ in self.wheels} and CUDA not in self.providers

    def obstacle(self) -> str | None:
        """Return a reason against CUDA that shows without a session, or None."""
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
        """True if a user would expect CUDA here."""
        return self.gpu or CUDA in self.providers or self.both_wheels


def import_onnxruntime() -> ModuleType:
    """Import ONNX Runtime, without its telemetry unless the user's environment sets that.

    Raises:
        MissingDependencyError: It is not installed, or does not load.
    """
    # From 1.29 on the import starts a thread that reports to Microsoft, for which a forked child would wait at exit. Only
    # environment variables at the import turn it off completely.
    unset = () if "onnxruntime" in sys.modules or any(name in os.environ for name in TELEMETRY) else TELEMETRY
    os.environ |= dict.fromkeys(unset, "1")
    try:
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
    finally:
        for name in unset:
            os.environ.pop(name, None)
    if not hasattr(onnxruntime, "InferenceSession"):
        raise MissingDependencyError(
            "the rest of ONNX Runtime is unusable (one of its two wheels was uninstalled while both were installed): "
            'pip uninstall onnxruntime onnxruntime-gpu, then pip install "fusedbert[cpu]"'
        )
    assert isinstance(onnxruntime, ModuleType)
    return onnxruntime


def inspect_offer(runtime: ModuleType, root: Path = Path("/")) -> Offer:
    """Read the providers, the installed wheels and the GPU."""
    return Offer(providers=tuple(runtime.get_available_providers()), wheels=installed(WHEELS), gpu=gpu_present(root))


def gpu_present(root: Path = Path("/")) -> bool:
    """Return whether this process sees an NVIDIA driver and device."""
    files = ("proc/driver/nvidia/version", "dev/dxg")  # the last one under WSL
    # A container with only the fourth GPU has /dev/nvidia3 and no /dev/nvidia0.
    return any((root / file).exists() for file in files) or any((root / "dev").glob("nvidia[0-9]*"))


def choose(device: Device, offer: Offer) -> Choice:
    """Choose the provider to try first.

    Raises:
        DeviceError: ``cuda`` was asked for and cannot engage; the message gives the reason.
    """
    if device.kind is DeviceKind.CPU:
        return Choice(provider=CPU, why="the CPU was asked for")
    if obstacle := offer.obstacle():
        return fall_back(device, offer, obstacle)
    why = "CUDA was asked for" if device.kind is DeviceKind.CUDA else "CUDA is available"
    return Choice(provider=CUDA, index=device.index, why=why)


def fall_back(device: Device, offer: Offer, reason: str) -> Choice:
    """Return the CPU with the reason against CUDA, for ``auto``.

    Raises:
        DeviceError: ``cuda`` was asked for, so the CPU is not used.
    """
    if device.kind is DeviceKind.CUDA:
        raise DeviceError(f"device={str(device)!r} cannot be used: {reason}; or use device='cpu'")
    return Choice(provider=CPU, why=f"CPU, because {reason}", surprising=offer.expected)
