"""The graph that is opened on CUDA: the packed one, or the padded one where that does not work."""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from checkpoint_edits import widen

from fusedbert.bench.engines.random.deberta import DebertaShape
from fusedbert.bench.engines.random.deberta import write_checkpoint as write_deberta
from fusedbert.bench.engines.random.modernbert import ModernShape
from fusedbert.bench.engines.random.modernbert import write_checkpoint as write_modernbert
from fusedbert.engine import Classifier, DeviceError
from fusedbert.engine.artifact import PACKED, PADDED, read_manifest, write_manifest
from fusedbert.engine.load import open_cuda
from fusedbert.engine.run.batches import COARSE
from fusedbert.engine.run.cuda.graphs import GraphCache
from fusedbert.engine.run.cuda.runners import PaddedCudaRunner
from fusedbert.engine.text.tokenizer import Row
from fusedbert.export import export_checkpoint

MIXED = ["good", "the movie was not very good . " * 4, "bad !", "", "the movies was bad", "very " * 30]
LONG = "a long film . " * 120
EVEN = ["good movie"] * 40  # too many for a CUDA graph


def test_only_the_packed_graph_is_opened(exported: Path, cuda: Any, expected: Any) -> None:
    fake = cuda()
    clf = Classifier.from_pretrained(exported, device="cuda")
    assert (clf.runtime.device, clf.runtime.precision, clf.runtime.layout) == ("cuda:0", "fp16", PACKED)
    assert "; packed; " in clf.runtime.why and "golden texts within" in clf.runtime.why
    assert clf.runtime.file.name == "model_fp16_packed.onnx"
    for texts in (MIXED, EVEN, MIXED * 7, EVEN[:1]):
        np.testing.assert_allclose(clf.decision_function(texts), expected(texts), atol=0.03)
    assert len(fake.sessions) == 1


def write_windows(folder: Path, vocabulary: Path, window: int = 128) -> None:
    """ModernBERT's; blocks hold several texts, and texts several blocks."""
    write_modernbert(folder, ModernShape(layers=4, heads=2, hidden=64, inner=32), vocabulary)
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"local_attention": 128', f'"local_attention": {window}'))
    widen(folder, "attn.Wqkv", "attn.Wo", factor=8.0)


def write_positions(folder: Path, vocabulary: Path, wide: float = 8.0) -> None:
    """DeBERTa's, whose scores are those of padded texts."""
    write_deberta(folder, DebertaShape(layers=2, heads=2, hidden=64), vocabulary)
    widen(folder, "_proj", "attention.output.dense", "pooler.dense", "classifier", factor=8.0)
    widen(folder, "rel_embeddings", factor=wide)


@pytest.mark.parametrize(("write", "otherwise"), [(write_windows, 16), (write_positions, 0.0)])
def test_windows_and_positions_run_packed(
    write: Callable[..., None],
    otherwise: float,
    checkpoint: Path,
    cuda: Any,
    tmp_path: Path,
    stand_in_at: Callable[..., Path],
) -> None:
    """With another window, and without positions, logits are far away."""
    source, artifact, other = tmp_path / "source", tmp_path / "artifact", tmp_path / "other"
    write(other, checkpoint / "vocab.txt", otherwise)
    export_checkpoint(other, tmp_path / "others", target="fp32")
    write(source, checkpoint / "vocab.txt")
    export_checkpoint(source, artifact, target="all", required=False)
    stand_in_at(source, artifact)
    cuda()
    with (
        Classifier.from_pretrained(artifact, device="cuda") as clf,
        Classifier.from_pretrained(artifact, device="cpu", precision="fp32") as judge,
        Classifier.from_pretrained(tmp_path / "others", device="cpu") as wrong,
    ):
        assert clf.runtime.layout == PACKED
        for texts in (MIXED, [LONG, "good"], EVEN, EVEN[:1]):
            np.testing.assert_allclose(clf.decision_function(texts), judge.decision_function(texts), atol=0.01)
        assert np.abs(wrong.decision_function(MIXED) - judge.decision_function(MIXED)).max() > 0.05


class Opened(GraphCache):
    """Records for each cache how many others are alive when it is made."""

    alive: ClassVar[weakref.WeakSet[GraphCache]] = weakref.WeakSet()
    others: ClassVar[list[int]] = []

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.others.append(len(self.alive))
        super().__init__(*arguments, **options)
        self.alive.add(self)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        ("Available memory of 1048576 is smaller than requested bytes of 8388608", "the GPU has no memory left"),
        ("CUDA failure 209: no kernel image is available for execution on the device", "no machine code for this GPU"),
    ],
)
def test_a_packed_graph_that_fails_is_replaced_by_the_padded_one(
    error: str, says: str, exported: Path, cuda: Any, expected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And does not hold memory any more."""
    cuda(fails={"model_fp16_packed.onnx": error})
    monkeypatch.setattr(open_cuda, "GraphCache", Opened)
    Opened.others.clear()
    clf = Classifier.from_pretrained(exported, device="cuda")
    assert clf.runtime.layout == PADDED and clf.runtime.file.name == "model_fp16.onnx"
    assert "padded, as the packed graph does not work here (" in clf.runtime.why and says in clf.runtime.why
    np.testing.assert_allclose(clf.decision_function(EVEN), expected(EVEN), atol=0.03)
    assert Opened.others == [0, 0]


def test_a_packed_graph_that_computes_wrongly_is_replaced(
    own_artifact: Path,
    checkpoint_at: Callable[..., Path],
    stand_in_at: Callable[..., Path],
    cuda: Any,
    expected: Any,
    tmp_path: Path,
) -> None:
    stand_in_at(checkpoint_at(tmp_path / "other", layers=1), own_artifact)
    cuda()
    clf = Classifier.from_pretrained(own_artifact, device="cuda")
    assert clf.runtime.layout == PADDED
    assert "the packed graph does not work here (cuda:0 computes the golden texts wrongly: " in clf.runtime.why
    np.testing.assert_allclose(clf.decision_function(MIXED), expected(MIXED), atol=0.03)


def test_two_graphs_that_fail_are_an_error_with_both_reasons(exported: Path, cuda: Any) -> None:
    cuda(fails={"model_fp16.onnx": "CUDA failure 2: out of memory", "model_fp16_packed.onnx": "CUDA failure 701"})
    both = r"model_fp16\.onnx failed .* no memory left.*; the packed graph does not work here \(.*packed\.onnx failed .* 701"
    with pytest.raises(DeviceError, match=both):
        Classifier.from_pretrained(exported, device="cuda")
    with pytest.warns(RuntimeWarning, match=r"model_fp16\.onnx failed"):
        assert Classifier.from_pretrained(exported).runtime.device == "cpu"


def test_an_artifact_without_a_packed_graph_runs_padded(padded_artifact: Path, cuda: Any, expected: Any) -> None:
    cuda()
    clf = Classifier.from_pretrained(padded_artifact, device="cuda")
    assert clf.runtime.layout == PADDED and "no packed graph" in clf.runtime.why
    np.testing.assert_allclose(clf.decision_function(MIXED), expected(MIXED), atol=0.03)


def test_a_coarser_ladder_has_fewer_shapes_and_the_same_logits(padded_artifact: Path, cuda: Any) -> None:
    cuda()
    fine = Classifier.from_pretrained(padded_artifact, device="cuda").model.open()
    assert isinstance(fine, PaddedCudaRunner)
    coarse, rng = dataclasses.replace(fine, fineness=COARSE), np.random.default_rng(0)
    # Too many for a CUDA graph.
    rows = [[Row(ids=rng.integers(1, 9, 7).tolist(), types=[0] * 7, truncated=False)] * texts for texts in range(33, 64, 3)]
    shapes = [{runner.prepare(batch).bucket for batch in rows} for runner in (fine, coarse)]
    assert len(shapes[1]) < len(shapes[0])
    for batch in rows[:2]:
        np.testing.assert_allclose(coarse.execute(coarse.prepare(batch)), fine.execute(fine.prepare(batch)), atol=0.01)


def test_a_packed_graph_that_does_not_load_is_not_used(own_artifact: Path, cuda: Any, expected: Any) -> None:
    """An ONNX Runtime that does not know its operator, for example."""
    (own_artifact / "onnx/model_fp16_packed.stand-in").write_bytes(b"no graph")
    cuda()
    clf = Classifier.from_pretrained(own_artifact, device="cuda")
    assert clf.runtime.layout == PADDED and "packed graph does not work here" in clf.runtime.why
    np.testing.assert_allclose(clf.decision_function(MIXED), expected(MIXED), atol=0.03)


def test_a_device_that_computes_wrongly_is_refused(own_artifact: Path, cuda: Any) -> None:
    manifest = read_manifest(own_artifact)
    golden = [dataclasses.replace(g, logits=tuple(x + 0.5 for x in g.logits)) for g in manifest.golden]
    # The CPU's graphs are allowed as much: they are what auto falls back to.
    variants = [
        dataclasses.replace(v, parity=dataclasses.replace(v.parity, max_abs_logit=1.0)) if v.target == "cpu" else v
        for v in manifest.variants
    ]
    write_manifest(own_artifact, dataclasses.replace(manifest, golden=tuple(golden), variants=tuple(variants)))
    cuda()
    with pytest.raises(DeviceError, match=r"computes the golden texts wrongly: a logit is off by 0\.5"):
        Classifier.from_pretrained(own_artifact, device="cuda")
    with pytest.warns(RuntimeWarning, match="golden texts wrongly"):
        clf = Classifier.from_pretrained(own_artifact)
    assert clf.runtime.device == "cpu" and "golden" in clf.runtime.why
    assert clf("good")[0]["label"] in clf.classes_
