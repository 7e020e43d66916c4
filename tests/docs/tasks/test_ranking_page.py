"""docs/ranking.md is correct: its code prints what it shows, and its commands run."""

import csv
import json
import re
from pathlib import Path

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "ranking.md").read_text(encoding="utf-8")
((CODE, SHOWN),) = re.findall(r"^```python\n(.*?)^```\n\n```text\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
BLOCKS = re.findall(r"^```bash\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
COMMANDS = [line for block in BLOCKS for line in block.splitlines()]
PAIRS = [("was it good?", "a joy"), ("was it good?", "a bore"), ("how long is it?", "two hours")]


def test_the_code_prints_what_the_page_shows(clone):
    done = clone("python", "-W", "error", "-c", CODE)
    assert (done.stdout, done.returncode) == (SHOWN, 0), done.stderr


def test_every_command_runs_and_the_best_comes_first(clone):
    assert {command.split()[1] for command in COMMANDS} == {"rank", "score", "bench"}
    rows = "".join(f"{query},{passage}\n" for query, passage in PAIRS)
    (clone.folder / "pairs.csv").write_text(f"query,passage\n{rows}", encoding="utf-8")
    for command in (command for command in COMMANDS if command.split()[1] in ("rank", "score")):
        done = clone("bash", "-c", command)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        if " rank " in command:
            text = done.stdout
            found = json.loads(text)["ranking"] if "--json" in command else []
            found = [json.loads(line) for line in text.splitlines()] if "jsonl" in command else found
            scores = [each["score"] for each in found] or [float(line.split()[0]) for line in text.splitlines()]
            assert len(scores) >= 3 and scores == sorted(scores, reverse=True)
    with (clone.folder / "scored.csv").open(encoding="utf-8") as file:
        assert [(row["query"], row["passage"]) for row in csv.DictReader(file)] == PAIRS


def test_the_benchmark_runs_in_a_shortened_form(clone, shortened, needs_peers):
    benchmarks = [command for command in COMMANDS if command.split()[1] == "bench"]
    assert len([command for command in benchmarks if needs_peers(command)]) == 2
    for command in (command for command in benchmarks if not command.startswith("fusedbert bench setup ")):
        done = clone("bash", "-c", shortened(command))
        assert done.returncode == 0, f"{command}: {done.stderr}"
