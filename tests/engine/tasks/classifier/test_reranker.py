"""A reranker whose checkpoint asks for logits: they are its scores everywhere, with enough digits to rank by."""

from __future__ import annotations

import csv
import dataclasses
import functools
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from scipy.special import expit

from fusedbert.engine import ArtifactError, Batcher, Classifier, OptionError, Scorer, score_file
from fusedbert.engine.artifact import Parity, read_manifest
from fusedbert.engine.artifact.foreign import derive_manifest
from fusedbert.engine.artifact.limits import ORDER
from fusedbert.engine.cli.classify import classify
from fusedbert.engine.hardware.cpu import Machine
from fusedbert.engine.load import Precision
from fusedbert.engine.load.golden import allowed
from fusedbert.engine.load.select import select_variant
from fusedbert.engine.scoring.columns import OutputColumns
from fusedbert.engine.scoring.formats.csv import csv_value
from fusedbert.engine.scoring.formats.values import json_value
from fusedbert.engine.scoring.options import Columns

PAIRS = [("good movie", "not dull"), ("bad", "the plot was very dull"), ("fine", "fine actor")]
NEW = Machine(cpu="new", features=("avx2", "avx512_vnni"), logical=1, physical=1, quota=None, cores=1)
FIGURES = {"scale": 10.0, "spread": 9.0, "rank_correlation": 0.9987, "mean_of_spread": 0.0031, "max_of_spread": 0.035}


@pytest.fixture
def artifact(make_artifact: Callable[..., Path]) -> Path:
    return make_artifact(("LABEL_0",), function_to_apply="none")


def test_the_scores_of_a_reranker_are_its_logits_everywhere(artifact: Path, reference: Callable[..., np.ndarray]) -> None:
    expected = reference(PAIRS, 1)[:, 0]
    with Classifier.from_pretrained(artifact, threads=1) as clf:
        assert clf.function_to_apply == "none"
        close = functools.partial(pytest.approx, abs=1e-5)
        streamed: list[Any] = list(clf.stream(PAIRS))
        assert [each["score"] for each in clf(PAIRS)] == close(expected)
        assert [each["score"] for each in streamed] == close(expected)
        assert clf.predict_proba(PAIRS)[:, 0] == close(expected)
        assert [w.scores["LABEL_0"] for w in clf.windows(*PAIRS[0])] == close(expected[:1])
        sigmoids = [each["score"] for each in clf(PAIRS, function_to_apply="sigmoid")]
        assert sigmoids == close(expit(expected))
        with pickle.loads(pickle.dumps(clf)) as other:
            assert other(PAIRS) == clf(PAIRS)
        with Batcher(clf) as batcher:
            assert [batcher.submit(pair).result()["score"] for pair in PAIRS] == close(expected)
            (found,) = batcher.submit("good movie", function_to_apply="sigmoid").result()
            assert found["score"] == close(clf("good movie", function_to_apply="sigmoid")[0]["score"])


def test_without_the_key_scores_are_sigmoids(make_artifact: Callable[..., Path], reference: Callable[..., np.ndarray]) -> None:
    with Classifier.from_pretrained(make_artifact(("LABEL_0",))) as clf:
        assert clf.function_to_apply == "sigmoid"
        assert [each["score"] for each in clf(PAIRS)] == pytest.approx(expit(reference(PAIRS, 1)[:, 0]), abs=1e-5)


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_scored_files_hold_logits(artifact: Path, reference: Callable[..., np.ndarray], tmp_path: Path, suffix: str) -> None:
    expected = reference(PAIRS, 1)[:, 0]
    source, output = tmp_path / "in.csv", tmp_path / f"out.{suffix}"
    source.write_text("query,text\n" + "".join(f"{query},{text}\n" for query, text in PAIRS))
    score_file(source, output, model=artifact, text_column="query", pair_column="text")
    lines = output.read_text().splitlines()
    rows: list[dict[str, Any]] = list(csv.DictReader(lines)) if suffix == "csv" else [json.loads(line) for line in lines]
    # Read back as float32 they equal the logits.
    with Classifier.from_pretrained(artifact) as clf:
        own = clf.decision_function(PAIRS)[:, 0]
    assert np.array([np.float32(row["score"]) for row in rows]) == pytest.approx(expected, abs=1e-5)
    np.testing.assert_allclose([np.float32(row["score"]) for row in rows], own, rtol=3e-7)
    found = Scorer(artifact, text_column="query", pair_column="text")(
        {"query": [query for query, _ in PAIRS], "text": [text for _, text in PAIRS]}
    )
    assert found["score"] == pytest.approx(expected, abs=1e-5)
    with pytest.raises(OptionError, match="gives logits and no probabilities"):
        score_file(source, tmp_path / "p.csv", model=artifact, text_column="query", probabilities=True, force=True)


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (19.7329, "19.7329"),
        (19.7228, "19.7228"),
        (-540.6149, "-540.6149"),
        (1.0 / 3000, "0.00033333333"),
        (1.25e-7, "1.25e-07"),
        (1234567.875, "1234567.9"),
        (3e20, "3e+20"),
        (0.0, "0.0"),
        (7.0, "7.0"),
    ],
)
def test_a_score_without_bounds_keeps_its_digits(value: float, written: str) -> None:
    number = float(np.float32(value))
    assert csv_value(number, exact=True) == json_value(number, exact=True) == written
    assert np.float32(written) == np.float32(value) and json.loads(written) == float(written)


def test_probabilities_keep_their_six_decimals() -> None:
    single, plain = "single_label_classification", Columns()
    assert not OutputColumns.of(("a", "b"), single, plain).unbounded
    assert not OutputColumns.of(("a",), single, plain).unbounded
    assert OutputColumns.of(("a",), single, plain, "none").unbounded
    assert OutputColumns.of(("a", "b"), "regression", plain).unbounded
    assert csv_value(1 / 3) == "0.333333"


def test_classify_shows_the_logits_of_a_reranker(artifact: Path, reference: Callable[..., np.ndarray]) -> None:
    logit = reference([PAIRS[0]], 1)[0, 0]
    shown = CliRunner().invoke(classify, [PAIRS[0][0], "--pair", PAIRS[0][1], "-m", str(artifact)])
    assert shown.exit_code == 0 and float(shown.stdout.split()[1]) == pytest.approx(logit, rel=1e-5)


@pytest.mark.parametrize(
    ("config", "stated"),
    [
        ({"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}}, "none"),
        ({"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"}, "none"),
        ({}, None),
    ],
)
def test_another_tools_export_names_its_function_in_config_json(
    artifact: Path, config: dict[str, Any], stated: str | None
) -> None:
    (artifact / "fusedbert.json").unlink()
    (artifact / "config.json").write_text(json.dumps({"num_labels": 1, **config}))
    assert derive_manifest(artifact).function_to_apply == stated
    (artifact / "config.json").write_text(json.dumps({"sbert_ce_default_activation_function": "torch.nn.Tanh"}))
    with pytest.raises(ArtifactError, match=r"'torch\.nn\.Tanh'"):
        derive_manifest(artifact)


def test_a_manifest_with_another_function_is_refused(artifact: Path) -> None:
    document = json.loads((artifact / "fusedbert.json").read_text())
    (artifact / "fusedbert.json").write_text(json.dumps({**document, "function_to_apply": "tanh"}))
    with pytest.raises(ArtifactError, match="function_to_apply is 'tanh'"):
        read_manifest(artifact)


@pytest.mark.parametrize(
    ("changes", "precision", "why"),
    [
        ({}, "int8", r"within the gates (rank correlation 0.9987, an output moves by 0.31% of their spread on average, 3.50%"),
        ({"rank_correlation": 0.98}, "fp32", "limits 0.99, 2.00% and 20.00%"),
        ({"mean_of_spread": 0.03}, "fp32", "3.00% of their spread"),
        ({"max_of_spread": 0.3}, "fp32", "30.00% at most"),
        ({"label_agreement": 0.5, "mean_abs_probability": 0.4}, "int8", "rank correlation"),  # figures that do not count here
    ],
)
def test_auto_takes_int8_for_a_reranker_by_the_order_of_its_scores(
    manifest: Callable[..., Any], variant: Callable[..., Any], changes: dict[str, float], precision: str, why: str
) -> None:
    held = manifest(("a",), "regression", variants=(variant(), variant(precision="int8", **FIGURES | changes)))
    selection = select_variant(held, target="cpu", precision=Precision.AUTO, machine=NEW)
    assert selection.variant.precision == precision and why in selection.why
    assert ORDER["fp16"].mean_of_spread < ORDER["int8"].mean_of_spread


def test_golden_texts_are_judged_on_the_scale_of_the_output(variant: Callable[..., Any]) -> None:
    thousandths = variant(max_abs_logit=1e-9, scale=1.1e-3, spread=1e-3, rank_correlation=1.0)
    assert 1e-7 < allowed(thousandths) < 1e-5
    assert allowed(dataclasses.replace(thousandths, precision="fp16")) < 2e-5
    hundreds = variant(max_abs_logit=1e-3, scale=50.0)  # logits of 500
    assert allowed(hundreds) == pytest.approx(0.05)
    million = variant(max_abs_logit=0.06, scale=2400.0, spread=9.0, rank_correlation=1.0)  # a bias of a million
    assert 0.06 < allowed(million) < 0.3
    assert Parity(reference="r", texts=1, max_abs_logit=0.0, label_agreement=1.0).scale is None
