"""The wheel in fresh environments, as a user installs it. Needs a package index, so `make test-wheel` runs it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.environment, pytest.mark.timeout(580)]
HEAVY = {"torch", "transformers", "onnx", "optimum", "safetensors", "scipy"}


class Environment:
    """A virtual environment, and an empty folder as working directory and home."""

    def __init__(self, folder, constraints):
        self.bin = folder / "venv" / "bin"
        self.work = folder / "empty"
        self.work.mkdir()
        self.constraints = constraints
        self.variables = {**os.environ, "FUSEDBERT_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1"}
        self.variables.pop("PYTHONPATH", None)
        subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True, timeout=120)

    def install(self, requirement):
        pip = [str(self.bin / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--constraint", str(self.constraints), requirement], check=True, timeout=400)

    def run(self, *command):
        return subprocess.run(
            [str(self.bin / command[0]), *command[1:]],
            cwd=self.work,
            env=self.variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )

    def packages(self):
        """Names of what is installed, as pip lists them."""
        listed = self.run("python", "-m", "pip", "list", "--format=freeze", "--disable-pip-version-check").stdout
        return {line.split("==")[0].lower() for line in listed.splitlines()}


@pytest.fixture(scope="module")
def environment(tmp_path_factory, wheel, repository):
    """Only the runtime: ``pip install "fusedbert[cpu]"``."""
    made = Environment(tmp_path_factory.mktemp("environment"), repository / "constraints.txt")
    made.install(f"fusedbert[cpu] @ {wheel.as_uri()}")
    return made


def test_the_runtimes_environment_is_lean_and_complete(environment):
    assert {"fusedbert", "numpy", "tokenizers", "onnxruntime", "click", "tqdm"} <= environment.packages()
    assert environment.packages() & HEAVY == set()
    assert environment.run("python", "-m", "pip", "check").returncode == 0


def test_the_runtime_suffices_for_an_artifact(environment, artifact):
    done = environment.run("fusedbert", "classify", "-m", str(artifact), "I really loved this movie.")
    assert (done.returncode, done.stderr) == (0, "")
    assert "POSITIVE" in done.stdout


def test_without_the_exporter_the_embedded_default_names_the_extra(environment):
    done = environment.run("fusedbert", "classify", "I really loved this movie.")
    assert done.returncode == 1
    assert "fusedbert[export]" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stdout == ""


def test_with_the_exporter_the_embedded_default_answers_in_an_empty_folder(environment, wheel):
    environment.install(f"fusedbert[cpu,export] @ {wheel.as_uri()}")
    assert environment.packages() & {"torch", "transformers", "optimum"} == set()
    first = environment.run("fusedbert", "classify", "I really loved this movie.")
    assert first.returncode == 0, first.stderr
    assert "POSITIVE" in first.stdout
    cache = Path(environment.variables["FUSEDBERT_CACHE"])
    made = {path: path.stat().st_mtime_ns for path in cache.rglob("*.onnx")}
    second = environment.run("fusedbert", "classify", "I really loved this movie.")
    assert second.stdout == first.stdout
    assert made and made == {path: path.stat().st_mtime_ns for path in cache.rglob("*.onnx")}  # no second export
    assert list(environment.work.iterdir()) == []
