import os
import subprocess
import sys
import zipfile

import pytest
from click.testing import CliRunner

from fusedbert.bench.cli import setup
from fusedbert.bench.engines import environments
from fusedbert.bench.engines.environments import (
    CUDA_ENVIRONMENTS,
    ENVIRONMENTS,
    OURS,
    bench_folder,
    environment_of,
    links,
    python_of,
    set_up,
    variables,
)
from fusedbert.engine.errors import OptionError, StorageError

ALL = (*ENVIRONMENTS, *CUDA_ENVIRONMENTS)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A new folder for environments."""
    monkeypatch.setenv("FUSEDBERT_BENCH", str(tmp_path / "bench"))
    for name in ALL:
        monkeypatch.delenv(f"FUSEDBERT_BENCH_{name.upper().replace('-', '_')}", raising=False)
    return tmp_path / "bench"


@pytest.fixture
def index(folder, tmp_path, monkeypatch):
    """A folder with one small wheel in place of a package index; returns a function that writes the requirements."""
    wheels, requirements = tmp_path / "wheels", tmp_path / "requirements.txt"
    wheels.mkdir()
    with zipfile.ZipFile(wheels / "fakeengine-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("fakeengine.py", "ANSWER = 42\n")
        about = "fakeengine-1.0.dist-info"
        wheel.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: fakeengine\nVersion: 1.0\n")
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{about}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setattr(environments, "requirements_file", lambda _name: requirements)
    return lambda text: requirements.write_text(text, encoding="utf-8")


def ask(python, program):
    done = subprocess.run([str(python), "-c", program], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize("name", ALL)
def test_every_version_is_pinned(name, folder):
    lines = environment_of(name).requirements
    assert all(len(line.split("==")) == 2 and line == line.replace(" ", "") for line in lines)
    packages = [line.split("==")[0].lower().replace("_", "-") for line in lines]
    assert len(set(packages)) == len(packages)
    assert {"numpy", "tokenizers", "torch", "transformers"} <= set(packages)


def test_the_environment_for_cuda_differs_only_in_its_wheel(folder):
    cpu, cuda = (set(environment_of(name).requirements) for name in ("optimum", "optimum-cuda"))
    (removed,), (added,) = cpu - cuda, cuda - cpu
    assert (removed.split("==")[0], added.split("==")[0]) == ("onnxruntime", "onnxruntime-gpu")
    assert removed.split("==")[1] == added.split("==")[1]


def test_peers_use_the_onnxruntime_of_constraints_txt(repository, folder):
    pinned = (repository / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert {line for line in environment_of("optimum").requirements if line.startswith("onnxruntime")} <= set(pinned)


def test_fusedbert_runs_in_this_interpreter_and_the_others_are_not_built_yet(folder):
    assert str(python_of(OURS)) == sys.executable
    assert [python_of(name) for name in ALL] == [None] * len(ALL)
    assert not folder.exists()
    with pytest.raises(OptionError, match=r"unknown environment 'tensorrt'.*openvino"):
        python_of("tensorrt")


def test_an_existing_interpreter_can_be_named(folder, monkeypatch):
    monkeypatch.setenv("FUSEDBERT_BENCH_OPTIMUM_CUDA", sys.executable)
    assert str(python_of("optimum-cuda")) == sys.executable
    monkeypatch.setenv("FUSEDBERT_BENCH_OPENVINO", str(folder / "nothing"))
    with pytest.raises(OptionError, match=r"FUSEDBERT_BENCH_OPENVINO is .*nothing', which is not a file"):
        python_of("openvino")


def test_without_the_variable_the_folder_is_in_the_cache(monkeypatch, tmp_path):
    monkeypatch.delenv("FUSEDBERT_BENCH", raising=False)
    monkeypatch.setenv("FUSEDBERT_CACHE", str(tmp_path))
    assert bench_folder() == tmp_path / "bench"


def test_other_requirements_are_another_environment(index):
    index("fakeengine==1.0  # a comment\n\n")
    first = environment_of("openvino")
    assert first.requirements == ("fakeengine==1.0",)
    index("# a comment\nfakeengine==1.0\n")
    assert environment_of("openvino").folder == first.folder
    index("fakeengine==1.1\n")
    assert environment_of("openvino").folder != first.folder


@pytest.mark.timeout(120)
def test_an_environment_is_built_once_and_a_broken_one_again(index):
    index("fakeengine==1.0\n")
    messages = []
    python = set_up("openvino", messages.append)
    assert python_of("openvino") == python
    assert ask(python, "import fakeengine; print(fakeengine.ANSWER)") == "42"
    assert any("fakeengine==1.0" in line for line in messages)

    messages.clear()
    assert set_up("openvino", messages.append) == python
    assert messages == [f"openvino: already there, {python.parents[1]}"]

    (python.parents[1] / ".made").unlink()  # as an interrupted build leaves it
    (python.parents[1] / "rest").touch()
    assert python_of("openvino") is None
    assert set_up("openvino") == python
    assert python_of("openvino") == python
    assert not (python.parents[1] / "rest").exists()


@pytest.mark.timeout(120)
def test_a_failed_installation_is_one_line_and_leaves_no_environment(index):
    index("fakeengine==2.0\n")
    with pytest.raises(StorageError) as error:
        set_up("ctranslate2")
    assert "fakeengine==2.0" in str(error.value) and "ctranslate2" in str(error.value)
    assert "\n" not in str(error.value)
    assert python_of("ctranslate2") is None


def test_setup_refuses_a_wrong_name_before_it_builds_anything(folder):
    done = CliRunner().invoke(setup, ["openvino", "tensorflow"])
    assert isinstance(done.exception, OptionError)
    assert "tensorflow" in str(done.exception)
    assert not folder.exists()


def test_setup_all_builds_each_environment_once_and_prints_where(folder, monkeypatch):
    built = []
    monkeypatch.setattr(
        environments,
        "set_up",
        lambda name, progress, again: built.append((name, again)) or folder / name / "python",
    )
    done = CliRunner().invoke(setup, ["all", "openvino"])
    assert done.exit_code == 0, done.output
    assert built == [(name, False) for name in ENVIRONMENTS]
    assert done.stdout.splitlines() == [f"{name}  {folder / name / 'python'}" for name in ENVIRONMENTS]


def test_a_process_without_our_packages_finds_them_through_the_links(tmp_path):
    with links() as folder:
        assert sorted(path.name for path in (folder / "fusedbert").iterdir()) == ["bench", "engine", "export", "models"]
        environment = variables(folder, threads=3)
        done = subprocess.run(  # -S: without site-packages, where an editable install would be found
            [sys.executable, "-S", "-c", "import fusedbert.engine.errors as e; print(e.__file__)"],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(str(folder))
    assert not folder.exists()
    assert {environment[name] for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")} == {"3"}
    assert environment["HF_HUB_OFFLINE"] == "1"
