"""The commands of docs/export.md and docs/scoring.md run, in the order of the page."""

import gzip
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
REVIEWS = "text\nan affecting journey\nunflinchingly bleak\n"


def commands(page: str) -> list[str]:
    text = (DOCS / page).read_text(encoding="utf-8")
    blocks = re.findall(r"^```bash\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


@pytest.mark.parametrize(("page", "least"), [("export.md", 3), ("scoring.md", 2)])
def test_every_command_runs_in_the_order_of_the_page(page, least, clone):
    (clone.folder / "parts").mkdir(exist_ok=True)
    for name in ("reviews.csv", "parts/a.csv", "parts/b.csv"):
        (clone.folder / name).write_text(REVIEWS, encoding="utf-8")
    for name in ("train.csv", "dev.csv"):
        rows = [f"{text} {i},{label}\n" for i in range(8) for text, label in (("a joy", "POSITIVE"), ("a bore", "NEGATIVE"))]
        (clone.folder / name).write_text("text,label\n" + "".join(rows), encoding="utf-8")
    (clone.folder / "reviews.csv.gz").write_bytes(gzip.compress(REVIEWS.encode()))
    found = commands(page)
    assert len(found) >= least
    for command in found:
        done = clone("bash", "-c", command)
        assert done.returncode == 0, f"{command}: {done.stderr}"
