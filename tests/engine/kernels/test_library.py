"""The library of kernels in an engine: at each level, switched off, missing and damaged."""

from __future__ import annotations

import concurrent.futures
import contextlib
import ctypes
import dataclasses
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from fusedbert.bench.engines.random.models import ModelShape, write_checkpoint
from fusedbert.engine import Classifier
from fusedbert.engine import kernels as cpu_kernels
from fusedbert.engine.artifact import read_manifest
from fusedbert.engine.errors import DeviceError, OptionError
from fusedbert.engine.kernels import levels
from fusedbert.engine.load.select import kernels_for
from fusedbert.export import export_checkpoint

TEXTS = ["I really loved this movie.", "Neither the songs nor the dancing rescue this limp, joyless revival.", "ok"]
OFF = {cpu_kernels.SWITCH: "0"}
KNOWN = [level for level in getattr(cpu_kernels.loaded(), "levels", ()) if not level.lacking]
only_with_kernels = pytest.mark.skipif(len(KNOWN) < 2, reason="no kernels here")  # the last is "onnxruntime"


@pytest.fixture(scope="module")
def reference(artifact: Path) -> np.ndarray:
    """Probabilities computed by the functions."""
    with Classifier.from_pretrained(artifact, precision="int8", session_options=OFF) as clf:
        assert "as set in session_options" in clf.runtime.why
        return clf.predict_proba(TEXTS)


# For each precision: how far a probability may be off, and the operation without which a level has no kernels.
TOLERANCE = {"int8": 0.02, "bf16": 0.005, "fp32": 1e-5}
FIRST = {"int8": "dense_int8", "bf16": "dense_bf16", "fp32": "norm"}


@pytest.fixture(scope="module", params=["embedded", "random"])
def model(request: pytest.FixtureRequest, checkpoint: Path, artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model's artifact, and that of a random model, whose widths fill no block of a kernel."""
    if request.param == "embedded":
        return artifact
    folder = tmp_path_factory.mktemp("random")
    write_checkpoint(folder / "checkpoint", ModelShape(layers=2, heads=3, hidden=144), checkpoint)
    export_checkpoint(folder / "checkpoint", folder / "artifact", target="cpu", required=False)
    return folder / "artifact"


@only_with_kernels
@pytest.mark.skipif(sys.platform != "linux" or not shutil.which("gcc"), reason="asks gcc's linker")
def test_the_library_needs_nothing_but_the_c_library(tmp_path: Path) -> None:
    """Python has the mathematical library loaded, so a function of it is missed elsewhere only."""
    program = tmp_path / "main.c"
    program.write_text("int main(void) { return 0; }")
    own = next(Path(cpu_kernels.__file__).parent.glob("*.so"))
    subprocess.run(["gcc", program, "-Wl,--no-as-needed", own, "-o", tmp_path / "main"], check=True)


def opened(artifact: Path, level: str, precision: str = "int8") -> Classifier:
    return Classifier.from_pretrained(artifact, precision=precision, session_options={cpu_kernels.SWITCH: level})


@pytest.mark.parametrize("level", KNOWN, ids=lambda level: level.name)
@pytest.mark.parametrize("precision", ["int8", "bf16", "fp32"])
def test_each_level_gives_the_same_up_to_rounding(model: Path, level: Any, precision: str) -> None:
    with opened(model, "onnxruntime", precision) as clf:
        expected = clf.predict_proba(TEXTS)
    with opened(model, level.name, precision) as clf:
        np.testing.assert_allclose(clf.predict_proba(TEXTS), expected, atol=TOLERANCE[precision])
        own = FIRST[precision] in level.operations
        assert ("fusedbert's kernels for" in clf.runtime.why) is own
        assert ("attention (" in clf.runtime.why) is (own and precision != "fp32" and "attention" in level.operations)
        assert level.name == "onnxruntime" or level.name in clf.runtime.why
        assert "as set in session_options" in clf.runtime.why


@pytest.mark.parametrize(
    ("level", "precision"),
    [(level.name, each) for level in KNOWN for each in ("int8", "bf16") if each == "int8" or FIRST[each] in level.operations],
)
def test_a_score_does_not_depend_on_its_batch_at_any_level(model: Path, level: str, precision: str) -> None:
    texts = [f"{text} {'and so on ' * length}" for length in (0, 3, 20) for text in TEXTS]
    with opened(model, level, precision) as clf:
        together = clf.decision_function(texts)
        for i, text in enumerate(texts):
            np.testing.assert_array_equal(clf.decision_function([text])[0], together[i])


@only_with_kernels
def test_sessions_of_several_levels_live_in_one_process(artifact: Path) -> None:
    levels = [level.name for level in KNOWN]
    alone = {}
    for level in levels:
        with opened(artifact, level) as clf:
            alone[level] = clf.predict_proba(TEXTS)
    with contextlib.ExitStack() as stack:
        running = [(level, stack.enter_context(opened(artifact, level))) for level in [*levels, *reversed(levels)]]
        for level, clf in running:
            np.testing.assert_array_equal(clf.predict_proba(TEXTS), alone[level])
    if {"avx512bf16", "avx512vnni"} <= set(levels):  # the first rounds to bfloat16: they are not one and the same
        assert (alone["avx512bf16"] != alone["avx512vnni"]).any()


@only_with_kernels
def test_threads_that_open_different_levels_at_once_get_their_own(artifact: Path) -> None:
    def scores(level: str) -> np.ndarray:
        with opened(artifact, level) as clf:
            return clf.predict_proba(TEXTS)

    names = [level.name for level in KNOWN]
    alone = {name: scores(name) for name in names}
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for name, found in zip(names * 4, pool.map(scores, names * 4), strict=True):
            np.testing.assert_array_equal(found, alone[name])


@only_with_kernels
@pytest.mark.parametrize("name", ["auto", "1", "", " AVX512 ", "onnxruntime", "0"])
def test_the_environment_forces_a_level_and_session_options_win(
    artifact: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(cpu_kernels.VARIABLE, name)
    forced = name not in ("auto", "1", "")
    with Classifier.from_pretrained(artifact, precision="fp32") as clf:
        assert ("as set in FUSEDBERT_KERNELS" in clf.runtime.why) is forced
    with Classifier.from_pretrained(artifact, precision="fp32", session_options={cpu_kernels.SWITCH: "auto"}) as clf:
        assert "as set in" not in clf.runtime.why
    with Classifier.from_pretrained(artifact, precision="fp32", session_options=OFF) as clf:
        assert "as set in session_options" in clf.runtime.why


@only_with_kernels
def test_a_level_that_there_is_not_is_refused_with_those_there_are(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = ", ".join(level.name for level in getattr(cpu_kernels.loaded(), "levels", ()))
    monkeypatch.setenv(cpu_kernels.VARIABLE, "avx10")
    with pytest.raises(OptionError, match=f"FUSEDBERT_KERNELS is 'avx10'.* are {there}; or auto"):
        Classifier.from_pretrained(artifact, precision="int8")
    with pytest.raises(OptionError, match=r"session_options\['fusedbert.kernels'\] is 'true'"):
        Classifier.from_pretrained(artifact, precision="fp32", session_options={cpu_kernels.SWITCH: True})


def test_a_level_without_a_library_is_refused(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(levels, "library", lambda: None)
    monkeypatch.setenv(cpu_kernels.VARIABLE, "avx512")
    with pytest.raises(DeviceError, match="FUSEDBERT_KERNELS is 'avx512', and fusedbert's kernels are not installed here"):
        Classifier.from_pretrained(artifact, precision="int8")
    for name in ("auto", "onnxruntime"):
        monkeypatch.setenv(cpu_kernels.VARIABLE, name)
        Classifier.from_pretrained(artifact, precision="int8").close()


# Instruction sets of a processor, as levels.h numbers them, and what runs there.
@pytest.mark.parametrize(
    ("features", "says"),
    [
        (0, "this CPU lacks avx512f and avx512_vnni"),
        (1, "this CPU lacks avx_vnni"),
        (3, "this CPU lacks avx512_vnni"),
        (7, "kernels for products and attention (avx512vnni)"),
        (9, "kernels for products and attention (avxvnni)"),
        (63, "they use this CPU's AMX"),
    ],
)
def test_a_lesser_processor_runs_its_kernels_and_functions_for_the_rest(
    artifact: Path, reference: np.ndarray, features: int, says: str, processor: Any, tmp_path: Path
) -> None:
    own = {7: "avx512vnni", 9: "avxvnni"}.get(features)
    if own is not None and own not in [level.name for level in KNOWN]:
        pytest.skip("no kernels for products here")
    processor(features)
    with Classifier.from_pretrained(artifact, precision="int8", cache_dir=tmp_path) as clf:
        assert says in clf.runtime.why
        np.testing.assert_allclose(clf.predict_proba(TEXTS), reference, atol=0.02 if own else 1e-6)


@only_with_kernels
def test_only_operators_of_the_graph_are_said_to_have_kernels(checkpoint: Path, tmp_path: Path) -> None:
    """Heads of 24 are not a multiple of 16, so that ONNX's own Attention is in the graph; and there is no Gelu."""
    write_checkpoint(tmp_path / "checkpoint", ModelShape(layers=1, heads=3, hidden=72), checkpoint)
    config = tmp_path / "checkpoint" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"hidden_act": "relu"}))
    export_checkpoint(tmp_path / "checkpoint", tmp_path / "artifact", target="cpu", required=False)
    for precision, own in (("int8", "products"), ("fp32", "LayerNormalization and products")):
        with Classifier.from_pretrained(tmp_path / "artifact", precision=precision) as clf:
            assert f"fusedbert's kernels for {own} (" in clf.runtime.why, clf.runtime.why
            assert "by ONNX Runtime" not in clf.runtime.why


def test_a_level_that_the_processor_cannot_run_is_refused_with_what_it_lacks(artifact: Path, processor: Any) -> None:
    processor(7)
    with pytest.raises(DeviceError, match=r"this CPU lacks avx512_bf16; it runs avx512vnni, .*onnxruntime$"):
        Classifier.from_pretrained(artifact, precision="int8", session_options={cpu_kernels.SWITCH: "avx512bf16"})


def test_amx_leaves_int8_to_onnx_runtime_unless_a_level_is_forced(
    artifact: Path, processor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "avx512vnni" not in [level.name for level in KNOWN]:
        pytest.skip("no kernels for products here")
    processor(63)
    monkeypatch.setenv(cpu_kernels.VARIABLE, "avx512vnni")
    with Classifier.from_pretrained(artifact, precision="int8") as clf:
        assert "kernels for products and attention (avx512vnni, as set in FUSEDBERT_KERNELS)" in clf.runtime.why


def test_amx_leaves_feed_forwards_in_bfloat16_to_our_kernels(processor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    processor(63)
    used: list[tuple[str, str]] = []
    monkeypatch.setattr(levels.Library, "use", lambda self, kernels, level: used.append((kernels.value, level.name)))
    cpu_kernels.register(onnxruntime.SessionOptions(), None, cpu_kernels.Kernels.INT8)
    assert used == [("bf16", "avx512bf16")]


def test_amx_leaves_disentangled_attention_to_our_kernels_and_so_the_products(processor: Any) -> None:
    processor(63)
    both = cpu_kernels.Kernels.INT8, cpu_kernels.Kernels.INT8_POSITIONS
    assert [cpu_kernels.choose(each, None)[0].name for each in both] == ["onnxruntime", "avx512bf16"]


@pytest.fixture
def processor(build: Any, sources: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Return a function that puts a library in place whose processor has certain instruction sets."""

    def put(features: int) -> None:
        (real,) = (source for source in sources if source.name == "cpu_features.c")
        other = tmp_path / "other.c"
        other.write_text(f"""#define cpu_features real_features
#include "{real}"
#undef cpu_features
unsigned cpu_features(void) {{ return {features}; }}
""")
        rest = [source for source in sources if source != real]
        library = build(tmp_path / f"other{features}.so", [other, *rest], options=("-O1", "-shared", "-fPIC"))
        monkeypatch.setattr(levels, "library", lambda: library)

    return put


def test_threads_that_register_at_the_same_time_share_one_domain(build: Any, sources: list[Path], tmp_path: Path) -> None:
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
    library = ctypes.CDLL(str(build(tmp_path / "fresh.so", sources)))

    def register() -> None:
        library.fusedbert_use(0, 0)
        library.RegisterCustomOps(None, base)

    for _ in range(4):
        threads.append(threading.Thread(target=register))
        threads[-1].start()
    for thread in threads:
        thread.join()
    assert len(used) == 4 and len(set(used)) == 1
    assert sorted(released + used[:1]) == [1, 2, 3, 4]


def test_other_kernels_are_verified_again(artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = "as verified at an earlier load"
    for kernels, seen in (("a", False), ("a", True), ("b", False)):
        monkeypatch.setattr("fusedbert.engine.load.golden.fingerprint", lambda *_, kernels=kernels: kernels)
        with Classifier.from_pretrained(artifact, precision="int8", cache_dir=tmp_path) as clf:
            assert (words in clf.runtime.why) is seen


@only_with_kernels
def test_a_verdict_holds_for_its_level(artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = "as verified at an earlier load"
    for level, seen in (("auto", False), ("auto", True), ("avx512", False), ("onnxruntime", False), ("avx512", True)):
        monkeypatch.setenv(cpu_kernels.VARIABLE, level)
        with Classifier.from_pretrained(artifact, precision="fp32", cache_dir=tmp_path) as clf:
            assert (words in clf.runtime.why) is seen


def test_fp32_gives_the_same_with_and_without_the_kernels(artifact: Path) -> None:
    with (
        Classifier.from_pretrained(artifact, precision="fp32") as with_kernels,
        Classifier.from_pretrained(artifact, precision="fp32", session_options=OFF) as without,
    ):
        assert ("kernels for LayerNormalization, Gelu and products" in with_kernels.runtime.why) is (
            "avx512" in [level.name for level in KNOWN]
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
    monkeypatch.setattr(levels, "library", lambda: None)
    with Classifier.from_pretrained(artifact, precision="int8") as clf:
        assert "ONNX Runtime kernels (fusedbert" in clf.runtime.why
        np.testing.assert_allclose(clf.predict_proba(TEXTS), reference, atol=1e-6)


def test_a_damaged_library_is_one_line_that_names_it(artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "broken.so"
    broken.write_bytes(b"\x7fELF, and nothing more")
    monkeypatch.setattr(levels, "library", lambda: broken)
    with pytest.raises(DeviceError, match=r"broken\.so cannot be loaded .*: install fusedbert again") as caught:
        Classifier.from_pretrained(artifact, precision="int8")
    assert "\n" not in str(caught.value)
    assert cpu_kernels.cpu_features() is None  # the machine can still be examined
