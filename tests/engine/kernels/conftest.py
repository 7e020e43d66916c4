"""Tests of the kernels: on the embedded checkpoint, and on libraries that gcc builds of their sources."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from fusedbert.engine import kernels

Build = Callable[[Path, Iterable[Path]], Path]


@pytest.fixture(scope="session")
def artifact(embedded: Path) -> Path:
    """The embedded checkpoint's artifact, in place of the tiny one of the engine's other tests."""
    return embedded


@pytest.fixture(scope="session")
def build() -> Build:
    """Return a function that builds a shared library of C sources, as the package is built."""
    if sys.platform != "linux" or kernels.library() is None or shutil.which("gcc") is None:
        pytest.skip("no kernels here, or no gcc")

    def run(library: Path, sources: Iterable[Path]) -> Path:
        command = ["gcc", "-O3", "-Wall", "-Werror", "-shared", "-fPIC", *map(str, sources), "-o", str(library), "-lm"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return library

    return run


@pytest.fixture(scope="session")
def int8_sources(repository: Path) -> list[Path]:
    """The sources of the int8 library, but for its Python module."""
    modules = tomllib.loads((repository / "pyproject.toml").read_text())["tool"]["setuptools"]["ext-modules"]
    (sources,) = (module["sources"] for module in modules if module["name"].endswith(kernels.Kernels.INT8))
    return [repository / source for source in sources if not source.endswith("module.c")]
