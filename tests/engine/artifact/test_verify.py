"""Verified loading: each file by its hash, nothing from outside the folder, and the verdict kept."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from fusedbert.engine import ArtifactError, Classifier, FusedBertError, StorageError
from fusedbert.engine import artifact as artifact_module
from fusedbert.engine.artifact import MANIFEST, Manifest, read_manifest, write_manifest
from fusedbert.engine.artifact import verify as verify_module
from fusedbert.engine.artifact.verify import FileCheck
from fusedbert.engine.load import open as loading_module


@pytest.fixture
def artifact(make_artifact: Callable[..., Path], variant: Callable[..., Any]) -> Path:
    """An artifact with graphs for both devices and a file that no load reads."""
    folder = make_artifact(variants=(variant(), variant(precision="int8"), variant("cuda", "fp16")))
    (folder / "README.md").write_text("a card")
    seal(folder)
    return folder


def seal(folder: Path) -> None:
    """Write the manifest again for files that a test has changed."""
    write_manifest(folder, read_manifest(folder))


def flip(path: Path, bit: int) -> None:
    """Flip a bit in place, as a bad disk does, and leave size and times as they were, all but ctime."""
    status = path.stat()
    with path.open("r+b") as file:
        file.seek(bit // 8)
        (byte,) = file.read(1)
        file.seek(bit // 8)
        file.write(bytes([byte ^ 1 << bit % 8]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def aged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files count as old enough for a verdict however young they are."""
    monkeypatch.setattr(verify_module, "TICK", -(10**12))


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The names of the files that are hashed."""
    seen: list[str] = []
    real = FileCheck.hash_file

    def spy(self: FileCheck, path: Path) -> str | None:
        seen.append(path.name)
        return real(self, path)

    monkeypatch.setattr(FileCheck, "hash_file", spy)
    yield seen


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_flipped_bit_in_any_file_is_detected_and_named(artifact: Path, precision: str, aged: None) -> None:
    assert len(names(artifact)) == 8
    Classifier.from_pretrained(artifact, precision=precision).close()  # the verdict is kept, and must not be believed
    rng = np.random.default_rng(0)
    for name in names(artifact):
        for bit in rng.integers(8 * (artifact / name).stat().st_size, size=3):
            flip(artifact / name, int(bit))
            with pytest.raises(ArtifactError) as caught:
                Classifier.from_pretrained(artifact, precision=precision)
            assert name in str(caught.value) and "\n" not in str(caught.value)
            flip(artifact / name, int(bit))
    Classifier.from_pretrained(artifact, precision=precision).close()


def test_every_flipped_bit_of_the_manifest_is_detected(
    make_artifact: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = make_artifact(name="small")
    # It would ask the file system 9,000 times for each file.
    monkeypatch.setattr(artifact_module, "inside", lambda *_, **__: None)
    manifest = artifact / MANIFEST
    whole = manifest.read_bytes()
    for bit in range(8 * len(whole)):
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        manifest.write_bytes(changed)
        with pytest.raises(ArtifactError, match=r"fusedbert\.json"):
            read_manifest(artifact)


def test_a_manifest_without_a_hash_is_accepted(artifact: Path) -> None:
    document = json.loads((artifact / MANIFEST).read_text())
    del document["sha256"]
    (artifact / MANIFEST).write_text(json.dumps(document))
    assert list(read_manifest(artifact).labels) == document["labels"]


def test_a_damaged_hash_key_is_detected(artifact: Path) -> None:
    content = (artifact / MANIFEST).read_text()
    at = content.rindex('"sha256"')
    (artifact / MANIFEST).write_text(content[:at] + '"sha25v"' + content[at + 8 :])
    with pytest.raises(ArtifactError, match=r"sha25v.*export again"):
        read_manifest(artifact)


def test_a_newer_format_says_so(artifact: Path) -> None:
    content = (artifact / MANIFEST).read_text().replace('"format": 1', '"format": 7')
    (artifact / MANIFEST).write_text(content)
    with pytest.raises(ArtifactError, match="has format 7, this version reads up to 2: upgrade fusedbert"):
        Classifier.from_pretrained(artifact)


@pytest.mark.parametrize("name", ["README.md", "tokenizer.json", "onnx/model.onnx", "onnx/model_fp16.onnx"])
def test_a_missing_or_truncated_file_is_refused(artifact: Path, name: str) -> None:
    content = (artifact / name).read_bytes()
    (artifact / name).write_bytes(content[:-1])
    with pytest.raises(ArtifactError, match=f"{name} has {len(content) - 1} bytes, the manifest says {len(content)}"):
        Classifier.from_pretrained(artifact)
    (artifact / name).unlink()
    with pytest.raises(ArtifactError, match=f"{name} is missing"):
        Classifier.from_pretrained(artifact)


def test_a_damaged_artifact_of_the_cache_says_that_it_can_be_removed(artifact: Path) -> None:
    flip(artifact / "README.md", 0)
    with pytest.raises(ArtifactError, match=f"remove {artifact}, and it is made again"):
        Classifier.from_pretrained(artifact, cache_dir=artifact.parent)


def test_files_are_read_once(artifact: Path, own_cache: Path, aged: None, read: list[str]) -> None:
    Classifier.from_pretrained(artifact, device="cpu").close()
    assert sorted(read) == sorted(Path(name).name for name in names(artifact) if name != MANIFEST)
    del read[:]
    Classifier.from_pretrained(artifact, device="cpu", precision="int8").close()
    assert read == []
    os.utime(artifact / "config.json")
    Classifier.from_pretrained(artifact).close()
    assert read == ["config.json"]
    (record,) = (own_cache / "verdicts").iterdir()
    for damage in ("garbage", "[]", '{"files": 1, "graphs": {}}', '{"files": {"config.json": [1]}, "graphs": {"x": 2}}'):
        record.write_text(damage)
        del read[:]
        Classifier.from_pretrained(artifact).close()
        assert len(read) == 7


def test_files_are_checked_before_they_are_loaded(artifact: Path, monkeypatch: pytest.MonkeyPatch, read: list[str]) -> None:
    def stop(*_: object, **__: object) -> None:
        assert {"config.json", "tokenizer.json", "tokenizer_config.json", "README.md", "model.onnx"} <= set(read)
        raise RuntimeError("opened")

    monkeypatch.setattr(loading_module, "open_session", stop)
    with pytest.raises(RuntimeError, match="opened"):
        Classifier.from_pretrained(artifact, precision="fp32")
    assert "fusedbert-verify" not in [thread.name for thread in threading.enumerate()]


def test_a_file_that_just_changed_is_not_recorded_as_verified(
    artifact: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify_module, "TICK", 10**18)
    Classifier.from_pretrained(artifact).close()
    (record,) = (own_cache / "verdicts").iterdir()
    assert json.loads(record.read_text())["files"] == {}


def test_an_unwritable_cache_costs_only_time(
    artifact: Path, own_cache: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    own_cache.touch()  # a file where the folder should be: root may write to any folder
    for _ in range(2):
        Classifier.from_pretrained(artifact).close()
    assert len(read) == 14
    flip(artifact / "README.md", 0)
    with pytest.raises(ArtifactError, match=r"README\.md"):
        Classifier.from_pretrained(artifact)
    flip(artifact / "README.md", 0)
    monkeypatch.delenv("FUSEDBERT_CACHE")
    monkeypatch.setattr(verify_module, "cache_root", _no_home)
    Classifier.from_pretrained(artifact).close()


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX modes")
def test_verdicts_that_others_may_have_written_are_not_believed(artifact: Path, own_cache: Path, aged: None) -> None:
    Classifier.from_pretrained(artifact, device="cpu").close()
    flip(artifact / "README.md", 0)
    (record,) = (own_cache / "verdicts").iterdir()
    status = (artifact / "README.md").stat()
    verdicts = json.loads(record.read_text())
    verdicts["files"]["README.md"][3] = status.st_ctime_ns
    record.write_text(json.dumps(verdicts))
    Classifier.from_pretrained(artifact, device="cpu").close()  # a forged verdict is believed in a private cache
    own_cache.chmod(0o777)
    with pytest.warns(UserWarning, match="other users may write"), pytest.raises(ArtifactError, match=r"README\.md"):
        Classifier.from_pretrained(artifact, device="cpu")


def _no_home(given: object) -> Path:
    raise StorageError("no home folder was found")


@pytest.mark.parametrize("name", ["onnx/model.onnx", "README.md"])
def test_a_file_replaced_during_the_load_is_detected(artifact: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = loading_module.open_session

    def swap(*arguments: Any, **options: Any) -> Any:
        other = artifact / "other"
        shutil.copy2(artifact / name, other)  # with the same content and time: only the inode differs
        other.replace(artifact / name)
        return real(*arguments, **options)

    monkeypatch.setattr(loading_module, "open_session", swap)
    with pytest.raises(ArtifactError, match=f"{name} changed while it was loaded"):
        Classifier.from_pretrained(artifact, precision="fp32")


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "onnx/../../outside", "a\\b", "C:/x", "", "a\0b"])
@pytest.mark.parametrize("where", ["files", "variants"])
def test_a_path_outside_the_folder_is_refused(artifact: Path, name: str, where: str) -> None:
    (artifact.parent / "outside").write_bytes((artifact / "onnx/model.onnx").read_bytes())
    manifest = read_manifest(artifact)
    if where == "files":
        entry = manifest.files["onnx/model.onnx"]
        changed = dataclasses.replace(manifest, files={**manifest.files, name: entry})
    else:
        changed = dataclasses.replace(manifest, variants=(dataclasses.replace(manifest.variants[0], file=name),))
    _write_as_it_is(artifact, changed)
    with pytest.raises(ArtifactError, match="not a path inside the folder: do not use"):
        Classifier.from_pretrained(artifact)


def _write_as_it_is(folder: Path, manifest: Manifest) -> None:
    """Write a manifest with its own hash, and with the files that it lists, whatever stands in the folder."""
    import hashlib

    document = {"format": 1, **dataclasses.asdict(manifest), "sha256": "0" * 64}
    text = json.dumps(document)
    (folder / MANIFEST).write_text(text.replace("0" * 64, hashlib.sha256(text.encode()).hexdigest()))


@pytest.mark.parametrize("name", ["onnx/model.onnx", "onnx", "config.json", "README.md"])
@pytest.mark.parametrize("absolute", [True, False])
def test_a_link_out_of_the_folder_is_refused(artifact: Path, name: str, absolute: bool) -> None:
    outside = artifact.parent / "outside"
    (artifact / name).rename(outside)
    up = ".." if "/" not in name else "../.."
    (artifact / name).symlink_to(outside if absolute else f"{up}/outside")
    with pytest.raises(ArtifactError, match=r"is a link out of its folder: do not use it"):
        Classifier.from_pretrained(artifact)


def test_links_inside_the_folder_and_to_it_are_followed(artifact: Path) -> None:
    (artifact / "onnx/model.onnx").rename(artifact / "kept")
    (artifact / "onnx/model.onnx").symlink_to("../kept")
    link = artifact.parent / "link"
    link.symlink_to(artifact)
    Classifier.from_pretrained(link, precision="fp32").close()


def as_snapshot(folder: Path, target: Path, owner: str = "models--org--name") -> Path:
    """Lay a folder out as the hub's cache does: links from a snapshot to blobs."""
    blobs, snapshot = target / owner / "blobs", target / owner / "snapshots" / ("a" * 40)
    blobs.mkdir(parents=True)
    for number, name in enumerate(names(folder)):
        shutil.copy2(folder / name, blobs / str(number))
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / name).symlink_to(os.path.relpath(blobs / str(number), (snapshot / name).parent))
    return snapshot


def test_the_links_of_the_hubs_cache_are_followed(artifact: Path, tmp_path: Path) -> None:
    snapshot = as_snapshot(with_data(artifact), tmp_path / "hub")
    with Classifier.from_pretrained(snapshot, precision="fp32") as clf:
        assert clf.predict(["good"])
    other = as_snapshot(artifact, tmp_path / "elsewhere", owner="projects")
    with pytest.raises(ArtifactError, match="link out"):
        Classifier.from_pretrained(other)
    (snapshot / "README.md").unlink()
    (snapshot / "README.md").symlink_to(artifact / "README.md")
    with pytest.raises(ArtifactError, match=r"README\.md is a link out"):
        Classifier.from_pretrained(snapshot)


def with_data(folder: Path, location: str = "model.onnx_data") -> Path:
    """Move the weights of the fp32 graph to a file next to it."""
    path = folder / "onnx/model.onnx"
    onnx.save_model(onnx.load(path), path, save_as_external_data=True, location=location, size_threshold=200)
    seal(folder)
    return folder


def test_external_data_is_part_of_the_artifact(artifact: Path, reference: Callable[..., np.ndarray], aged: None) -> None:
    with_data(artifact)
    for _ in range(2):
        with Classifier.from_pretrained(artifact, precision="fp32") as clf:
            np.testing.assert_allclose(clf.decision_function(["good movie"]), reference(["good movie"]), atol=1e-5)
    flip(artifact / "onnx/model.onnx_data", 1000)
    with pytest.raises(ArtifactError, match=r"model\.onnx_data does not have the sha256"):
        Classifier.from_pretrained(artifact, precision="fp32")
    (artifact / "onnx/model.onnx_data").unlink()
    manifest = read_manifest(artifact)
    write_manifest(artifact, manifest)
    with pytest.raises(ArtifactError, match=r"model\.onnx_data is missing"):
        Classifier.from_pretrained(artifact, precision="fp32")


def pointing_to(folder: Path, location: str) -> None:
    """Have the fp32 graph of an artifact keep its weights somewhere."""
    with_data(folder)
    path = folder / "onnx/model.onnx"
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            entry.value = location if entry.key == "location" else entry.value
    path.write_bytes(model.SerializeToString())
    seal(folder)


@pytest.mark.parametrize(
    "location", ["../outside", "../../outside", "{}", "sub/../../../outside", "..\\outside", "*/_ORT_MEM_ADDR_/*", "C:outside"]
)
def test_external_data_that_points_outside_is_refused(artifact: Path, location: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(artifact / "onnx/model.onnx", artifact.parent / "outside")
    pointing_to(artifact, location.format(artifact.parent / "outside"))
    monkeypatch.setattr(loading_module, "open_session", lambda *_, **__: pytest.fail("ONNX Runtime was given the graph"))
    with pytest.raises(ArtifactError, match=r"model\.onnx keeps weights in .*not a path inside its folder: do not use"):
        Classifier.from_pretrained(artifact, precision="fp32")


@pytest.mark.parametrize("location", ["link", "folder/outside", "./folder/../link"])
def test_external_data_through_a_link_is_refused(artifact: Path, location: str, monkeypatch: pytest.MonkeyPatch) -> None:
    outside = artifact.parent / "outside"
    pointing_to(artifact, location)
    shutil.copy(artifact / "onnx/model.onnx_data", outside)
    (artifact / "onnx/link").symlink_to(outside)
    (artifact / "onnx/folder").symlink_to(artifact.parent)
    monkeypatch.setattr(loading_module, "open_session", lambda *_, **__: pytest.fail("ONNX Runtime was given the graph"))
    with pytest.raises(ArtifactError, match=r"link out of its folder|not a path inside"):
        Classifier.from_pretrained(artifact, precision="fp32")


def test_external_data_missing_from_the_manifest_is_refused(artifact: Path) -> None:
    pointing_to(artifact, "unlisted")
    shutil.copy(artifact / "onnx/model.onnx_data", artifact / "onnx/unlisted")
    with pytest.raises(ArtifactError, match="unlisted is not listed in the manifest"):
        Classifier.from_pretrained(artifact, precision="fp32")


def test_a_graph_missing_from_the_manifest_is_refused(artifact: Path) -> None:
    manifest = read_manifest(artifact)
    files = {name: entry for name, entry in manifest.files.items() if name != "onnx/model.onnx"}
    _write_as_it_is(artifact, dataclasses.replace(manifest, files=files))
    with pytest.raises(ArtifactError, match=r"model\.onnx is not listed"):
        Classifier.from_pretrained(artifact, precision="fp32")


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may read any file")
def test_an_unreadable_file_is_one_error(artifact: Path) -> None:
    (artifact / "README.md").chmod(0)
    with pytest.raises(FusedBertError, match=r"README\.md cannot be read"):
        Classifier.from_pretrained(artifact)
