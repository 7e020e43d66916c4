"""Why CUDA did not engage: the texts of ONNX Runtime, CUDA and the loader, told apart, each with its way out.

The table is data, and the order matters: the first that fits is the cause. The messages are those of cudaError_t
(https://docs.nvidia.com/cuda/cuda-runtime-api/group__CUDART__TYPES.html) and of the dynamic loader, as users report them.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import re
from collections.abc import Iterable


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cause:
    """One reason for which CUDA does not engage.

    Attributes:
        name: For scripts, the same in every version.
        pattern: Finds it in what was printed or raised; case does not matter.
        says: What is the matter.
        way_out: What to do about it.
    """

    name: str
    pattern: str
    says: str
    way_out: str


CAUSES = (
    Cause(
        name="driver_too_old",
        pattern=r"driver version is insufficient|CUDA failure 35\b|cudaErrorInsufficientDriver",
        says="the NVIDIA driver is older than the CUDA that ONNX Runtime was built for",
        way_out="update the driver (CUDA 13 needs 580 or newer), or take a build for CUDA 12: "
        'pip install "onnxruntime-gpu[cuda,cudnn]<1.27"',
    ),
    Cause(
        name="driver_mismatch",
        pattern=r"unsupported display driver|forward compatibility was attempted|CUDA failure 80[34]\b",
        says="the driver's library in this container is not that of the machine's driver",
        way_out="take the cuda-compat folder out of LD_LIBRARY_PATH, or update the driver of the machine",
    ),
    Cause(
        name="no_device",
        pattern=r"no CUDA-capable device is detected|CUDA failure 100\b|cudaErrorNoDevice",
        says="CUDA sees no device",
        way_out="start the container with --gpus all (Kubernetes: a limit of nvidia.com/gpu), and look at CUDA_VISIBLE_DEVICES",
    ),
    Cause(
        name="no_driver",
        pattern=r"libcuda\.so(\.1)?: cannot open shared object|nvcuda\.dll",
        says="the NVIDIA driver's library is not here",
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
        says="CUDA does not start in this process, as in one that was forked from a process which uses it",
        way_out="load the classifier only in the child, or start processes with multiprocessing's 'spawn'",
    ),
    Cause(
        name="busy",
        pattern=r"devices are busy or unavailable|CUDA failure 46\b|cudaErrorDevicesUnavailable",
        says="the GPU is held by another process",
        way_out="nvidia-smi shows its compute mode: in EXCLUSIVE_PROCESS one process has it for itself; take another with "
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
        says="CUDA has failed in this process, and every later call of it will",
        way_out="start the process again; where it comes back, the driver's log (dmesg, Xid) tells more",
    ),
    Cause(
        name="gpu_not_supported",
        pattern=r"no kernel image is available|CUDA failure 209\b|cudaErrorNoKernelImageForDevice",
        says="this ONNX Runtime has no machine code for this GPU",
        way_out='a new GPU wants a newer wheel: pip install --upgrade "fusedbert[gpu]"; GPUs before Turing want '
        '"onnxruntime-gpu[cuda,cudnn]<1.27"',
    ),
    Cause(
        name="out_of_memory",
        pattern=r"out of memory|Failed to allocate memory for requested buffer|Available memory of \d+ is smaller than"
        r"|CUDA failure 2\b|CUBLAS_STATUS_(ALLOC_FAILED|NOT_INITIALIZED)",
        says="the GPU has no memory left",
        way_out="stop what else runs on it (nvidia-smi lists it), or take another one with device='cuda:N'",
    ),
    Cause(
        name="cudnn_missing",
        pattern=r"(libcudnn[\w.]*\.so[\d.]*|cudnn64_\d+\.dll).{0,80}(cannot open shared object|missing|not found|No such file)"
        r"|cudnn64_\d+\.dll|Failed to load \S*libcudnn",
        says="cuDNN is not found",
        way_out='pip install "fusedbert[gpu]" brings it; a system-wide cuDNN has to be version 9 and in LD_LIBRARY_PATH',
    ),
    Cause(
        name="cuda_libraries_missing",
        # Only these carry CUDA's own number: cuFFT 12 and cuRAND 10 belong to CUDA 13.
        pattern=r"(lib(?:cublas|cublasLt|cudart)\.so\.(?P<so>\d+)|lib(?:cufft|curand|nvrtc|nvJitLink)\.so\.\d+"
        r"|(?:cublas|cublasLt|cudart)64_(?P<dll>\d+)\.dll).{0,80}(cannot open shared object|missing|not found|No such)",
        says="the CUDA libraries are not found",
        way_out='pip install "fusedbert[gpu]" brings them; system-wide ones have to be in LD_LIBRARY_PATH',
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
        way_out='install CUDA and cuDNN beside it: pip install "fusedbert[gpu]"',
    ),
)
_OTHER_CUDA = (
    "this ONNX Runtime is built for CUDA {wanted}, and the CUDA {found} libraries are installed",
    'pip install "fusedbert[gpu]" brings those of CUDA {wanted}; for CUDA {found}: {build}',
)
_BUILDS = {12: 'pip install "onnxruntime-gpu[cuda,cudnn]<1.27"', 13: 'pip install --upgrade "onnxruntime-gpu[cuda,cudnn]"'}
# The packages that hold CUDA's libraries: from CUDA 13 on their names carry no number.
CUDA_PACKAGES = ("nvidia-cublas", "nvidia-cuda-runtime", "nvidia-cublas-cu12", "nvidia-cuda-runtime-cu12")


def loadable_cuda() -> tuple[tuple[str, str], ...]:
    """Return the CUDA whose libraries the loader finds by itself, a system's for example, as ``CUDA_PACKAGES`` are."""
    found = []
    for release in _BUILDS:
        with contextlib.suppress(OSError):
            ctypes.CDLL(f"libcublasLt.so.{release}")
            found.append(("libcublasLt", f"{release}.0"))
    return tuple(found)


def diagnose(text: str, packages: Iterable[tuple[str, str]] = ()) -> Cause | None:
    """Find the cause in what was printed or raised.

    Args:
        text: Messages of ONNX Runtime, of CUDA and of the loader.
        packages: Installed packages of CUDA's libraries with their versions, see ``CUDA_PACKAGES``.

    Returns:
        The cause, or None where none of the known ones shows.

    Example:
        >>> diagnose("CUDA failure 100: no CUDA-capable device is detected ; GPU=0").name
        'no_device'
    """
    for cause in CAUSES:
        if match := re.search(cause.pattern, text, re.IGNORECASE | re.DOTALL):
            return _other_cuda(cause, match, packages) if cause.name == "cuda_libraries_missing" else cause
    return None


def explain(text: str, packages: Iterable[tuple[str, str]] = ()) -> str | None:
    """Say in one line what the matter is and what the way out, or None where no known cause shows.

    Args:
        text: As for ``diagnose``.
        packages: As for ``diagnose``.
    """
    cause = diagnose(text, packages)
    return None if cause is None else f"{cause.says}: {cause.way_out}"


def _other_cuda(cause: Cause, match: re.Match[str], packages: Iterable[tuple[str, str]]) -> Cause:
    """Tell libraries of another CUDA from libraries that are missing altogether."""
    wanted = int((match["so"] or match["dll"] or "0")[:2])
    found = {12 if name.endswith("-cu12") else int(version.split(".")[0]) for name, version in packages}
    if not found or wanted in found or wanted not in _BUILDS:
        return cause
    other = max(found)
    names = {"wanted": wanted, "found": other, "build": _BUILDS.get(other, _BUILDS[13])}
    return dataclasses.replace(
        cause, name="other_cuda", says=_OTHER_CUDA[0].format(**names), way_out=_OTHER_CUDA[1].format(**names)
    )
