"""A fake CUDA device: libraries with CUDA's names, built by gcc, that ONNX Runtime's real CUDA provider loads and runs on.

README.md, one folder up, explains what is real and what is fake, the environment variables and the trace.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).parent
# Most of CUDA's parameters mean nothing here.
_FLAGS = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-Wno-unused-parameter", "-fPIC", "-shared", "-fvisibility=hidden")
_RUNTIME = "libcudart.so.13"
_LIBRARIES = {
    _RUNTIME: ("settings.c", "memory.c", "graphs.c", "transfers.c", "device.c", "launch.c"),
    "libcublas.so.13": ("blas.c",),
    "libcublasLt.so.13": ("lt.c",),
    "libcurand.so.10": ("curand.c",),
    "libcuda.so.1": ("driver.c",),
    "libcudnn.so.9": ("cudnn.c",),
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
        linking = [
            f"-Wl,-soname,{name}",
            "-Wl,-rpath,$ORIGIN",
            f"-Wl,--version-script={versions}",
            *runtime,
            "-ldl",
            "-lpthread",
        ]
        files = [str(SOURCE / source) for source in sources]
        subprocess.run(["gcc", *_FLAGS, *files, "-o", str(folder / name), *linking], check=True)
        versions.unlink()
    return {"LD_LIBRARY_PATH": str(folder)}


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: python {sys.argv[0]} FOLDER")
    for variable, value in build(Path(sys.argv[1]).resolve()).items():
        print(f"export {variable}={value}")
