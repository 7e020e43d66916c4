"""The wheel, built once from a copy of the source, so that the working tree does not change and no old build/ gets in."""

import shutil
import subprocess
import sys

import pytest

LEAVE_OUT = shutil.ignore_patterns(
    ".git", ".venv*", ".envs", ".*_cache", ".hypothesis", "build", "dist", "artifacts", "*.egg-info"
)


@pytest.fixture(scope="session")
def wheel(repository, tmp_path_factory):
    """Path of the wheel, built by this environment's setuptools, without network."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(repository, folder / "source", ignore=LEAVE_OUT)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run(
        [*command, "--wheel-dir", str(folder), str(folder / "source")], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("*.whl")
    return path
