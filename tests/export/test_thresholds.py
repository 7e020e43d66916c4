"""Thresholds that an export stores: in the manifest and the model card, read by ``predict``; nothing without them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from fusedbert.engine import Classifier
from fusedbert.engine.artifact import read_manifest
from fusedbert.engine.errors import OptionError
from fusedbert.export import export_checkpoint
from fusedbert.export.cli import export

LABELS = ("joy", "a=b", "fear")
TEXTS = ["the movie was good", "boring", "we loved it", "it is bad, really bad"]


@pytest.fixture(scope="module")
def checkpoint(make_checkpoint: Callable[..., Path]) -> Path:
    names = dict(enumerate(LABELS))
    return make_checkpoint("bert", num_hidden_layers=1, problem_type="multi_label_classification", id2label=names)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_export_stores_the_thresholds_of_all_labels(checkpoint: Path, tmp_path: Path) -> None:
    plain, stored = tmp_path / "plain", tmp_path / "stored"
    export_checkpoint(checkpoint, plain, target="fp32")
    done = CliRunner().invoke(
        export, [str(checkpoint), str(stored), "--for", "fp32", "--threshold", "0.3", "--threshold", "a=b=0.62"]
    )
    assert done.exit_code == 0, done.output
    assert json.loads((stored / "fusedbert.json").read_text())["thresholds"] == [0.3, 0.62, 0.3]
    assert "Thresholds on their probabilities: joy 0.3, a=b 0.62, fear 0.3." in (stored / "README.md").read_text()
    before, after = contents(plain), contents(stored)
    assert b"hreshold" not in before["fusedbert.json"] + before["README.md"]
    assert {name for name in before if before[name] != after[name]} == {"fusedbert.json", "README.md"}
    assert read_manifest(stored).thresholds == (0.3, 0.62, 0.3) and read_manifest(plain).thresholds is None
    with Classifier.from_pretrained(stored, device="cpu") as clf:
        expected = clf.predict_proba(TEXTS) >= np.array([0.3, 0.62, 0.3])
        assert clf.predict(TEXTS) == [
            [name for name, is_there in zip(LABELS, row, strict=True) if is_there] for row in expected
        ]
        assert clf.predict(TEXTS) != clf.predict(TEXTS, threshold=0.5)


@pytest.mark.parametrize(
    ("threshold", "words"),
    [
        ([0.5, 0.5], "has 2 numbers, expected one for each of 3 labels, joy, a=b, fear"),
        ({"anger": 0.5}, "names the label 'anger'"),
        (1.5, "from 0 to 1"),
    ],
)
def test_thresholds_that_do_not_fit_stop_the_export(checkpoint: Path, tmp_path: Path, threshold: object, words: str) -> None:
    with pytest.raises(OptionError, match=words):
        export_checkpoint(checkpoint, tmp_path / "out", target="fp32", threshold=threshold)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_thresholds_of_other_models_are_refused_before_the_work(make_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    checkpoint, steps = make_checkpoint("bert", num_hidden_layers=1), list[str]()
    with pytest.raises(OptionError, match="multi-label"):
        export_checkpoint(checkpoint, tmp_path / "out", threshold=0.5, progress=steps.append)
    assert not steps and not list(tmp_path.iterdir())
