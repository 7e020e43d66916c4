"""The doctor's findings: it detects a model that is damaged or computes wrongly."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from fusedbert.engine.artifact import read_manifest, write_manifest
from fusedbert.engine.cli import doctor as doctor_module
from fusedbert.engine.cli.doctor import Finding, Status, doctor, examine
from fusedbert.engine.hardware import device
from fusedbert.engine.hardware.device import CPU, Offer


def findings(model: Path | None = None) -> dict[str, Finding]:
    return {finding.name: finding for finding in examine(model)}


def test_the_doctor_passes_a_healthy_model(artifact: Path) -> None:
    found = findings(artifact)
    assert all(finding.status is not Status.FAIL for finding in found.values())
    assert {"versions", "cpu", "cpu_features", "cores", "cache", "onnxruntime", "providers", "gpu", "choice"} <= set(found)
    assert found["model_golden"].value["max_abs_logit"] < 1e-5
    assert found["model_runtime"].value["precision"] == "fp32"
    assert found["cores"].value["usable"] >= 1


def test_the_doctor_fails_a_model_that_computes_wrongly(artifact: Path) -> None:
    manifest = read_manifest(artifact)
    golden = dataclasses.replace(manifest.golden[0], logits=tuple(logit + 0.1 for logit in manifest.golden[0].logits))
    write_manifest(artifact, dataclasses.replace(manifest, golden=(golden,)))
    finding = findings(artifact)["model_golden"]
    assert finding.status is Status.FAIL and finding.value["max_abs_logit"] == pytest.approx(0.1, abs=1e-4)


@pytest.mark.parametrize("name", ["onnx/model.onnx", "config.json", "tokenizer.json"])
def test_the_doctor_names_the_file_with_a_flipped_bit(artifact: Path, name: str) -> None:
    content = bytearray((artifact / name).read_bytes())
    content[len(content) // 2] ^= 1
    (artifact / name).write_bytes(content)
    finding = findings(artifact)["model_works"]
    assert finding.status is Status.FAIL and finding.advice is not None and name in finding.advice


def test_the_doctor_notes_missing_golden_texts(artifact: Path) -> None:
    write_manifest(artifact, dataclasses.replace(read_manifest(artifact), golden=()))
    assert findings(artifact)["model_golden"].status is Status.NOTE


def test_the_doctor_fails_an_unwritable_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("FUSEDBERT_CACHE", str(tmp_path / "file/cache"))
    finding = findings()["cache"]
    assert finding.status is Status.FAIL and finding.advice is not None and "FUSEDBERT_CACHE" in finding.advice


def test_the_doctor_fails_both_wheels_of_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    wheels = tuple((name, "1.32.0") for name in device.WHEELS)
    monkeypatch.setattr(doctor_module, "inspect_offer", lambda _: Offer(providers=(CPU,), wheels=wheels, gpu=False))
    finding = findings()["onnxruntime_wheels"]
    assert finding.status is Status.FAIL and finding.advice is not None and "pip uninstall" in finding.advice


def test_without_onnxruntime_the_doctor_still_reports_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    monkeypatch.setattr(device.importlib.util, "find_spec", lambda name: None)
    found = findings()
    assert found["onnxruntime"].status is Status.FAIL and "fusedbert[cpu]" in str(found["onnxruntime"].advice)
    assert "cores" in found


@pytest.fixture
def run() -> Callable[..., Any]:
    return lambda *arguments: CliRunner().invoke(doctor, list(map(str, arguments)), standalone_mode=False)


def test_the_doctor_command_prints_its_findings(run: Callable[..., Any], artifact: Path) -> None:
    result = run("-m", artifact)
    assert result.return_value == 0, result.output
    assert "model golden:" in result.output and "max abs logit" in result.output


def test_json_is_one_document(run: Callable[..., Any], artifact: Path) -> None:
    document = json.loads(run("--json", "-m", artifact).stdout)
    assert document["ok"] is True
    names = [finding["name"] for finding in document["findings"]]
    assert len(names) == len(set(names)) and "model_golden" in names
    assert all(finding["status"] in ("ok", "note", "fail") for finding in document["findings"])


def test_a_failed_check_is_exit_status_1(run: Callable[..., Any], tmp_path: Path) -> None:
    result = run("--json", "-m", tmp_path / "missing")
    assert result.return_value == 1 and json.loads(result.stdout)["ok"] is False
    plain = run("-m", tmp_path / "missing")
    assert plain.return_value == 1 and "does not exist" in plain.output
