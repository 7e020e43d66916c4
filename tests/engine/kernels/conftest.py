"""Tests of the kernels: on the embedded checkpoint, and on libraries that a compiler builds of their sources."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

Build = Callable[..., Path]
LIBRARY = ("-O3", "-shared", "-fPIC")


@pytest.fixture(scope="session")
def artifact(embedded: Path) -> Path:
    """The embedded checkpoint's artifact, in place of the tiny one of the engine's other tests."""
    return embedded


@pytest.fixture(scope="session")
def build() -> Build:
    """Return a function that builds a shared library, or a program with other ``options``, of C sources."""

    def run(file: Path, sources: Iterable[Path], compiler: str = "gcc", options: Iterable[str] = LIBRARY) -> Path:
        if sys.platform != "linux" or platform.machine() != "x86_64" or shutil.which(compiler) is None:
            pytest.skip(f"no {compiler} here, or not Linux on x86-64")
        warnings = ["-std=gnu11", "-Wall", "-Wextra", "-Werror"]
        command = [compiler, *warnings, *options, *map(str, sources), "-o", str(file), "-lm"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return file

    return run


@pytest.fixture(scope="session")
def sources(repository: Path) -> list[Path]:
    """The sources of the library, as setup.py finds them."""
    return sorted((repository / "engine/kernels").rglob("*.c"))
