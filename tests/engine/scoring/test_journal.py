"""The journal of an unfinished run: every line and every byte of a part is checked before it is believed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from fusedbert.engine import InputError, OptionError, StorageError, score_file

PART = 20


@pytest.fixture(scope="module")
def unfinished(artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with in.csv, the parts of a run that was stopped, and the output of one that was not."""
    folder = tmp_path_factory.mktemp("unfinished")
    (folder / "in.csv").write_text("id,text\n" + "".join(f"{n},good film {n}\n" for n in range(200)), encoding="utf-8")

    def stop(done: Any) -> None:
        if done.rows == 100:
            raise KeyboardInterrupt

    score_file(folder / "in.csv", folder / "whole.csv", model=artifact, threads=1, part_rows=PART)
    with pytest.raises(KeyboardInterrupt):
        score_file(folder / "in.csv", folder / "out.csv", model=artifact, threads=1, part_rows=PART, progress=stop)
    return folder


def lines(journal: Path) -> list[Any]:
    return [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()]


def edited(number: int, **changes: Any) -> Any:
    def edit(entries: list[Any]) -> list[Any]:
        entries[number] |= changes
        return entries

    return edit


WRONG: dict[str, Any] = {
    "a part twice": lambda entries: [*entries, entries[-1]],
    "a part left out": lambda entries: entries[:2] + entries[3:],
    "parts in another order": lambda entries: [entries[0], entries[2], entries[1], *entries[3:]],
    "an end below 0": edited(1, end=-5),
    "an end that is text": edited(1, end="x"),
    "an end that is true": edited(1, end=True),
    "an end that is a fraction": edited(1, end=20.0),
    "an end before the last one": edited(2, end=20),
    "an end that the counts do not have": edited(2, end=41),
    "a number that is a path": edited(1, part="../x"),
    "bytes below 0": edited(1, bytes=-1),
    "another hash": edited(1, sha256="0" * 64),
    "a hash that is null": edited(1, sha256=None),
    "no counts": edited(1, tally={}),
    "counts that are text": lambda entries: edited(1, tally=entries[1]["tally"] | {"errors": "x"})(entries),
    "counts below 0": lambda entries: edited(1, tally=entries[1]["tally"] | {"tokens": -1})(entries),
    "labels that are a list": lambda entries: edited(1, tally=entries[1]["tally"] | {"labels": ["a"]})(entries),
    "a key too many": edited(1, more=1),
    "complete before the end": lambda entries: [*entries[:2], {"complete": True}, *entries[2:]],
    "complete without its rows": lambda entries: [*entries, {"complete": True}],
    "complete without a part": lambda entries: [entries[0], {"complete": True, "rows": 0}],
    "complete with other rows": lambda entries: [*entries, {"complete": True, "rows": 200}],
    "a first line that is a number": lambda entries: [5, *entries[1:]],
    "a line that is a list": lambda entries: [*entries, [1]],
    "nothing": lambda entries: [],
}


@pytest.mark.parametrize("name", WRONG)
def test_a_journal_that_does_not_fit_is_refused(name: str, unfinished: Path, artifact: Path, tmp_path: Path) -> None:
    shutil.copytree(unfinished, tmp_path, dirs_exist_ok=True)
    journal = tmp_path / "out.csv.parts" / "journal.jsonl"
    content = "".join(f"{json.dumps(entry)}\n" for entry in WRONG[name](lines(journal)))
    journal.write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=r"start over with --force") as caught:
        resume(tmp_path, artifact)
    assert "\n" not in str(caught.value) and not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"a": ' * 100_000, b"\xff\xfe", b"\0" * 50, b"NaN", b"9" * 5000])
def test_a_line_that_is_not_a_json_object_is_damage(content: bytes, unfinished: Path, artifact: Path, tmp_path: Path) -> None:
    shutil.copytree(unfinished, tmp_path, dirs_exist_ok=True)
    with (tmp_path / "out.csv.parts" / "journal.jsonl").open("ab") as journal:
        journal.write(content + b"\n")
    with pytest.raises(InputError, match=r"damaged .*start over with --force") as caught:
        resume(tmp_path, artifact)
    assert "\n" not in str(caught.value)


def test_a_changed_byte_of_a_part_is_noticed(unfinished: Path, artifact: Path, tmp_path: Path) -> None:
    shutil.copytree(unfinished, tmp_path, dirs_exist_ok=True)
    part = tmp_path / "out.csv.parts" / "part-0000001"
    content = bytearray(part.read_bytes())
    content[3] ^= 1
    part.write_bytes(content)
    with pytest.raises(InputError, match=r"part-0000001 is damaged .*start over with --force"):
        resume(tmp_path, artifact)


def test_an_earlier_format_is_named(unfinished: Path, artifact: Path, tmp_path: Path) -> None:
    shutil.copytree(unfinished, tmp_path, dirs_exist_ok=True)
    journal = tmp_path / "out.csv.parts" / "journal.jsonl"
    entries = edited(0, format=1)(lines(journal))
    journal.write_text("".join(f"{json.dumps(entry)}\n" for entry in entries), encoding="utf-8")
    with pytest.raises(OptionError, match="had format 1, not 2: give the same, or start over with --force"):
        resume(tmp_path, artifact)


def test_the_same_journal_unchanged_is_continued(unfinished: Path, artifact: Path, tmp_path: Path) -> None:
    shutil.copytree(unfinished, tmp_path, dirs_exist_ok=True)
    summary = resume(tmp_path, artifact)
    assert summary.resumed == 80
    assert (tmp_path / "out.csv").read_bytes() == (unfinished / "whole.csv").read_bytes()


def resume(folder: Path, artifact: Path, **options: Any) -> Any:
    options = {"model": artifact, "threads": 1, "part_rows": PART, **options}
    return score_file(folder / "in.csv", folder / "out.csv", resume=True, **options)


@pytest.mark.parametrize("options", [{}, {"force": True}, {"resume": True}])
def test_a_folder_with_files_of_others_stays_as_it_is(options: dict[str, Any], artifact: Path, tmp_path: Path) -> None:
    source, output, folder = tmp_path / "in.csv", tmp_path / "out.csv", tmp_path / "out.csv.parts"
    source.write_text("text\ngood\n", encoding="utf-8")
    folder.mkdir()
    for name in ("mine.txt", ".mine"):
        (folder / name).write_text("precious", encoding="utf-8")
    with pytest.raises(StorageError, match=r"out\.csv\.parts has 'mine\.txt', which is not of a run"):
        score_file(source, output, model=artifact, **options)
    output.write_text("finished", encoding="utf-8")
    assert score_file(source, output, model=artifact, resume=True).finished_before
    assert sorted(path.name for path in folder.iterdir()) == [".mine", "mine.txt"]


@pytest.mark.parametrize("force", [True, False])
def test_a_file_that_comes_where_the_output_goes_stays_without_force(force: bool, artifact: Path, tmp_path: Path) -> None:
    source, output = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text("text\ngood\n", encoding="utf-8")

    def progress(_: Any) -> None:
        output.write_text("precious", encoding="utf-8")

    if force:
        score_file(source, output, model=artifact, force=True, progress=progress)
        assert output.read_text(encoding="utf-8").startswith("text,label")
        return
    with pytest.raises(StorageError, match="has come while it was scored"):
        score_file(source, output, model=artifact, progress=progress)
    with pytest.raises(StorageError, match="has come while it was scored"):
        score_file(source, output, model=artifact, resume=True)
    assert output.read_text(encoding="utf-8") == "precious"
    output.unlink()
    assert score_file(source, output, model=artifact, resume=True).resumed == 1


def test_a_run_with_other_special_tokens_is_not_continued(unfinished: Path, artifact: Path, tmp_path: Path) -> None:
    shutil.copytree(unfinished, tmp_path, dirs_exist_ok=True)
    with pytest.raises(OptionError, match="split_special_tokens None, not True"):
        resume(tmp_path, artifact, split_special_tokens=True)
