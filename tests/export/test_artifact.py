"""The artifact as a whole: reproducible bytes without times, readable by other tools."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import onnx
import pytest

from fusedbert.engine.artifact import read_manifest
from fusedbert.engine.artifact.verify import FileCheck
from fusedbert.engine.errors import ArtifactError, ExportError
from fusedbert.export import export_checkpoint
from fusedbert.export.parity import baseline
from fusedbert.export.parity import gates as check


@pytest.fixture(scope="module")
def checkpoint(make_checkpoint) -> Path:
    return make_checkpoint("bert", num_hidden_layers=2, seed=5)


@pytest.fixture(scope="module")
def artifact(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("artifact") / "one"
    export_checkpoint(checkpoint, folder)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_two_exports_give_the_same_bytes(checkpoint: Path, artifact: Path, tmp_path: Path) -> None:
    export_checkpoint(checkpoint, tmp_path / "two")
    assert contents(tmp_path / "two") == contents(artifact)


def test_every_graph_passes_the_onnx_checker(artifact: Path) -> None:
    for variant in read_manifest(artifact).variants:
        onnx.checker.check_model(str(artifact / variant.file), full_check=variant.target == "cpu")


def test_the_fp32_graph_is_standard_onnx_with_the_inputs_of_transformers(artifact: Path) -> None:
    model = onnx.load(artifact / "onnx/model.onnx")
    assert {node.domain for node in model.graph.node} == {""}
    assert [item.name for item in model.graph.input] == ["input_ids", "attention_mask", "token_type_ids"]
    assert [item.name for item in model.graph.output] == ["logits"]


def check_files(folder, manifest):
    with FileCheck(folder, manifest, None) as check:
        check.finish()


def test_a_changed_byte_is_found_and_named(artifact: Path) -> None:
    manifest = read_manifest(artifact)
    check_files(artifact, manifest)
    for name in manifest.files:
        whole = (artifact / name).read_bytes()
        changed = bytearray(whole)
        changed[len(changed) // 2] ^= 1
        (artifact / name).write_bytes(changed)
        with pytest.raises(ArtifactError, match=name):
            check_files(artifact, manifest)
        (artifact / name).write_bytes(whole)


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "onnx/../../outside", "a\\b", "C:/x", ""])
def test_an_artifact_path_outside_the_folder_is_refused(artifact: Path, tmp_path: Path, name: str) -> None:
    document = json.loads((artifact / "fusedbert.json").read_text())
    document["variants"][0]["file"] = name
    (tmp_path / "fusedbert.json").write_text(json.dumps(document))
    with pytest.raises(ArtifactError):
        read_manifest(tmp_path)


def test_an_artifact_link_outside_the_folder_is_refused(artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "fusedbert.json").write_bytes((artifact / "fusedbert.json").read_bytes())
    (tmp_path / "onnx").symlink_to(artifact / "onnx")
    with pytest.raises(ArtifactError, match="link"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 3}, "upgrade"),
        ({"format": "1"}, "format"),
        ({"labels": []}, "labels"),
        ({"max_length": "long"}, "max_length"),
        ({"problem_type": "other"}, "problem_type"),
        ({"variants": [{}]}, "form"),
        ({"files": {"a": {}}}, "form"),
        ({"source": None}, "form"),
    ],
    ids=str,
)
def test_a_manifest_of_another_form_is_refused(artifact: Path, tmp_path: Path, change: dict, message: str) -> None:
    document = json.loads((artifact / "fusedbert.json").read_text())
    (tmp_path / "fusedbert.json").write_text(json.dumps({**document, **change}))
    with pytest.raises(ArtifactError, match=message):
        read_manifest(tmp_path)


def test_a_graph_that_computes_wrongly_is_not_kept(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = baseline.forward
    monkeypatch.setattr(baseline, "forward", lambda *arguments: forward(*arguments) + 2e-4)
    with pytest.raises(ExportError, match="differs from the reference"):
        export_checkpoint(checkpoint, tmp_path / "artifact", target="cpu", required=False)
    assert list(tmp_path.iterdir()) == []


def test_a_graph_without_its_fused_nodes_is_not_kept() -> None:
    with pytest.raises(ExportError, match=r"1 fused attention nodes \(Attention\), expected one for each of 2 layers"):
        check.check_fused_attention({"Attention": 1, "com.microsoft:Attention": 1}, ("Attention",), 2, "onnx/model.onnx")


def test_a_killed_export_leaves_no_artifact(checkpoint: Path, tmp_path: Path) -> None:
    code = (
        "import os, sys; from fusedbert.export import exporter\n"
        "exporter.write_metadata = lambda *a: (print('halfway', flush=True), __import__('time').sleep(60))\n"
        "exporter.export_checkpoint(sys.argv[1], sys.argv[2], target='cpu')"
    )
    output = tmp_path / "artifact"
    with subprocess.Popen([sys.executable, "-c", code, str(checkpoint), str(output)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"halfway\n"
        os.kill(process.pid, signal.SIGKILL)
    assert not output.exists()
    assert [path for path in tmp_path.iterdir() if (path / "fusedbert.json").exists()] == []
    begun = time.time()
    export_checkpoint(checkpoint, output, target="cpu", required=False)  # and the next export is not blocked
    assert (output / "fusedbert.json").stat().st_mtime >= begun - 1
