"""The library of kernels in an engine: found, switched off, missing, damaged, and not built where there is no compiler."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from fusedbert.engine import Classifier
from fusedbert.engine import kernels as native
from fusedbert.engine.artifact import read_manifest
from fusedbert.engine.errors import DeviceError
from fusedbert.engine.hardware.cpu import inspect_machine

TEXTS = ["I really loved this movie.", "Neither the songs nor the dancing rescue this limp, joyless revival.", "ok"]
OFF = {native.SWITCH: "0"}


@pytest.fixture(scope="module")
def reference(artifact: Path) -> np.ndarray:
    """What the functions give."""
    with Classifier.from_pretrained(artifact, precision="int8", session_options=OFF) as clf:
        assert "as session_options has it" in clf.runtime.why
        return clf.predict_proba(TEXTS)


def test_kernels_and_functions_give_the_same_up_to_rounding(artifact: Path, reference: np.ndarray) -> None:
    with Classifier.from_pretrained(artifact, precision="int8") as clf:
        assert np.abs(clf.predict_proba(TEXTS) - reference).max() < 0.02
        if native.library() is not None and native.level(native.library()) == 2:
            assert "fusedbert's kernels for products and attention" in clf.runtime.why


def test_the_library_is_there_wherever_it_can_be_built() -> None:
    if sys.platform != "linux" or native.library() is None:
        pytest.skip("not built here: no gcc, or not x86-64")
    features = set(inspect_machine().features)
    expected = -1 if "amx_int8" in features else 0 if "avx512_vnni" not in features else 1 + ("avx512_bf16" in features)
    assert native.level(native.library()) == expected
    standard = native.library(native.Kernels.FP32)
    assert standard is not None and native.level(standard) == int("avx512f" in features)


@pytest.mark.parametrize("level", [0, 1])
def test_a_lesser_processor_runs_what_it_can_and_the_functions_for_the_rest(
    artifact: Path, reference: np.ndarray, level: int
) -> None:
    if native.library() is None or native.level(native.library()) < 2:
        pytest.skip("no kernels here")
    code = (
        "import ctypes, json, sys\n"
        "from fusedbert.engine import Classifier, kernels as native\n"
        f"ctypes.c_int.in_dll(ctypes.CDLL(str(native.library())), 'fusedbert_at_most').value = {level}\n"
        f"clf = Classifier.from_pretrained(sys.argv[1], precision='int8')\n"
        "print(json.dumps([clf.runtime.why, clf.predict_proba(json.loads(sys.argv[2])).tolist()]))\n"
    )
    command = [sys.executable, "-c", code, str(artifact), json.dumps(TEXTS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    why, found = json.loads(done.stdout)
    assert ("has not the instructions", "kernels for products (AVX-512 VNNI)")[level] in why
    np.testing.assert_allclose(found, reference, atol=1e-6 if level == 0 else 0.02)


def test_other_kernels_are_verified_anew(artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = "seen at an earlier load"
    for kernels, seen in (("a", False), ("a", True), ("b", False)):
        monkeypatch.setattr("fusedbert.engine.load.golden.fingerprint", lambda _, kernels=kernels: kernels)
        with Classifier.from_pretrained(artifact, precision="int8", cache_dir=tmp_path) as clf:
            assert (words in clf.runtime.why) is seen


def test_fp32_with_the_kernels_and_without(artifact: Path) -> None:
    with (
        Classifier.from_pretrained(artifact, precision="fp32") as ours,
        Classifier.from_pretrained(artifact, precision="fp32", session_options=OFF) as theirs,
    ):
        assert ("kernels for LayerNormalization and Gelu" in ours.runtime.why) is (
            native.library(native.Kernels.FP32) is not None
        )
        assert "as session_options has it" in theirs.runtime.why
        np.testing.assert_allclose(ours.decision_function(TEXTS), theirs.decision_function(TEXTS), atol=1e-5)


def test_graphs_of_other_tools_keep_the_runtimes_kernels(artifact: Path) -> None:
    variants = {variant.file: variant for variant in read_manifest(artifact).variants}
    fp32 = variants["onnx/model.onnx"]
    assert native.kernels_for(fp32) is native.Kernels.FP32
    assert native.kernels_for(variants["onnx/model_int8.onnx"]) is native.Kernels.INT8
    assert native.kernels_for(variants["onnx/model_fp16.onnx"]) is None
    fused = {**fp32.nodes, "com.microsoft:Attention": 3}
    del fused["Attention"]
    assert native.kernels_for(dataclasses.replace(fp32, nodes=fused)) is None


def test_session_options_of_ones_own_are_left_as_they_are(artifact: Path, reference: np.ndarray) -> None:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    for _ in range(2):  # registered twice, a library is refused
        with Classifier.from_pretrained(artifact, precision="int8", session_options=options) as clf:
            np.testing.assert_allclose(clf.predict_proba(TEXTS), reference, atol=1e-6)


def test_without_the_library_the_functions_run(artifact: Path, reference: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "library", lambda _: None)
    with Classifier.from_pretrained(artifact, precision="int8") as clf:
        assert "ours were not built" in clf.runtime.why
        np.testing.assert_allclose(clf.predict_proba(TEXTS), reference, atol=1e-6)


def test_a_damaged_library_is_one_line_that_names_it(artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "_kernels.so"
    broken.write_bytes(b"\x7fELF, and nothing more")
    monkeypatch.setattr(native, "library", lambda _: broken)
    with pytest.raises(DeviceError, match=r"_kernels\.so cannot be loaded .*: install fusedbert again") as caught:
        Classifier.from_pretrained(artifact, precision="int8")
    assert "\n" not in str(caught.value)


def test_the_package_installs_without_a_compiler(repository: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    ignored = [".git", ".venv*", "artifacts", "build", "*.so", "*.egg-info", "tests"]
    shutil.copytree(repository, source, ignore=shutil.ignore_patterns(*ignored))
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run(
        [*command, "--wheel-dir", str(tmp_path), str(source)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env={"PATH": "/nonexistent", "CC": "/nonexistent/cc", "HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert "fusedbert/engine/kernels/__init__.py" in names
    assert not [name for name in names if name.endswith(".so")]
