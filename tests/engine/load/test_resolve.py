"""MODEL: what it may be and may not be; a checkpoint is exported once, and its artifact needs no exporter."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fusedbert.engine import (
    ArtifactError,
    CheckpointError,
    Classifier,
    FusedBertError,
    MissingDependencyError,
    ModelNotFoundError,
    StorageError,
)
from fusedbert.engine.load import Options
from fusedbert.engine.load import resolve as resolve_module
from fusedbert.engine.load.resolve import checkpoint_key, embedded_checkpoint, resolve_model


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "model.safetensors", "README.md"):
        (folder / name).write_text(name)
    return folder


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch, artifact: Path) -> list[Any]:
    """Stand in for the exporter: it "exports" by copying the mock artifact, and records its calls."""
    calls: list[Any] = []

    def export(source: Path, output: Path, *, target: str, name: str | None, required: bool, **options: Any) -> None:
        assert required is False  # a rounded graph that fails its gate must not keep a model from loading
        assert set(options) == {"attentions", "progress"}
        options["progress"]("a step")
        calls.append((source, target, name))
        shutil.copytree(artifact, output)

    def entry_points(*, group: str, name: str) -> list[Any]:
        assert (group, name) == ("fusedbert.exporters", "direct")
        return [SimpleNamespace(load=lambda: export)]

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
    return calls


def test_an_artifact_resolves_to_itself(artifact: Path, exporter: list[Any]) -> None:
    assert resolve_model(artifact, Options()) == resolve_model(str(artifact), Options()) == artifact
    assert not exporter


def test_a_checkpoint_is_exported_once(checkpoint: Path, exporter: list[Any], own_cache: Path) -> None:
    first = resolve_model(checkpoint, Options())
    assert first.is_relative_to(own_cache) and (first / "fusedbert.json").is_file()
    assert resolve_model(str(checkpoint), Options()) == first
    assert exporter == [(checkpoint, "cpu", None)]
    with Classifier.from_pretrained(checkpoint) as clf:
        assert clf.predict(["good"])


def test_a_cached_artifact_needs_no_exporter(checkpoint: Path, exporter: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    resolve_model(checkpoint, Options())
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **_: pytest.fail("looked for an exporter"))
    resolve_model(checkpoint, Options())


def test_without_an_exporter_the_error_names_the_extra(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **_: [])
    with pytest.raises(MissingDependencyError, match=r'pip install "fusedbert\[export\]"'):
        resolve_model(checkpoint, Options())

    def load() -> None:
        raise ModuleNotFoundError("No module named 'onnx'", name="onnx")

    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **_: [SimpleNamespace(load=load)])
    with pytest.raises(MissingDependencyError, match=r'onnx is needed.*"fusedbert\[export\]"'):
        resolve_model(checkpoint, Options())


def test_the_cache_key_covers_all_that_an_export_depends_on(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = checkpoint_key(checkpoint, tmp_path, "cpu")
    moved = tmp_path / "moved"
    shutil.copytree(checkpoint, moved)
    (moved / "README.md").write_text("other")
    assert checkpoint_key(moved, tmp_path, "cpu") == key
    keys = {key, checkpoint_key(moved, tmp_path, "all")}
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (moved / name).write_text("other")
        keys.add(checkpoint_key(moved, tmp_path, "cpu"))
    monkeypatch.setattr(resolve_module, "version", lambda: "99")
    keys.add(checkpoint_key(moved, tmp_path, "cpu"))
    assert len(keys) == 6


def test_an_unwritable_cache_is_one_error(
    checkpoint: Path, exporter: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("FUSEDBERT_CACHE", str(tmp_path / "file/cache"))
    with pytest.raises(StorageError, match="FUSEDBERT_CACHE"):
        resolve_model(checkpoint, Options())
    assert resolve_model(checkpoint, Options(cache_dir=tmp_path / "elsewhere")).is_relative_to(tmp_path / "elsewhere")


def test_the_embedded_default_is_a_checkpoint() -> None:
    folder = embedded_checkpoint()
    assert (folder / "config.json").is_file() and (folder / "model.safetensors").is_file()


def test_an_installation_without_the_embedded_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolve_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelNotFoundError, match="no embedded model"):
        resolve_model(None, Options())


@pytest.mark.parametrize(
    "name", ["./missing", "/no/such/folder", "a/b/c", "~/missing", "here/missing", "missing.onnx", "a b", "x/", "..\\x"]
)
def test_a_missing_path_is_not_looked_up_on_the_hub(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    monkeypatch.setattr(resolve_module, "download", lambda *_: pytest.fail("asked the hub"))
    with pytest.raises(ModelNotFoundError, match="does not exist: give an artifact") as caught:
        resolve_model(name, Options())
    assert isinstance(caught.value, FileNotFoundError) and str(caught.value).startswith(name)
    with pytest.raises(ModelNotFoundError, match="does not exist"):
        resolve_model(Path("org/model"), Options())


@pytest.mark.parametrize("name", ["", "  ", "a\0b", b"bytes"])
def test_invalid_model_names_are_refused(name: Any) -> None:
    with pytest.raises(ModelNotFoundError, match="leave MODEL out"):
        resolve_model(name, Options())


def folder_with(tmp_path: Path, *names: str) -> Path:
    folder = tmp_path / "model"
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")
    return folder


@pytest.mark.parametrize(
    ("names", "error", "said"),
    [
        (("config.json",), ModelNotFoundError, r"no weights \(\*\.safetensors\)"),
        (("model.safetensors",), ModelNotFoundError, r"no config\.json"),
        (("notes.txt",), ModelNotFoundError, "checkpoint folder"),
        (("config.json", "pytorch_model.bin"), CheckpointError, "safe_serialization=True"),
        (("config.json", "onnx/other.onnx"), ArtifactError, r"no fusedbert\.json.*rename one.*onnx/model\.onnx.*checkpoint"),
        (("config.json", "other.onnx"), ArtifactError, r"no fusedbert\.json.*rename one.*checkpoint"),
    ],
)
def test_folders_without_a_model_are_refused(
    tmp_path: Path, names: tuple[str, ...], error: type[FusedBertError], said: str
) -> None:
    with pytest.raises(error, match=said):
        resolve_model(folder_with(tmp_path, *names), Options())


def test_another_tools_export_resolves_to_itself(tmp_path: Path, exporter: list[Any]) -> None:
    folder = folder_with(tmp_path, "config.json", "tokenizer.json", "onnx/model_quantized.onnx")
    assert resolve_model(folder, Options()) == folder and not exporter
    (folder / "model.safetensors").touch()  # what is exported from weights is verified
    assert resolve_model(folder, Options()) != folder and exporter == [(folder, "cpu", None)]


def test_a_file_in_place_of_a_folder_is_refused(artifact: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=f"give its folder, {artifact}"):
        resolve_model(artifact / "onnx/model.onnx", Options())
    lone = tmp_path / "lone.onnx"
    lone.touch()
    with pytest.raises(ArtifactError, match="fusedbert export"):
        resolve_model(lone, Options())
    with pytest.raises(ModelNotFoundError, match=f"give its folder, {artifact}"):
        resolve_model(str(artifact / "config.json"), Options())
    (tmp_path / "notes").touch()
    with pytest.raises(ModelNotFoundError, match="is a file"):
        resolve_model(tmp_path / "notes", Options())


class Hub:
    """Stands in for huggingface_hub: copies what was asked for out of a folder, as the hub's own client chooses files."""

    def __init__(self, answer: Path | Exception) -> None:
        self.answer = answer
        self.asked: list[dict[str, Any]] = []

    def snapshot_download(self, name: str, **options: Any) -> str:
        from huggingface_hub.utils import filter_repo_objects

        self.asked.append({"name": name, **options})
        if isinstance(self.answer, Exception):
            raise self.answer
        snapshot = self.answer.parent / "hub" / COMMIT
        snapshot.mkdir(parents=True, exist_ok=True)
        for path in filter_repo_objects(
            [path.relative_to(self.answer).as_posix() for path in self.answer.rglob("*") if path.is_file()],
            allow_patterns=options["allow_patterns"],
            ignore_patterns=options["ignore_patterns"],
        ):
            (snapshot / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(self.answer / path, snapshot / path)
        return os.fspath(snapshot)


COMMIT = "0123456789abcdef0123456789abcdef01234567"


def files_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path | Exception], Hub]:
    import huggingface_hub

    def make(answer: Path | Exception) -> Hub:
        stand_in = Hub(answer)
        monkeypatch.setattr(huggingface_hub, "snapshot_download", stand_in.snapshot_download)
        return stand_in

    return make


def test_a_hub_id_is_downloaded(checkpoint: Path, exporter: list[Any], hub: Any, tmp_path: Path) -> None:
    stand_in = hub(checkpoint)
    options = Options(revision="v1", token="secret", local_files_only=True, cache_dir=tmp_path / "own")
    folder = resolve_model("org/model", options)
    assert (folder / "fusedbert.json").is_file() and exporter == [(tmp_path / "hub" / COMMIT, "cpu", "org/model")]
    asked = {key: stand_in.asked[0][key] for key in ("name", "revision", "token", "local_files_only", "cache_dir")}
    assert asked == {
        "name": "org/model",
        "revision": "v1",
        "token": "secret",
        "local_files_only": True,
        "cache_dir": str(tmp_path / "own/hub"),
    }
    assert "secret" not in repr(options)


def test_the_folders_of_a_rerankers_modules_are_downloaded(hub: Any, exporter: list[Any], tmp_path: Path) -> None:
    modules = [{"name": name, "path": name, "type": "x"} for name in ("0_Transformer", "1_Pooling", "2_Dense", "../out")]
    files = {
        "modules.json": json.dumps(modules),
        "config_sentence_transformers.json": json.dumps({"model_type": "CrossEncoder"}),
        **dict.fromkeys(("0_Transformer/config.json", "0_Transformer/model.safetensors", "2_Dense/model.safetensors"), "{}"),
        **dict.fromkeys(("2_Dense/pytorch_model.bin", "onnx/model.onnx", "other/model.safetensors"), "{}"),
    }
    for name, content in files.items():
        (tmp_path / "repository" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "repository" / name).write_text(content)
    stand_in = hub(tmp_path / "repository")
    resolve_model("org/model", Options(cache_dir=tmp_path / "own"))
    snapshot = tmp_path / "hub" / COMMIT
    assert exporter == [(snapshot, "cpu", "org/model")] and stand_in.asked[1]["revision"] == COMMIT
    left = {"2_Dense/pytorch_model.bin", "onnx/model.onnx", "other/model.safetensors"}
    assert files_in(snapshot) == files.keys() - left


def test_errors_of_the_hub_are_one_line_with_a_way_out(hub: Any, tmp_path: Path) -> None:
    hub(OSError("404: no such repository\nmore\nlines"))
    with pytest.raises(ModelNotFoundError, match=r"org/model is not a folder.*404: no such repository.*hub id") as caught:
        resolve_model("org/model", Options())
    assert "\n" not in str(caught.value)
    hub(folder_with(tmp_path, "config.json"))
    with pytest.raises(CheckpointError, match="safetensors"):
        resolve_model("org/model", Options())


def test_a_checkpoint_is_downloaded_without_other_formats(checkpoint: Path, hub: Any) -> None:
    for name in ("vocab.txt", "pytorch_model.bin", "onnx/config.json", "onnx/model.onnx", "tf_model.h5", "rust_model.ot"):
        (checkpoint / name).parent.mkdir(exist_ok=True)
        (checkpoint / name).touch()
    stand_in = hub(checkpoint)
    folder = resolve_module.download("org/model", Options())
    assert files_in(folder) == {"config.json", "model.safetensors", "tokenizer.json", "vocab.txt"}
    assert len(stand_in.asked) == 1


def test_an_artifact_of_the_hub_is_downloaded_whole(artifact: Path, hub: Any, exporter: list[Any]) -> None:
    (artifact / "else.bin").touch()
    stand_in = hub(artifact)
    folder = resolve_model("org/model", Options(revision="main"))
    assert files_in(folder) == files_in(artifact) - {"else.bin"} and not exporter
    assert [asked["revision"] for asked in stand_in.asked] == ["main", COMMIT]  # both from one commit
    with Classifier.from_pretrained("org/model") as clf:
        assert clf.predict(["good"])


@pytest.mark.parametrize(
    ("options", "target", "fetched"),
    [
        ({}, "cpu", {"onnx/model.onnx", "onnx/model.onnx_data"}),
        ({"precision": "int8"}, "cpu", {"onnx/model_quantized.onnx"}),
        ({}, "all", {"onnx/model.onnx", "onnx/model.onnx_data", "onnx/model_fp16.onnx"}),
        ({"precision": "fp16"}, "all", {"onnx/model_fp16.onnx"}),
    ],
)
def test_only_the_files_that_may_run_of_another_tools_export_are_downloaded(
    tmp_path: Path, hub: Any, exporter: list[Any], options: dict[str, Any], target: str, fetched: set[str]
) -> None:
    graphs = ["model.onnx", "model.onnx_data", "model_quantized.onnx", "model_fp16.onnx", "model_q4.onnx"]
    hub(folder_with(tmp_path, "config.json", "tokenizer.json", *(f"onnx/{name}" for name in graphs)))
    folder = resolve_model("org/model", Options.parse(**options), target)
    assert files_in(folder) == {"config.json", "tokenizer.json"} | fetched and not exporter


def test_a_hub_model_with_only_another_precision_is_refused(tmp_path: Path, hub: Any) -> None:
    hub(folder_with(tmp_path, "config.json", "tokenizer.json", "onnx/model_int8.onnx", "onnx/model_q4.onnx"))
    assert "onnx/model_int8.onnx" in files_in(resolve_model("org/model", Options()))


def test_relative_folders_and_links_are_resolved(artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve_model("artifact", Options()) == artifact
    (tmp_path / "link").symlink_to(artifact)
    make: Callable[[], Classifier] = lambda: Classifier.from_pretrained("link")  # noqa: E731
    with make() as clf:
        assert clf.predict(["good"])
