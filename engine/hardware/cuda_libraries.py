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
_LOADABLE = 1  # PT_LOAD


def load_cuda_libraries(runtime: ModuleType) -> str:
    """Load CUDA and cuDNN from their pip packages; return what failed, as ONNX Runtime and the loader print it."""
    printed = io.StringIO()
    files, beside = list(find_libraries(runtime, sys.path)), set(find_libraries(runtime, ()))
    cut = {part: file for file in files for part in _parts(file) if is_cut(part)}  # -> the library that loads it
    failed: list[tuple[Path, str]] = [(part, f"{part}: file too short") for part in cut]
    if not all(map(_is_optional, cut)):
        files = []  # of no use without it, and one that needs it would have the loader map it
    for file in files:
        if file not in cut.values() and (cut or file not in beside):
            try:
                ctypes.CDLL(str(file))  # from now on the loader finds it by its name, and so does ONNX Runtime
            except OSError as error:
                failed += [] if _is_optional(file) else [(file, str(error))]
    with contextlib.redirect_stdout(printed):
        for file, reason in sorted(failed, key=lambda each: _is_optional(each[0])):  # the likely cause first
            print(f"Failed to load {file}: {reason}")
        with contextlib.suppress(OSError):
            preload = getattr(runtime, "preload_dlls", lambda **_: None)
            preload(**({"cuda": False, "cudnn": False} if cut else {}))
    return " ".join(printed.getvalue().split())


def find_libraries(runtime: ModuleType, path: Sequence[str]) -> Iterator[Path]:
    """Yield each library, from ONNX Runtime's neighbours, else from the first folder of ``path`` that has it."""
    # The list is private; it knows the names by system and version of CUDA. Without it, ONNX Runtime's way is all there is.
    names = getattr(runtime, "_get_nvidia_dll_paths", lambda windows: ())(os.name == "nt")
    folders = [Path(folder) for folder in path if folder]  # "" is the current folder, of which nothing is loaded
    for name in names:
        own = Path(str(runtime.__file__)).parents[1]  # the folder that ONNX Runtime is installed in
        files = (folder.joinpath(*name) for folder in (own, *folders))
        # Before Python 3.14 Path.is_file raises for a folder of another user's.
        yield from itertools.islice(filter(os.path.isfile, files), 1)


def is_cut(file: Path) -> bool:
    """Return whether a 64-bit ELF library ends before its last loadable segment (System V ABI, "ELF Header", "Program Header").

    The loader maps such a file, and the process ends where it reads beyond the end. Whatever else is wrong, the loader says.
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
        # p_type, p_offset and p_filesz of each segment
        segments = (struct.unpack_from("<I4xQ16xQ", table, entry) for entry in range(0, len(table), size or 1))
        return any(kind == _LOADABLE and held and offset + held > length for kind, offset, held in segments)
    return False


def _parts(file: Path) -> list[Path]:
    """Return a library and those in its folder that it loads by itself: their names begin with its own."""
    return sorted(file.parent.glob(f"{file.name.partition('.so')[0]}*"))


def _is_optional(file: Path) -> bool:
    return any(name in file.name for name in _OPTIONAL)
