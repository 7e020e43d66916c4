"""The wheel of this machine, built once from a copy of the source, and the release in dist/."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from places import WINDOWS

LEAVE_OUT = [".git", ".venv*", ".envs", ".gpu*", ".*_cache", ".hypothesis", "build", "dist", "artifacts", "results"]
LEAVE_OUT += ["*.egg-info", "__pycache__", "*.so"]


@pytest.fixture(scope="session")
def source(repository, tmp_path_factory) -> Path:
    """A copy of the source, with what earlier versions and other platforms left there."""
    folder = tmp_path_factory.mktemp("source") / "fusedbert"
    shutil.copytree(repository, folder, ignore=shutil.ignore_patterns(*LEAVE_OUT))
    for old in ("engine/kernels/_int8.abi3.so", "engine/kernels/fusedbert_kernels.x86_64.dll"):
        for path in (folder / old, folder / "build" / "lib" / "fusedbert" / old):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"of another build")
    return folder


@pytest.fixture(scope="session")
def version(repository) -> str:
    """The version in pyproject.toml."""
    return tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]


@pytest.fixture(scope="session")
def contents(repository) -> dict:
    """The content of a release: contents.toml."""
    return tomllib.loads((repository / "tests" / "release" / "contents.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def wheel(source, tmp_path_factory) -> Path:
    """The wheel that this environment's setuptools and this machine's compiler build, without network."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    command += ["--wheel-dir", str(folder), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="session")
def released(repository, version):
    """Return a function that finds a file of the release in dist/, by its platform or as the sdist."""

    def find(kind: str) -> Path:
        name = f"fusedbert-{version}.tar.gz" if kind == "sdist" else f"fusedbert-{version}-py3-none-{kind}.whl"
        path = repository / "dist" / name
        if kind == WINDOWS and not path.is_file():
            pytest.skip("this dist/ was built without the Windows wheel: make wheels builds it")
        assert path.is_file(), f"{path} is missing: make wheels builds it"
        return path

    return find
