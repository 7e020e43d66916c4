"""``fusedbert classify`` as a user runs it: arguments, stdin, formats, errors in one line, exit statuses."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import FUSEDBERT

from fusedbert.engine import Classifier, InputError
from fusedbert.engine.cli.classify import classify, read_batches

COMMAND = [*FUSEDBERT, "classify"]


@pytest.fixture
def run() -> Callable[..., subprocess.CompletedProcess[bytes]]:
    def call(*arguments: str | Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return subprocess.run([*COMMAND, *map(os.fsencode, arguments)], input=stdin, capture_output=True, timeout=60)

    return call


def test_classify_prints_jsonl(run: Any, artifact: Path, reference: Callable[..., np.ndarray]) -> None:
    texts = ["good movie", "dull — “plot” 😀", ""]
    done = run("-m", artifact, "--format", "jsonl", *texts)
    assert done.returncode == 0 and done.stderr == b""
    logits = reference(texts)
    for line, text, row in zip(done.stdout.decode().splitlines(), texts, logits, strict=True):
        entry = json.loads(line)
        expected = np.exp(row) / np.exp(row).sum()
        assert list(entry) == ["text", "label", "score", "scores"] and entry["text"] == text
        assert entry["label"] == ["NEGATIVE", "POSITIVE"][row.argmax()]
        assert entry["score"] == pytest.approx(expected.max(), abs=1e-5)
        assert [entry["scores"][label] for label in ("NEGATIVE", "POSITIVE")] == pytest.approx(list(expected), abs=1e-5)


def test_classify_reads_special_tokens_as_text_if_asked_to(run: Any, artifact: Path) -> None:
    with Classifier.from_pretrained(artifact) as clf:
        as_token, as_text = (clf("the [SEP]", top_k=None, split_special_tokens=split)[1]["score"] for split in (False, True))
    assert as_text > 2 * as_token
    for options, expected in (([], as_token), (["--split-special-tokens"], as_text)):
        entry = json.loads(run("-m", artifact, "--format", "jsonl", *options, "the [SEP]").stdout)
        assert entry["scores"]["POSITIVE"] == pytest.approx(expected, rel=0.1)


def test_classify_takes_pairs_and_top_k(run: Any, artifact: Path) -> None:
    done = run("-m", artifact, "--format", "jsonl", "--pair", "not dull", "--top-k", "1", "good movie")
    entry = json.loads(done.stdout)
    assert entry["text_pair"] == "not dull" and len(entry["scores"]) == 1
    table = run("-m", artifact, "--pair", "not dull", "--top-k", "2", "good movie").stdout.decode()
    assert "good movie | not dull" in table and "NEGATIVE" in table and "POSITIVE" in table


def test_a_table_shows_one_line_for_each_text(run: Any, artifact: Path) -> None:
    done = run("-m", artifact, "good\nmovie \x1b[31m", "x" * 500)
    lines = done.stdout.decode().splitlines()
    assert len(lines) == 2 and "good movie" in lines[0] and "\x1b" not in done.stdout.decode()
    assert lines[1].endswith("x…") and len(lines[1]) < 140


def test_classify_reads_lines_of_stdin(run: Any, artifact: Path) -> None:
    done = run("-m", artifact, "--format", "jsonl", stdin="\ufeffgood\r\n\nbad\n caf\u00e9".encode())
    assert [json.loads(line)["text"] for line in done.stdout.splitlines()] == ["good", "", "bad", " café"]


def test_broken_utf8_is_reported_with_its_line_after_earlier_answers(run: Any, artifact: Path) -> None:
    done = run("-m", artifact, "--format", "jsonl", stdin=b"good\nbad\ncaf\xe9\nmovie\n")
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == 2
    assert done.stderr.startswith(b"fusedbert: error: line 3 of stdin is not UTF-8 (byte 0xe9 at 3)")
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("-m", "./missing", "good"), 1, "./missing does not exist"),
        (("--device", "tpu", "good"), 2, "auto, cpu, cuda, cuda:N"),
        (("--precision", "int8", "good"), 2, "the artifact has fp32 for cpu"),
        (("--top-k", "0", "good"), 2, "top-k"),
        (("--format", "xml", "good"), 2, "jsonl"),
        (("caf\udce9",), 1, "lone surrogate"),
        (("--no-such-option",), 2, "No such option"),
    ],
)
def test_errors_of_classify_are_short(run: Any, artifact: Path, arguments: tuple[str, ...], status: int, said: str) -> None:
    model = () if "-m" in arguments else ("-m", artifact)
    done = run(*model, *arguments)
    assert done.returncode == status and done.stdout == b""
    assert said in done.stderr.decode() and "Traceback" not in done.stderr.decode()
    assert done.stderr.count(b"\n") <= 4  # click's own come with a line of usage


def test_an_error_with_a_line_of_stdin_names_it_after_earlier_answers(run: Any, artifact: Path) -> None:
    lines = ["good"] * 300 + ["good " * 900, "bad"]
    done = run("-m", artifact, "--long-text", "error", "--format", "jsonl", stdin="\n".join(lines).encode())
    assert done.returncode == 1
    assert b"line 301 of stdin has " in done.stderr
    assert len(done.stdout.splitlines()) == 300


def test_an_empty_stdin_is_an_error(run: Any, artifact: Path) -> None:
    done = run("-m", artifact)
    assert done.returncode == 1 and b"stdin is empty" in done.stderr


def test_without_texts_on_a_terminal_classify_gives_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    import click

    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    with pytest.raises(click.UsageError, match="no TEXT") as caught:
        classify.main([], standalone_mode=False)
    assert caught.value.exit_code == 2


def test_answers_come_before_stdin_ends(artifact: Path) -> None:
    process = subprocess.Popen(
        [*COMMAND, "-m", str(artifact), "--format", "jsonl"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        for text in ("good", "bad"):
            process.stdin.write(f"{text}\n".encode())
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["text"] == text
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait(20)


def test_a_closed_pipe_is_not_an_error(artifact: Path) -> None:
    producer = subprocess.Popen(["yes", "good"], stdout=subprocess.PIPE)
    process = subprocess.Popen(
        [*COMMAND, "-m", str(artifact)], stdin=producer.stdout, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None and process.stderr is not None and producer.stdout is not None
    producer.stdout.close()
    assert b"good" in process.stdout.readline()
    process.stdout.close()
    assert process.wait(30) == 0
    assert process.stderr.read() == b""
    producer.wait(10)


class Trickle:
    """A stream that returns a few bytes at a time."""

    def __init__(self, content: bytes, size: int) -> None:
        self.file, self.size = BytesIO(content), size

    def read1(self, size: int) -> bytes:
        return self.file.read(min(size, self.size))


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_answers_do_not_depend_on_how_lines_arrive(size: int) -> None:
    content = "a\r\n\nß€😀\nlast\n\n".encode()
    batches = list(read_batches(Trickle(content, size)))  # type: ignore[arg-type]
    assert [text for batch in batches for text in batch] == ["a", "", "ß€😀", "last", ""]


def test_a_long_line_does_not_take_quadratic_time() -> None:
    started = time.perf_counter()
    assert list(read_batches(Trickle(b"x" * 2_000_000, 1000))) == [["x" * 2_000_000]]  # type: ignore[arg-type]
    linear = time.perf_counter() - started
    line = b""
    for _ in range(2000):
        line = line + b"x" * 1000  # copies all of it at every step
    assert linear < (time.perf_counter() - started - linear) / 2 and len(line) == 2_000_000


def test_batches_are_bounded() -> None:
    assert max(map(len, read_batches(BytesIO(b"good\n" * 10_000)))) <= 256
    with pytest.raises(InputError, match="stdin is empty"):
        list(read_batches(BytesIO(b"")))
