"""docs/token-classification.md is correct: its code and commands run, on the embedded model's encoder with two token labels."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "token-classification.md").read_text(encoding="utf-8")
(CODE,) = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
(COMMANDS,) = re.findall(r"^```bash\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def ner(clone: Any, checkpoint: Path) -> Any:
    """The clone, with a checkpoint ``ner`` and, by the page's first command, its artifact."""
    source = clone.folder / "ner"
    shutil.copytree(checkpoint, source)
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    config |= {"architectures": ["BertForTokenClassification"], "id2label": {"0": "O", "1": "B-PER"}, "label2id": None}
    (source / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (clone.folder / "reviews.csv").write_text("text\nan affecting journey\nunflinchingly bleak\n", encoding="utf-8")
    (clone.folder / "reviews.txt").write_text("an affecting journey\nunflinchingly bleak\n", encoding="utf-8")
    words = COMMANDS.splitlines()[0].split()
    assert words[:2] == ["fusedbert", "export"]
    done = clone("fusedbert", "export", "ner", *words[3:])
    assert done.returncode == 0, done.stderr
    return clone


def test_the_code_prints_entities(ner: Any) -> None:
    done = ner("python", "-W", "error", "-c", CODE)
    assert done.returncode == 0, done.stderr
    *entities, words, labels = done.stdout.splitlines()
    assert all(line.startswith("PER ") for line in entities)
    assert words.startswith("[[") and len(eval(labels)[0]) == 3


def test_every_command_runs(ner: Any) -> None:
    for command in COMMANDS.splitlines()[1:]:
        done = ner("bash", "-c", command)
        assert done.returncode == 0, f"{command}: {done.stderr}"
    lines = [json.loads(line) for line in (ner.folder / "entities.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [list(row) for row in lines] == [["text", "entities", "truncated"]] * 2
    table = pyarrow.parquet.read_table(ner.folder / "entities.parquet").to_pylist()
    for one, other in zip(lines, table, strict=True):
        assert [each["start"] for each in one["entities"]] == [each["start"] for each in other["entities"]]
