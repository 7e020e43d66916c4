"""The int8 graph: folding cancels out, rounding errors stay small, and the batch does not matter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fusedbert.engine.artifact import read_manifest
from fusedbert.engine.errors import ExportError, OptionError
from fusedbert.engine.text.tokenizer import pad
from fusedbert.export import export_checkpoint
from fusedbert.export.calibrate import built_in_texts, calibrate
from fusedbert.export.checkpoint import locate
from fusedbert.export.checkpoint.architecture import describe, read_config
from fusedbert.export.checkpoint.heads import only_head
from fusedbert.export.checkpoint.weights import Weights
from fusedbert.export.graph.int8.weights import (
    Observed,
    QuantizedDense,
    QuantizedWeights,
    fit_range,
    fit_smoothed,
    fit_split,
    quantize_table,
    quantize_weight,
)
from fusedbert.export.parity import gates as check
from fusedbert.export.parity.baseline import compute_baseline
from fusedbert.export.parity.reference import forward, gelu
from fusedbert.export.parity.texts import CHECK_TEXTS, ROUNDING_TEXTS
from fusedbert.export.tokenizer import Tokenization

EMBEDDED = Path(__file__).parents[3] / "models" / "sst2-mini"


def seen(rows: np.ndarray) -> Observed:
    return Observed(low=rows.min(axis=0), high=rows.max(axis=0), rows=rows)


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "electra"])
def test_the_graph_is_close_to_the_reference_for_every_family(make_checkpoint, tmp_path: Path, family: str) -> None:
    source = make_checkpoint(family, seed=2)
    export_checkpoint(source, tmp_path / "artifact", target="cpu", required=False)
    architecture, layout = describe(read_config(source))
    tokens = Tokenization(source, architecture)
    manifest = read_manifest(tmp_path / "artifact")
    assert [variant.precision for variant in manifest.variants] == ["fp32", "int8", "bf16"]
    texts = [tokens.encode(text) for text in CHECK_TEXTS[:12]]
    expected = forward(architecture, Weights(source, architecture, layout), texts)
    session = check.open_session(tmp_path / "artifact/onnx/model_int8.onnx")
    arrays = pad(texts, architecture.padding_id)
    names = {item.name for item in session.get_inputs()}
    found = session.run(["logits"], {name: array for name, array in arrays.items() if name in names})[0]
    assert np.abs(found - expected).mean() < 0.05 * expected.std() + 0.02


def test_folding_cancels_out(make_checkpoint) -> None:
    """The products of folded and of plain weights agree up to the rounding of the weights."""
    source = make_checkpoint("bert", seed=4)
    checkpoint = locate(str(source), revision=None, token=None, local_files_only=True)
    baseline = compute_baseline(only_head(checkpoint), lambda _: None, rounded=False)
    architecture, weights = baseline.architecture, baseline.weights
    plans = calibrate(baseline, [baseline.tokens.encode(text) for text in built_in_texts()[:40]])
    plan, layer, folded = plans[0], weights.layer(0), QuantizedWeights(weights, plans).layer(0)
    x = np.random.default_rng(0).normal(size=(50, architecture.hidden_size)).astype(np.float32)
    smoothed = (x - plan.query.shift) / plan.query.smooth
    assert isinstance(folded.query, QuantizedDense) and isinstance(folded.key, QuantizedDense)
    query, key = (smoothed @ (part.weight.astype(np.float32) * part.scale) + part.bias for part in (folded.query, folded.key))
    np.testing.assert_allclose(query, x @ layer.query.weight + layer.query.bias, atol=0.1)
    off = key - (x @ layer.key.weight + layer.key.bias)  # the same for every token, which softmax does not see
    np.testing.assert_allclose(off - off.mean(axis=0), np.zeros_like(off), atol=0.1)
    assert not folded.key.bias.any()
    of_value, of_output = folded.value, folded.attention_output
    assert isinstance(of_value, QuantizedDense) and isinstance(of_output, QuantizedDense)
    value = smoothed @ (of_value.weight.astype(np.float32) * of_value.scale) + of_value.bias
    params = plan.attention_output
    np.testing.assert_allclose(value * params.smooth + params.shift, x @ layer.value.weight, atol=0.1)  # its bias moved on
    assert of_output.residual is not None
    residual = smoothed * of_output.residual
    product = value @ (of_output.weight.astype(np.float32) * of_output.scale)
    plain = (x @ layer.value.weight + layer.value.bias) @ layer.attention_output.weight + layer.attention_output.bias
    np.testing.assert_allclose(product + of_output.bias + residual, plain + x, atol=0.3)


def test_a_text_does_not_depend_on_its_batch(tmp_path: Path) -> None:
    export_checkpoint(EMBEDDED, tmp_path / "artifact", target="cpu")
    architecture, _ = describe(read_config(EMBEDDED))
    tokens = Tokenization(EMBEDDED, architecture)
    session = check.open_session(tmp_path / "artifact/onnx/model_int8.onnx")
    texts = [tokens.encode(text) for text in (*CHECK_TEXTS, *ROUNDING_TEXTS[:43])]
    together = session.run(["logits"], pad(texts, 0))[0]
    for row, text in enumerate(texts):
        alone = session.run(["logits"], pad([text], 0))[0][0]
        np.testing.assert_allclose(alone, together[row], atol=1e-5)
    manifest = read_manifest(tmp_path / "artifact")
    fp32, int8 = (manifest.variant(target="cpu", precision=precision) for precision in ("fp32", "int8"))
    assert fp32 is not None and int8 is not None
    assert int8.parity.mean_abs_probability <= 0.005
    assert manifest.files[int8.file]["bytes"] <= 0.27 * manifest.files[fp32.file]["bytes"]
    assert int8.fused_attention == architecture.layers


@pytest.mark.parametrize(("kind", "tolerance"), [(lambda x: np.maximum(x, 0), 1e-6), (gelu, 0.2)], ids=["relu", "gelu"])
def test_the_copies_of_a_neuron_add_up_to_it(kind, tolerance: float) -> None:
    high = np.array([20.0, 7.0, 6.0, 6.5] + [4.0] * 60, dtype=np.float32)
    (split,) = fit_split([_neurons(high)], least=0.0)
    ceiling = split.scale * (255 - split.zero_point)
    assert len(split.neurons) <= 16 and ceiling == pytest.approx(4.4, abs=1e-5)
    x = np.linspace(-5, 20, 501)
    steps = [0.0, *split.offsets[split.neurons == 0]]
    total = sum(np.minimum(kind(x - step), ceiling) for step in steps)
    np.testing.assert_allclose(total, kind(x), atol=tolerance)


def test_neurons_are_not_split_below_the_least_ceiling() -> None:
    small = np.array([2.5, 2.0, *[0.5] * 62], dtype=np.float32)
    large = np.array([20.0, 2.0, *[0.5] * 62], dtype=np.float32)
    (alone,) = fit_split([_neurons(small)], least=3.0)
    assert len(alone.neurons) == 0 and alone.scale * (255 - alone.zero_point) == pytest.approx(2.75)  # 1.1 x 2.5
    (split,) = fit_split([_neurons(large)], least=3.0)
    assert list(split.neurons) == [0] * 7 and split.scale * (255 - split.zero_point) == pytest.approx(3.0)  # 8 x 3 >= 22
    both = fit_split([_neurons(large), _neurons(small)], least=3.0)  # layers of the same weights
    assert [list(each.neurons) for each in both] == [[0] * 7] * 2
    assert both[0].scale == pytest.approx(split.scale)
    assert both[1].scale * (255 - both[1].zero_point) == pytest.approx(2.75)


def _neurons(high: np.ndarray) -> Observed:
    return Observed(low=np.full(len(high), -0.17, np.float32), high=high, rows=np.zeros((1, len(high)), np.float32))


def test_smoothing_reduces_the_error_of_an_outlying_channel() -> None:
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(400, 32)).astype(np.float32)
    rows[:, 3] = rows[:, 3] * 0.1 + 60
    rows[:, 7] *= 30
    weight = rng.normal(size=(32, 24)).astype(np.float32)
    (params,) = fit_smoothed([seen(rows)], weight)

    def error(shift: np.ndarray, smooth: np.ndarray, scale: float, zero_point: int) -> float:
        q = np.clip(np.rint((rows - shift) / smooth / scale) + zero_point, 0, 255) - zero_point
        w8, by_column = quantize_weight(weight * smooth[:, None])
        return float(np.abs(q * scale @ (w8 * by_column) + shift @ weight - rows @ weight).mean())

    whole = fit_range(float(rows.min()), float(rows.max()))
    none = error(np.zeros(32), np.ones(32), whole.scale, whole.zero_point)
    assert error(params.shift, params.smooth, params.scale, params.zero_point) < none / 4


@pytest.mark.parametrize(("low", "high"), [(-1.0, 3.0), (0.5, 2.0), (-4.0, -1.0), (0.0, 0.0)])
def test_eight_bits_hold_the_range_and_zero(low: float, high: float) -> None:
    params = fit_range(low, high)
    scale, zero_point = params.scale, params.zero_point
    assert 0 <= zero_point <= 255
    for value in (min(low, 0), 0.0, max(high, 0)):
        assert abs((np.clip(np.rint(value / scale) + zero_point, 0, 255) - zero_point) * scale - value) <= scale


def test_a_table_is_rounded_row_by_row() -> None:
    table = np.random.default_rng(0).normal(size=(9, 5)).astype(np.float32) * np.logspace(-3, 3, 9, dtype=np.float32)[:, None]
    rows, scale = quantize_table(table)
    assert rows.dtype == np.int8 and scale.shape == (9, 1)
    assert (np.abs(rows * scale - table) <= scale * 0.5001).all()


def test_calibration_sees_the_values_of_the_reference(make_checkpoint) -> None:
    """The watched graph's first input is the embeddings' output, compared with transformers' hidden states."""
    import torch
    from transformers import AutoModelForSequenceClassification

    source = make_checkpoint("bert", seed=4)
    found = locate(str(source), revision=None, token=None, local_files_only=True)
    baseline = compute_baseline(only_head(found), lambda _: None, rounded=False)
    texts = [baseline.tokens.encode(text) for text in built_in_texts()[:20]]
    plans = calibrate(baseline, texts)
    model = AutoModelForSequenceClassification.from_pretrained(source, dtype=torch.float32).eval()
    with torch.no_grad():
        states = [model(torch.tensor([text.ids]), output_hidden_states=True).hidden_states for text in texts]
    for i, plan in enumerate(plans):
        seen = np.concatenate([state[i][0].numpy() for state in states])  # [all tokens, hidden]
        np.testing.assert_allclose(plan.query.shift, (seen.max(axis=0) + seen.min(axis=0)) / 2, atol=1e-4)


def test_the_gate_reports_its_figures() -> None:
    parity = check.Parity(reference="r", texts=100, max_abs_logit=1.0, label_agreement=0.9, mean_abs_probability=0.02)
    with pytest.raises(ExportError, match=r"90.0% of 100 labels.*0.02.*99%.*0.01"):
        check.check_limits(parity, "int8", "onnx/model_int8.onnx")


def test_calibration_texts_may_be_given(make_checkpoint, tmp_path: Path) -> None:
    source = make_checkpoint("bert", num_hidden_layers=2)
    file = tmp_path / "texts.txt"
    file.write_text("\n".join(built_in_texts()[i].replace("\n", " ") for i in range(60)), encoding="utf-8")
    export_checkpoint(source, tmp_path / "own", target="cpu", calibrate=file, required=False)
    export_checkpoint(source, tmp_path / "built-in", target="cpu", required=False)
    own, built_in = ((tmp_path / name / "onnx/model_int8.onnx").read_bytes() for name in ("own", "built-in"))
    assert own != built_in
    assert (tmp_path / "own/onnx/model.onnx").read_bytes() == (tmp_path / "built-in/onnx/model.onnx").read_bytes()


@pytest.mark.parametrize("content", [b"", b"one\ntwo\n", b"\xff\xfe" * 100])
def test_wrong_calibration_texts_are_refused(make_checkpoint, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "texts.txt"
    file.write_bytes(content)
    with pytest.raises(OptionError, match=r"texts\.txt"):
        export_checkpoint(EMBEDDED, tmp_path / "artifact", calibrate=file)
    assert not (tmp_path / "artifact").exists()


def test_the_built_in_texts_are_varied_and_one_per_line() -> None:
    texts = built_in_texts()
    assert len(texts) == 135 and texts[0] == "" and all(texts[1:])
    assert max(len(text.split()) for text in texts) > 120 and len(set(texts)) == len(texts)
