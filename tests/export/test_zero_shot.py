"""Zero-shot on checkpoints of every family, and on a trained one: the answers of transformers' pipeline on the checkpoint."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusedbert.engine import ZeroShot
from fusedbert.export import export_checkpoint

FAMILIES = (
    "bert",
    "roberta",
    "xlm-roberta",
    "camembert",
    "distilbert",
    "electra",
    "modernbert",
    "deberta-v2",
    "mpnet",
    "albert",
)
ORDERS = (
    ("contradiction", "neutral", "entailment"),
    ("entailment", "neutral", "contradiction"),
    ("entailment", "not_entailment"),
)
TEXTS = [
    "the movie was really good , we loved it",
    "boring",
    " ",
    "É 電影 👍 is it [SEP] bland ?",
    "it was not good and not bad . " * 9,
    "i hated it ! " + "b c d e f g h j k l m n o p q r s t u v w x y z " * 3,
]
LABELS = ["good", "bad , not great", "really {boring}", "電影", "f i l m s"]


def pipeline_of(folder: Path, max_length: int) -> Any:
    import torch
    from transformers import pipeline

    found: Any = pipeline("zero-shot-classification", model=str(folder), device="cpu", dtype=torch.float32)
    found.tokenizer.model_max_length = max_length
    return found


def assert_same(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one["sequence"] == other["sequence"]
        assert one["scores"] == pytest.approx(other["scores"], abs=2e-5)
        if np.abs(np.diff(other["scores"])).min() > 1e-4:
            assert one["labels"] == other["labels"]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_gives_the_answers_of_the_pipeline(
    make_checkpoint: Callable[..., Path], tmp_path: Path, family: str
) -> None:
    labels = ORDERS[FAMILIES.index(family) % len(ORDERS)]
    names = {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}
    source = make_checkpoint(family, spread=0.5, **names)
    export_checkpoint(source, tmp_path / "artifact", target="fp32", required=False)
    with ZeroShot.from_pretrained(tmp_path / "artifact", device="cpu", threads=1) as ours:
        theirs = pipeline_of(source, ours.classifier.max_length)
        for multi_label in (False, True):
            for template in ("This example is {}.", "we {}"):
                expected = theirs(TEXTS, LABELS, hypothesis_template=template, multi_label=multi_label)
                found = ours(TEXTS, LABELS, template, multi_label)
                assert_same(found, expected)
                assert_same([ours(text, LABELS, template, multi_label) for text in TEXTS], expected)
        assert np.ptp([each["scores"][0] for each in found]) > 1e-3, "the texts differ, by far more than the tolerance"
        assert ours.classifier.truncated


def test_a_trained_model_gives_the_answers_of_the_pipeline_and_the_same_bits_in_any_batch(
    checkpoint: Path, tmp_path: Path
) -> None:
    source, artifact = tmp_path / "nli", tmp_path / "artifact"
    shutil.copytree(checkpoint, source)
    config = json.loads((source / "config.json").read_text())
    config |= {"id2label": {"0": "not_entailment", "1": "entailment"}, "label2id": {"not_entailment": 0, "entailment": 1}}
    (source / "config.json").write_text(json.dumps(config))
    export_checkpoint(source, artifact, target="cpu")
    texts = ["I really loved this movie.", "an affecting journey " * 300, "A waste of time.", "fine"]
    labels = ["a masterpiece", "unflinchingly bleak", "awful"]
    with ZeroShot.from_pretrained(artifact, device="cpu", threads=1, precision="fp32") as exact:
        theirs = pipeline_of(source, exact.classifier.max_length)
        for multi_label in (False, True):
            expected = theirs(texts, labels, multi_label=multi_label)
            assert_same(exact(texts, labels, multi_label=multi_label), expected)
    with ZeroShot.from_pretrained(artifact, device="cpu", threads=1) as fast:
        batch = fast(texts, labels, multi_label=True)
        assert [fast(text, labels, multi_label=True) for text in texts] == batch
        for text, each in zip(texts, batch, strict=True):
            for label, score in zip(each["labels"], each["scores"], strict=True):
                assert fast(text, label)["scores"] == [score]
