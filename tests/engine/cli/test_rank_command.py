"""``fusedbert rank`` as a user runs it: files, stdin, formats, errors in one line, exit statuses."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from commands import FUSEDBERT

from fusedbert.engine import Classifier
from fusedbert.engine.cli import rank as command

DOCUMENTS = ["not dull", "the plot was very dull", "fine \x1b[31mactor", "", "x" * 500]


@pytest.fixture
def run(artifact: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command with the tiny artifact."""

    def call(*arguments: str | Path, stdin: bytes = b"") -> Any:
        words = [*FUSEDBERT, "rank", "-m", str(artifact), *map(str, arguments)]
        done = subprocess.run(words, input=stdin, capture_output=True, timeout=60)
        return subprocess.CompletedProcess(words, done.returncode, done.stdout.decode(), done.stderr.decode())

    return call


@pytest.fixture
def expected(artifact: Path) -> list[dict[str, Any]]:
    with Classifier.from_pretrained(artifact) as clf:
        return clf.rank("good movie", DOCUMENTS, return_documents=True)


def test_lines_of_a_file_are_ranked(run: Any, tmp_path: Path, expected: list[dict[str, Any]]) -> None:
    (tmp_path / "documents.txt").write_text("\n".join(DOCUMENTS) + "\n")
    done = run("good movie", tmp_path / "documents.txt")
    lines = done.stdout.splitlines()
    assert (done.returncode, done.stderr, len(lines)) == (0, "", 5)
    found = [line.split(maxsplit=2) for line in lines]
    assert [int(number) for _, number, *_ in found] == [each["corpus_id"] for each in expected]
    assert [float(score) for score, *_ in found] == pytest.approx([each["score"] for each in expected], abs=1e-4)
    assert "\x1b" not in done.stdout and max(map(len, lines)) < 130
    assert run("good movie", tmp_path / "documents.txt", "--top-k", 2).stdout.splitlines() == lines[:2]


def test_stdin_a_table_and_json(run: Any, tmp_path: Path, expected: list[dict[str, Any]]) -> None:
    lines = run("good movie", "-", "--format", "jsonl", stdin="\n".join(DOCUMENTS).encode()).stdout.splitlines()
    assert [json.loads(line) for line in lines] == [{**each, "score": pytest.approx(each["score"])} for each in expected]
    rows = "".join(f"{json.dumps({'id': i, 'note': 'x', 'passage': text})}\n" for i, text in enumerate(DOCUMENTS))
    (tmp_path / "documents.jsonl").write_text(rows)
    document = json.loads(run("good movie", tmp_path / "documents.jsonl", "--text-column", "passage", "--json").stdout)
    assert (document["query"], document["documents"]) == ("good movie", 5)
    assert [each["corpus_id"] for each in document["ranking"]] == [each["corpus_id"] for each in expected]
    other = run("good movie", "-", "--rank-by", "NEGATIVE", "--format", "jsonl", stdin="\n".join(DOCUMENTS).encode())
    assert [json.loads(line)["corpus_id"] for line in other.stdout.splitlines()] == [
        each["corpus_id"] for each in reversed(expected)
    ]
    latin = run("good movie", "-", "--encoding", "latin-1", "--format", "jsonl", stdin=b"caf\xe9")
    assert json.loads(latin.stdout)["text"] == "café"


@pytest.mark.parametrize(
    ("arguments", "stdin", "status", "said"),
    [
        (("good", "missing.txt"), b"", 1, "missing.txt cannot be read"),
        (("good", "-"), b"", 1, "stdin has no rows"),
        (("good", "-"), b"a\nb\xff\n", 1, "row 2 has no text: not UTF-8"),
        (("good", "-", "--input-format", "jsonl"), b'{"text": "a"}\n{"text": null}\n', 1, "row 2 has no text: 'text' is null"),
        (("good", "-", "--input-format", "csv", "--text-column", "x"), b"a,b\n1,2\n", 1, "no column 'x'"),
        (("good", "-", "--input-format", "xml"), b"a", 2, "the format is 'xml'"),
        (("good", "-", "--rank-by", "x"), b"a", 2, "label is 'x'"),
        (("good", "-", "--top-k", "0"), b"a", 2, "top-k"),
        (("good", "-", "--max-length", "9", "--long-text", "error"), b"a\n" + b"dull " * 9, 1, "text 1 has 13 tokens"),
        (("good",), b"", 2, "Missing argument 'FILE'"),
    ],
)
def test_errors_are_one_line(run: Any, arguments: tuple[str, ...], stdin: bytes, status: int, said: str) -> None:
    done = run(*arguments, stdin=stdin)
    assert (done.returncode, done.stdout) == (status, "") and said in done.stderr
    assert len(done.stderr.splitlines()) == 1 or done.stderr.startswith("Usage: ")


def test_a_model_of_more_labels_is_refused(make_artifact: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_artifact(("a", "b", "c"), name="three")
    (tmp_path / "documents.txt").write_text("fine\n")
    done = CliRunner().invoke(command.rank, ["-m", str(folder), "good", str(tmp_path / "documents.txt")])
    assert done.exit_code == 1 and "one or two labels" in str(done.exception)


def test_the_plain_help_lists_the_command() -> None:
    done = subprocess.run([*FUSEDBERT, "--help"], capture_output=True, text=True, timeout=60)
    assert "Rank documents for a query, the best first." in done.stdout
