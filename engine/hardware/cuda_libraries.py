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
import struct
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

_OPTIONAL = ("cudnn", "cufft", "nvrtc")  # whose absence ONNX Runtime does not print


def load_cuda_libraries(runtime: ModuleType) -> str:
    """Load CUDA and cuDNN from their pip packages; return what failed, in the words of ONNX Runtime and the loader."""
    printed = io.StringIO()
    files = list(find_libraries(runtime, sys.path))
    cut = {file for file in files if is_cut(file)}
    with contextlib.redirect_stdout(printed):
        for file in files:
            try:
                if file in cut:
                    raise OSError(f"{file}: file too short")  # the loader would read beyond its end, which ends the process
                if cut or not file.is_relative_to(_neighbours(runtime)):
                    ctypes.CDLL(str(file))  # from now on the loader finds it by its name, and so does ONNX Runtime
            except OSError as error:
                if not any(name in file.name for name in _OPTIONAL):
                    print(f"Failed to load {file}: {error}")
        if not cut:
            with contextlib.suppress(OSError):
                getattr(runtime, "preload_dlls", lambda: None)()
    return " ".join(printed.getvalue().split())


def find_libraries(runtime: ModuleType, path: Sequence[str]) -> Iterator[Path]:
    """Yield each library, from ONNX Runtime's neighbours, else from the first folder of ``path`` that has it."""
    # The list is private; it knows the names by system and version of CUDA. Without it, ONNX Runtime's way is all there is.
    names = getattr(runtime, "_get_nvidia_dll_paths", lambda windows: ())(os.name == "nt")
    folders = [Path(folder) for folder in path if folder]  # "" is the current folder, of which nothing is loaded
    for name in names:
        files = (folder.joinpath(*name) for folder in (_neighbours(runtime), *folders))
        # Before Python 3.14 Path.is_file raises for a folder of another user's.
        yield from itertools.islice(filter(os.path.isfile, files), 1)


def is_cut(file: Path) -> bool:
    """Return whether a 64-bit ELF library ends before its last segment does (System V ABI, "ELF Header", "Program Header").

    Of whatever else is wrong with a file the loader itself makes an error.
    """
    with contextlib.suppress(OSError, struct.error), file.open("rb") as stream:
        head = stream.read(64)
        if head[:6] != b"\x7fELF\x02\x01":  # 64 bits, little-endian
            return False
        (start,) = struct.unpack_from("<Q", head, 32)  # e_phoff
        size, count = struct.unpack_from("<HH", head, 54)  # e_phentsize, e_phnum
        length = file.stat().st_size
        if start + size * count > length:
            return True
        stream.seek(start)
        table = stream.read(size * count)
        # p_offset and p_filesz of each segment
        segments = (struct.unpack_from("<Q16xQ", table, entry + 8) for entry in range(0, len(table), size or 1))
        return any(offset + held > length for offset, held in segments)
    return False


def _neighbours(runtime: ModuleType) -> Path:
    """Return the folder that ONNX Runtime is installed in."""
    return Path(str(runtime.__file__)).parents[1]
