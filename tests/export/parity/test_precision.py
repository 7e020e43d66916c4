"""Feed-forwards of the int8 graph in bfloat16: chosen where a model needs them, and right where they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from fusedbert.engine.kernels import Kernels, register
from fusedbert.engine.text.inputs import Text
from fusedbert.engine.text.tokenizer import pad
from fusedbert.export.calibrate import calibrate, calibration_texts
from fusedbert.export.checkpoint import locate
from fusedbert.export.checkpoint.heads import only_head
from fusedbert.export.graph.bert import build
from fusedbert.export.graph.cpu.int8 import CpuInt8
from fusedbert.export.graph.int8.weights import QuantizedDense, QuantizedWeights
from fusedbert.export.parity import precision
from fusedbert.export.parity.baseline import DirectBaseline, compute_baseline
from fusedbert.export.parity.gates import open_session, run_batch
from fusedbert.export.parity.reference import forward

EMBEDDED = Path(__file__).parents[3] / "models" / "sst2-mini"


def baseline_of(checkpoint: Path, calibration: tuple[Text, ...] = ()) -> DirectBaseline:
    found = locate(str(checkpoint), revision=None, token=None, local_files_only=True)
    return compute_baseline(only_head(found), lambda _: None, rounded=True, calibration=calibration)


def test_a_model_that_keeps_its_answers_has_none() -> None:
    baseline = baseline_of(EMBEDDED)
    said: list[str] = []
    assert precision.choose_bf16_layers(baseline, calibrate(baseline, calibration_texts(baseline)), said.append) == 0
    assert not said


def test_a_model_that_needs_more_than_there_is_gets_the_most(make_checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    baseline = baseline_of(make_checkpoint("bert", num_hidden_layers=4))
    params = calibrate(baseline, calibration_texts(baseline))
    said: list[str] = []
    monkeypatch.setattr(precision, "TARGET", 0.0)
    assert precision.choose_bf16_layers(baseline, params, said.append) == 2
    assert "the feed-forward of the first 2 of 4 layers stays in bfloat16" in said[0]
    monkeypatch.setattr(precision, "MOST", 1)
    assert precision.choose_bf16_layers(baseline, params, said.append) == 1


def test_an_odd_number_of_neurons_stays_in_int8(make_checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    baseline = baseline_of(make_checkpoint("bert", intermediate_size=63))
    monkeypatch.setattr(precision, "TARGET", 0.0)
    assert precision.choose_bf16_layers(baseline, calibrate(baseline, calibration_texts(baseline)), lambda _: None) == 0


def test_labels_that_would_not_pass_are_a_need_too(make_checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    baseline = baseline_of(make_checkpoint("bert", num_hidden_layers=4))
    params = calibrate(baseline, calibration_texts(baseline))
    verdicts = iter([False, True, True])
    monkeypatch.setattr(precision, "TARGET", np.inf)
    monkeypatch.setattr(precision, "passes", lambda parity, _: next(verdicts))
    assert precision.choose_bf16_layers(baseline, params, lambda _: None) == 1


@pytest.mark.parametrize("texts", [54, 129])
def test_pairs_have_to_pass_with_those_that_were_added_and_without(
    make_checkpoint, monkeypatch: pytest.MonkeyPatch, texts: int
) -> None:
    baseline = baseline_of(make_checkpoint("bert", num_hidden_layers=4), (Text(text="a", pair="b", index=0),))
    params = calibrate(baseline, calibration_texts(baseline))
    verdicts = iter([False, True])
    monkeypatch.setattr(precision, "TARGET", np.inf)
    monkeypatch.setattr(precision, "passes", lambda parity, _: parity.texts != texts or next(verdicts))
    assert precision.choose_bf16_layers(baseline, params, lambda _: None) == 1


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "electra"])
def test_they_bring_the_graph_nearer_to_the_reference(make_checkpoint, tmp_path: Path, family: str) -> None:
    """On average of random models, with many labels: with few the errors of the other products may hide it."""
    shares = [share_of_the_error(make_checkpoint(family, seed=seed, num_labels=24), tmp_path) for seed in (3, 4, 5, 6)]
    assert np.exp(np.log(shares).mean()) < 0.95


def share_of_the_error(checkpoint: Path, folder: Path) -> float:
    """Return the squared error with two layers' feed-forward in bfloat16, as a share of that without."""
    baseline = baseline_of(checkpoint)
    params, a = calibrate(baseline, calibration_texts(baseline)), baseline.architecture
    texts = sorted(baseline.checks.texts, key=lambda text: len(text.ids))[:40]
    expected = forward(a, baseline.weights, texts)
    errors = []
    for layers in (0, 2):
        path = folder / f"{layers}.onnx"
        graph = build(a, QuantizedWeights(baseline.weights, params, layers), CpuInt8)
        nodes = graph.count_nodes()
        assert nodes.get("fusedbert:Bf16DenseAddNorm", 0) == layers == nodes.get("fusedbert:Bf16DenseGelu", 0)
        graph.write(path, "test", opset=CpuInt8.opset, metadata={})
        functions = run_batch(open_session(path), ["logits"], pad(texts, a.padding_id))[0]
        errors.append(float(np.square(functions - expected).mean()))
        options = onnxruntime.SessionOptions()
        register(options, None, Kernels.INT8)
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        kernels = run_batch(session, ["logits"], pad(texts, a.padding_id))[0]
        assert np.abs(kernels - functions).max() < 0.05 * expected.std() + 0.02  # uint8 may round to the neighbour
    return errors[1] / errors[0]


def test_only_the_first_layers_are_in_bfloat16(make_checkpoint) -> None:
    baseline = baseline_of(make_checkpoint("bert"))
    weights = QuantizedWeights(baseline.weights, calibrate(baseline, calibration_texts(baseline)), 1)
    first, second = weights.layer(0), weights.layer(1)
    for layer, rounded in ((first, False), (second, True)):
        assert isinstance(layer.query, QuantizedDense) and isinstance(layer.attention_output, QuantizedDense)
        assert isinstance(layer.intermediate, QuantizedDense) is rounded is isinstance(layer.output, QuantizedDense)
    original = baseline.weights.layer(0)
    assert np.array_equal(first.intermediate.weight, original.intermediate.weight)
    assert np.array_equal(first.attention_norm.weight, original.attention_norm.weight)
