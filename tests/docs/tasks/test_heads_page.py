"""docs/heads.md is correct: its commands and its code run, with the embedded model as two heads."""

from __future__ import annotations

import csv
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from checkpoint_edits import edit_config

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "heads.md").read_text(encoding="utf-8")
(CODE,) = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
(COMMANDS,) = re.findall(r"^```bash\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def support(clone: Any, checkpoint: Path) -> Any:
    """The clone, with two checkpoints, and by the page's first command their artifact."""
    for name in ("sentiment", "topic"):
        shutil.copytree(checkpoint, clone.folder / "checkpoints" / name)
    edit_config(
        clone.folder / "checkpoints/topic", id2label={"0": "delivery", "1": "praise"}, label2id={"delivery": 0, "praise": 1}
    )
    (clone.folder / "messages.csv").write_text("text\nThank you!\nWhere is it?\n", encoding="utf-8")
    done = clone("bash", "-c", COMMANDS.splitlines()[0])
    assert done.returncode == 0, done.stderr
    return clone


def test_every_command_runs(support: Any) -> None:
    for command in COMMANDS.splitlines()[1:]:
        done = support("bash", "-c", command)
        assert done.returncode == 0, f"{command}: {done.stderr}"
    with (support.folder / "scored.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {"sentiment_label", "sentiment_score", "topic_label", "topic_p_delivery", "truncated"} <= set(rows[0])


def test_the_code_answers_by_name(support: Any) -> None:
    done = support("python", "-W", "error", "-c", CODE)
    assert done.returncode == 0, done.stderr
    first, second, third, fourth = done.stdout.splitlines()
    assert first.startswith("{'sentiment': {'label': ") and "'topic': {'label': " in first
    assert second.startswith("[{'label': ")
    assert third.startswith("{'sentiment': ['POSITIVE'], 'topic': ['praise']} (1, 2)")
    assert fourth.startswith("['delivery', 'praise'] [")
