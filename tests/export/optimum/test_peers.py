"""Artifacts of the direct route in other tools: optimum loads them, transformers' pipeline runs them."""

from __future__ import annotations

import numpy as np
import pytest

from fusedbert.engine import Classifier

WHY = "optimum-onnx is not installed; make test-optimum has an environment for it"
onnxruntime_models = pytest.importorskip("optimum.onnxruntime", reason=WHY)
transformers = pytest.importorskip("transformers")

every_case = pytest.mark.parametrize(
    ("family", "via"),
    [("bert", "direct"), ("roberta", "direct"), ("distilbert", "direct"), ("albert", "optimum"), ("deberta-v2", "optimum")],
)


def load(artifact):
    """Load as the artifact's own README.md says."""
    return onnxruntime_models.ORTModelForSequenceClassification.from_pretrained(
        str(artifact), subfolder="onnx", file_name="model.onnx"
    )


def test_this_is_a_transformers_before_5() -> None:
    assert transformers.__version__.startswith("4.57.")


@every_case
def test_optimum_gives_the_logits_of_transformers(family: str, via: str, exported, judge, texts: list[str]) -> None:
    case = exported(family, via)
    tokenizer = transformers.AutoTokenizer.from_pretrained(case.artifact)
    longest = case.manifest.max_length
    batch = tokenizer(texts, padding=True, truncation=True, max_length=longest, return_tensors="np")
    found = load(case.artifact)(**batch).logits
    np.testing.assert_allclose(found, judge(case.checkpoint, texts, longest), atol=1e-4, rtol=0)


@every_case
def test_our_classifier_and_the_pipeline_on_optimum_agree(family: str, via: str, exported, texts: list[str]) -> None:
    case = exported(family, via)
    tokenizer = transformers.AutoTokenizer.from_pretrained(case.artifact)
    pipeline = transformers.pipeline("text-classification", model=load(case.artifact), tokenizer=tokenizer)
    cut = {"truncation": True, "max_length": case.manifest.max_length}
    pair = {"text": "the movie was good", "text_pair": "we hated it"}
    with Classifier.from_pretrained(case.artifact, device="cpu", precision="fp32") as ours:
        for top_k in (1, None):
            same(ours(texts, top_k=top_k), pipeline(texts, top_k=top_k, batch_size=4, **cut))
        same(ours(texts), pipeline(texts, **cut))
        same([ours(pair)], [pipeline(pair, **cut)])


def same(ours: list, theirs: list) -> None:
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        if isinstance(a, list):
            same(a, b)
        else:
            assert a["label"] == b["label"]
            assert a["score"] == pytest.approx(b["score"], abs=1e-5)


def test_the_direct_route_agrees_with_transformers_here(exported, judge, texts: list[str]) -> None:
    for family in ("bert", "roberta", "distilbert"):
        case = exported(family, "direct")
        with Classifier.from_pretrained(case.artifact, device="cpu", precision="fp32") as classifier:
            found = classifier.decision_function(texts)
        np.testing.assert_allclose(found, judge(case.checkpoint, texts, case.manifest.max_length), atol=1e-4, rtol=0)
