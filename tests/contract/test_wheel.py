"""The content of the wheel."""

import os
import shutil
import subprocess
import sys
import zipfile

import pytest


@pytest.fixture(scope="module")
def names(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_wheel_holds_every_module(names, repository):
    for stage in ("engine", "export", "bench", "models"):
        modules = {path.relative_to(repository).as_posix() for path in (repository / stage).rglob("*.py")}
        assert modules, stage
        assert {f"fusedbert/{module}" for module in modules} <= names
        assert f"fusedbert/{stage}/py.typed" in names


def test_the_wheel_holds_the_embedded_checkpoint_byte_for_byte(wheel, names, checkpoint):
    files = [path for path in checkpoint.iterdir() if path.is_file()]
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= {path.name for path in files}
    with zipfile.ZipFile(wheel) as archive:
        for path in files:
            assert archive.read(f"fusedbert/models/{checkpoint.name}/{path.name}") == path.read_bytes()


def test_the_wheel_holds_the_licence_and_the_model_card(wheel, names):
    found = [name for name in names if name.endswith(".dist-info/licenses/LICENSE")]
    assert len(found) == 1
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read(found[0]).decode()
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text
    assert any(name.endswith(".dist-info/licenses/models/sst2-mini/README.md") for name in names)


def test_the_wheel_holds_nothing_else(names):
    stray = [name for name in names if not name.startswith(("fusedbert/engine/", "fusedbert/export/", "fusedbert/bench/"))]
    stray = [name for name in stray if not name.startswith("fusedbert/models/") and ".dist-info/" not in name]
    assert stray == []
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]


def test_every_entry_point_of_the_wheel_names_a_module_in_it(wheel, names):
    with zipfile.ZipFile(wheel) as archive:
        (path,) = (name for name in names if name.endswith(".dist-info/entry_points.txt"))
        lines = archive.read(path).decode().splitlines()
    targets = [line.split("=")[1].strip().split(":")[0] for line in lines if "=" in line]
    assert len(targets) >= 6
    for target in targets:
        stem = target.replace(".", "/")
        assert {f"{stem}.py", f"{stem}/__init__.py"} & names, target


def test_one_wheel_serves_every_python_but_a_free_threaded_one_gets_its_own(wheel, tmp_path):
    assert "-cp311-abi3-" in wheel.name or "-py3-none-" in wheel.name
    shutil.copytree(wheel.parent / "source", tmp_path / "source")
    # setuptools refuses to build for the limited API where Python is free-threaded, which it asks of sysconfig
    build = "import sysconfig; sysconfig.get_config_vars()['Py_GIL_DISABLED'] = 1; import setuptools.build_meta as build; "
    done = subprocess.run(
        [sys.executable, "-c", f"{build}build.build_wheel({str(tmp_path)!r})"], cwd=tmp_path / "source",
        env=os.environ | {"CC": "false"}, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (own,) = tmp_path.glob("*.whl")
    assert "abi3" not in own.name
    with zipfile.ZipFile(own) as archive:  # and without a compiler it has no kernels
        assert "fusedbert/engine/__init__.py" in archive.namelist()
        assert not [name for name in archive.namelist() if name.endswith(".so")]
