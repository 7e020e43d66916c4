"""The int8 graph as a processor computes it whose products saturate: against NumPy, and ONNX Runtime's AVX2 kernel in qemu."""

from __future__ import annotations

import dataclasses
import functools
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file, save_file

from fusedbert.engine.artifact import Manifest, read_manifest
from fusedbert.engine.artifact.limits import passes
from fusedbert.export import export_checkpoint
from fusedbert.export.checkpoint import locate
from fusedbert.export.checkpoint.heads import only_head
from fusedbert.export.cli import export
from fusedbert.export.graph.builder import Graph
from fusedbert.export.graph.int8.products import dense_stand_in
from fusedbert.export.graph.operators import DOMAIN, to_panels
from fusedbert.export.parity import saturation
from fusedbert.export.parity.baseline import compute_baseline
from fusedbert.export.parity.gates import open_session

QEMU = shutil.which("qemu-x86_64-static") or shutil.which("qemu-x86_64")
RNG = functools.partial(np.random.default_rng, 3)
WEIGHTS: dict[str, Callable[[int, int], np.ndarray]] = {
    "any": lambda n, m: RNG().integers(-128, 128, (n, m)),
    "all 127": lambda n, m: np.full((n, m), 127),
    "all -128": lambda n, m: np.full((n, m), -128),
    "signs": lambda n, m: RNG().choice([-127, 127], (n, m)),
    "just below 16 bits": lambda n, m: np.full((n, m), 64),
    "one output": lambda n, m: np.where(np.arange(m) == m - 1, 127, 3) + np.zeros((n, 1), int),
}
INPUTS: dict[str, Callable[..., np.ndarray]] = {
    "any": lambda *shape: RNG().integers(0, 256, shape),
    "all 255": lambda *shape: np.full(shape, 255),
    "small": lambda *shape: RNG().integers(0, 120, shape),
}


@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("numbers", INPUTS)
@pytest.mark.parametrize(("rows", "inputs", "outputs"), [((3,), 4, 1), ((2, 5), 36, 33), ((1, 1), 200, 64)])
def test_sums_are_those_of_pairs_clipped_one_by_one(
    tmp_path: Path, weight: str, numbers: str, rows: tuple[int, ...], inputs: int, outputs: int
) -> None:
    w = WEIGHTS[weight](inputs, outputs).astype(np.int8)
    x = INPUTS[numbers](*rows, inputs).astype(np.uint8)
    products = x.astype(np.int64)[..., None] * w  # [..., inputs, outputs]
    pairs = products.reshape(*rows, inputs // 2, 2, outputs).sum(axis=-2)
    zero = 7 * w.sum(axis=0, dtype=np.int64)  # of the zero point, which the kernel takes off afterwards
    for saturating, expected in ((False, pairs), (True, np.clip(pairs, -(2**15), 2**15 - 1))):
        np.testing.assert_array_equal(_product(tmp_path, x, w, saturating=saturating), expected.sum(axis=-2) - zero)


def _product(folder: Path, x: np.ndarray, w: np.ndarray, *, saturating: bool) -> np.ndarray:
    """Run ``Dense`` with a zero point of 7, scales of 1 and no bias."""
    graph, outputs = Graph(), w.shape[1]
    x8 = graph.input("x8", "uint8", list(x.shape))
    graph.define(dense_stand_in(saturating=saturating))
    ones, bias = (graph.weight(name, np.full(outputs, n, np.float32)) for name, n in (("scale", 1), ("bias", 0)))
    operands = (x8, graph.constant(7, "uint8"), graph.weight("weight", to_panels(w, 4)), ones, bias)
    graph.output("y", graph.op("Dense", *operands, domain=DOMAIN), "float32", [*x.shape[:-1], outputs])
    graph.write(folder / "dense.onnx", "dense", opset=24, metadata={})
    return np.asarray(open_session(folder / "dense.onnx", disabled=("ConstantFolding",)).run(["y"], {"x8": x})[0])


@pytest.fixture(scope="module")
def saturating(checkpoint_at: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with weights of one size, equal in pairs as its inputs are: half of the sums of two leave 16 bits."""
    folder = checkpoint_at(tmp_path_factory.mktemp("saturating") / "source", layers=1, hidden=64)
    tensors = load_file(folder / "model.safetensors")
    for name, tensor in tensors.items():
        if name.startswith("bert.embeddings.") and tensor.ndim == 2:
            tensors[name] = np.repeat(tensor[:, ::2], 2, axis=1)
        elif name.startswith("bert.embeddings.LayerNorm"):
            tensors[name] = np.full_like(tensor, name.endswith("weight"))
        elif name.endswith(("value.weight", "intermediate.dense.weight")):
            tensors[name] = np.repeat(np.sign(tensor[:, ::2]) * np.float32(0.4), 2, axis=1)
        elif name.startswith("classifier."):
            tensors[name] = tensor * np.float32(0.1 * name.endswith("weight"))
    save_file(tensors, folder / "model.safetensors")
    return folder


@pytest.fixture(scope="module")
def made(saturating: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest, str]:
    """Its artifact, and what the command printed."""
    folder = tmp_path_factory.mktemp("made") / "artifact"
    done = CliRunner().invoke(export, [str(saturating), str(folder), "--for", "cpu"], standalone_mode=False)
    assert done.exception is None
    return folder, read_manifest(folder), done.output


def test_a_model_that_saturates_fails_only_the_second_gate(made: tuple[Path, Manifest, str]) -> None:
    folder, manifest, printed = made
    fp32, int8, _ = manifest.variants
    assert int8.parity_avx2 is not None and fp32.parity_avx2 is None
    assert passes(int8.parity, "int8") and not passes(int8.parity_avx2, "int8")
    assert int8.parity_avx2.texts == int8.parity.texts and "AVX2" in int8.parity_avx2.measured_on
    agreement = f"{int8.parity_avx2.label_agreement:.1%}"
    assert f"labels agree in {agreement}" in printed and "auto takes fp32 there" in printed
    for text in (printed, (folder / "README.md").read_text(encoding="utf-8")):
        assert "cpu (AVX2)" in text and agreement.replace("%", " %") in text
    assert [path.name for path in (folder / "onnx").iterdir() if path.name.startswith(".")] == []


def test_weights_that_cannot_saturate_pass_both_gates_with_the_same_figures(
    make_checkpoint: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fusedbert.export.graph.int8.weights.quantize_weight", _seven_bits)
    manifest = export_checkpoint(make_checkpoint("bert", seed=2), tmp_path / "artifact", target="cpu", required=False)
    (int8,) = (variant for variant in manifest.variants if variant.precision == "int8")
    assert int8.parity_avx2 is not None
    one, other = (dataclasses.replace(parity, measured_on="") for parity in (int8.parity, int8.parity_avx2))
    # A text that is in several batches counts by its worst run, and the second gate runs each text once.
    assert one.label_agreement == other.label_agreement
    assert other.max_abs_logit == pytest.approx(one.max_abs_logit, rel=0.05)


def _seven_bits(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scale = np.maximum(np.abs(weight).max(axis=0), 1e-12) / 63
    return np.rint(weight / scale).astype(np.int8), scale.astype(np.float32)


def test_the_first_gate_says_the_same_where_products_saturate(
    saturating: Path, made: tuple[Path, Manifest, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, manifest, _ = made
    checkpoint = locate(str(saturating), revision=None, token=None, local_files_only=True)
    baseline = compute_baseline(only_head(checkpoint), lambda _: None, rounded=True)
    monkeypatch.setattr(saturation, "products_saturate", lambda: True)
    parity = saturation.check_exact(folder / manifest.variants[1].file, baseline, lambda _: None)
    assert parity.measured_on == saturation.MEASURED_EXACT
    assert dataclasses.replace(parity, measured_on="") == dataclasses.replace(manifest.variants[1].parity, measured_on="")


def test_each_text_runs_once_in_batches_of_bounded_size(saturating: Path) -> None:
    checkpoint = locate(str(saturating), revision=None, token=None, local_files_only=True)
    checks = compute_baseline(only_head(checkpoint), lambda _: None, rounded=True).checks
    batches = saturation.by_length(checks).batches
    assert sorted(row for batch in batches for row in batch) == list(range(len(checks.texts)))
    sizes = [len(batch) * max(len(checks.texts[row].ids) for row in batch) for batch in batches]
    assert all(size <= saturation.BATCH_TOKENS or len(batch) == 1 for size, batch in zip(sizes, batches, strict=True))


IN_QEMU = """
import sys
import numpy as np
from pathlib import Path
from fusedbert.export.parity.gates import open_session
from fusedbert.export.parity.saturation import products_saturate

arrays = dict(np.load(sys.argv[2]))
expected = arrays.pop("expected")
found = open_session(Path(sys.argv[1])).run(["logits"], arrays)[0]
print(products_saturate(), float(np.abs(found - expected).max()))
"""


@pytest.mark.skipif(
    QEMU is None or platform.machine() != "x86_64" or sys.platform != "linux",
    reason="needs qemu-x86_64 (on Debian: apt-get install qemu-user-static)",
)
def test_the_stand_in_computes_what_onnx_runtimes_avx2_kernel_computes(
    made: tuple[Path, Manifest, str], tmp_path: Path
) -> None:
    path = made[0] / "onnx/model_int8.onnx"
    ids = RNG().integers(5, 15, (6, 12))
    arrays: dict[str, Any] = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    logits = {mode: saturation.open_stand_in(path, saturating=mode).run(["logits"], arrays)[0] for mode in (False, True)}
    np.savez(tmp_path / "run.npz", expected=logits[True], **arrays)
    command = [str(QEMU), "-cpu", "Haswell", sys.executable, "-c", IN_QEMU, str(path), str(tmp_path / "run.npz")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True)
    saturates, difference = done.stdout.split()
    assert saturates == "True" and float(difference) < 0.01 < np.abs(logits[True] - logits[False]).max() / 5
