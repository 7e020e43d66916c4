"""A fake CUDA device: libraries with CUDA's names, built by gcc, that ONNX Runtime's real CUDA provider loads and runs on.

README.md, one folder up, explains what is real and what is fake, the environment variables and the trace.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).parent
_FLAGS = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-fPIC", "-shared", "-fvisibility=hidden")
_RUNTIME = "libcudart.so.13"
_KERNELS = ("elementwise", "shape", "bert", "transpose", "packed", "attention", "flash")
_NUMBERS = ("numeric/half.c", "numeric/attend.c")
_LIBRARIES = {
    _RUNTIME: (
        *(f"runtime/{name}.c" for name in ("settings", "memory", "graphs", "transfers", "device", "launch")),
        *(f"numeric/kernels_{name}.c" for name in _KERNELS),
        *_NUMBERS,
    ),
    "libcublas.so.13": ("numeric/blas.c", "numeric/gemm.c", "numeric/half.c"),
    "libcublasLt.so.13": ("runtime/lt.c",),
    "libcurand.so.10": ("runtime/curand.c",),
    "libcuda.so.1": ("runtime/driver.c",),
    "libcudnn.so.9": ("runtime/cudnn.c", "numeric/cudnn_attention.c", *_NUMBERS),
}


def build(folder: Path, *, cudnn: bool = True) -> dict[str, str]:
    """Compile the libraries with gcc.

    Args:
        folder: Created if missing.
        cudnn: Whether to build a cuDNN, too.

    Returns:
        Environment variables with which a new process finds the libraries.

    Raises:
        subprocess.CalledProcessError: gcc failed; its messages are on stderr.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, sources in _LIBRARIES.items():
        if name == "libcudnn.so.9" and not cudnn:
            continue
        # The provider asks for CUDA's symbols by version, which is the library's name.
        versions = folder / f"{name}.map"
        versions.write_text(f"{name} {{ global: *; }};\n")
        runtime = [] if name == _RUNTIME else [str(folder / _RUNTIME)]
        linking = [f"-Wl,-soname,{name}", f"-Wl,--version-script={versions}", *runtime, "-ldl", "-lpthread", "-lm"]
        files = [str(SOURCE / source) for source in sources]
        subprocess.run(["gcc", *_FLAGS, *files, "-o", str(folder / name), *linking], check=True)
        versions.unlink()
    return {"LD_LIBRARY_PATH": str(folder)}


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: python {sys.argv[0]} FOLDER")
    for variable, value in build(Path(sys.argv[1]).resolve()).items():
        print(f"export {variable}={value}")
