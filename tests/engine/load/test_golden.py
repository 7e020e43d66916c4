"""The golden texts at load: a graph that computes wrongly on this machine is detected once and not used."""

from __future__ import annotations

import dataclasses
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from fusedbert.engine import ArtifactError, Classifier, DeviceError
from fusedbert.engine.artifact import read_manifest, write_manifest
from fusedbert.engine.cli import doctor as doctor_module
from fusedbert.engine.cli.doctor import Status, examine
from fusedbert.engine.hardware.cpu import Machine
from fusedbert.engine.load import golden as golden_module
from fusedbert.engine.load import open as loading_module
from fusedbert.engine.load.golden import WrongResultError, allowed

FITS = {"max_abs_logit": 0.01, "label_agreement": 1.0, "mean_abs_probability": 0.001}


def machine(cpu: str = "one", *features: str) -> Machine:
    return Machine(cpu=cpu, features=("avx2", "avx512_vnni", *features), logical=1, physical=1, quota=None, cores=1)


@pytest.fixture(autouse=True)
def fast_int8(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the tests run as on a CPU where "auto" takes int8."""
    monkeypatch.setattr(loading_module, "inspect_machine", machine)


@pytest.fixture
def artifact(make_artifact: Callable[..., Path], variant: Callable[..., Any]) -> Path:
    return make_artifact(variants=(variant(), variant(precision="int8", **FITS)))


def saturate(folder: Path, name: str = "onnx/model_int8.onnx", limit: float = 0.2) -> None:
    """Have a graph compute as if its products had saturated, and write the manifest again."""
    model = onnx.load(folder / name)
    for tensor in model.graph.initializer:
        if tensor.name == "weight":
            tensor.CopyFrom(numpy_helper.from_array(np.clip(numpy_helper.to_array(tensor), -limit, limit), "weight"))
    onnx.save(model, folder / name)
    write_manifest(folder, read_manifest(folder))


@pytest.fixture
def replays(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The graphs that golden texts were replayed on."""
    seen: list[str] = []
    real = golden_module.replay

    def spy(manifest: Any, tokenizer: Any, runner: Any) -> Any:
        seen.append(runner.file.name)
        return real(manifest, tokenizer, runner)

    monkeypatch.setattr(golden_module, "replay", spy)
    return seen


def test_auto_skips_an_int8_graph_that_computes_wrongly(artifact: Path, reference: Callable[..., np.ndarray]) -> None:
    saturate(artifact)
    with pytest.warns(RuntimeWarning, match=r"fp32, not in int8: onnx/model_int8\.onnx on this CPU \(one\)") as warned:
        clf = Classifier.from_pretrained(artifact)
    assert len(warned) == 1 and warned[0].filename == __file__
    assert clf.runtime.precision == "fp32" and clf.runtime.file.name == "model.onnx"
    assert "fp32, because onnx/model_int8.onnx" in clf.runtime.why and "golden texts wrongly" in clf.runtime.why
    np.testing.assert_allclose(clf.decision_function(["good"]), reference(["good"]), atol=1e-5)


def test_a_requested_graph_that_computes_wrongly_is_an_error(artifact: Path) -> None:
    saturate(artifact)
    with pytest.raises(DeviceError, match=r"a logit is off by .*, at most 0\.02 is accepted: use precision='fp32'") as caught:
        Classifier.from_pretrained(artifact, precision="int8")
    assert "\n" not in str(caught.value)
    Classifier.from_pretrained(artifact, precision="fp32").close()


@pytest.mark.parametrize("precision", ["auto", "fp32"])
def test_a_model_without_a_working_graph_is_an_error(artifact: Path, precision: str) -> None:
    saturate(artifact)
    saturate(artifact, "onnx/model.onnx")
    with pytest.raises(WrongResultError, match=r"onnx/model\.onnx on this CPU.*fusedbert doctor"):
        Classifier.from_pretrained(artifact, precision=precision)


def test_an_artifact_with_only_a_wrong_int8_graph_is_refused(
    make_artifact: Callable[..., Path], variant: Callable[..., Any]
) -> None:
    folder = make_artifact(variants=(variant(precision="int8", **FITS),))
    Classifier.from_pretrained(folder).close()
    saturate(folder)
    with pytest.raises(WrongResultError, match="model_int8"):
        Classifier.from_pretrained(folder)


@pytest.mark.parametrize("agreement", [1.0, 0.8])
def test_saturation_is_allowed_as_far_as_the_export_measured_it(
    make_artifact: Callable[..., Path], variant: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, agreement: float
) -> None:
    int8 = variant(precision="int8", **FITS)
    clipped = dataclasses.replace(int8.parity, max_abs_logit=50.0, label_agreement=agreement)
    folder = make_artifact(variants=(variant(), dataclasses.replace(int8, parity_avx2=clipped)))
    saturate(folder)
    here = dataclasses.replace(machine(), features=("avx2",))
    monkeypatch.setattr(loading_module, "inspect_machine", lambda: here)
    monkeypatch.setattr(doctor_module, "inspect_machine", lambda: here)
    findings = {finding.name: finding for finding in examine(folder)}
    assert findings["cpu_features"].status is Status.NOTE and "parity_avx2" in str(findings["cpu_features"].advice)
    passes = agreement == 1.0
    assert findings["model_runtime"].value["precision"] == ("int8" if passes else "fp32")
    assert findings["model_golden"].value["allowed"] == pytest.approx(100.0 if passes else 1e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with Classifier.from_pretrained(folder) as clf:
            assert ("AVX2 kernel" if passes else "80.0%") in clf.runtime.why
    if not passes:
        with pytest.raises(WrongResultError, match=r"golden texts wrongly.*80\.0%.*: use precision='fp32'$"):
            Classifier.from_pretrained(folder, precision="int8")


def test_logits_that_are_not_numbers_are_wrong(artifact: Path) -> None:
    saturate(artifact, "onnx/model.onnx", limit=float("nan"))
    with pytest.raises(WrongResultError, match="off by nan"):
        Classifier.from_pretrained(artifact, precision="fp32")


def test_golden_texts_are_replayed_once_for_each_setting(
    artifact: Path, replays: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def load(folder: Path = artifact, **options: Any) -> list[str]:
        del replays[:]
        clf = Classifier.from_pretrained(folder, **options)
        assert "1 golden texts within" in clf.runtime.why
        assert ("as verified at an earlier load" in clf.runtime.why) is not bool(replays)
        return list(replays)

    assert load() == ["model_int8.onnx"]
    assert load() == load(threads=1) == load(max_length=4) == []
    assert load(precision="fp32") == ["model.onnx"] and load(precision="fp32") == []
    assert load(session_options={"session.intra_op.allow_spinning": "0"}) == ["model_int8.onnx"]
    assert load(session_options={"session.intra_op.allow_spinning": "0"}) == []
    assert load(Path(shutil.copytree(artifact, tmp_path / "copy"))) == []  # the same bytes
    monkeypatch.setattr(loading_module, "inspect_machine", lambda: machine("another"))
    assert load() == ["model_int8.onnx"]
    monkeypatch.setattr(loading_module, "inspect_machine", lambda: machine("one", "amx_int8"))
    assert load() == ["model_int8.onnx"] and load() == []
    runtime = loading_module.import_onnxruntime()
    monkeypatch.setattr(runtime, "__version__", "99.0")
    assert load() == ["model_int8.onnx"] and load() == []
    (artifact / "README.md").write_text("another artifact")
    write_manifest(artifact, read_manifest(artifact))
    assert load() == ["model_int8.onnx"]


def test_golden_texts_are_replayed_each_time_where_settings_cannot_be_compared(artifact: Path, replays: list[str]) -> None:
    import onnxruntime

    for _ in range(2):
        Classifier.from_pretrained(artifact, session_options=onnxruntime.SessionOptions()).close()
    assert len(replays) == 2


def test_a_failure_is_not_remembered(artifact: Path, replays: list[str]) -> None:
    whole = shutil.copytree(artifact, artifact.parent / "whole")
    saturate(artifact)
    for _ in range(2):
        with pytest.raises(WrongResultError):
            Classifier.from_pretrained(artifact, precision="int8")
    assert len(replays) == 2
    shutil.rmtree(artifact)
    whole.rename(artifact)
    Classifier.from_pretrained(artifact, precision="int8").close()


@pytest.mark.parametrize("damage", ["garbage", "[]", "{}", '{"found": 1}'])
def test_a_damaged_record_of_a_replay_costs_another_replay(
    artifact: Path, replays: list[str], own_cache: Path, damage: str
) -> None:
    Classifier.from_pretrained(artifact).close()
    (record,) = (own_cache / "golden").iterdir()
    record.write_text(damage)
    Classifier.from_pretrained(artifact).close()
    assert len(replays) == 2


def test_without_a_cache_golden_texts_are_replayed_each_time(artifact: Path, replays: list[str], own_cache: Path) -> None:
    own_cache.touch()
    for _ in range(2):
        Classifier.from_pretrained(artifact).close()
    assert len(replays) == 2


def test_a_shorter_max_length_does_not_cut_the_golden_texts(artifact: Path, replays: list[str]) -> None:
    with Classifier.from_pretrained(artifact, max_length=4) as clf:
        assert replays and clf.max_length == 4


def test_without_golden_texts_the_runtime_says_so(artifact: Path) -> None:
    write_manifest(artifact, dataclasses.replace(read_manifest(artifact), golden=()))
    with Classifier.from_pretrained(artifact) as clf:
        assert "not verified (the artifact has no golden texts)" in clf.runtime.why


def test_golden_logits_of_another_shape_are_refused(artifact: Path) -> None:
    manifest = read_manifest(artifact)
    golden = dataclasses.replace(manifest.golden[0], logits=(1.0, 2.0, 3.0))
    write_manifest(artifact, dataclasses.replace(manifest, labels=("a", "b", "c"), golden=(golden,)))
    with pytest.raises(ArtifactError, match=r"gives logits \[1, 2\], the manifest's golden logits are \[1, 3\]"):
        Classifier.from_pretrained(artifact)


def test_no_warning_where_nothing_is_wrong(artifact: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Classifier.from_pretrained(artifact, device="cpu").runtime.precision == "int8"


def test_the_doctor_replays_golden_texts_each_time_and_reports_them(artifact: Path, replays: list[str]) -> None:
    for _ in range(2):
        findings = {finding.name: finding for finding in examine(artifact)}
        assert findings["model_golden"].status is Status.OK
    assert len(replays) == 4  # the load replays them, and the doctor shows how far they are off
    saturate(artifact)
    findings = {finding.name: finding for finding in examine(artifact)}
    assert findings["model_warnings"].status is Status.NOTE and "int8" in str(findings["model_warnings"].advice)
    assert findings["model_golden"].status is Status.OK  # of fp32


def test_the_allowed_difference_follows_the_measured_parity(variant: Callable[..., Any]) -> None:
    assert allowed(variant()) == 1e-3
    assert allowed(variant(max_abs_logit=0.01)) == 0.04
    assert allowed(variant(precision="int8", max_abs_logit=0.142)) == 0.284
    assert allowed(variant("cuda", "fp16", max_abs_logit=0.001)) == 0.05
