"""Tolerances on the scale of the outputs: whether a regression or a reranker passes does not depend on its unit."""

from __future__ import annotations

import dataclasses
import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from fusedbert.engine import Classifier
from fusedbert.engine.artifact import read_manifest
from fusedbert.engine.artifact.limits import passes
from fusedbert.engine.errors import CheckpointError, ExportError
from fusedbert.engine.load.golden import allowed
from fusedbert.export import export_checkpoint
from fusedbert.export.checkpoint import LeftOutWarning
from fusedbert.export.parity import gates as check
from fusedbert.export.parity.compare import compare, rank_correlation

EMBEDDED = Path(__file__).parents[3] / "models" / "sst2-mini"
TEXTS = ("I really loved this movie.", "The spaghetti was bland.", "It is not good, it is great!")
RNG = np.random.default_rng(0)


@pytest.fixture
def make_head(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that gives the embedded checkpoint another head: its rows' difference, scaled, with a bias."""

    def make(*heads: tuple[float, float], **config: object) -> Path:
        from safetensors.numpy import load_file, save_file

        folder = shutil.copytree(EMBEDDED, tmp_path / "checkpoint")
        tensors = load_file(folder / "model.safetensors")
        rows = tensors["classifier.weight"]
        tensors["classifier.weight"] = np.stack([(rows[1] - rows[0]) * np.float32(factor) for factor, _ in heads])
        tensors["classifier.bias"] = np.array([bias for _, bias in heads], dtype=np.float32)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        settings = json.loads((folder / "config.json").read_text())
        labels = {str(i): f"LABEL_{i}" for i in range(len(heads))}
        settings |= {"id2label": labels, "label2id": {name: int(i) for i, name in labels.items()}, **config}
        (folder / "config.json").write_text(json.dumps(settings))
        return folder

    return make


def of_transformers(folder: Path) -> np.ndarray:
    """The outputs that transformers gives, in float64, [texts, outputs]."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float64).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        return np.concatenate([model(**tokenizer(text, return_tensors="pt")).logits.numpy() for text in TEXTS])


@pytest.mark.parametrize(
    ("factor", "bias", "problem_type"),
    [
        (1e-3, 0.0, "regression"),
        (1e6, 0.0, "regression"),
        (1.0, 20.0, None),
        (1.0, 1e6, None),  # float32 has steps of 0.06 there
    ],
)
def test_a_head_of_any_scale_is_exported_and_answers_as_transformers(
    make_head: Callable[..., Path], tmp_path: Path, factor: float, bias: float, problem_type: str | None
) -> None:
    source = make_head((factor, bias), problem_type=problem_type)
    with warnings.catch_warnings():
        warnings.simplefilter("error", LeftOutWarning)
        manifest = export_checkpoint(source, tmp_path / "artifact", required=False)
    assert [variant.precision for variant in manifest.variants] == ["fp32", "int8", "bf16", "fp16", "fp16"]
    expected = of_transformers(source)
    spread = np.ptp(expected)
    for precision, share in (("fp32", 1e-5), ("int8", 0.1), ("bf16", 0.01)):
        with Classifier.from_pretrained(tmp_path / "artifact", device="cpu", precision=precision) as clf:
            found = clf.decision_function(list(TEXTS))
        assert np.abs(found - expected).max() <= share * spread + 1e-7 * np.abs(expected).max()
    with Classifier.from_pretrained(tmp_path / "artifact", device="cpu") as clf:
        assert clf.runtime.precision == "fp32" or "rank correlation 0.99" in clf.runtime.why
    card = (tmp_path / "artifact/README.md").read_text()
    assert "rank correlation" in card and "probability" not in card


def test_several_outputs_each_count_on_their_own_scale(make_head: Callable[..., Path], tmp_path: Path) -> None:
    source = make_head((1e6, 0.0), (1e-3, 0.0), problem_type="regression")
    manifest = export_checkpoint(source, tmp_path / "artifact", target="cpu")
    expected = of_transformers(source)
    with Classifier.from_pretrained(tmp_path / "artifact", device="cpu", precision="fp32") as clf:
        np.testing.assert_allclose(clf.decision_function(list(TEXTS)), expected, rtol=1e-5)
    reference = RNG.normal(size=(40, 2)) * np.array([1e6, 1e-3])
    wrong = reference + np.array([0.0, 1e-4])  # only of the small one
    parity = compare(list(enumerate(wrong.astype(np.float32))), reference, "regression")
    with pytest.raises(ExportError, match="differs from the reference"):
        check.check_limits(parity, "fp32", "onnx/model.onnx")
    assert manifest.variants[0].parity.scale is not None and manifest.variants[0].parity.scale > 1e6


def test_large_logits_of_several_labels_pass_and_stay_exact(make_head: Callable[..., Path], tmp_path: Path) -> None:
    source = make_head((100.0, 0.0), (-70.0, 3.0), (1.0, 0.0))
    manifest = export_checkpoint(source, tmp_path / "artifact", target="fp32")
    parity = manifest.variants[0].parity
    assert parity.scale is not None and 40 < parity.scale < 60  # a tenth of the largest logit
    with Classifier.from_pretrained(tmp_path / "artifact", device="cpu", precision="fp32") as clf:
        np.testing.assert_allclose(clf.decision_function(list(TEXTS)), of_transformers(source), atol=3e-3)


def results(outputs: np.ndarray) -> list[tuple[int, np.ndarray]]:
    return list(enumerate(outputs.astype(np.float32)))


@pytest.mark.parametrize("labels", [1, 2])
def test_large_random_weights_are_as_exact_as_float32_and_no_less(
    make_checkpoint: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, labels: int
) -> None:
    """Attention chooses between scores of hundreds, so float32 itself is off by far more than 1e-4 of a logit."""
    from safetensors.numpy import load_file, save_file

    source = make_checkpoint("bert", num_hidden_layers=6, num_labels=labels)
    rng = np.random.default_rng(labels)
    tensors = load_file(source / "model.safetensors")
    large = {name: rng.normal(size=each.shape).astype(np.float32) for name, each in tensors.items() if each.ndim == 2}
    save_file(tensors | large, source / "model.safetensors", metadata={"format": "pt"})
    manifest = export_checkpoint(source, tmp_path / "artifact", target="fp32")
    parity = manifest.variants[0].parity
    assert parity.max_abs_logit > 10 * check.FP32_TOLERANCE
    logits = np.array([golden.logits for golden in manifest.golden])
    assert parity.max_abs_logit < 0.05 * np.abs(logits).max()
    with Classifier.from_pretrained(tmp_path / "artifact", precision="fp32", cache_dir=tmp_path) as clf:
        found = clf.decision_function([golden.text for golden in manifest.golden])
    np.testing.assert_allclose(found, logits, atol=4 * parity.max_abs_logit)

    def spoiled(*given: Any) -> Any:
        results = run_graph(*given)
        return [(row, found + np.float32(0.05 * np.abs(found).max())) if row == 4 else (row, found) for row, found in results]

    run_graph = check.run_graph
    monkeypatch.setattr(check, "run_graph", spoiled)
    with pytest.raises(ExportError, match="differs from the reference"):
        export_checkpoint(source, tmp_path / "spoiled", target="fp32")


@pytest.mark.parametrize("unit", [1e-6, 1e-3, 1.0, 1e6])
def test_a_wrong_result_is_wrong_in_every_unit(unit: float) -> None:
    reference = RNG.normal(size=(100, 1)) * unit
    exact = compare(results(reference), reference, "regression")
    check.check_limits(exact, "fp32", "graph")
    for change in (reference * 1.001, reference + 0.01 * unit, np.zeros_like(reference)):
        with pytest.raises(ExportError, match="in a logit"):
            check.check_limits(compare(results(change), reference, "regression"), "fp32", "graph")
    noisy = reference + RNG.normal(size=reference.shape) * 0.3 * unit
    for precision in ("fp16", "bf16", "int8"):
        check.check_limits(exact, precision, "graph")
        with pytest.raises(ExportError, match=r"rank correlation of 0\.9.* of their spread"):
            check.check_limits(compare(results(noisy), reference, "regression"), precision, "graph")


def test_a_constant_in_place_of_a_small_spread_on_a_large_bias_is_refused() -> None:
    reference = 1000.0 + RNG.normal(size=(100, 1))
    with pytest.raises(ExportError):
        check.check_limits(compare(results(np.full_like(reference, 1000.0)), reference, "regression"), "fp32", "graph")
    # Float32 has steps of 0.06 at a million: they pass, and a step of 1 does not.
    million = 1e6 + RNG.normal(size=(100, 1)) * 3
    terms = np.array([5.0])  # what the reference sees of the products, without the bias
    check.check_limits(compare(results(million), million, "regression", terms), "fp32", "graph")
    with pytest.raises(ExportError):
        check.check_limits(compare(results(million + 1.0), million, "regression", terms), "fp32", "graph")


def test_values_that_cancel_may_keep_the_rounding_of_their_terms() -> None:
    reference = RNG.normal(size=(100, 1)) * 1e-3
    off = reference + RNG.normal(size=(100, 1)) * 3e-7  # a sum of terms of 10 in float32
    with pytest.raises(ExportError):
        check.check_limits(compare(results(off), reference, "regression"), "fp32", "graph")
    check.check_limits(compare(results(off), reference, "regression", terms=np.array([10.0])), "fp32", "graph")


@pytest.mark.parametrize("precision", ["int8", "bf16", "fp16"])
def test_a_reranker_that_is_off_by_2_is_refused(precision: str) -> None:
    reference = 20.0 + RNG.uniform(-4, 4, size=(150, 1))
    for change in (2.0, -2.0, RNG.choice([-2.0, 2.0], size=reference.shape), RNG.normal(size=reference.shape) * 2):
        parity = compare(results(reference + change), reference, "single_label_classification")
        assert parity.max_abs_probability < 1e-4 and parity.label_agreement == 1.0  # after the sigmoid there is no difference
        with pytest.raises(ExportError, match="of their spread"):
            check.check_limits(parity, precision, "graph")
        assert not passes(parity, precision)


@pytest.mark.parametrize("precision", ["fp32", "int8", "bf16", "fp16"])
def test_nan_in_one_run_is_wrong(precision: str) -> None:
    reference = RNG.normal(size=(20, 1))
    found = reference.copy()
    found[7] = np.nan
    runs = [*results(reference), *results(found)]  # right in one batch, and not in another
    with pytest.raises(ExportError):
        check.check_limits(compare(runs, reference, "regression"), precision, "graph")


def test_outputs_that_never_differ_have_no_order_to_lose() -> None:
    for value in (0.0, 5.0):
        reference = np.full((20, 1), value)
        parity = compare(results(reference), reference, "regression")
        for precision in ("fp32", "int8", "bf16", "fp16"):
            check.check_limits(parity, precision, "graph")
        assert parity.rank_correlation == 1.0 and parity.mean_of_spread == 0.0


def test_the_rank_correlation_equals_scipys() -> None:
    for _ in range(20):
        one, other = RNG.integers(0, 12, size=(2, 40)).astype(np.float64)  # with ties
        statistic, _ = stats.spearmanr(one, other)
        assert rank_correlation(one, other) == pytest.approx(statistic)


def test_int8_that_loses_the_order_is_left_out_with_its_figures(make_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    source = make_checkpoint("bert", num_labels=1, seed=5)
    with pytest.warns(
        LeftOutWarning, match=r"model_int8\.onnx is left out: .*rank correlation of .* of their spread"
    ) as warned:
        manifest = export_checkpoint(source, tmp_path / "artifact", target="cpu", required=False)
    assert [variant.precision for variant in manifest.variants] == ["fp32", "bf16"]
    assert not any("probability" in str(warning.message) for warning in warned)


def test_golden_texts_at_load_are_on_the_same_scale(make_head: Callable[..., Path], tmp_path: Path) -> None:
    manifest = export_checkpoint(make_head((1e-3, 0.0), problem_type="regression"), tmp_path / "artifact")
    golden = np.array([text.logits for text in manifest.golden])
    assert 1e-3 < np.abs(golden).max() < 0.1
    for variant in manifest.variants:
        assert allowed(variant) < (0.1 if variant.precision == "int8" else 0.02) * np.ptp(golden)
    exact = of_transformers(tmp_path / "checkpoint")
    assert float(np.abs(golden[0] - exact[0]).max()) > 0  # another text: only the digits count here
    assert all(len(f"{value:.9g}") >= 8 for value in golden[:, 0])
    read = read_manifest(tmp_path / "artifact")
    assert read.golden == manifest.golden and read.variants == manifest.variants


def test_ordinary_manifests_have_no_figures_of_scale_and_order(tmp_path: Path) -> None:
    export_checkpoint(EMBEDDED, tmp_path / "artifact", target="fp32")
    (entry,) = json.loads((tmp_path / "artifact/fusedbert.json").read_text())["variants"]
    assert {"scale", "spread", "rank_correlation", "mean_of_spread", "max_of_spread"}.isdisjoint(entry["parity"])


IDENTITY, SIGMOID = "torch.nn.modules.linear.Identity", "torch.nn.modules.activation.Sigmoid"
OLD = "sbert_ce_default_activation_function"


@pytest.mark.parametrize(
    ("config", "stated"),
    [
        ({}, None),
        ({"sentence_transformers": {"activation_fn": IDENTITY, "version": "5.0.0"}}, "none"),
        ({"sentence_transformers": {"activation_fn": SIGMOID}, OLD: IDENTITY}, None),  # the newer key wins
        ({"sentence_transformers": {"version": "5.0.0"}, OLD: IDENTITY}, "none"),
        ({OLD: IDENTITY}, "none"),
        ({OLD: SIGMOID}, None),
        ({OLD: "torch.nn.modules.activation.Tanh", "problem_type": "regression"}, None),  # values have no function
    ],
)
def test_the_activation_that_sentence_transformers_writes(
    make_head: Callable[..., Path], tmp_path: Path, config: dict[str, object], stated: str | None
) -> None:
    manifest = export_checkpoint(make_head((1.0, 0.0), **config), tmp_path / "artifact", target="fp32")
    assert manifest.function_to_apply == read_manifest(tmp_path / "artifact").function_to_apply == stated
    assert ("function_to_apply" in json.loads((tmp_path / "artifact/fusedbert.json").read_text())) is (stated is not None)


def test_several_labels_keep_the_softmax(tmp_path: Path) -> None:
    source = shutil.copytree(EMBEDDED, tmp_path / "checkpoint")
    settings = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**settings, OLD: IDENTITY}))
    assert export_checkpoint(source, tmp_path / "artifact", target="fp32").function_to_apply is None


@pytest.mark.parametrize(
    ("config", "found"),
    [
        ({"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Tanh"}}, "activation_fn = 'torch.*Tanh'"),
        ({OLD: "torch.nn.modules.activation.Softmax"}, f"{OLD} = .*Softmax"),
        ({OLD: "mine.Scaled"}, "mine.Scaled"),
        ({"sentence_transformers": {"activation_fn": ["Identity"]}}, "Identity"),
        ({"sentence_transformers": "5.0.0"}, "expected an object"),
    ],
)
def test_another_activation_is_refused_by_name(
    make_head: Callable[..., Path], tmp_path: Path, config: dict[str, object], found: str
) -> None:
    with pytest.raises(CheckpointError, match=found) as caught:
        export_checkpoint(make_head((1.0, 0.0), **config), tmp_path / "artifact", target="fp32")
    assert "\n" not in str(caught.value) and not (tmp_path / "artifact").exists()


def test_parity_of_an_older_artifact_is_judged_as_before() -> None:
    old = check.Parity(reference="r", texts=100, max_abs_logit=1.0, label_agreement=0.995, mean_abs_probability=0.004)
    assert passes(old, "int8") and not passes(dataclasses.replace(old, label_agreement=0.98), "int8")
