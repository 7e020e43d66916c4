"""The wheel in fresh environments, as a user installs it. Needs a package index, so `make test-wheel` runs it."""

import sys
from pathlib import Path

import pytest
from places import LINUX, Place

pytestmark = [pytest.mark.environment, pytest.mark.timeout(580)]
HEAVY = {"torch", "transformers", "onnx", "optimum", "safetensors", "scipy"}


@pytest.fixture(scope="module")
def environment(tmp_path_factory, released, repository):
    """Only the runtime, from the wheel of Linux: ``pip install "fusedbert[cpu]"``."""
    folder = tmp_path_factory.mktemp("environment")
    made = Place(folder, python=sys.executable, constraints=repository / "constraints.txt")
    made.install(f"{released(LINUX)}[cpu]")
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


def test_with_the_exporter_the_embedded_default_answers_in_an_empty_folder(environment, released):
    environment.install(f"{released(LINUX)}[cpu,export]")
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


def test_the_wheel_for_linux_brings_the_kernels(environment):
    assert "there" in environment.check(
        "python", "-c", "from fusedbert.engine import kernels; print(kernels.loaded() and 'there')"
    )
