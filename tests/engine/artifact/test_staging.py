"""Output folders: whole or not at all, and nothing removed that is not an artifact."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fusedbert.engine import StorageError
from fusedbert.engine.artifact.staging import remove_leftovers, staged_folder


def make_artifact(folder: Path, **files: str) -> None:
    folder.mkdir()
    listed = {"config.json": "{}", **files}
    for name, content in listed.items():
        (folder / name).write_text(content)
    (folder / "fusedbert.json").write_text(json.dumps({"files": {name: {} for name in listed}}))


def export(output: Path, *, replace: bool = False) -> None:
    with staged_folder(output, replace=replace) as stage:
        (stage / "new").write_text("new")


def test_a_new_folder_appears_whole(tmp_path: Path) -> None:
    with staged_folder(tmp_path / "a/b/out") as stage:
        (stage / "new").write_text("new")
        assert not (tmp_path / "a/b/out").exists()
    assert [path.name for path in (tmp_path / "a/b").iterdir()] == ["out"]
    assert (tmp_path / "a/b/out/new").read_text() == "new"
    assert [path.name for path in (tmp_path / "a/b/out").iterdir()] == ["new"]


def test_a_failed_block_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), staged_folder(tmp_path / "out"):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("replace", [False, True])
def test_what_appears_during_an_export_stays(tmp_path: Path, replace: bool) -> None:
    output = tmp_path / "out"
    said = "exists already" if not replace else r"holds thesis\.txt"
    with pytest.raises(StorageError, match=said), staged_folder(output, replace=replace):
        output.mkdir()
        (output / "thesis.txt").write_text("my thesis")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (output / "thesis.txt").read_text() == "my thesis"


def test_a_file_that_appears_during_an_export_stays(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="exists already"), staged_folder(tmp_path / "out"):
        (tmp_path / "out").write_text("mine")
    assert (tmp_path / "out").read_text() == "mine" and len(list(tmp_path.iterdir())) == 1


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to("target")
    export(tmp_path / "out")
    export(tmp_path / "link")
    assert (tmp_path / "out/new").exists() and (tmp_path / "target/new").exists() and (tmp_path / "link").is_symlink()


def test_force_replaces_artifacts_also_damaged_ones(tmp_path: Path) -> None:
    output = tmp_path / "out"
    make_artifact(output, own="of an older version")
    (output / ".DS_Store").write_text("")
    export(output, replace=True)
    assert [path.name for path in output.iterdir()] == ["new"]
    (output / "new").unlink()
    (output / "fusedbert.json").write_text("{")
    (output / "onnx").mkdir()
    (output / "onnx/model_fp16_packed.onnx").write_text("")
    export(output, replace=True)
    assert [path.name for path in output.iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_force_removes_nothing_else(tmp_path: Path) -> None:
    documents, mixed, file = tmp_path / "documents", tmp_path / "mixed", tmp_path / "file"
    documents.mkdir()
    (documents / "thesis.txt").write_text("my thesis")
    make_artifact(mixed)
    (mixed / ".git").mkdir()
    (mixed / ".git/HEAD").write_text("ref")
    file.write_text("x")
    before = sorted(tmp_path.rglob("*"))
    for output, said in ((documents, r"thesis\.txt"), (mixed, r"\.git/HEAD"), (file, "not an artifact's folder")):
        with pytest.raises(StorageError, match=f"{said}.*--force"):
            export(output, replace=True)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("replace", [False, True])
def test_what_appears_in_the_last_moment_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replace: bool) -> None:
    output, rename = tmp_path / "out", Path.rename
    if replace:
        make_artifact(output)

    def late(path: Path, target: Path) -> Path:
        monkeypatch.setattr(Path, "rename", rename)  # only the first one
        if replace:
            rename(output, tmp_path / "moved by its owner")
        output.mkdir()
        (output / "thesis.txt").write_text("my thesis")
        return path.rename(target)

    with (
        pytest.raises(StorageError, match=r"exists already|holds thesis\.txt"),
        staged_folder(output, replace=replace) as stage,
    ):
        (stage / "new").write_text("new")
        monkeypatch.setattr(Path, "rename", late)
    assert [path.name for path in output.iterdir()] == ["thesis.txt"]
    assert not list(tmp_path.glob(".*"))


def test_what_is_moved_aside_comes_back_if_the_place_cannot_be_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output, rename = tmp_path / "out", Path.rename
    make_artifact(output)

    def interrupted(path: Path, target: Path) -> Path:
        moved = rename(path, target)
        if path == output:
            monkeypatch.setattr(Path, "rename", rename)
            raise KeyboardInterrupt
        return moved

    with pytest.raises(KeyboardInterrupt), staged_folder(output, replace=True):
        monkeypatch.setattr(Path, "rename", interrupted)
    assert (output / "fusedbert.json").exists() and not list(tmp_path.glob(".*"))


def test_of_exports_to_one_place_at_the_same_time_one_is_there_whole(tmp_path: Path) -> None:
    output = tmp_path / "out"

    def replace(i: int) -> None:
        with staged_folder(output, replace=True) as stage:
            make_artifact(stage / "made", number=str(i))
            for path in (stage / "made").iterdir():
                path.rename(stage / path.name)
            (stage / "made").rmdir()

    with ThreadPoolExecutor(8) as pool:
        failures = [future.exception() for future in [pool.submit(replace, i) for i in range(40)]]
    assert None in failures
    assert all(isinstance(failure, StorageError) for failure in failures if failure is not None)
    assert json.loads((output / "fusedbert.json").read_text())["files"].keys() == {"config.json", "number"}
    assert (output / "number").exists()


def _work(output: str, started: str) -> None:
    with staged_folder(Path(output)) as stage:
        (stage / "half").write_text("half")
        Path(started).touch()
        time.sleep(60)


@pytest.mark.skipif(sys.platform != "linux", reason="kills a process")
def test_the_work_of_a_killed_process_is_removed_and_that_of_a_living_one_stays(tmp_path: Path) -> None:
    folder = tmp_path / "place"
    processes = []
    for name in ("out", "other"):
        started = tmp_path / name
        process = multiprocessing.get_context("fork").Process(target=_work, args=(str(folder / name), str(started)))
        process.start()
        processes.append(process)
        while not started.exists():
            time.sleep(0.01)
    try:
        remove_leftovers(folder)
        assert len(list(folder.iterdir())) == 2  # both live
        os.kill(processes[0].pid or 0, signal.SIGKILL)
        processes[0].join(20)
        remove_leftovers(folder, "other")
        assert len(list(folder.iterdir())) == 2  # the dead one is of another output
        export(folder / "out")
        assert [path.name for path in folder.iterdir() if path.name.startswith(".out")] == []
        assert [path.name for path in folder.iterdir() if path.name.startswith(".other")] != []
    finally:
        for process in processes:
            process.kill()
            process.join(20)
    remove_leftovers(folder)
    assert [path.name for path in folder.iterdir()] == ["out"]


def test_what_was_moved_aside_is_put_back(tmp_path: Path) -> None:
    work = tmp_path / ".out.abcd1234.part"
    (work / "old").mkdir(parents=True)
    (work / "old/precious").touch()
    (work / "lock").touch()
    remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["out"] and (tmp_path / "out/precious").exists()


def test_folders_of_others_are_not_leftovers(tmp_path: Path) -> None:
    for name in (".out.abcd1234.part", ".out.abc.part", ".outabcd1234.part", "out.abcd1234.part"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine").touch()
    (tmp_path / ".out.abcd1234.part/lock").touch()
    (tmp_path / ".config.1234567890ab").touch()  # as new_file names it, and young: a process may be writing it
    before = sorted(tmp_path.rglob("*"))
    remove_leftovers(tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


def test_an_old_unfinished_file_is_removed_unless_it_is_being_written(tmp_path: Path) -> None:
    from fusedbert.engine.hardware.storage import new_file

    old = tmp_path / ".x.json.1234567890ab"
    old.touch()
    os.utime(old, (1, 1))
    with new_file(tmp_path / "y.json") as file:
        file.write(b"{}")
        (open_one,) = tmp_path.glob(".y*")
        os.utime(open_one, (1, 1))
        remove_leftovers(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == [open_one.name]
    assert (tmp_path / "y.json").read_bytes() == b"{}"


def test_a_long_name_leaves_room_for_the_work(tmp_path: Path) -> None:
    export(tmp_path / ("a" * 250))
    assert (tmp_path / ("a" * 250) / "new").exists()
