"""The Windows wheel's library under wine: it loads, and its kernels compute what the reference does."""

import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest
from places import WINDOWS

HERE = Path(__file__).parent
pytestmark = [pytest.mark.release, pytest.mark.timeout(400)]


def test_the_windows_library_computes_what_the_reference_does(released, repository, tmp_path):
    wine = next(filter(None, map(shutil.which, ("wine64", "wine"))), None)
    if wine is None:
        raise pytest.skip.Exception("no wine here: on Debian, apt-get install wine wine64")
    with zipfile.ZipFile(released(WINDOWS)) as archive:
        library = archive.extract("fusedbert/engine/kernels/fusedbert_kernels.x86_64.dll", tmp_path)
    program = tmp_path / "windows.exe"
    zig = [str(repository / ".venv-release" / "bin" / "python"), "-m", "ziglang", "cc", "-target", "x86_64-windows-gnu"]
    sources = [HERE / "windows.c", repository / "engine" / "kernels" / "reference.c"]
    subprocess.run([*zig, "-std=gnu11", "-O1", *map(str, sources), "-o", str(program)], check=True, timeout=300)
    environment = os.environ | {"WINEPREFIX": str(tmp_path / "wine"), "WINEDEBUG": "-all"}
    done = subprocess.run([wine, program, library], env=environment, capture_output=True, text=True, timeout=300, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
