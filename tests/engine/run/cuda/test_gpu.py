"""On a GPU: parity, placement, packed against padded, captured graphs, memory. Skipped where there is none, with the reason."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from checkpoint_edits import widen

from fusedbert.bench.engines.random.deberta import DebertaShape
from fusedbert.bench.engines.random.deberta import write_checkpoint as write_deberta
from fusedbert.bench.engines.random.models import open_padded
from fusedbert.bench.engines.random.modernbert import ModernShape, write_checkpoint
from fusedbert.bench.run.cuda_candidates import CANDIDATES, open_candidates, time_candidates
from fusedbert.engine import Classifier, DeviceError
from fusedbert.engine.artifact import PACKED
from fusedbert.engine.hardware.device import CUDA, import_onnxruntime, inspect_offer
from fusedbert.engine.run.batches import FINE, pack, packed_bucket
from fusedbert.engine.run.cuda.buffers import cuda_runtime
from fusedbert.engine.run.cuda.provider import off_device
from fusedbert.engine.run.cuda.runners import PackedRunner, PaddedCudaRunner, PaddedScoresRunner
from fusedbert.engine.run.runner import Runner, run
from fusedbert.engine.text.inputs import check_items
from fusedbert.engine.text.tokenizer import Row
from fusedbert.export import export_checkpoint
from fusedbert.export.parity.texts import CHECK_TEXTS, ROUNDING_TEXTS

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module", autouse=True)
def _gpu() -> None:
    if reason := inspect_offer(import_onnxruntime()).obstacle():
        pytest.skip(reason)


@pytest.fixture(scope="module")
def on_cuda(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    artifact = tmp_path_factory.mktemp("gpu") / "sst2-mini"
    export_checkpoint(repository / "models" / "sst2-mini", artifact, required=True)
    return Classifier.from_pretrained(artifact, device="cuda")


@pytest.fixture(scope="module")
def packed(on_cuda: Classifier) -> PackedRunner:
    opened = on_cuda.model.open()
    assert isinstance(opened, PackedRunner), on_cuda.runtime.why
    return opened


@pytest.fixture(scope="module")
def padded(on_cuda: Classifier) -> PaddedCudaRunner:
    """The graph for machines where the packed one does not work."""
    return open_padded(on_cuda.model.source)


def random_rows(rng: np.random.Generator, texts: int, longest: int) -> list[Row]:
    return [
        Row(ids=[2, *rng.integers(5, 9000, size=n).tolist(), 3], types=[0] * (n + 2), truncated=False)
        for n in rng.integers(1, longest, size=texts).tolist()
    ]


def test_labels_equal_those_of_fp32(on_cuda: Classifier) -> None:
    texts = [*CHECK_TEXTS, *ROUNDING_TEXTS]
    with Classifier.from_pretrained(on_cuda.model.source.folder, device="cpu", precision="fp32") as judge:
        expected = judge.decision_function(texts)
    found = on_cuda.decision_function(texts)
    assert np.mean(found.argmax(axis=1) == expected.argmax(axis=1)) >= 0.995
    assert np.abs(found - expected).max() < 0.05


@pytest.mark.parametrize(("family", "heads", "hidden"), [("roberta", 2, 32), ("bert", 2, 24), ("bert", 2, 12)])
def test_logits_of_other_models_equal_those_of_fp32(
    family: str, heads: int, hidden: int, checkpoint_at: Callable[..., Path], tmp_path: Path
) -> None:
    """RoBERTa counts positions on the device; heads of 12 and 6 have no fused kernel in the padded graph's last layer."""
    source = checkpoint_at(tmp_path / "source", family=family, heads=heads, hidden=hidden, positions=130)
    export_checkpoint(source, tmp_path / "a", required=True)
    with (
        Classifier.from_pretrained(tmp_path / "a", device="cpu", precision="fp32") as judge,
        Classifier.from_pretrained(tmp_path / "a", device="cuda") as clf,
    ):
        parts: list[Runner] = [clf.model.open()]
        if clf.runtime.layout == PACKED:
            parts.append(open_padded(clf.model.source))
        for texts in (CHECK_TEXTS[:4], CHECK_TEXTS):
            rows, expected = clf.model.tokenizer.encode(check_items(texts)), judge.decision_function(texts)
            for part in parts:
                for _ in range(3):  # the small batch plain, captured and replayed
                    np.testing.assert_allclose(run(part, rows), expected, atol=0.03)


def test_modernberts_windows_equal_those_of_fp32(checkpoint: Path, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "source", ModernShape(layers=4, heads=4, hidden=256, inner=192), checkpoint / "vocab.txt")
    widen(tmp_path / "source", "attn.Wqkv", "attn.Wo", factor=4.0)
    export_checkpoint(tmp_path / "source", tmp_path / "a", target="all", required=False)
    with (
        Classifier.from_pretrained(tmp_path / "a", device="cpu", precision="fp32") as judge,
        Classifier.from_pretrained(tmp_path / "a", device="cuda") as clf,
    ):
        assert clf.runtime.layout == PACKED
        for texts in (CHECK_TEXTS[:1], CHECK_TEXTS, ["a long film . " * n for n in (1, 40, 700, 1900)]):
            expected = judge.decision_function(texts)
            for _ in range(3):
                np.testing.assert_allclose(clf.decision_function(texts), expected, atol=0.02)


def test_debertas_positions_equal_those_of_fp32(checkpoint: Path, tmp_path: Path) -> None:
    """Packed and padded."""
    write_deberta(tmp_path / "source", DebertaShape(layers=3, heads=4, hidden=256), checkpoint / "vocab.txt")
    widen(tmp_path / "source", "_proj", "attention.output.dense", "pooler.dense", "classifier", factor=2.0)
    export_checkpoint(tmp_path / "source", tmp_path / "a", target="all", required=False)
    with (
        Classifier.from_pretrained(tmp_path / "a", device="cpu", precision="fp32") as judge,
        Classifier.from_pretrained(tmp_path / "a", device="cuda") as clf,
    ):
        assert clf.runtime.layout == PACKED and isinstance(clf.model.open(), PaddedScoresRunner)
        for texts in (CHECK_TEXTS[:1], CHECK_TEXTS, ["a long film . " * n for n in (1, 40, 120)]):
            rows, expected = clf.model.tokenizer.encode(check_items(texts)), judge.decision_function(texts)
            for part in (clf.model.open(), open_padded(clf.model.source)):
                for _ in range(3):
                    np.testing.assert_allclose(run(part, rows), expected, atol=0.02)


def test_every_node_is_on_cuda(packed: PackedRunner, padded: PaddedCudaRunner) -> None:
    for part in (padded, packed):
        assert off_device(part.graphs.session.raw, CUDA) in ([], None)


@pytest.mark.parametrize("longest", [10, 60, 120, 500])
def test_packed_gives_what_padded_gives(packed: PackedRunner, padded: PaddedCudaRunner, longest: int) -> None:
    rng = np.random.default_rng(longest)
    for texts in (1, 2, 7, 33):
        rows = random_rows(rng, texts, longest)
        without, with_padding = (part.execute(part.prepare(rows)) for part in (packed, padded))
        np.testing.assert_allclose(without, with_padding, atol=0.05)


def test_a_replayed_graph_gives_what_a_plain_run_gives(packed: PackedRunner, padded: PaddedCudaRunner) -> None:
    rng = np.random.default_rng(0)
    for part in (padded, packed):
        rows, others = random_rows(rng, 3, 40), random_rows(rng, 3, 40)
        before = part.graphs.captured
        plain = part.execute(part.prepare(rows))
        for _ in range(3):
            part.execute(part.prepare(others))  # other texts between, so that a stale buffer would show
            np.testing.assert_allclose(part.execute(part.prepare(rows)), plain, atol=2e-3)
        assert part.graphs.captured > before


def test_candidates_for_packed_attention_compute_the_same(checkpoint: Path, tmp_path: Path) -> None:
    """With trained weights, because a wrong layout of them would show."""
    lengths = [5, 30, 17, 60, 2, 41]
    rows = [Row(ids=[2, *range(100, 99 + n)], types=[0] * n, truncated=False) for n in lengths]
    batch = pack(rows, packed_bucket(lengths, fineness=FINE), 0)
    timed = time_candidates(open_candidates(checkpoint, tmp_path, on_cpu=False), {"mixed": batch}, seconds=0.01)
    assert list(timed) == list(CANDIDATES)
    assert max(each["max_abs_difference"] for each in timed.values()) < 0.01, timed
    assert {each["captured"] for each in timed.values()} == {1}


def gpu_memory_mib() -> int:
    """MiB in use on the current device, by all processes."""
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    assert cuda_runtime().cudaMemGetInfo(ctypes.byref(free), ctypes.byref(total)) == 0
    return (total.value - free.value) >> 20


def test_memory_stays_flat(packed: PackedRunner) -> None:
    rng = np.random.default_rng(0)

    def run(batches: int) -> None:
        for _ in range(batches):
            rows = random_rows(rng, int(rng.integers(1, 33)), 120)
            packed.execute(packed.prepare(rows))

    run(1000)
    after_first = gpu_memory_mib()
    run(1000)
    assert gpu_memory_mib() <= after_first + 64


def test_a_missing_device_is_refused_with_the_reason(on_cuda: Classifier) -> None:
    with pytest.raises(DeviceError, match="no CUDA device of this number"):
        Classifier.from_pretrained(on_cuda.model.source.folder, device="cuda:99")
