"""An artifact on an ONNX Runtime that is too old for its graph: the error names the needed version."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import onnxruntime
import pytest

from fusedbert.engine import Classifier
from fusedbert.engine.artifact import read_manifest, write_manifest
from fusedbert.engine.errors import ArtifactError
from fusedbert.engine.load import open as loading
from fusedbert.engine.run.session import release

REFUSAL = "Opset 23 is under development and support for this is limited."
NEEDS = {"onnx/model.onnx": {"opset": 23, "onnxruntime": "1.23"}}
UPGRADE, AGAIN = "it needs 1.23 or newer, pip install --upgrade onnxruntime", "export the checkpoint again"


def require(artifact: Path, requires: dict) -> None:
    write_manifest(artifact, dataclasses.replace(read_manifest(artifact), requires=requires))


@pytest.mark.parametrize(
    ("version", "requires", "way_out"),
    [
        ("1.20.1", NEEDS, UPGRADE),
        ("1.9.0", NEEDS, UPGRADE),
        ("1.23.0", NEEDS, AGAIN),
        ("1.32.0", NEEDS, AGAIN),
        ("1.20.1", {}, AGAIN),
        ("1.20.1", {"onnx/model_int8.onnx": NEEDS["onnx/model.onnx"]}, AGAIN),
    ],
)
def test_an_onnxruntime_that_is_too_old_is_refused_with_the_needed_version(
    artifact: Path, monkeypatch, version: str, requires: dict, way_out: str
) -> None:
    def refuse(*args: object, **keywords: object) -> None:
        raise RuntimeError(REFUSAL)

    there = {name: getattr(onnxruntime, name) for name in dir(onnxruntime) if not name.startswith("__")}
    found = SimpleNamespace(**{**there, "__version__": version, "InferenceSession": refuse})
    monkeypatch.setattr(loading, "import_onnxruntime", lambda: found)
    require(artifact, requires)
    with pytest.raises(ArtifactError) as caught:
        Classifier.from_pretrained(artifact, device="cpu", precision="fp32")
    file = artifact / "onnx/model.onnx"
    assert str(caught.value) == f"{file} cannot be loaded by ONNX Runtime {version} ({REFUSAL}): {way_out}"


@pytest.mark.parametrize(
    "entry", [{}, {"opset": 23}, {"opset": "23", "onnxruntime": "1.23"}, {"opset": 23, "onnxruntime": 1}, []]
)
def test_a_malformed_minimum_version_is_refused(artifact: Path, entry: object) -> None:
    with pytest.raises(ArtifactError, match="does not have the form of a manifest"):
        require(artifact, {"onnx/model.onnx": entry})
        read_manifest(artifact)


@pytest.mark.parametrize(("version", "first"), [("1.32.0", (1, 32)), ("1.9", (1, 9)), ("2.0.0rc1", (2, 0))])
def test_the_first_two_numbers_of_a_version(version: str, first: tuple[int, ...]) -> None:
    assert release(version) == first
