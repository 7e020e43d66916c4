"""MODEL to an artifact: a folder, the embedded default, or a checkpoint that is exported into the cache on first use."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import cast

from fusedbert.engine.artifact import MANIFEST
from fusedbert.engine.cache import cache_root, cached_artifact, file_hash
from fusedbert.engine.errors import ArtifactError, CheckpointError, MissingDependencyError, ModelNotFoundError, StorageError
from fusedbert.engine.installed import version
from fusedbert.engine.options import Options

EMBEDDED = "sst2-mini"
EXPORTERS = "fusedbert.exporters"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?")
# What an export reads: config, tokenizer, weights. Other formats of the same weights stay on the hub.
_CHECKPOINT_SUFFIXES = (".json", ".txt", ".model", ".safetensors")
_log = logging.getLogger("fusedbert.engine.resolve")


def resolve_model(
    model: str | os.PathLike[str] | None, options: Options, target: str = "cpu", *, attentions: bool = False
) -> Path:
    """Find or make the artifact that MODEL stands for.

    Args:
        model: An artifact, a checkpoint folder, a hub id, or None for the embedded default.
        options: Revision, token, cache and whether the hub may be asked.
        target: ``cpu``, ``all`` or ``fp32``: the graphs that an export on first use makes.
        attentions: Whether it makes the graph that shows its attention weights too; such an artifact has a key of its own.

    Raises:
        ModelNotFoundError: It is none of these.
        CheckpointError: A checkpoint's weights are in a form that is not read.
        ArtifactError: It holds a graph without a manifest.
        MissingDependencyError: It must be exported, and the exporter is not installed.
        StorageError: The cache cannot be written.
    """
    if model is None:
        return _exported(embedded_checkpoint(), options, target, attentions=attentions)
    name = os.fspath(model)
    if not isinstance(name, str) or not name.strip() or "\0" in name:
        raise ModelNotFoundError(f"MODEL is {name!r}: {_expected()}")
    path = Path(name).expanduser()
    try:
        is_folder, exists = path.is_dir(), path.exists()
    except OSError as error:
        raise StorageError(f"{path} cannot be looked at: {error.strerror or error}") from None
    if is_folder:
        return resolve_folder(path.absolute(), options, target, attentions=attentions)
    if exists:
        raise _no_folder(path)
    if not isinstance(model, str) or _looks_like_path(name):
        raise ModelNotFoundError(f"{name} does not exist: {_expected()}")
    return _exported(download(name, options), options, target, name, attentions=attentions)


def resolve_folder(folder: Path, options: Options, target: str = "cpu", *, attentions: bool = False) -> Path:
    """Return an artifact as it is, and a checkpoint's artifact from the cache."""
    if (folder / MANIFEST).is_file():
        return folder
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except OSError as error:
        raise StorageError(f"{folder} cannot be read: {error.strerror or error}") from None
    weights = any(name.endswith(".safetensors") for name in names)
    if "config.json" in names and weights:
        return _exported(folder, options, target, attentions=attentions)
    if any(folder.glob("*.onnx")) or any(folder.glob("onnx/*.onnx")):
        raise ArtifactError(
            f"{folder} holds ONNX graphs but no {MANIFEST}: exports of other tools are not read yet; "
            "give the checkpoint that they were made from"
        )
    if any(name.endswith((".bin", ".pt", ".ckpt")) for name in names) and not weights:
        raise CheckpointError(
            f"{folder} holds its weights as a pickle, which can run code when it is read: save them as safetensors with "
            "transformers, model.save_pretrained(folder, safe_serialization=True)"
        )
    missing = "config.json" if weights else "weights (*.safetensors)" if "config.json" in names else MANIFEST
    raise ModelNotFoundError(f"{folder} has no {missing}: {_expected()}")


def embedded_checkpoint() -> Path:
    """Return the folder of the checkpoint that the package brings along.

    Raises:
        ModelNotFoundError: This installation has none.
    """
    spec = importlib.util.find_spec("fusedbert.models")
    for location in (spec.submodule_search_locations or ()) if spec else ():
        if (folder := Path(location) / EMBEDDED / "config.json").is_file():
            return folder.parent
    raise ModelNotFoundError(f"this installation has no embedded model: {_expected()}, or install fusedbert again")


def download(name: str, options: Options) -> Path:
    """Fetch a checkpoint from the Hugging Face hub, or find it in the hub's cache.

    Raises:
        ModelNotFoundError: The hub does not have it, does not let us, or cannot be reached.
    """
    import huggingface_hub  # tokenizers brings it along; importing it takes longer than loading a small model

    hub_cache = None if options.cache_dir is None else str(cache_root(options.cache_dir) / "hub")
    try:
        snapshot = huggingface_hub.snapshot_download(
            name,
            revision=options.revision,
            token=options.token,
            local_files_only=options.local_files_only,
            cache_dir=hub_cache,
            allow_patterns=[f"*{suffix}" for suffix in _CHECKPOINT_SUFFIXES],
            ignore_patterns=["*/*"],
        )
    except Exception as error:  # of many roots: HTTP, validation, a missing network
        lines = str(error).strip().splitlines() or [""]
        reason = f"{type(error).__name__}: {lines[0][:200]}"
        raise ModelNotFoundError(f"{name} is no folder, and the hub did not give it ({reason}): {_expected()}") from error
    folder = Path(snapshot)
    if not any(folder.glob("*.safetensors")) or not (folder / "config.json").is_file():
        raise CheckpointError(
            f"{name} on the hub has no config.json with *.safetensors weights: convert it to safetensors first"
        )
    return folder


def _exported(checkpoint: Path, options: Options, target: str, name: str | None = None, *, attentions: bool = False) -> Path:
    root = cache_root(options.cache_dir)

    def make(folder: Path) -> None:
        export = load_exporter()
        _log.info("exporting %s into the cache, once: %s", checkpoint.name, folder)
        # An int8 or fp16 graph that does not pass its gate is left out: nobody asked for it by name.
        export(checkpoint, folder, target=target, attentions=attentions, required=False, name=name, progress=_log.info)

    return cached_artifact(root, checkpoint_key(checkpoint, root, target, attentions=attentions), make)


def checkpoint_key(checkpoint: Path, root: Path, target: str, *, attentions: bool = False) -> str:
    """Hash all that an export depends on: weights, config and tokenizer files, this version, the options.

    Raises:
        StorageError: A file cannot be read.
    """
    try:
        paths = sorted(path for path in checkpoint.iterdir() if path.suffix in _CHECKPOINT_SUFFIXES and path.is_file())
        files = {path.name: file_hash(path, root) for path in paths}
    except OSError as error:
        raise error if isinstance(error, StorageError) else StorageError(f"{checkpoint} cannot be read: {error}") from None
    document = {"files": files, "fusedbert": version(), "target": target, "attentions": attentions}
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:40]


def load_exporter() -> Callable[..., object]:
    """Return the installed exporter.

    Raises:
        MissingDependencyError: None is installed, or it lacks a package of the extra.
    """
    import importlib.metadata  # slow to import, and only an export needs it

    for entry in importlib.metadata.entry_points(group=EXPORTERS, name="direct"):
        try:
            exporter = entry.load()
        except MissingDependencyError:
            raise
        except ImportError as error:
            package = error.name or "the exporter"
            raise MissingDependencyError.of(package, "export", "export a checkpoint (an artifact needs no export)") from error
        return cast(Callable[..., object], exporter)
    raise MissingDependencyError.of("the exporter", "export", "export a checkpoint (an artifact needs no export)")


def _looks_like_path(name: str) -> bool:
    first = Path(name).parts[0] if Path(name).parts else ""
    return (
        name.startswith((".", "/", "~"))
        or "\\" in name
        or name.count("/") > 1
        or name.endswith((".onnx", "/"))
        or ("/" in name and Path(first).is_dir())
        or not _HUB_ID.fullmatch(name)
    )


def _no_folder(path: Path) -> Exception:
    if path.suffix == ".onnx":
        owner = next((parent for parent in path.absolute().parents if (parent / MANIFEST).is_file()), None)
        way_out = f"give its artifact, {owner}" if owner else "give a folder that fusedbert export made, or the checkpoint"
        return ArtifactError(f"{path} is a graph without its tokenizer: {way_out}")
    if path.suffix in (".safetensors", ".json", ".bin"):
        return ModelNotFoundError(f"{path} is a file of a model: give its folder, {path.absolute().parent}")
    return ModelNotFoundError(f"{path} is a file: {_expected()}")


def _expected() -> str:
    return (
        "give an artifact (a folder that fusedbert export made), a checkpoint folder (config.json and safetensors weights), "
        "a hub id (org/name), or leave MODEL out for the embedded default"
    )
