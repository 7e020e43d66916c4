"""CUDA's and cuDNN's libraries, from the packages ``nvidia-*`` wherever these lie on Python's path.

ONNX Runtime looks for them in its folder's neighbours, then by the system's loader. They lie elsewhere where one of both is in
the user's packages and the other in the system's, in different layers of an image, or in an environment inside another.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import itertools
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

_OPTIONAL = ("cudnn", "cufft", "nvrtc")  # whose absence ONNX Runtime does not print


def load_cuda_libraries(runtime: ModuleType) -> str:
    """Load CUDA and cuDNN from their pip packages; return what failed, in ONNX Runtime's words."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        for file in find_elsewhere(runtime, sys.path):
            try:
                ctypes.CDLL(str(file))  # from now on the loader finds it by its name, and so does ONNX Runtime
            except OSError as error:
                if not any(name in file.name for name in _OPTIONAL):
                    print(f"Failed to load {file}: {error}")
        with contextlib.suppress(OSError):
            getattr(runtime, "preload_dlls", lambda: None)()
    return " ".join(printed.getvalue().split())


def find_elsewhere(runtime: ModuleType, path: Sequence[str]) -> Iterator[Path]:
    """Yield each library that is not among ONNX Runtime's neighbours, from the first folder of ``path`` that has it."""
    # The list is private; it knows the names by system and version of CUDA. Without it, ONNX Runtime's way is all there is.
    names = getattr(runtime, "_get_nvidia_dll_paths", lambda windows: ())(os.name == "nt")
    folders = [Path(folder) for folder in path if folder]  # "" is the current folder, of which nothing is loaded
    for name in names:
        if not os.path.isfile(Path(str(runtime.__file__)).parents[1].joinpath(*name)):  # noqa: PTH113
            files = (folder.joinpath(*name) for folder in folders)
            # Before Python 3.14 Path.is_file raises for a folder of another user's.
            yield from itertools.islice(filter(os.path.isfile, files), 1)
