"""Several inputs: files, patterns and folders, into one output or one for each; and outputs that are streams."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from commands import FUSEDBERT

from fusedbert.engine import InputError, OptionError, StorageError, score_file
from fusedbert.engine.scoring.inputs import expand

TEXTS = [f"good film number {number}" for number in range(30)]
KINDS = ["csv", "tsv", "jsonl", "parquet"]


@pytest.fixture
def parts(write: Any, tmp_path: Path) -> Any:
    """Return a function that writes 30 rows as three files of a format in the folder ``parts``, and as one file."""

    def make(kind: str) -> tuple[list[Path], Path]:
        (tmp_path / "parts").mkdir()
        rows = [{"id": str(number), "text": text} for number, text in enumerate(TEXTS)]
        files = [write(f"parts/{name}.{kind}", rows[start : start + 10]) for name, start in (("a", 0), ("b", 10), ("c", 20))]
        return files, write(f"whole.{kind}", rows)

    return make


@pytest.mark.parametrize("kind", KINDS)
def test_several_files_give_the_output_of_their_rows_in_one_file(kind: str, parts: Any, artifact: Path, tmp_path: Path) -> None:
    files, whole = parts(kind)
    score_file(whole, tmp_path / f"one.{kind}", model=artifact, threads=1)
    summary = score_file(files, tmp_path / f"several.{kind}", model=artifact, threads=1)
    assert summary.rows == summary.written == 30
    assert (tmp_path / f"several.{kind}").read_bytes() == (tmp_path / f"one.{kind}").read_bytes()


def test_a_folder_and_a_pattern_are_read_in_the_order_of_names(parts: Any, artifact: Path, tmp_path: Path, read: Any) -> None:
    files, _ = parts("csv")
    folder = files[0].parent
    (folder / "_SUCCESS").touch()
    (folder / ".a.csv.crc").write_bytes(b"\0")
    for number, source in enumerate((folder, folder / "*.csv", [files[0], folder / "[bc].csv"])):
        output = tmp_path / f"{number}.jsonl"
        score_file(source, output, model=artifact, threads=1)
        assert [row["text"] for row in read(output)] == TEXTS


@pytest.mark.parametrize("slash", [True, False])
def test_a_folder_as_output_gets_a_file_for_each_input(
    slash: bool, parts: Any, artifact: Path, tmp_path: Path, read: Any
) -> None:
    files, _ = parts("csv")
    output = tmp_path / "scored"
    if not slash:
        output.mkdir()
    summary = score_file(files, f"{output}/" if slash else output, model=artifact, threads=1)
    assert sorted(path.name for path in output.iterdir()) == ["a.csv", "b.csv", "c.csv"]
    assert [row["text"] for path in sorted(output.iterdir()) for row in read(path)] == TEXTS
    assert summary.rows == 30 and sum(summary.labels.values()) == 30
    with pytest.raises(StorageError, match="exists already"):
        score_file(files, output, model=artifact)
    (output / "b.csv").unlink()
    again = score_file(files, output, model=artifact, threads=1, resume=True)
    assert again.rows == 10 and not again.finished_before
    assert score_file(files, output, model=artifact, resume=True).finished_before


def test_an_output_format_names_the_files_of_a_folder(parts: Any, artifact: Path, tmp_path: Path, read: Any) -> None:
    files, _ = parts("csv")
    score_file(files, f"{tmp_path}/scored/", model=artifact, threads=1, output_format="jsonl")
    assert [row["text"] for path in sorted((tmp_path / "scored").glob("*.jsonl")) for row in read(path)] == TEXTS


def test_rows_that_cannot_be_scored_are_named_by_file(write: Any, artifact: Path, tmp_path: Path) -> None:
    files = [write("a.jsonl", [{"text": "good"}]), write("b.jsonl", [{"text": "good"}, {"text": None}])]
    with pytest.raises(InputError, match=r"b\.jsonl, row 2 cannot be scored"):
        score_file(files, tmp_path / "out.jsonl", model=artifact)
    score_file(files, tmp_path / "out.jsonl", model=artifact, on_error="skip", force=True)
    listed = json.loads((tmp_path / "out.jsonl.errors.jsonl").read_text(encoding="utf-8"))
    assert (listed["file"], listed["row"]) == (str(files[1]), 2)


def test_an_empty_file_among_several_has_no_rows(write: Any, artifact: Path, tmp_path: Path, read: Any) -> None:
    empty = tmp_path / "b.csv"
    empty.touch()
    files = [write("a.csv", [{"text": "good"}]), empty, write("c.csv", [{"text": "bad"}])]
    score_file(files, tmp_path / "out.csv", model=artifact)
    assert [row["text"] for row in read(tmp_path / "out.csv")] == ["good", "bad"]


def test_keys_that_only_a_later_jsonl_has_are_kept(write: Any, artifact: Path, tmp_path: Path, read: Any) -> None:
    files = [write("a.jsonl", [{"text": "good"}]), write("b.jsonl", [{"text": "bad", "more": "x"}])]
    score_file(files, tmp_path / "out.csv", model=artifact)
    assert [row["more"] for row in read(tmp_path / "out.csv")] == ["", "x"]


@pytest.mark.parametrize(
    ("inputs", "error", "said"),
    [
        ([], OptionError, "no input"),
        (["a.csv", "-"], OptionError, "stdin is one of 2 inputs"),
        (["a.csv", "b.jsonl"], OptionError, r"a\.csv is csv|b\.jsonl is jsonl"),
        (["a.csv", "c.csv"], InputError, r"c\.csv has the columns 'other', and a\.csv has 'text'"),
        (["a.csv", "none.csv"], StorageError, r"none\.csv cannot be read"),
        ("none*.csv", StorageError, "no file matches"),
        ("empty", InputError, "without files"),
        ("nested", InputError, "has the folder 'inner' inside"),
        ("odd", InputError, r"'data\.bin', whose format is not known"),
        (["a.csv", 5], OptionError, "of type int"),
        (b"a.csv", OptionError, "of type bytes"),
        ("a\0.csv", OptionError, "cannot be a path"),
        ("a\ud800.csv", OptionError, "cannot be a path"),
        ("", OptionError, "cannot be a path"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(
    inputs: Any, error: type[Exception], said: str, artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, content in (("a.csv", "text\ngood\n"), ("b.jsonl", '{"text": "good"}\n'), ("c.csv", "other\ngood\n")):
        Path(name).write_text(content, encoding="utf-8")
    for folder in ("empty", "nested/inner", "odd"):
        Path(folder).mkdir(parents=True)
    Path("odd/data.bin").touch()
    with pytest.raises(error, match=said) as caught:
        score_file(inputs, "out.csv", model=artifact, text_column="text")
    assert "\n" not in str(caught.value) and not Path("out.csv").exists()


def test_two_inputs_of_one_name_do_not_share_an_output(write: Any, artifact: Path, tmp_path: Path) -> None:
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        write(f"{folder}/a.csv", [{"text": "good"}])
    with pytest.raises(OptionError, match="would both be written"):
        score_file([tmp_path / "x" / "a.csv", tmp_path / "y" / "a.csv"], f"{tmp_path}/scored/", model=artifact)
    assert not (tmp_path / "scored").exists()


def test_expanding_keeps_the_order_of_the_call(tmp_path: Path) -> None:
    for name in ("b.csv", "a.csv"):
        (tmp_path / name).touch()
    names = [str(tmp_path / name) for name in ("b.csv", "a.csv")]
    assert list(expand(names)) == names and list(expand(tmp_path)) == sorted(names)


# Streams


def run(*arguments: Any, cwd: Path, **keywords: Any) -> subprocess.CompletedProcess[bytes]:
    command = list(map(str, [*FUSEDBERT, "score", *arguments]))
    return subprocess.run(command, capture_output=True, timeout=120, cwd=cwd, **keywords)


@pytest.mark.parametrize("output", ["-", "/dev/stdout"])
def test_stdout_gets_the_bytes_of_the_file(output: str, parts: Any, artifact: Path, tmp_path: Path) -> None:
    files, whole = parts("csv")
    score_file(whole, tmp_path / "out.csv", model=artifact, threads=1)
    done = run(*files, "-o", output, "-m", artifact, "--threads", 1, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == (tmp_path / "out.csv").read_bytes()
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".parts")]


@pytest.mark.parametrize(("source", "kind"), [("csv", "jsonl"), ("jsonl", "csv"), ("csv", "json"), ("parquet", "tsv")])
def test_an_output_format_for_stdout(source: str, kind: str, parts: Any, artifact: Path, tmp_path: Path, read: Any) -> None:
    _, whole = parts(source)
    score_file(whole, tmp_path / f"out.{kind}", model=artifact, threads=1)
    done = run(whole, "-o", "-", "--output-format", kind, "-m", artifact, "--threads", 1, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout) if kind == "json" else done.stdout
    expected = (tmp_path / f"out.{kind}").read_bytes()
    assert found == (json.loads(expected) if kind == "json" else expected)


def test_a_pipe_in_the_middle(artifact: Path, tmp_path: Path) -> None:
    content = "text\n" + "\n".join(TEXTS) + "\n"
    done = run("-", "--input-format", "csv", "-o", "-", "-m", artifact, cwd=tmp_path, input=content.encode())
    rows = list(csv.DictReader(io.StringIO(done.stdout.decode())))
    assert done.returncode == 0 and [row["text"] for row in rows] == TEXTS


def test_a_named_pipe_is_written_as_a_stream(parts: Any, artifact: Path, tmp_path: Path) -> None:
    _, whole = parts("csv")
    pipe = tmp_path / "pipe.csv"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()), daemon=True)
    reader.start()
    score_file(whole, pipe, model=artifact, threads=1)
    reader.join(60)
    score_file(whole, tmp_path / "out.csv", model=artifact, threads=1)
    assert read == [(tmp_path / "out.csv").read_bytes()]


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("-o", "-", "--resume"), 2, b"cannot be continued"),
        (("-o", "-", "--json"), 2, b"--json writes its summary to stdout"),
        (("-o", "-", "--output-format", "txt"), 2, b"txt"),
        (("-o", "/dev/full"), 1, b"/dev/full cannot be written"),
    ],
)
def test_streams_refuse_what_they_cannot_do(arguments: Any, status: int, said: bytes, parts: Any, tmp_path: Path) -> None:
    _, whole = parts("csv")
    done = run(whole, *arguments, cwd=tmp_path)
    assert done.returncode == status and said in done.stderr and b"Traceback" not in done.stderr


def test_a_reader_that_leaves_ends_the_run(artifact: Path, tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_text("text\n" + "".join(f"good film {number}\n" for number in range(20_000)), encoding="utf-8")
    command = [*FUSEDBERT, "score", str(source), "-o", "-", "-m", str(artifact)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert (process.wait(60), process.stderr.read()) == (0, b"")


def test_rows_that_a_stream_leaves_out_are_named_on_stderr(write: Any, artifact: Path, tmp_path: Path) -> None:
    source = write("in.jsonl", [{"text": None}, {"text": "good"}])
    done = run(source, "-o", "-", "--on-error", "skip", "-m", artifact, cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.count(b"\n") == 1
    assert b'"row": 1' in done.stderr and b"null" in done.stderr


def test_a_stream_counts_the_rows_that_it_does_not_name(write: Any, artifact: Path, tmp_path: Path) -> None:
    source = write("in.jsonl", [{"text": None}] * 25 + [{"text": "good"}])
    done = run(source, "-o", "-", "--on-error", "skip", "--part-rows", 4, "-m", artifact, cwd=tmp_path)
    lines = done.stderr.decode().splitlines()
    assert len(lines) == 11 and '"row": 10' in lines[9] and lines[10] == "fusedbert: 15 more rows cannot be scored"


@pytest.mark.parametrize("output", ["parts/all.csv", "parts/scored/", "parts/", "parts/../parts/all.csv"])
def test_an_output_is_not_written_into_a_folder_of_inputs(output: str, parts: Any, artifact: Path, tmp_path: Path) -> None:
    files, _ = parts("csv")
    with pytest.raises(OptionError, match="whose files are the input: choose a place outside"):
        score_file(tmp_path / "parts", f"{tmp_path}/{output}", model=artifact)
    assert sorted((tmp_path / "parts").iterdir()) == files


def test_an_output_without_a_name_is_an_error(parts: Any, artifact: Path) -> None:
    files, _ = parts("csv")
    with pytest.raises(OptionError, match="the output is ''"):
        score_file(files[0], "", model=artifact)


@pytest.mark.parametrize("given", [5, None, [5], b"in.csv"])
def test_an_input_that_is_not_a_path_is_an_error(given: Any, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="an input is of type"):
        score_file(given, tmp_path / "out.csv")


def test_names_with_points_stay_apart_in_another_format(write: Any, artifact: Path, tmp_path: Path) -> None:
    files = [write(f"2024.01.0{day}.csv.gz", [{"text": "good"}]) for day in (5, 6)]
    score_file(files, f"{tmp_path}/scored/", model=artifact, output_format="jsonl")
    assert sorted(path.name for path in (tmp_path / "scored").iterdir()) == ["2024.01.05.jsonl", "2024.01.06.jsonl"]


def test_an_output_is_not_where_the_errors_of_another_go(write: Any, artifact: Path, tmp_path: Path) -> None:
    files = [write(name, [{"text": "good"}]) for name in ("a.jsonl", "a.jsonl.errors.jsonl")]
    with pytest.raises(OptionError, match="both be written"):
        score_file(files, f"{tmp_path}/scored/", model=artifact)


@pytest.mark.parametrize("name", ["b.parquet", "b.csv.gz"])
def test_an_empty_part_is_damage_where_its_format_has_no_empty_files(
    name: str, write: Any, artifact: Path, tmp_path: Path
) -> None:
    write(name.replace("b", "a", 1), [{"text": "good"}])
    (tmp_path / name).touch()
    with pytest.raises(InputError, match=name):
        score_file(tmp_path / name.replace("b", "*", 1), tmp_path / "out.jsonl", model=artifact)
