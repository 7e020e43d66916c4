"""The libraries of kernels in an engine: present, switched off, missing, damaged, and not built without a compiler."""

from __future__ import annotations

import ctypes
import dataclasses
import shutil
import subprocess
import sys
import threading
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from fusedbert.engine import Classifier
from fusedbert.engine import kernels as cpu_kernels
from fusedbert.engine.artifact import read_manifest
from fusedbert.engine.errors import DeviceError
from fusedbert.engine.hardware.cpu import inspect_machine
from fusedbert.engine.load.select import kernels_for

TEXTS = ["I really loved this movie.", "Neither the songs nor the dancing rescue this limp, joyless revival.", "ok"]
OFF = {cpu_kernels.SWITCH: "0"}


@pytest.fixture(scope="module")
def reference(artifact: Path) -> np.ndarray:
    """Probabilities computed by the functions."""
    with Classifier.from_pretrained(artifact, precision="int8", session_options=OFF) as clf:
        assert "as set in session_options" in clf.runtime.why
        return clf.predict_proba(TEXTS)


def test_kernels_and_functions_give_the_same_up_to_rounding(artifact: Path, reference: np.ndarray) -> None:
    with Classifier.from_pretrained(artifact, precision="int8") as clf:
        assert np.abs(clf.predict_proba(TEXTS) - reference).max() < 0.02
        library = cpu_kernels.library()
        if library is not None and cpu_kernels.level(library) == 2:
            assert "fusedbert's kernels for products and attention" in clf.runtime.why


def test_the_library_is_there_wherever_it_can_be_built() -> None:
    library = cpu_kernels.library()
    if sys.platform != "linux" or library is None:
        pytest.skip("not built here: no gcc, or not x86-64")
    features = set(inspect_machine().features)
    expected = -1 if "amx_int8" in features else 0 if "avx512_vnni" not in features else 1 + ("avx512_bf16" in features)
    assert library is not None and cpu_kernels.level(library) == expected
    standard = cpu_kernels.library(cpu_kernels.Kernels.FP32)
    assert standard is not None and cpu_kernels.level(standard) == int("avx512f" in features)


# Instruction sets of a processor, as kernels.h numbers them, and what runs there.
@pytest.mark.parametrize(
    ("features", "says"),
    [
        (0, "this CPU lacks AVX-512 VNNI"),
        (1, "this CPU lacks AVX-512 VNNI"),
        (3, "kernels for products (AVX-512 VNNI)"),
        (15, "use this CPU's AMX"),
    ],
)
def test_a_lesser_processor_runs_its_kernels_and_functions_for_the_rest(
    artifact: Path,
    reference: np.ndarray,
    features: int,
    says: str,
    build: Any,
    int8_sources: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    library = cpu_kernels.library()
    if library is None or cpu_kernels.level(library) < 2:
        pytest.skip("no kernels here")
    other_processor = tmp_path / "cpu_features.c"
    other_processor.write_text(f"unsigned cpu_features(void) {{ return {features}; }}\n")
    sources = [other_processor, *(source for source in int8_sources if source.name != other_processor.name)]
    library = build(tmp_path / "other.so", sources)
    monkeypatch.setattr(cpu_kernels, "library", lambda *_: library)
    with Classifier.from_pretrained(artifact, precision="int8", cache_dir=tmp_path) as clf:
        assert says in clf.runtime.why
        np.testing.assert_allclose(clf.predict_proba(TEXTS), reference, atol=0.02 if features == 3 else 1e-6)


def test_threads_that_register_at_the_same_time_share_one_domain(build: Any, int8_sources: list[Path], tmp_path: Path) -> None:
    """On a stand-in for ONNX Runtime whose domains take a while to create."""
    pointer, barrier, threads = ctypes.c_void_p, threading.Barrier(4), []
    created, released, used = iter(range(1, 100)), [], []

    def create(name: bytes, domain: Any) -> None:
        domain[0] = next(created)
        barrier.wait()

    slots = {
        26: ctypes.CFUNCTYPE(pointer, ctypes.c_char_p, ctypes.POINTER(pointer))(create),
        27: ctypes.CFUNCTYPE(pointer, pointer, pointer)(lambda domain, op: None),
        28: ctypes.CFUNCTYPE(pointer, pointer, pointer)(lambda options, domain: used.append(domain)),
        101: ctypes.CFUNCTYPE(None, pointer)(released.append),
    }
    api = (pointer * 279)(*(ctypes.cast(slots[i], pointer) if i in slots else None for i in range(279)))
    get_api = ctypes.CFUNCTYPE(pointer, ctypes.c_uint32)(lambda version: ctypes.addressof(api))
    base = (pointer * 2)(ctypes.cast(get_api, pointer), None)
    library = ctypes.CDLL(str(build(tmp_path / "fresh.so", int8_sources)))
    if library.fusedbert_level() < 1:
        pytest.skip("no kernels here")
    for _ in range(4):
        threads.append(threading.Thread(target=library.RegisterCustomOps, args=(None, base)))
        threads[-1].start()
    for thread in threads:
        thread.join()
    assert len(used) == 4 and len(set(used)) == 1
    assert sorted(released + used[:1]) == [1, 2, 3, 4]


def test_other_kernels_are_verified_again(artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = "as verified at an earlier load"
    for kernels, seen in (("a", False), ("a", True), ("b", False)):
        monkeypatch.setattr("fusedbert.engine.load.golden.fingerprint", lambda _, kernels=kernels: kernels)
        with Classifier.from_pretrained(artifact, precision="int8", cache_dir=tmp_path) as clf:
            assert (words in clf.runtime.why) is seen


def test_fp32_gives_the_same_with_and_without_the_kernels(artifact: Path) -> None:
    with (
        Classifier.from_pretrained(artifact, precision="fp32") as with_kernels,
        Classifier.from_pretrained(artifact, precision="fp32", session_options=OFF) as without,
    ):
        assert ("kernels for LayerNormalization and Gelu" in with_kernels.runtime.why) is (
            cpu_kernels.library(cpu_kernels.Kernels.FP32) is not None
        )
        assert "as set in session_options" in without.runtime.why
        np.testing.assert_allclose(with_kernels.decision_function(TEXTS), without.decision_function(TEXTS), atol=1e-5)


def test_graphs_of_other_tools_keep_the_runtimes_kernels(artifact: Path) -> None:
    variants = {variant.file: variant for variant in read_manifest(artifact).variants}
    fp32 = variants["onnx/model.onnx"]
    assert kernels_for(fp32) is cpu_kernels.Kernels.FP32
    assert kernels_for(variants["onnx/model_int8.onnx"]) is cpu_kernels.Kernels.INT8
    assert kernels_for(variants["onnx/model_fp16.onnx"]) is None
    fused = {**fp32.nodes, "com.microsoft:Attention": 3}
    del fused["Attention"]
    assert kernels_for(dataclasses.replace(fp32, nodes=fused)) is None


def test_the_users_session_options_can_be_used_twice(artifact: Path, reference: np.ndarray) -> None:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    for _ in range(2):  # registered twice, a library is refused
        with Classifier.from_pretrained(artifact, precision="int8", session_options=options) as clf:
            np.testing.assert_allclose(clf.predict_proba(TEXTS), reference, atol=1e-6)


def test_without_the_library_the_functions_run(artifact: Path, reference: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_kernels, "library", lambda _: None)
    with Classifier.from_pretrained(artifact, precision="int8") as clf:
        assert "were not built" in clf.runtime.why
        np.testing.assert_allclose(clf.predict_proba(TEXTS), reference, atol=1e-6)


def test_a_damaged_library_is_one_line_that_names_it(artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "_int8.so"
    broken.write_bytes(b"\x7fELF, and nothing more")
    monkeypatch.setattr(cpu_kernels, "library", lambda _: broken)
    with pytest.raises(DeviceError, match=r"_int8\.so cannot be loaded .*: install fusedbert again") as caught:
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
