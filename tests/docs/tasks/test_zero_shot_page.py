"""docs/zero-shot.md is correct: its code and its commands run, on the embedded model as a model of two NLI labels."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "zero-shot.md").read_text(encoding="utf-8")
(CODE,) = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
(COMMANDS,) = re.findall(r"^```bash\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
REVIEWS = "text\nan affecting journey\nunflinchingly bleak\n"


@pytest.fixture(scope="module")
def nli(clone: Any, checkpoint: Path) -> Any:
    """The clone, with a checkpoint ``nli`` and, by the page's first command, its artifact."""
    source = clone.folder / "nli"
    shutil.copytree(checkpoint, source)
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    labels = {"id2label": {"0": "not_entailment", "1": "entailment"}, "label2id": {"not_entailment": 0, "entailment": 1}}
    (source / "config.json").write_text(json.dumps(config | labels), encoding="utf-8")
    (clone.folder / "reviews.csv").write_text(REVIEWS, encoding="utf-8")
    words = COMMANDS.splitlines()[0].split()
    assert words[:2] == ["fusedbert", "export"]
    done = clone("fusedbert", "export", "nli", *words[3:])
    assert done.returncode == 0, done.stderr
    return clone


def test_the_code_prints_labels_and_scores(nli: Any) -> None:
    done = nli("python", "-W", "error", "-c", CODE)
    assert done.returncode == 0, done.stderr
    first, *others = done.stdout.splitlines()
    assert first.split()[0] in ("technology", "politics", "sports") and 1 / 3 <= float(first.split()[1]) <= 1
    assert [line.split(" [")[0] for line in others] == ["He scored twice.", "A vote is due."]


def test_every_command_runs(nli: Any) -> None:
    for command in COMMANDS.splitlines()[1:]:
        done = nli("bash", "-c", command)
        assert done.returncode == 0, f"{command}: {done.stderr}"
    with (nli.folder / "scored.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    names = [f"p_{label}" for label in ("plot", "acting", "music")]
    assert list(rows[0]) == ["text", "label", "score", *names, "truncated"]
    for row in rows:
        assert sum(float(row[name]) for name in names) == pytest.approx(1, abs=1e-5)
        assert float(row["score"]) == max(float(row[name]) for name in names)
    lines = (nli.folder / "topics.jsonl").read_text(encoding="utf-8").splitlines()
    assert all(score >= 0.8 for line in lines for score in json.loads(line)["score"])
