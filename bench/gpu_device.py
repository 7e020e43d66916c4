"""The GPU that ONNX Runtime works on, as CUDA's own library tells: its name, its driver, and the memory in use.

``nvidia-smi`` is missing in many containers, and numbers the devices of the machine, whatever CUDA_VISIBLE_DEVICES says.
"""

from __future__ import annotations

import ctypes
import re
from pathlib import Path
from typing import Any

from fusedbert.engine.errors import DeviceError
from fusedbert.engine.run.cuda.staging import cudart

_NAME = 256  # bytes; the first field of cudaDeviceProp
_PROPERTIES = 4096  # bytes; more than cudaDeviceProp has in any version
_VERSION = Path("/proc/driver/nvidia/version")


def device_name(index: int = 0) -> str:
    """Return a device's name.

    Raises:
        DeviceError: CUDA does not tell.
    """
    properties = ctypes.create_string_buffer(_PROPERTIES)
    _ask("cudaGetDeviceProperties", properties, ctypes.c_int(index))
    return ctypes.string_at(properties, _NAME).split(b"\0", 1)[0].decode(errors="replace")


def driver_version(file: Path = _VERSION) -> str | None:
    """Return the driver's version as the kernel module writes it, or None where it does not."""
    try:
        found = re.search(r"\b(\d{3,}\.\d+(?:\.\d+)?)\b", file.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return None
    return found[1] if found else None


def memory_mib(index: int = 0) -> tuple[int, int]:
    """Return the MiB in use on a device, by all processes, and those that it has.

    Raises:
        DeviceError: CUDA does not tell.
    """
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    _ask("cudaSetDevice", ctypes.c_int(index))
    _ask("cudaMemGetInfo", ctypes.byref(free), ctypes.byref(total))
    return (total.value - free.value) >> 20, total.value >> 20


def _ask(function: str, *arguments: Any) -> None:
    library = cudart()
    if library is None:
        raise DeviceError('CUDA\'s runtime library is not found: pip install "fusedbert[gpu]"')
    if code := getattr(library, function)(*arguments):
        raise DeviceError(f"{function} gives error {code}: fusedbert doctor tells what is the matter with CUDA here")
