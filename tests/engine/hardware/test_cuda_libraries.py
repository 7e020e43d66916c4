"""CUDA's libraries are found in any folder of Python's path; made-up libraries in made-up folders."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import pytest

from fusedbert.engine.hardware.cuda_errors import diagnose
from fusedbert.engine.hardware.cuda_libraries import find_libraries, is_cut, load_cuda_libraries

CUBLAS = ("nvidia", "cu99", "lib", "libfusedbert_blas.so.99")
BLAS_LT = ("nvidia", "cu99", "lib", "libfusedbert_blasLt.so.99")
CUDNN = ("nvidia", "cudnn", "lib", "libfusedbert_cudnn.so.9")


def build(folder: Path, name: Sequence[str], answer: int, needs: Sequence[str] = ()) -> Path:
    """Compile a library with this soname and one function, ``answer``; it has the loader map those of its folder it needs."""
    file = folder.joinpath(*name)
    file.parent.mkdir(parents=True, exist_ok=True)
    command = ["gcc", "-shared", "-fPIC", "-x", "c", "-", f"-Wl,-soname,{name[-1]}", "-o", str(file)]
    command += [f"-L{file.parent}", "-Wl,-rpath,$ORIGIN", "-Wl,--no-as-needed", *(f"-l:{each}" for each in needs)]
    subprocess.run(command, input=f"int answer(void) {{ return {answer}; }}", text=True, check=True)
    return file


def make_runtime(folder: Path, *, private: bool = True) -> ModuleType:
    """Make an ``onnxruntime`` that looks for libraries among its neighbours, then asks the loader by name."""
    (folder / "onnxruntime").mkdir(parents=True, exist_ok=True)
    runtime = ModuleType("onnxruntime")
    runtime.__file__ = str(folder / "onnxruntime" / "__init__.py")

    def preload_dlls(cuda: bool = True, cudnn: bool = True) -> None:
        for name in (*((BLAS_LT, CUBLAS) if cuda else ()), *((CUDNN,) if cudnn else ())):
            file = folder.joinpath(*name)
            try:
                ctypes.CDLL(str(file) if file.is_file() else name[-1])
            except OSError as error:
                print(f"Failed to load {name[-1]}: {error}")

    runtime.preload_dlls = preload_dlls  # type: ignore[attr-defined]
    if private:
        runtime._get_nvidia_dll_paths = lambda windows: [BLAS_LT, CUBLAS, CUDNN]  # type: ignore[attr-defined]
    return runtime


def test_each_library_comes_from_the_first_folder_that_has_it(tmp_path: Path) -> None:
    system, user, image = (tmp_path / name for name in ("system", "user", "image"))
    for folder, name in ((user, CUDNN), (image, CUBLAS), (image, CUDNN)):
        folder.joinpath(*name).parent.mkdir(parents=True)
        folder.joinpath(*name).touch()
    path = [str(user), str(tmp_path / "missing"), str(system), str(image)]
    runtime = make_runtime(system)
    assert list(find_libraries(runtime, path)) == [image.joinpath(*CUBLAS), user.joinpath(*CUDNN)]
    assert list(find_libraries(make_runtime(image), path)) == [image.joinpath(*CUBLAS), image.joinpath(*CUDNN)]


def test_what_is_next_to_onnx_runtime_is_left_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not so what lies deeper in the same folder, as in an environment inside the one that has ONNX Runtime."""
    inner = tmp_path / "venv" / "lib"
    for folder, name in ((tmp_path, CUDNN), (inner, CUBLAS), (inner, CUDNN)):
        folder.joinpath(*name).parent.mkdir(parents=True)
        folder.joinpath(*name).touch()
    loaded: list[str] = []
    monkeypatch.setattr(ctypes, "CDLL", loaded.append)
    monkeypatch.setattr(sys, "path", [str(inner)])
    runtime = make_runtime(tmp_path)
    runtime.preload_dlls = lambda: loaded.append("its own")  # type: ignore[attr-defined]
    assert load_cuda_libraries(runtime) == "" and loaded == [str(inner.joinpath(*CUBLAS)), "its own"]


def test_the_current_folder_is_not_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.joinpath(*CUDNN).parent.mkdir(parents=True)
    tmp_path.joinpath(*CUDNN).touch()
    monkeypatch.chdir(tmp_path)
    assert list(find_libraries(make_runtime(tmp_path / "system"), [""])) == []


def test_a_folder_that_must_not_be_read_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the import of modules does it: another user's folder in PYTHONPATH. Root may read every folder, so it is pretended."""
    closed, layer = tmp_path / "closed", tmp_path / "layer"
    layer.joinpath(*CUDNN).parent.mkdir(parents=True)
    layer.joinpath(*CUDNN).touch()

    def stat(path: Any, *arguments: Any, stat: Any = os.stat, **named: Any) -> os.stat_result:
        if str(path).startswith(str(closed)):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return cast("os.stat_result", stat(path, *arguments, **named))

    monkeypatch.setattr(os, "stat", stat)
    assert list(find_libraries(make_runtime(tmp_path / "system"), [str(closed), str(layer)])) == [layer.joinpath(*CUDNN)]


LOAD = """
import ctypes, sys
from pathlib import Path
from test_cuda_libraries import CUBLAS, CUDNN, make_runtime
from fusedbert.engine.hardware.cuda_errors import diagnose
from fusedbert.engine.hardware.cuda_libraries import load_cuda_libraries
printed = load_cuda_libraries(make_runtime(Path(sys.argv[1]), private=sys.argv[2] == "private"))
answers = [0, 0]
for place, name in enumerate((CUBLAS, CUDNN)):
    try:
        answers[place] = ctypes.CDLL(name[-1]).answer()
    except OSError:
        pass
print(*answers, printed)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="sonames are ELF's")
def test_the_loader_finds_what_was_loaded_from_another_folder(tmp_path: Path) -> None:
    """In a process without it: libraries stay loaded."""
    system, layer, user = tmp_path / "system", tmp_path / "layer", tmp_path / "user"
    build(system, BLAS_LT, 4)
    build(system, CUBLAS, 1)
    build(layer, CUBLAS, 2)
    build(user, CUDNN, 3)

    def load(how: str) -> str:
        path = [str(Path(__file__).parent), str(layer), str(user)]
        code = f"import sys; sys.path[:0] = {path!r}\n{LOAD}"
        done = subprocess.run([sys.executable, "-c", code, str(system), how], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    assert load("private") == "1 3"
    assert load("public").startswith("1 0 Failed to load libfusedbert_cudnn.so.9")  # as ONNX Runtime has it


@pytest.mark.skipif(sys.platform != "linux", reason="the files are ELF's")
@pytest.mark.parametrize("beside", [True, False])
@pytest.mark.parametrize(
    ("cut", "left"),
    [
        (CUBLAS, "0 0"),
        (BLAS_LT, "0 0"),  # which the loader would map for the other
        (CUDNN, "1 0"),
        ((*CUDNN[:-1], "libfusedbert_cudnn_ops.so.9"), "1 0"),  # which cuDNN loads when it is used
    ],
)
def test_a_library_that_ends_too_soon_is_named_and_does_not_end_the_process(
    tmp_path: Path, cut: Sequence[str], left: str, beside: bool
) -> None:
    """The loader maps such a file, and reads beyond its end."""
    system, user = tmp_path / "system", tmp_path / "user"
    folder = system if beside else user
    build(folder, BLAS_LT, 2)
    build(folder, CUBLAS, 1, needs=BLAS_LT[-1:])
    build(folder, CUDNN, 3)
    build(folder, (*CUDNN[:-1], "libfusedbert_cudnn_ops.so.9"), 4)
    file = folder.joinpath(*cut)
    data = file.read_bytes()

    def load() -> str:
        code = f"import sys; sys.path[:0] = {[str(Path(__file__).parent), str(user)]!r}\n{LOAD}"
        done = subprocess.run([sys.executable, "-c", code, str(system), "private"], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    assert not is_cut(file) and load() == "1 3 \n"
    for length in (300, len(data) // 2):
        file.write_bytes(data[:length])
        assert is_cut(file)
        found = load()
        assert found == f"{left} Failed to load {file}: {file}: file too short\n"
        cause = diagnose(found)
        assert cause is not None and cause.name == "cuda_library_damaged"


def header(*segments: tuple[int, int, int]) -> bytes:
    """Return the begin of an ELF file of 4,096 bytes with these segments, each a type, an offset and a length."""
    elf = struct.pack("<6s26xQ14xHH6x", b"\x7fELF\x02\x01", 64, 56, len(segments))
    return (elf + b"".join(struct.pack("<I4xQ16xQ16x", *each) for each in segments)).ljust(4096, b"\0")


def test_only_what_the_loader_maps_has_to_be_there(tmp_path: Path) -> None:
    file = tmp_path / "library"
    for segment, cut in (((1, 0, 4096), False), ((1, 1, 4096), True), ((1, 9999, 0), False), ((0x6474E552, 4000, 999), False)):
        file.write_bytes(header((1, 0, 100), segment))
        assert is_cut(file) is cut
    far, no_size = header()[:32] + b"\xff" * 4064, header()[:54] + b"\0\0\xff\xff".ljust(4042, b"\0")
    for nonsense, cut in ((b"", False), (b"\x7fELF", False), (far, True), (no_size, False)):
        file.write_bytes(nonsense)
        assert is_cut(file) is cut
    assert not is_cut(tmp_path) and not is_cut(tmp_path / "missing")


def test_a_library_that_does_not_load_is_named_with_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (CUBLAS, CUDNN):  # ONNX Runtime does without cuDNN, so the failure must not be taken for the cause
        tmp_path.joinpath("user", *name).parent.mkdir(parents=True)
        tmp_path.joinpath("user", *name).write_bytes(b"not a library")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "user"), *sys.path])
    printed = load_cuda_libraries(make_runtime(tmp_path / "system"))
    assert (
        f"Failed to load {tmp_path.joinpath('user', *CUBLAS)}: " in printed
        and f"{tmp_path.joinpath('user', *CUDNN)}" not in printed
    )
