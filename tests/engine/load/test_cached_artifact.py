"""Artifacts in the cache: two first users make one, a damaged one is made again, and an unwritable cache is one line."""

from __future__ import annotations

import multiprocessing
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from fusedbert.engine import StorageError
from fusedbert.engine.artifact import sha256_of
from fusedbert.engine.load.resolve import cached_artifact, is_complete


def _make_slowly(source: str, log: str, folder: Path) -> None:
    with Path(log).open("a") as file:
        file.write("made\n")
    time.sleep(0.3)
    stage = folder.with_suffix(".part")
    shutil.copytree(source, stage)
    stage.rename(folder)


def _first_use(root: str, source: str, log: str) -> None:
    folder = cached_artifact(Path(root), "key", lambda folder: _make_in(folder, source, log))
    assert is_complete(folder)


def _make_in(folder: Path, source: str, log: str) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    _make_slowly(source, log, folder)


def test_two_processes_make_one_artifact(tmp_path: Path, artifact: Path) -> None:
    context: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    log = tmp_path / "log"
    arguments = (str(tmp_path / "root"), str(artifact), str(log))
    processes = [context.Process(target=_first_use, args=arguments) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert log.read_text() == "made\n"


def test_several_threads_make_one_artifact(tmp_path: Path, artifact: Path) -> None:
    log = tmp_path / "log"
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: _first_use(str(tmp_path / "root"), str(artifact), str(log)), range(4)))
    assert log.read_text() == "made\n"


def test_a_damaged_artifact_is_made_again(tmp_path: Path, artifact: Path) -> None:
    root, log = tmp_path / "root", tmp_path / "log"
    _first_use(str(root), str(artifact), str(log))
    graph = root / "artifacts/key/onnx/model.onnx"
    graph.write_bytes(graph.read_bytes()[:100])
    _first_use(str(root), str(artifact), str(log))
    assert log.read_text() == "made\nmade\n"
    assert sha256_of(graph) == sha256_of(artifact / "onnx/model.onnx")


def test_an_export_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        raise RuntimeError("the export failed")

    with pytest.raises(RuntimeError, match="the export failed"):
        cached_artifact(tmp_path / "root", "key", fail)
    assert not (tmp_path / "root/artifacts/key").exists()


def test_an_unwritable_cache_names_the_variable(tmp_path: Path, artifact: Path) -> None:
    blocked = tmp_path / "file"  # a file where the folder should be: root may write to any folder
    blocked.touch()
    with pytest.raises(StorageError, match="FUSEDBERT_CACHE") as caught:
        cached_artifact(blocked, "key", lambda folder: None)
    assert isinstance(caught.value, OSError) and "\n" not in str(caught.value)


def test_a_finished_artifact_can_be_loaded_from_a_read_only_cache(tmp_path: Path, artifact: Path) -> None:
    root = tmp_path / "root"
    _first_use(str(root), str(artifact), str(tmp_path / "log"))
    shutil.rmtree(root / "locks")
    (root / "locks").touch()  # any attempt to lock fails now
    assert cached_artifact(root, "key", lambda folder: pytest.fail("made again")) == root / "artifacts/key"


def test_what_a_killed_export_left_in_the_cache_is_removed_by_the_next(tmp_path: Path, artifact: Path) -> None:
    root = tmp_path / "root"
    left = root / "artifacts/.another-key.abcd1234.part"
    (left / "new").mkdir(parents=True)
    (left / "lock").touch()
    _first_use(str(root), str(artifact), str(tmp_path / "log"))
    assert [path.name for path in (root / "artifacts").iterdir()] == ["key"]
