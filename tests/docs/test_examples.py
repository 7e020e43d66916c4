"""The examples run as they stand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def test_the_finetuning_example_trains_and_exports(repository: Path, tmp_path: Path) -> None:
    command = [sys.executable, "examples/finetune_and_export.py", "examples/tickets.csv", str(tmp_path / "tickets")]
    done = subprocess.run(
        [*command, "--epochs", "10"], cwd=repository, capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == 0, done.stderr
    answers = done.stdout.splitlines()[-3:]
    assert [line.split()[0] for line in answers] == ["technical", "delivery", "billing"]
    manifest = json.loads((tmp_path / "tickets/fusedbert.json").read_text(encoding="utf-8"))
    assert manifest["labels"] == ["billing", "delivery", "technical"] and manifest["source"]["id"] == "tickets"


def test_the_threads_example_gives_the_same_answers(repository: Path, artifact: Path) -> None:
    command = [sys.executable, "examples/threads.py", str(artifact), "examples/sentences.txt"]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].strip() == "the same answers either way"
