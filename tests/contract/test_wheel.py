"""The content of the wheel."""

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
