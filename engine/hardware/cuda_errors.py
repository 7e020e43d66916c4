"""Causes for which CUDA does not engage, recognized by messages of ONNX Runtime, CUDA and the loader, with ways out.

The first match is the cause. Messages: cudaError_t
(https://docs.nvidia.com/cuda/cuda-runtime-api/group__CUDART__TYPES.html), and the dynamic loader's.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import re
from collections.abc import Iterable


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cause:
    """A cause; ``name`` is for scripts."""

    name: str
    pattern: str
    says: str
    way_out: str


CAUSES = (
    Cause(
        name="driver_too_old",
        pattern=r"driver version is insufficient|CUDA failure 35\b|cudaErrorInsufficientDriver",
        says="the NVIDIA driver is older than the CUDA that ONNX Runtime was built for",
        way_out="update the driver (CUDA 13 needs 580 or newer), or use a build for CUDA 12: "
        'pip install "onnxruntime-gpu[cuda,cudnn]<1.27"',
    ),
    Cause(
        name="driver_mismatch",
        pattern=r"unsupported display driver|forward compatibility was attempted|CUDA failure 80[34]\b",
        says="the driver library in this container does not match the machine's driver",
        way_out="remove the cuda-compat folder from LD_LIBRARY_PATH, or update the driver of the machine",
    ),
    Cause(
        name="no_device",
        pattern=r"no CUDA-capable device is detected|CUDA failure 100\b|cudaErrorNoDevice",
        says="CUDA sees no device",
        way_out="start the container with --gpus all (Kubernetes: a limit of nvidia.com/gpu), and check CUDA_VISIBLE_DEVICES",
    ),
    Cause(
        name="no_driver",
        pattern=r"libcuda\.so(\.1)?: cannot open shared object|nvcuda\.dll",
        says="the NVIDIA driver library is missing",
        way_out="start the container with --gpus all and the NVIDIA container toolkit; on a plain machine, install the driver",
    ),
    Cause(
        name="no_such_device",
        pattern=r"invalid device ordinal|Invalid device ID|CUDA failure 101\b|cudaErrorInvalidDevice\b",
        says="there is no CUDA device of this number",
        way_out="devices count from cuda:0, among those that CUDA_VISIBLE_DEVICES lists",
    ),
    Cause(
        name="forked",
        pattern=r"CUDA failure 3\b|cudaErrorInitializationError",
        says="CUDA does not start in this process, probably because it was forked from a process that uses CUDA",
        way_out="load the classifier only in the child, or start processes with multiprocessing's 'spawn'",
    ),
    Cause(
        name="busy",
        pattern=r"devices are busy or unavailable|CUDA failure 46\b|cudaErrorDevicesUnavailable",
        says="the GPU is in use by another process",
        way_out="nvidia-smi shows its compute mode: EXCLUSIVE_PROCESS admits only one process; use another GPU with "
        "device='cuda:N'",
    ),
    Cause(
        name="no_fabric",
        pattern=r"system not yet initialized|CUDA failure 802\b|cudaErrorSystemNotReady",
        says="the machine's NVSwitch fabric is not ready",
        way_out="start nvidia-fabricmanager on the machine, of the driver's version, and try again",
    ),
    Cause(
        name="context_lost",
        pattern=r"illegal memory access|unspecified launch failure|CUDA failure (700|710|719|999)\b",
        says="CUDA has failed in this process, and every later CUDA call will fail",
        way_out="start the process again; if it recurs, see the driver's log (dmesg, Xid)",
    ),
    Cause(
        name="gpu_not_supported",
        pattern=r"no kernel image is available|CUDA failure 209\b|cudaErrorNoKernelImageForDevice",
        says="this ONNX Runtime has no machine code for this GPU",
        way_out='a new GPU needs a newer wheel: pip install --upgrade "fusedbert[gpu]"; GPUs before Turing need '
        '"onnxruntime-gpu[cuda,cudnn]<1.27"',
    ),
    Cause(
        name="out_of_memory",
        pattern=r"out of memory|Failed to allocate memory for requested buffer|Available memory of \d+ is smaller than"
        r"|CUDA failure 2\b|CUBLAS_STATUS_(ALLOC_FAILED|NOT_INITIALIZED)",
        says="the GPU has no memory left",
        way_out="stop other processes on it (nvidia-smi lists them), or use another GPU with device='cuda:N'",
    ),
    Cause(
        name="cuda_library_damaged",
        # The loader's words for a file that is there, as load_cuda_libraries and ONNX Runtime print them.
        pattern=r"Failed to load (?P<file>[^:]+): (?P=file): "
        r"(file too short|invalid ELF header|wrong ELF class|cannot read file)",
        says="a file of the CUDA libraries is damaged",
        way_out="install its package again, with pip install --force-reinstall --no-cache-dir --no-deps",
    ),
    Cause(
        name="cudnn_missing",
        pattern=r"(libcudnn[\w.]*\.so[\d.]*|cudnn64_\d+\.dll).{0,80}(cannot open shared object|missing|not found|No such file)"
        r"|cudnn64_\d+\.dll|Failed to load \S*libcudnn",
        says="cuDNN is not found",
        way_out='pip install "fusedbert[gpu]" installs it; a system-wide cuDNN has to be version 9 and in LD_LIBRARY_PATH',
    ),
    Cause(
        name="cuda_libraries_missing",
        # Only these have CUDA's number in their names: cuFFT 12 and cuRAND 10 belong to CUDA 13.
        pattern=r"(lib(?:cublas|cublasLt|cudart)\.so\.(?P<so>\d+)|lib(?:cufft|curand|nvrtc|nvJitLink)\.so\.\d+"
        r"|(?:cublas|cublasLt|cudart)64_(?P<dll>\d+)\.dll).{0,80}(cannot open shared object|missing|not found|No such)",
        says="the CUDA libraries are not found",
        way_out='pip install "fusedbert[gpu]" installs them; system-wide ones have to be in LD_LIBRARY_PATH',
    ),
    Cause(
        name="no_cuda_provider",
        pattern=r"'?CUDAExecutionProvider'? is not in available provider|does not contain a subset of available providers",
        says="this ONNX Runtime has no CUDA provider",
        way_out='pip uninstall onnxruntime, then pip install "fusedbert[gpu]"',
    ),
    Cause(
        name="provider_not_created",
        pattern=r"Failed to create CUDAExecutionProvider|Failed to load library \S*onnxruntime_providers_cuda",
        says="the CUDA provider could not be loaded",
        way_out='install CUDA and cuDNN as well: pip install "fusedbert[gpu]"',
    ),
)
_BUILDS = {12: 'pip install "onnxruntime-gpu[cuda,cudnn]<1.27"', 13: 'pip install --upgrade "onnxruntime-gpu[cuda,cudnn]"'}
# Packages of CUDA's libraries; from CUDA 13 on their names have no number.
CUDA_PACKAGES = ("nvidia-cublas", "nvidia-cuda-runtime", "nvidia-cublas-cu12", "nvidia-cuda-runtime-cu12")


def loadable_cuda() -> tuple[tuple[str, str], ...]:
    """Return (name, version) of the system-wide CUDA libraries that the loader finds."""
    found = []
    for release in _BUILDS:
        with contextlib.suppress(OSError):
            ctypes.CDLL(f"libcublasLt.so.{release}")
            found.append(("libcublasLt", f"{release}.0"))
    return tuple(found)


def diagnose(text: str, packages: Iterable[tuple[str, str]] = ()) -> Cause | None:
    """Return the cause of these messages, or None; ``packages``: the installed ones of ``CUDA_PACKAGES``.

    Example:
        >>> diagnose("CUDA failure 100: no CUDA-capable device is detected ; GPU=0").name
        'no_device'
    """
    for cause in CAUSES:
        if match := re.search(cause.pattern, text, re.IGNORECASE | re.DOTALL):
            if cause.name == "cuda_library_damaged":
                return dataclasses.replace(cause, says=f"{match['file']} is damaged")
            return _other_cuda(cause, match, packages) if cause.name == "cuda_libraries_missing" else cause
    return None


def explain(text: str, packages: Iterable[tuple[str, str]] = ()) -> str | None:
    """Return the cause and the way out in one line, or None; see ``diagnose``."""
    cause = diagnose(text, packages)
    return None if cause is None else f"{cause.says}: {cause.way_out}"


def _other_cuda(cause: Cause, match: re.Match[str], packages: Iterable[tuple[str, str]]) -> Cause:
    """Distinguish libraries of another CUDA version from missing libraries."""
    wanted = int((match["so"] or match["dll"] or "0")[:2])
    found = {12 if name.endswith("-cu12") else int(version.split(".")[0]) for name, version in packages}
    if not found or wanted in found or wanted not in _BUILDS:
        return cause
    other = max(found)
    says = f"this ONNX Runtime is built for CUDA {wanted}, and the CUDA {other} libraries are installed"
    build = _BUILDS.get(other, _BUILDS[13])
    way_out = f'pip install "fusedbert[gpu]" installs those of CUDA {wanted}; for CUDA {other}: {build}'
    return dataclasses.replace(cause, name="other_cuda", says=says, way_out=way_out)
