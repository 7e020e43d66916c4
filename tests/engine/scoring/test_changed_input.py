"""An input that is replaced or written to stops the run, and a resumed run never mixes two inputs."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fusedbert.engine import InputError, OptionError, score_file
from fusedbert.engine.scoring.formats.input import InputFile

ROWS = 400
PART = 40


def table(word: str) -> str:
    return "id,text\n" + "".join(f"{number},{word} film {number}\n" for number in range(ROWS))


def replace(path: Path) -> None:
    other = path.with_name("next.csv")
    other.write_text(table("baad"), encoding="utf-8")
    other.replace(path)


def overwrite(path: Path) -> None:
    with path.open("r+", encoding="utf-8") as file:
        file.write(table("baad"))


def append(path: Path) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write("x,more\n")


def truncate(path: Path) -> None:
    os.truncate(path, 100)


def remove(path: Path) -> None:
    path.unlink()


CHANGES: list[Callable[[Path], None]] = [replace, overwrite, append, truncate, remove]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.csv"
    path.write_text(table("good"), encoding="utf-8")
    return path


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("moment", ["the load of the model", "a part", "the last chunk"])
@pytest.mark.parametrize("several", [False, True])
def test_a_change_stops_the_run_and_a_resume_does_not_mix(
    change: Callable[[Path], None],
    moment: str,
    several: bool,
    source: Path,
    artifact: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import fusedbert.engine.scoring.pipeline as pipeline

    first = tmp_path / "first.csv"
    first.write_text("id,text\nfirst,good\n", encoding="utf-8")
    inputs = [first, source] if several else source
    output, real = tmp_path / "out.csv", pipeline.load_model
    rows = ROWS + several

    def load(options: Any) -> Any:
        if moment == "the load of the model":
            change(source)
        return real(options)

    def progress(done: Any) -> None:
        if done.rows == (rows if moment == "the last chunk" else PART + several) and moment != "the load of the model":
            change(source)

    monkeypatch.setattr(pipeline, "load_model", load)
    with pytest.raises((InputError, OSError), match=r"in\.csv (was replaced or written to|cannot be read)"):
        score_file(inputs, output, model=artifact, threads=1, part_rows=PART, progress=progress)
    assert not output.exists()
    monkeypatch.setattr(pipeline, "load_model", real)
    parts = list(tmp_path.glob("out.csv.parts/part-*"))
    assert all("baad" not in part.read_text(encoding="utf-8") for part in parts)
    if not parts and change is not remove:
        return  # nothing was committed: a run of the new file may begin
    with pytest.raises((OptionError, InputError, OSError)):  # another input, or none
        score_file(inputs, output, model=artifact, threads=1, part_rows=PART, resume=True)
    assert not output.exists()


@pytest.mark.parametrize("touch", [lambda path: path.chmod(0o600), lambda path: os.link(path, path.with_name("link.csv"))])
def test_a_new_link_or_permission_is_not_a_change(touch: Any, source: Path, artifact: Path, tmp_path: Path) -> None:
    def progress(done: Any) -> None:
        if done.rows == PART:
            touch(source)

    summary = score_file(source, tmp_path / "out.csv", model=artifact, part_rows=PART, progress=progress)
    assert summary.rows == ROWS


def test_the_identity_is_that_of_the_opened_file(source: Path) -> None:
    file = InputFile(str(source))
    file.raw.read(1000)
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    assert file.identity() == {"bytes": source.stat().st_size, "sha256": digest}
    assert file.raw.tell() == 1000  # hashing does not disturb reading
    replace(source)
    with pytest.raises(InputError, match="was replaced"):
        file.check_unchanged()


def test_a_file_that_is_replaced_before_it_is_hashed_has_no_identity(source: Path) -> None:
    file = InputFile(str(source))
    replace(source)
    with pytest.raises(InputError, match="was replaced"):
        file.identity()


class Unseekable(io.FileIO):
    def seek(self, *_: Any) -> int:
        raise AssertionError("another thread reads this file")


def test_a_check_leaves_the_position_to_the_thread_that_reads(source: Path) -> None:
    file = InputFile(str(source))
    file.identity()
    source.chmod(0o600)
    file.raw.close()
    file.raw = Unseekable(source)
    file.check_unchanged()  # by the content, because the permission changed
    file.close()


def test_a_file_that_the_reading_thread_closes_during_a_check_is_unchanged(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, other, fstat = InputFile(str(source)), os.open(os.devnull, os.O_RDONLY), os.fstat
    for answer in (lambda number: fstat(other), fstat):  # its number is another file's by then, or no file's

        def closed(number: int, answer: Any = answer) -> os.stat_result:
            file.raw.close()
            return answer(number)

        with monkeypatch.context() as patch:
            patch.setattr(os, "fstat", closed)
            file.check_unchanged()
        file.reopen()
    file.close()
    os.close(other)


def test_another_process_opens_only_the_same_file(source: Path) -> None:
    stamp = InputFile(str(source)).stamp
    InputFile(str(source), stamp).close()
    append(source)
    with pytest.raises(InputError, match="was replaced or written to"):
        InputFile(str(source), stamp)
