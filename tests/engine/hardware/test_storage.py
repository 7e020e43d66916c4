"""Files on disk: the cache folder, locks, atomic writes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fusedbert.engine import ArtifactError, StorageError
from fusedbert.engine.hardware import storage as storage_module
from fusedbert.engine.hardware.storage import (
    cache_root,
    cached_sha256,
    given_path,
    inside,
    is_trusted,
    lock_file,
    locked,
    new_file,
    sha256_of,
    write_whole,
)


@pytest.mark.skipif(sys.platform != "linux", reason="the XDG rules")
def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, own_cache: Path) -> None:
    assert cache_root() == own_cache
    assert cache_root(tmp_path / "given") == tmp_path / "given"
    for nothing in ("", np.array(["a", "b"])):
        with pytest.raises(StorageError, match=r"^cache_dir is"):
            cache_root(nothing)  # type: ignore[arg-type]
    monkeypatch.delenv("FUSEDBERT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_root() == Path("/xdg/fusedbert")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", "/home/someone")
    assert cache_root() == Path("/home/someone/.cache/fusedbert")


def test_the_cache_folder_follows_the_platform(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("FUSEDBERT_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cache_root() == tmp_path / "Library/Caches/fusedbert"
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert cache_root() == tmp_path / "local/fusedbert/cache"


def _hold(path: str, held: str) -> None:
    with locked(Path(path)):
        Path(held).touch()
        time.sleep(60)


@pytest.mark.skipif(sys.platform != "linux", reason="kills a process")
def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    lock, held = tmp_path / "locks/x.lock", tmp_path / "held"
    holder = multiprocessing.get_context("fork").Process(target=_hold, args=(str(lock), str(held)))
    holder.start()
    while not held.exists():
        time.sleep(0.01)
    assert holder.pid is not None
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    with locked(lock):
        assert lock.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="flock")
def test_a_held_lock_is_reported_without_waiting(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    with lock_file(path), pytest.raises(BlockingIOError):
        lock_file(path, wait=False)
    lock_file(path, wait=False).close()


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    write_whole(path, b"first")
    with pytest.raises(RuntimeError, match="stop"), new_file(path, durable=True) as file:
        file.write(b"second")
        raise RuntimeError("stop")
    assert path.read_bytes() == b"first"
    assert list(path.parent.iterdir()) == [path]
    with new_file(path, durable=True) as file:
        file.write(b"second")
    assert path.read_bytes() == b"second"


@pytest.mark.skipif(sys.platform == "win32", reason="modes")
def test_a_new_file_has_the_mode_of_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_whole(tmp_path / "file", b"content")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


def test_an_unwritable_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot be written") as caught:
        write_whole(tmp_path / "file" / "below", b"content")
    assert "\n" not in str(caught.value)


@pytest.fixture
def count_hashes(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    seen: list[Path] = []

    def counting(path: Path) -> str:
        seen.append(path)
        return sha256_of(path)

    monkeypatch.setattr(storage_module, "sha256_of", counting)
    return lambda: len(seen)


def test_big_files_are_hashed_once(tmp_path: Path, count_hashes: Callable[[], int]) -> None:
    weights, root = tmp_path / "model.safetensors", tmp_path / "root"
    weights.write_bytes(b"\1" * (2 << 20))
    assert cached_sha256(weights, root) == cached_sha256(weights, root) == sha256_of(weights)
    assert count_hashes() == 1
    weights.write_bytes(b"\2" * (2 << 20))  # the same size
    os.utime(weights, ns=(1, 1))
    assert cached_sha256(weights, root) == sha256_of(weights)
    assert count_hashes() == 2
    next((root / "hashes").iterdir()).write_text("garbage")
    assert cached_sha256(weights, root) == sha256_of(weights)


def test_files_are_hashed_without_a_writable_cache(tmp_path: Path) -> None:
    weights, root = tmp_path / "model.safetensors", tmp_path / "root"
    weights.write_bytes(b"\1" * (2 << 20))
    root.touch()
    assert cached_sha256(weights, root) == sha256_of(weights)


@pytest.mark.parametrize("name", ["a" * 300, "x/" + "b" * 256, "c" * 5000, "a\nb", "a\x7f"])
def test_a_name_that_no_file_has_is_not_inside(tmp_path: Path, name: str) -> None:
    with pytest.raises(ArtifactError, match="not a path inside the folder"):
        inside(tmp_path, name)


def test_a_link_to_itself_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "x").symlink_to("x")
    with pytest.raises(ArtifactError, match="cannot be found"):
        inside(tmp_path, "x")


@pytest.mark.parametrize("value", ["", " ", "a\0b", "\ud800", "\udcff", b"bytes", None, 5, "~nobody-of-this-name/x"])
def test_a_value_without_a_path_is_one_error(value: object) -> None:
    with pytest.raises(StorageError, match=r"^output is .*: give the path of a folder$"):
        given_path(value, "output", StorageError)


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage_module, "cache_warnings", set())


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX modes")
def test_a_cache_that_others_may_write_warns_once_and_is_not_trusted(tmp_path: Path, fresh: None) -> None:
    root = tmp_path / "above/cache"
    root.mkdir(parents=True)
    root.chmod(0o755)
    assert is_trusted(root) and is_trusted(root / "not made yet")
    for folder in (root, root.parent):
        folder.chmod(0o777)
        with pytest.warns(UserWarning, match=f"other users may write into {folder}, .*chmod go-w {folder} ") as caught:
            assert not is_trusted(root) and not is_trusted(root)
        assert len(caught) == 1
        folder.chmod(0o755)
    root.parent.chmod(0o1777)  # sticky, like /tmp: no other user can move the cache away
    assert is_trusted(root)
    root.chmod(0o1777)
    assert not is_trusted(root)  # warned of before


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() != 0, reason="only root can give a folder away")
def test_a_cache_of_another_user_is_not_trusted(tmp_path: Path, fresh: None) -> None:
    root = tmp_path / "cache"
    root.mkdir()
    os.chown(root, 65534, -1)
    with pytest.warns(UserWarning, match="other users may write"):
        assert not is_trusted(root)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX modes")
def test_a_hash_in_a_cache_that_others_may_write_is_not_believed(
    tmp_path: Path, fresh: None, recwarn: pytest.WarningsRecorder
) -> None:
    root, path = tmp_path / "cache", tmp_path / "file"
    root.mkdir()
    path.write_bytes(b"x" * (2 << 20))
    true = cached_sha256(path, root)
    (record,) = (root / "hashes").iterdir()
    record.write_text(record.read_text().replace(true, "0" * 64))
    assert cached_sha256(path, root) == "0" * 64
    root.chmod(0o777)
    assert cached_sha256(path, root) == true
