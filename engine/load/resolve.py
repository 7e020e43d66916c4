"""MODEL to a folder that can be run: an artifact, another tool's export, the embedded default, or a checkpoint.

A checkpoint is exported into the cache on first use.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
import logging
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import cast

from ..artifact import MANIFEST, read_manifest
from ..artifact import foreign as plain
from ..errors import ArtifactError, CheckpointError, MissingDependencyError, ModelNotFoundError, StorageError
from ..hardware.packages import version
from ..options import Options, Precision
from . import kinds
from .cache import cache_root, cached_artifact, file_hash

EMBEDDED = "sst2-mini"
EXPORTERS = "fusedbert.exporters"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?")
# What an export reads: config, tokenizer, weights. Other formats of the same weights stay on the hub.
_CHECKPOINT_SUFFIXES = (".json", ".txt", ".model", ".safetensors")
_log = logging.getLogger("fusedbert.engine.load.resolve")


def resolve_model(
    model: str | os.PathLike[str] | None, options: Options, target: str = "cpu", *, attentions: bool = False
) -> Path:
    """Find or make the artifact that MODEL stands for.

    Args:
        model: An artifact, a checkpoint folder, another tool's export, a hub id, or None for the embedded default.
        options: Revision, token, cache and whether the hub may be asked.
        target: ``cpu``, ``all`` or ``fp32``: the graphs that an export on first use makes.
        attentions: Whether it makes the graph that shows its attention weights too; such an artifact has a key of its own.

    Raises:
        ModelNotFoundError: It is none of these.
        CheckpointError: A checkpoint's weights are in a form that is not read.
        ArtifactError: It holds graphs alone, of names that are not known.
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
    folder = download(name, options, target)
    if not is_checkpoint(folder):
        return folder
    return _exported(folder, options, target, name, attentions=attentions)


def is_checkpoint(folder: Path) -> bool:
    """Tell whether a folder holds weights to export, and not an artifact: those are run as they are."""
    if (folder / MANIFEST).is_file() or not (folder / "config.json").is_file():
        return False
    return bool(kinds.weights(path.name for path in folder.glob("*.safetensors")))


def resolve_folder(folder: Path, options: Options, target: str = "cpu", *, attentions: bool = False) -> Path:
    """Return an artifact and another tool's export as they are, and a checkpoint's artifact from the cache.

    Where both weights and another tool's graphs are there, the weights are exported: what comes of it is verified.

    Raises:
        CheckpointError: It is known to be something else: an adapter, another framework's weights.
        ArtifactError: It holds graphs alone, of names that are not known.
        ModelNotFoundError: It lacks a config or weights.
        StorageError: It cannot be read.
    """
    if (folder / MANIFEST).is_file():
        return folder
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except OSError as error:
        raise StorageError(f"{folder} cannot be read: {error.strerror or error}") from None
    weights = bool(kinds.weights(names))
    if "config.json" in names and weights:
        kinds.refuse(folder)
        return _exported(folder, options, target, attentions=attentions)
    if any(plain.graphs(folder)):
        kinds.refuse_pointers(folder)
        return folder
    if any(folder.glob("*.onnx")) or any(folder.glob("onnx/*.onnx")):
        raise ArtifactError(
            f"{folder} holds ONNX graphs but no {MANIFEST}, and none has a name that is known: rename one to one of "
            f"{', '.join(plain.KNOWN)}, or give the checkpoint that they were made from"
        )
    kinds.refuse(folder)
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


def download(name: str, options: Options, target: str = "cpu") -> Path:
    """Fetch a checkpoint, an artifact or another tool's export from the Hugging Face hub, or find it in the hub's cache.

    Of an artifact all files are fetched; of another tool's export config, tokenizer, and the graphs that may be chosen.

    Raises:
        ModelNotFoundError: The hub does not have it, does not let us, or cannot be reached.
        CheckpointError: It has nothing there that can be read.
    """
    folder = _fetch(name, options, [f"*{suffix}" for suffix in _CHECKPOINT_SUFFIXES], ["*/*"])
    options = dataclasses.replace(options, revision=folder.name)  # the commit: the branch may move on meanwhile
    if (folder / MANIFEST).is_file():
        return _fetch(name, options, sorted(read_manifest(folder).files))
    if is_checkpoint(folder):
        kinds.refuse(folder, name)
        return folder
    for wanted in (_precisions(options, target), {precision for _, precision in plain.KNOWN.values()}):
        files = [file for file, (_, precision) in plain.KNOWN.items() if precision in wanted]
        _fetch(name, options, [pattern for file in files for pattern in (file, f"{file}_data*")])
        if any(plain.graphs(folder)):
            return folder
    kinds.refuse(folder, name)
    raise CheckpointError(
        f"{name} on the hub has no config.json with *.safetensors weights, and no ONNX graph: convert it to safetensors first"
    )


def _precisions(options: Options, target: str) -> set[str]:
    """Return the precisions of other tools' graphs that may be chosen: as ``selection`` chooses."""
    if options.precision is not Precision.AUTO:
        return {str(options.precision)}
    return {"fp32", "fp16"} if target == "all" else {"fp32"}


def _fetch(name: str, options: Options, allow: list[str], ignore: list[str] | None = None) -> Path:
    """Fetch the files of a repository that fit a pattern; return the folder of the snapshot."""
    import huggingface_hub  # tokenizers brings it along; importing it takes longer than loading a small model

    hub_cache = None if options.cache_dir is None else str(cache_root(options.cache_dir) / "hub")
    try:
        snapshot = huggingface_hub.snapshot_download(
            name,
            revision=options.revision,
            token=options.token,
            local_files_only=options.local_files_only,
            cache_dir=hub_cache,
            allow_patterns=allow,
            ignore_patterns=ignore,
        )
    except Exception as error:  # of many roots: HTTP, validation, a missing network
        lines = str(error).strip().splitlines() or [""]
        reason = f"{type(error).__name__}: {lines[0][:200]}"
        raise ModelNotFoundError(f"{name} is no folder, and the hub did not give it ({reason}): {_expected()}") from error
    return Path(snapshot)


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
        parents = path.absolute().parents[:2]
        owner = next((parent for parent in parents for name in (MANIFEST, "config.json") if (parent / name).is_file()), None)
        way_out = f"give its folder, {owner}" if owner else "give a folder that fusedbert export made, or the checkpoint"
        return ArtifactError(f"{path} is a graph without its tokenizer: {way_out}")
    if path.suffix in (".safetensors", ".json", ".bin"):
        return ModelNotFoundError(f"{path} is a file of a model: give its folder, {path.absolute().parent}")
    return ModelNotFoundError(f"{path} is a file: {_expected()}")


def _expected() -> str:
    return (
        "give an artifact (a folder that fusedbert export made), a checkpoint folder (config.json and safetensors weights), "
        "another tool's ONNX export (config.json, tokenizer.json, model.onnx), a hub id (org/name), or leave MODEL out for the "
        "embedded default"
    )
