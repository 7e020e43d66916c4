"""Commands whose streams are closed or full, and commands that are asked to end."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from commands import FUSEDBERT

from fusedbert.engine.cli import SUMMARIES
from fusedbert.engine.cli.process import TerminatedError, terminable

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="shells, /dev/full, signals")


def shell(line: str, *arguments: str | Path) -> tuple[int, str, str]:
    """Run a line in which {} is fusedbert with arguments; return status, stdout and stderr."""
    command = shlex.join([*FUSEDBERT, *map(str, arguments)])
    done = subprocess.run(["sh", "-c", line.format(command)], capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("line", ["{} >&-", "{} 2>&-", "{} <&-", "{} >&- 2>&- <&-"])
def test_a_command_that_writes_a_file_needs_no_streams(artifact: Path, tmp_path: Path, line: str) -> None:
    (tmp_path / "in.csv").write_text("text\ngood movie\n")
    output = tmp_path / "out.csv"
    status, _, err = shell(line, "score", tmp_path / "in.csv", "-o", output, "-m", artifact, "--json")
    assert status == 0, err
    assert output.read_text().startswith("text,label,score") and "Traceback" not in err
    with (artifact / "onnx/model.onnx").open("rb") as file:
        assert b"rows" not in file.read()  # nothing was written into a file that took a stream's place


def test_a_result_without_a_place_is_an_error(artifact: Path) -> None:
    status, _, err = shell("{} >&-", "classify", "good", "-m", artifact)
    assert status == 1 and err.splitlines() == [
        "fusedbert: error: stdout is closed, and fusedbert classify writes its result there: give it a file or a pipe"
    ]
    status, _, err = shell("{} </dev/null >/dev/full", "classify", "good", "-m", artifact)
    assert status == 1 and err.splitlines() == ["fusedbert: error: the output: No space left on device"]


TO_STDOUT = {
    "classify": ["good", "-m", "MODEL"],
    "rank": ["good", "documents.txt", "-m", "MODEL"],
    "tag": ["good", "-m", "MODEL"],
    "score": ["in.csv", "-o", "-", "-m", "MODEL"],
    "explain": ["good", "-m", "MODEL", "--json"],
    "bench": ["latency", "-m", "MODEL"],
    "doctor": [],
}


def test_no_command_ends_well_without_its_result(artifact: Path, tokens_artifact: Path) -> None:
    assert TO_STDOUT.keys() == SUMMARIES.keys() - {"export", "serve"}  # one repeats what it has written, the other writes none
    for command, arguments in TO_STDOUT.items():
        model = tokens_artifact if command == "tag" else artifact
        filled = [str(model) if each == "MODEL" else each for each in arguments]
        status, _, err = shell("{} >&-", command, *filled)
        assert status == 1 and f"stdout is closed, and fusedbert {command} writes its result there" in err, command
    assert "stdout is closed" not in shell("{} >&-", "bench", "latency", "--report", "folder", "--unknown")[2]
    assert shell("{} >&-", "bench", "checkpoint", "tiny", "folder")[0] == 2


@pytest.mark.parametrize("output", [("-o", "-"), ("--output=-",), ("-o-",), ("-o", "/dev/stdout")])
def test_rows_do_not_go_to_a_closed_stdout(output: tuple[str, ...], artifact: Path) -> None:
    status, _, err = shell("printf 'text\ngood\n' | {} >&-", "score", "-", "--input-format", "csv", *output, "-m", artifact)
    assert status == 1 and "stdout is closed, and fusedbert score writes its result there" in err


def test_stdin_scored_into_a_file_does_not_need_stdout(artifact: Path, tmp_path: Path) -> None:
    line, output = "printf 'text\ngood\n' | {} >&-", tmp_path / "out.csv"
    status, _, err = shell(line, "score", "-", "--input-format", "csv", "-o", output, "-m", artifact)
    assert (status, err) == (0, "") and output.read_text(encoding="utf-8").count("\n") == 2


def test_closed_stderr_and_stdin_do_not_matter(artifact: Path) -> None:
    for line in ("{} 2>&-", "{} <&-"):
        status, out, _ = shell(line, "classify", "good", "-m", artifact)
        assert status == 0 and "good" in out
    status, _, err = shell("{} <&-", "classify", "-m", artifact)
    assert status == 1 and "stdin is empty" in err and len(err.splitlines()) == 1


def test_a_terminated_export_leaves_nothing(tmp_path: Path, checkpoint: Path) -> None:
    command = [*FUSEDBERT, "export", str(checkpoint), str(tmp_path / "out")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        next(process.stderr)  # its first step has begun
        assert list(tmp_path.glob(".out.*.part"))
        process.send_signal(signal.SIGTERM)
        rest = process.stderr.read()
    assert process.returncode == 143 and rest.splitlines()[-1] == "fusedbert: error: terminated"
    assert list(tmp_path.iterdir()) == []


def test_sigterm_is_an_exception_only_inside_and_in_the_main_thread() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(TerminatedError), terminable():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(20)
    assert signal.getsignal(signal.SIGTERM) is before
    found = []

    def enter() -> None:
        with terminable():
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert found == [before]


def test_an_ignored_sigterm_stays_ignored() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with terminable():
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)
