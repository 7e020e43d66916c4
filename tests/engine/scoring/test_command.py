"""``fusedbert score`` as a user runs it, what it needs, and the example."""

from __future__ import annotations

import ast
import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import pytest
from commands import MAIN

WITHOUT_PYARROW = f"import sys; sys.modules['pyarrow'] = None; sys.modules['ray'] = None; {MAIN}"


def test_with_json_stdout_is_only_the_summary(fusedbert: Any, artifact: Path, repository: Path, tmp_path: Path) -> None:
    done = fusedbert("score", repository / "examples" / "reviews.csv", "-o", tmp_path / "out.jsonl", "-m", artifact, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    summary = json.loads(done.stdout)
    assert summary["rows"] == summary["written"] == sum(summary["labels"].values()) == 5
    assert set(summary["stages"]) == {"read", "tokenize", "run", "write"} and summary["rows_per_second"] > 0
    assert len((tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()) == 5


def test_without_a_terminal_score_prints_nothing(fusedbert: Any, artifact: Path, repository: Path, tmp_path: Path) -> None:
    done = fusedbert("score", repository / "examples" / "reviews.csv", "-o", tmp_path / "out.csv", "-m", artifact)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_terminal_gets_a_bar_and_a_summary(artifact: Path, repository: Path, tmp_path: Path) -> None:
    main, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 160, 0, 0))
    command = [
        sys.executable,
        "-c",
        MAIN,
        "score",
        repository / "examples" / "reviews.csv",
        "-o",
        tmp_path / "o.csv",
        "-m",
        artifact,
    ]
    done = subprocess.run(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=terminal, stdin=subprocess.DEVNULL, timeout=120
    )
    os.close(terminal)
    said = b""
    while True:
        try:
            block = os.read(main, 65536)
        except OSError:
            break
        if not block:
            break
        said += block
    os.close(main)
    assert done.returncode == 0 and done.stdout == b""
    for word in (b" rows", b"padding", b"5 rows", b"labels: ", b"truncated: 0", b"seconds by stage"):
        assert word in said, said


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("none.csv", "-o", "out.csv"), 1, "none.csv cannot be read"),
        (("in.csv",), 2, "-o"),
        (("in.csv", "-o", "out.xls"), 2, "the format of out.xls is not known"),
        (("in.csv", "-o", "."), 1, ". is a folder: give a file to write, or ./ for a file in it for each input"),
        (("in.csv", "-o", "out.csv", "--on-error", "stop"), 2, "fail, null, skip"),
        (("in.csv", "-o", "out.csv", "--resume", "--force"), 2, "exclude each other"),
        (("in.csv", "-o", "out.csv", "--text-column", "c"), 1, "no column 'c'; its columns are 'a', 'b'"),
        (("in.csv", "-o", "old.csv", "--text-column", "a"), 1, "old.csv exists already"),
        (("in.csv", "-o", "out.csv", "--actors", "2"), 2, "--on ray"),
    ],
)
def test_errors_of_score_are_one_line(
    fusedbert: Any, artifact: Path, tmp_path: Path, arguments: Any, status: int, said: str
) -> None:
    (tmp_path / "in.csv").write_text("a,b\ngood,bad\n", encoding="utf-8")
    (tmp_path / "old.csv").write_text("mine", encoding="utf-8")
    done = fusedbert("score", *arguments, "-m", artifact, cwd=tmp_path)
    assert done.returncode == status and done.stdout == ""
    assert said in done.stderr and "Traceback" not in done.stderr and done.stderr.count("\n") <= 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv", "old.csv"]
    assert (tmp_path / "old.csv").read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "csv.gz"])
def test_text_formats_need_no_pyarrow(kind: str, write: Any, artifact: Path, tmp_path: Path) -> None:
    source = write(f"in.{kind}", [{"text": "good", "n": "1"}])
    command = [sys.executable, "-c", WITHOUT_PYARROW, "score", source, "-o", tmp_path / f"out.{kind}", "-m", artifact]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ("in.parquet", "-o", "out.csv"),
            'pyarrow is needed to read parquet, and is not installed: pip install "fusedbert[data]"',
        ),
        (
            ("in.csv", "-o", "out.parquet"),
            'pyarrow is needed to write parquet, and is not installed: pip install "fusedbert[data]"',
        ),
        (
            ("in.csv.zst", "-o", "out.csv"),
            'pyarrow is needed to read .zst, and is not installed: pip install "fusedbert[data]"',
        ),
        (
            ("in.csv", "-o", "out.jsonl.zst"),
            'pyarrow is needed to write .zst, and is not installed: pip install "fusedbert[data]"',
        ),
        (
            ("in.csv", "-o", "out.csv", "--on", "ray"),
            'ray is needed to score on Ray, and is not installed: pip install "fusedbert[ray]"',
        ),
    ],
)
def test_a_missing_package_is_named_with_its_pip_line(
    arguments: Any, line: str, write: Any, artifact: Path, tmp_path: Path
) -> None:
    write(arguments[0], [{"text": "good"}])
    command = [sys.executable, "-c", WITHOUT_PYARROW, "score", *arguments, "-m", str(artifact)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 1 and done.stderr == f"fusedbert: error: {line}\n"
    assert len(list(tmp_path.iterdir())) == 1


def test_importing_the_engine_loads_no_scoring() -> None:
    program = (
        "import sys, fusedbert.engine as e; before = set(sys.modules); e.score_file, e.Scorer; "
        "heavy = {m.split('.')[0] for m in sys.modules} & {'pyarrow', 'ray', 'pandas'}; "
        "print([m for m in before if 'scoring' in m], sorted(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[] []\n", done.stderr


def test_the_example_is_short_and_runs(repository: Path, artifact: Path, tmp_path: Path) -> None:
    example = repository / "examples" / "score_reviews.py"
    code = example.read_text(encoding="utf-8")
    assert len(code.splitlines()) - len((ast.get_docstring(ast.parse(code)) or "").splitlines()) <= 18
    command = [sys.executable, str(example), str(repository / "examples" / "reviews.csv"), "out.csv", str(artifact)]
    for _ in range(2):  # the second finds it finished
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        assert "001 POSITIVE 0.99" in done.stdout and "005 NEGATIVE" in done.stdout and "one opinion: a delight." in done.stdout
