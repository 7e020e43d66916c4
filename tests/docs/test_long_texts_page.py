"""docs/long-texts.md is correct: its code prints what it shows, its commands run, and it has every option."""

import csv
import dataclasses
import re
from pathlib import Path

import pytest

from fusedbert.engine import Window

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "long-texts.md").read_text(encoding="utf-8")
STEPS = re.findall(r"^```python\n(.*?)^```\n\n```text\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
(COMMANDS,) = re.findall(r"^```bash\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(("code", "shown"), STEPS)
def test_the_code_prints_what_the_page_shows(clone, code, shown):
    done = clone("python", "-W", "ignore", "-c", code)
    assert (done.stdout, done.returncode) == (shown, 0), done.stderr


def test_the_commands_raise_the_alarm(clone):
    harmless, hidden = (
        "The music is lovely. The cast is wonderful.",
        "The music is lovely. " * 200 + "The ending was an awful bore.",
    )
    (clone.folder / "reviews.csv").write_text(f"text\n{harmless}\n{hidden}\n", encoding="utf-8")
    classify, score = COMMANDS.splitlines()
    done = clone("bash", "-c", classify)
    assert done.returncode == 0 and done.stdout.startswith("NEGATIVE"), done.stderr
    done = clone("bash", "-c", score)
    assert done.returncode == 0, done.stderr
    with (clone.folder / "scored.csv").open(encoding="utf-8") as file:
        assert [row["label"] for row in csv.DictReader(file)] == ["POSITIVE", "NEGATIVE"]


def test_the_page_has_every_option_of_a_window():
    for field in dataclasses.fields(Window):
        assert f"{field.name}=" in PAGE and f"--{field.name}" in PAGE
