"""Nothing lost, nothing twice: kills, full disks, mismatches; committed parts stay, and the output has the same bytes."""

from __future__ import annotations

import bz2
import errno
import json
import os
import random
import resource
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from commands import FUSEDBERT

import fusedbert.engine.scoring.journal as journal_module
from fusedbert.engine import InputError, OptionError, StorageError, score_file

ROWS = 600
PART = 20
COMMAND = [*FUSEDBERT, "score"]


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    """Different rows, some of which cannot be scored."""
    rng = random.Random(5)
    words = ["good", "bad", "film", "plot", "dull", "bright", "not", "very"]
    return [{"id": f"{n:04d}", "text": " ".join(rng.choices(words, k=rng.randrange(1, 40)))} for n in range(ROWS)]


@pytest.fixture
def source(write: Any, rows: list[dict[str, Any]]) -> Path:
    return write("in.jsonl", [row | {"text": None} if number % 97 == 50 else row for number, row in enumerate(rows)])


def options(artifact: Path, **more: Any) -> dict[str, Any]:
    return {"model": artifact, "part_rows": PART, "on_error": "null", "threads": 1, **more}


class Stop(Exception):
    """Raised in place of a kill, in this process."""


def stopped(source: Path, output: Path, after: int, **more: Any) -> None:
    """Start a run and stop it after some rows."""

    def progress(done: Any) -> None:
        if done.rows >= after:
            raise Stop

    with pytest.raises(Stop):
        score_file(source, output, progress=progress, **more)


@pytest.mark.parametrize(
    "name",
    [
        "out.csv",
        "out.jsonl.gz",
        "out.parquet",
        "out.json",
        "out.json.gz",
        "out.csv.bz2",
        "out.tsv.xz",
        "out.csv.zip",
        "out.jsonl.zst",
    ],
)
def test_a_run_that_was_stopped_often_ends_with_the_same_bytes(name: str, source: Path, artifact: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole" / name
    whole.parent.mkdir()
    undisturbed = score_file(source, whole, **options(artifact))
    output = tmp_path / name
    for after in (50, 130, 400):
        stopped(source, output, after, resume=True, **options(artifact))
        assert not output.exists()
    summary = score_file(source, output, resume=True, **options(artifact))
    assert output.read_bytes() == whole.read_bytes()
    side = [path.with_name(f"{path.name}.errors.jsonl") for path in (output, whole)]
    assert side[0].read_bytes() == side[1].read_bytes() and summary.errors == 6
    assert 300 < summary.resumed <= 400
    same = ("rows", "written", "errors", "truncated", "labels", "padding", "distinct")
    assert {key: getattr(summary, key) for key in same} == {key: getattr(undisturbed, key) for key in same}
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["whole"]


def text_lines(folder: Path, rows: list[dict[str, str]]) -> Path:
    path = folder / "in.txt"
    path.write_text("".join(f"{row['text']}\n" for row in rows), encoding="utf-8")
    return path


def with_nulls(folder: Path, rows: list[dict[str, str]]) -> list[Path]:
    path = folder / "in.jsonl"
    changed = [row | {"text": None} if number % 97 == 50 else row for number, row in enumerate(rows)]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in changed), encoding="utf-8")
    return [path]


def json_array(folder: Path, rows: list[dict[str, str]]) -> Path:
    path = folder / "in.json"
    path.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    return path


def semicolons(folder: Path, rows: list[dict[str, str]]) -> Path:
    path = folder / "in.csv"
    path.write_text("".join(f"{row['id']};{row['text']} caf\xe9\n" for row in rows), encoding="utf-16")
    return path


def several(folder: Path, rows: list[dict[str, str]]) -> list[Path]:
    paths = []
    for number in range(4):
        paths.append(folder / f"in-{number}.csv.bz2")
        content = "id,text\n" + "".join(f"{row['id']},{row['text']}\n" for row in rows[number::4])
        paths[-1].write_bytes(bz2.compress(content.encode()))
    return paths


INPUTS: dict[str, tuple[Any, dict[str, Any]]] = {
    "txt": (text_lines, {}),
    "json": (json_array, {}),
    "csv without a header, utf-16, semicolons": (semicolons, {"header": False, "delimiter": ";", "text_column": "2"}),
    "several": (several, {}),
}


@pytest.mark.parametrize("kind", INPUTS)
def test_a_run_on_any_input_that_was_stopped_often_ends_with_the_same_bytes(
    kind: str, rows: list[dict[str, str]], artifact: Path, tmp_path: Path
) -> None:
    make, more = INPUTS[kind]
    source, whole, output = make(tmp_path, rows), tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    total = score_file(source, whole, **options(artifact, **more)).rows
    for after in (45, 130, total - PART):
        stopped(source, output, after, resume=True, **options(artifact, **more))
    summary = score_file(source, output, resume=True, **options(artifact, **more))
    assert output.read_bytes() == whole.read_bytes() and summary.rows == total and summary.resumed > 100


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (with_nulls, "out.csv"),
        (lambda folder, rows: [text_lines(folder, rows)], "out.tsv.bz2"),
        (lambda folder, rows: [json_array(folder, rows)], "out.json.xz"),
        (several, "out.csv.zip"),
        (several, "out.parquet"),
    ],
)
def test_a_run_killed_by_sigkill_resumes(
    make: Any, name: str, rows: list[dict[str, str]], artifact: Path, tmp_path: Path
) -> None:
    sources, whole, output = make(tmp_path, rows), tmp_path / "whole" / name, tmp_path / name
    whole.parent.mkdir()
    score_file(sources, whole, **options(artifact))
    arguments = ["-m", artifact, "--part-rows", PART, "--on-error", "null", "--threads", 1, "--resume", "--json"]
    command = list(map(str, [*COMMAND, *sources, "-o", output, *arguments]))
    rng = random.Random(11)
    kills = 0
    for _ in range(4):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        before = journal_size(output)
        while process.poll() is None and journal_size(output) <= before:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.08))
        process.send_signal(signal.SIGKILL)
        kills += process.wait(30) == -signal.SIGKILL
    assert kills >= 2
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert output.read_bytes() == whole.read_bytes()
    errors = [path.with_name(f"{name}.errors.jsonl") for path in (output, whole)]
    assert [path.exists() and path.read_bytes() for path in errors] == [make is with_nulls and errors[1].read_bytes()] * 2
    summary = json.loads(done.stdout)
    assert summary["rows"] == ROWS or summary["finished_before"]


def journal_size(output: Path) -> int:
    path = output.with_name(f"{output.name}.parts") / "journal.jsonl"
    return path.stat().st_size if path.exists() else 0


@pytest.mark.parametrize("step", ["link", "errors", "unlink", "rmdir"])
def test_a_run_stopped_at_its_end_resumes(
    step: str, source: Path, artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, output = tmp_path / "whole.csv", tmp_path / "out.csv"
    score_file(source, whole, **options(artifact))

    def refuse(*_: Any, **__: Any) -> Any:
        raise Stop

    with monkeypatch.context() as patch:
        real = Path.replace
        if step == "errors":
            patch.setattr(Path, "replace", lambda self, to: refuse() if self.name == step else real(self, to))
        elif step == "unlink":
            patch.setattr("fusedbert.engine.scoring.journal.Journal.remove", refuse)
        else:
            patch.setattr(*((os, "link") if step == "link" else (Path, "rmdir")), refuse)
        with pytest.raises(Stop):
            score_file(source, output, **options(artifact))
    assert output.exists() == (step in ("unlink", "rmdir"))
    summary = score_file(source, output, resume=True, **options(artifact))
    assert output.read_bytes() == whole.read_bytes()
    assert summary.finished_before == (step == "rmdir")
    assert not output.with_name("out.csv.parts").exists()


def test_a_finished_output_is_left_unchanged(source: Path, artifact: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.csv"
    score_file(source, output, resume=True, **options(artifact))  # without a journal it starts
    before = output.stat()
    summary = score_file(source, output, resume=True, **options(artifact))
    after = output.stat()
    assert summary.finished_before
    assert (before.st_mtime_ns, before.st_ino) == (after.st_mtime_ns, after.st_ino)
    with pytest.raises(StorageError, match=r"exists already.*--force.*--resume"):
        score_file(source, output, **options(artifact))
    score_file(source, output, force=True, **options(artifact))
    assert output.stat().st_ino != before.st_ino


def test_an_unfinished_run_is_not_overwritten_by_accident(source: Path, artifact: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.csv"
    stopped(source, output, 100, **options(artifact))
    with pytest.raises(StorageError, match=r"unfinished run.*--resume.*--force"):
        score_file(source, output, **options(artifact))
    summary = score_file(source, output, force=True, **options(artifact))
    assert summary.resumed == 0 and summary.rows == ROWS


def test_an_old_output_stays_until_the_new_one_is_complete(source: Path, artifact: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.csv"
    output.write_text("old", encoding="utf-8")
    stopped(source, output, 100, force=True, **options(artifact))
    assert output.read_text(encoding="utf-8") == "old"
    score_file(source, output, resume=True, **options(artifact))
    assert output.read_text(encoding="utf-8").count("\n") == ROWS + 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"part_rows": 10}, "part_rows 20, not 10"),
        ({"probabilities": True}, "columns "),
        ({"text_column": "id"}, "text_column 'text', not 'id'"),
        ({"on_error": "skip"}, "--on-error null"),
    ],
)
def test_resuming_with_other_options_is_refused(change: Any, said: str, source: Path, artifact: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.csv"
    stopped(source, output, 100, **options(artifact))
    with pytest.raises(OptionError, match=f"the unfinished run in .* had .*{said}"):
        score_file(source, output, resume=True, **options(artifact) | change)
    score_file(source, output, resume=True, **options(artifact))


def test_resuming_with_another_input_or_model_is_refused(source: Path, artifact: Path, variant: Any, tmp_path: Path) -> None:
    output = tmp_path / "out.csv"
    stopped(source, output, 100, **options(artifact))
    content = source.read_bytes()
    source.write_bytes(content.replace(b"dull", b"fine", 1))
    with pytest.raises(OptionError, match="input sha256"):
        score_file(source, output, resume=True, **options(artifact))
    source.write_bytes(content + b'{"id": "x", "text": "more"}\n')
    with pytest.raises(OptionError, match="input bytes"):
        score_file(source, output, resume=True, **options(artifact))
    source.write_bytes(content)
    other = variant("single_label_classification")  # the same model, written again
    with pytest.raises(OptionError, match="model manifest"):
        score_file(source, output, resume=True, **options(artifact, model=other))


def test_resuming_may_turn_failed_rows_into_nulls(source: Path, artifact: Path, tmp_path: Path) -> None:
    strict = options(artifact, on_error="fail")
    with pytest.raises(InputError, match="row 51 cannot be scored"):
        score_file(source, tmp_path / "out.csv", **strict)
    summary = score_file(source, tmp_path / "out.csv", resume=True, **options(artifact))
    assert summary.resumed == 40 and summary.errors == 6


def test_a_half_written_line_of_the_journal_does_not_count(source: Path, artifact: Path, tmp_path: Path) -> None:
    whole, output = tmp_path / "whole.csv", tmp_path / "out.csv"
    score_file(source, whole, **options(artifact))
    stopped(source, output, 200, **options(artifact))
    journal = output.with_name("out.csv.parts") / "journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:-17])
    summary = score_file(source, output, resume=True, **options(artifact))
    assert summary.resumed in (160, 180) and output.read_bytes() == whole.read_bytes()


def test_an_unfinished_file_of_a_killed_run_is_removed(source: Path, artifact: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.csv"
    stopped(source, output, 100, **options(artifact))
    torn = output.with_name("out.csv.parts") / ".part-0000005.0123456789ab"
    torn.write_bytes(b"half a part")

    def progress(_: Any) -> None:
        assert not torn.exists()

    score_file(source, output, resume=True, progress=progress, **options(artifact))


@pytest.mark.parametrize("damage", ["part", "journal"])
def test_a_damaged_unfinished_run_is_refused(damage: str, source: Path, artifact: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.csv"
    stopped(source, output, 200, **options(artifact))
    folder = output.with_name("out.csv.parts")
    path = folder / ("part-0000001" if damage == "part" else "journal.jsonl")
    path.write_bytes(path.read_bytes()[:-3] if damage == "part" else b"{}{\n" + path.read_bytes())
    with pytest.raises(InputError, match=r"--force"):
        score_file(source, output, resume=True, **options(artifact))


def test_two_processes_do_not_write_one_output(source: Path, artifact: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.csv"

    def progress(_: Any) -> None:
        with pytest.raises(StorageError, match="another process is writing"):
            score_file(source, output, resume=True, **options(artifact))
        raise Stop

    with pytest.raises(Stop):
        score_file(source, output, progress=progress, **options(artifact))


@pytest.mark.parametrize("where", ["part", "join"])
def test_a_full_disk_is_one_line_and_the_run_can_resume(
    where: str, source: Path, artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, output = tmp_path / "whole.csv", tmp_path / "out.csv"
    score_file(source, whole, **options(artifact))
    real = journal_module.new_file
    with monkeypatch.context() as patch:

        def full(path: Path, **options: Any) -> Any:
            if path.name == ("part-0000003" if where == "part" else "joined"):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(path, **options)

        patch.setattr(journal_module, "new_file", full)
        with pytest.raises(StorageError, match="No space left on device: make room, then continue with --resume"):
            score_file(source, output, **options(artifact))
    summary = score_file(source, output, resume=True, **options(artifact))
    assert summary.resumed == (60 if where == "part" else ROWS)
    assert output.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("limit", [3000, 12_000, 60_000])
def test_a_run_that_hits_the_file_size_limit_can_be_resumed(limit: int, source: Path, artifact: Path, tmp_path: Path) -> None:
    """A real write that breaks off in the middle: of a part, of the journal, of the joined output."""
    whole, output = tmp_path / "whole.csv", tmp_path / "out.csv"
    score_file(source, whole, **options(artifact))
    arguments = ["-m", artifact, "--part-rows", PART, "--on-error", "null", "--threads", 1]
    command = list(map(str, [*COMMAND, source, "-o", output, *arguments]))

    def limited() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    done = subprocess.run(command, capture_output=True, text=True, timeout=120, preexec_fn=limited)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and "make room" in done.stderr
    assert not output.exists()
    again = subprocess.run([*command, "--resume"], capture_output=True, text=True, timeout=120)
    assert again.returncode == 0, again.stderr
    assert output.read_bytes() == whole.read_bytes()


def test_stdin_can_be_scored_but_not_resumed(source: Path, artifact: Path, tmp_path: Path) -> None:
    whole, output = tmp_path / "whole.csv", tmp_path / "out.csv"
    score_file(source, whole, **options(artifact))
    arguments = ["--input-format", "jsonl", "-m", artifact, "--part-rows", PART, "--on-error", "null", "--threads", 1]
    command = list(map(str, [*COMMAND, "-", "-o", output, *arguments]))
    content = source.read_bytes()
    cut = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert cut.stdin is not None
    cut.stdin.write(content[: len(content) // 2])
    cut.stdin.flush()
    deadline = time.monotonic() + 60
    while journal_size(output) < 2000 and time.monotonic() < deadline:
        time.sleep(0.01)
    cut.kill()
    cut.stdin.close()
    cut.wait(30)
    refused = subprocess.run([*command, "--resume"], input=content, capture_output=True, timeout=120)
    assert refused.returncode == 2 and b"is a stream" in refused.stderr and b"--force" in refused.stderr
    done = subprocess.run([*command, "--force"], input=content, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert output.read_bytes() == whole.read_bytes()
    again = subprocess.run([*command, "--resume"], input=content, capture_output=True, timeout=120)
    assert (again.returncode, again.stderr) == (0, b"")
