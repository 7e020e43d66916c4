"""A CUDA device that only pretends: libraries of CUDA's names that ONNX Runtime's real CUDA provider loads and runs on.

All of the provider's own code on the host is real: which nodes it takes, which kernel it chooses for a compute capability,
its arena, its copies, its CUDA graphs. The libraries here answer its calls. Memory of the device is memory of the process;
a kernel is launched by its name, and a function of ours computes the same on the host, in float32; while a stream captures,
work is kept with copies of its arguments and runs at each replay.

So this judges how a graph and the provider fit together: layouts, masks, offsets, captures, placement, memory, what happens
where there is no device. It cannot judge the arithmetic of NVIDIA's kernels, whose rounding differs, nor how streams run beside
each other, since everything has happened by the time a call returns, nor any time.

What the device touches outside its memory, a text that does not fit a kernel, a mask that points elsewhere: such faults are
told on stderr and in the trace, and fail the run. A kernel that nobody here computes is told, too, and its launch fails.

Environment, read once by each process:

* ``PRETEND_TRACE``: a file that gets a line for every allocation, copy, product, kernel, capture and replay;
* ``PRETEND_CAPABILITY``: compute capability times ten, 90 unless told: 75, 80, 86, 89, 90, 100;
* ``PRETEND_COMPUTE=0``: kernels and products are traced and not computed, so that large models run at no cost;
* ``PRETEND_STRICT=0``: a kernel that nobody computes is told and does nothing;
* ``PRETEND_DEVICES``: how many devices there are, 0 for none; ``PRETEND_DRIVER_TOO_OLD=1``: a driver older than CUDA 13;
* ``PRETEND_MEMORY``: bytes of the device; beyond them, allocations fail;
* ``PRETEND_WRONG=1``: a device that computes wrongly, products are 5 % too large.

The trace's lines: ``MALLOC host? bytes``, ``FREE host? bytes``, ``REGISTER bytes``, ``COPY kind bytes``,
``COPYASYNC kind bytes``, ``MEMSET bytes``, ``KERNEL name grid x y z block x y z``, ``GEMM call MxNxK``, ``CAPTURE begin`` and
``end``, ``REPLAY``, ``ENTRY name``; a last word ``captured`` where work was kept for a replay; ``SPOILED``, ``FAULT``,
``UNKNOWN`` and ``OUTSIDE`` for what went wrong. Kinds of copies are CUDA's: 1 to the device, 2 from it, 3 within it.
``pretended_used()`` of ``libcudart.so.13`` returns the device's bytes in use.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).parent
_FLAGS = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-fPIC", "-shared", "-fvisibility=hidden")
_RUNTIME = "libcudart.so.13"
_LIBRARIES = {
    _RUNTIME: (
        *("settings.c", "memory.c", "graphs.c", "transfers.c", "device.c", "launch.c", "half.c", "attend.c"),
        *("kernels_elementwise.c", "kernels_shape.c", "kernels_bert.c", "kernels_transpose.c", "kernels_packed.c"),
        *("kernels_attention.c", "kernels_flash.c"),
    ),
    "libcublas.so.13": ("blas.c", "gemm.c", "half.c"),
    "libcublasLt.so.13": ("lt.c",),
    "libcurand.so.10": ("curand.c",),
    "libcuda.so.1": ("driver.c",),
    "libcudnn.so.9": ("cudnn.c", "cudnn_attention.c", "attend.c", "half.c"),
}


def build(folder: Path, *, cudnn: bool = True) -> dict[str, str]:
    """Compile the libraries with gcc.

    Args:
        folder: Where they go; made where it is not there.
        cudnn: Whether there is a cuDNN, too.

    Returns:
        Environment variables for a process that is to find them: set them before it starts.

    Raises:
        subprocess.CalledProcessError: gcc failed; what it said is on stderr.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, sources in _LIBRARIES.items():
        if name == "libcudnn.so.9" and not cudnn:
            continue
        # The provider asks for CUDA's symbols by version, which is each library's name.
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
