"""MODEL's folder: an artifact or another tool's export; a checkpoint is exported into the cache at first use."""

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

from ..artifact import MANIFEST, foreign, read_manifest
from ..errors import ArtifactError, CheckpointError, MissingDependencyError, ModelNotFoundError, StorageError
from ..hardware.packages import version
from ..hardware.storage import accessing, cache_error, cache_root, cached_sha256, given_path, locked
from . import Options, Precision, unsupported
from .reranker import files_of, is_reranker, module_folders

EMBEDDED = "sst2-mini"
EXPORTERS = "fusedbert.exporters"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?")
# The files that an export reads: config, tokenizer, weights. Other formats of the same weights stay on the hub.
_CHECKPOINT_SUFFIXES = (".json", ".txt", ".model", ".safetensors")
_log = logging.getLogger("fusedbert.engine.load.resolve")


def resolve_model(
    model: str | os.PathLike[str] | None, options: Options, target: str = "cpu", *, attentions: bool = False
) -> Path:
    """Find or make the artifact for MODEL.

    An export at first use makes the graphs of ``target`` (``cpu``, ``all`` or ``fp32``), and with ``attentions`` the one with
    attention weights.

    Raises:
        ModelNotFoundError: It is none of these.
        CheckpointError: A checkpoint's weights are in a form that is not read.
        ArtifactError: It only holds graphs with unknown names.
        MissingDependencyError: It must be exported, and the exporter is not installed.
        StorageError: The cache cannot be written.
    """
    if model is None:
        return _exported(embedded_checkpoint(), options, target, attentions=attentions)
    path, name = given_path(model, "MODEL", ModelNotFoundError, _expected()), os.fspath(model)
    with accessing(path):
        is_folder, exists = path.is_dir(), path.exists()
    if is_folder:
        return resolve_folder(path.absolute(), options, target, attentions=attentions)
    if exists:
        raise _not_a_folder(path)
    if not isinstance(model, str) or _looks_like_path(name):
        raise ModelNotFoundError(f"{name} does not exist: {_expected()}")
    folder = download(name, options, target)
    return _exported(folder, options, target, name, attentions=attentions) if is_checkpoint(folder) else folder


def is_checkpoint(folder: Path) -> bool:
    """Return whether a folder holds weights to export, and is not an artifact."""
    if os.path.lexists(folder / MANIFEST):
        return False
    if is_reranker(folder):  # its encoder may lie in a folder below
        return bool(unsupported.weights(files_of(folder, (".safetensors",))))
    return (folder / "config.json").is_file() and bool(unsupported.weights(path.name for path in folder.glob("*.safetensors")))


def resolve_folder(folder: Path, options: Options, target: str = "cpu", *, attentions: bool = False) -> Path:
    """Return an artifact or another tool's export itself, and for a checkpoint its artifact in the cache.

    Raises:
        CheckpointError: It is known to be something else: an adapter, another framework's weights.
        ArtifactError: It only holds graphs with unknown names.
        ModelNotFoundError: It lacks a config or weights.
        StorageError: It cannot be read.
    """
    if os.path.lexists(folder / MANIFEST):
        return folder
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except OSError as error:
        raise StorageError(f"{folder} cannot be read: {error.strerror or error}") from None
    weights = bool(unsupported.weights(names))
    if is_checkpoint(folder):  # before another tool's graphs, because an artifact can be verified
        unsupported.refuse(folder)
        return _exported(folder, options, target, attentions=attentions)
    if any(foreign.graphs(folder)):
        unsupported.refuse_pointers(folder)
        return folder
    if any(folder.glob("*.onnx")) or any(folder.glob("onnx/*.onnx")):
        raise ArtifactError(
            f"{folder} holds ONNX graphs but no {MANIFEST}, and none has a known name: rename one to one of "
            f"{', '.join(foreign.KNOWN)}, or give the checkpoint that they were made from"
        )
    unsupported.refuse(folder)
    missing = "config.json" if weights else "weights (*.safetensors)" if "config.json" in names else MANIFEST
    raise ModelNotFoundError(f"{folder} has no {missing}: {_expected()}")


def embedded_checkpoint() -> Path:
    """Return the folder of the checkpoint in the package.

    Raises:
        ModelNotFoundError: This installation has none.
    """
    spec = importlib.util.find_spec("fusedbert.models")
    for location in (spec.submodule_search_locations or ()) if spec else ():
        if (folder := Path(location) / EMBEDDED / "config.json").is_file():
            return folder.parent
    raise ModelNotFoundError(f"this installation has no embedded model: {_expected()}, or install fusedbert again")


def download(name: str, options: Options, target: str = "cpu") -> Path:
    """Fetch a checkpoint, an artifact, or another tool's graphs that may be chosen, from the hub or its cache.

    Raises:
        ModelNotFoundError: The hub does not have it, refuses access, or cannot be reached.
        CheckpointError: It holds nothing readable.
    """
    folder = _fetch(name, options, [f"*{suffix}" for suffix in _CHECKPOINT_SUFFIXES], ["*/*"])
    options = dataclasses.replace(options, revision=folder.name)  # the commit: the branch may move on between the calls
    if (folder / MANIFEST).is_file():
        return _fetch(name, options, sorted(read_manifest(folder).files))
    if places := module_folders(folder):
        _fetch(name, options, [f"{place}/*{suffix}" for place in places for suffix in _CHECKPOINT_SUFFIXES])
    if is_checkpoint(folder):
        unsupported.refuse(folder, name)
        return folder
    for wanted in (_precisions(options, target), {precision for _, precision in foreign.KNOWN.values()}):
        files = [file for file, (_, precision) in foreign.KNOWN.items() if precision in wanted]
        _fetch(name, options, [pattern for file in files for pattern in (file, f"{file}_data*")])
        if any(foreign.graphs(folder)):
            return folder
    unsupported.refuse(folder, name)
    raise CheckpointError(
        f"{name} on the hub has no config.json with *.safetensors weights, and no ONNX graph: convert it to safetensors first"
    )


def _precisions(options: Options, target: str) -> set[str]:
    if options.precision is not Precision.AUTO:
        return {str(options.precision)}
    return {"fp32", "fp16"} if target == "all" else {"fp32"}


def _fetch(name: str, options: Options, allow: list[str], ignore: list[str] | None = None) -> Path:
    import huggingface_hub  # installed with tokenizers; importing it takes longer than loading a small model

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
        raise ModelNotFoundError(f"{name} is not a folder, and the hub refused it ({reason}): {_expected()}") from error
    return Path(snapshot)


def _exported(checkpoint: Path, options: Options, target: str, name: str | None = None, *, attentions: bool = False) -> Path:
    root = cache_root(options.cache_dir)

    def make(folder: Path) -> None:
        export = load_exporter()
        _log.info("exporting %s into the cache, once: %s", checkpoint.name, folder)
        # An int8 or fp16 graph that does not pass its gate is left out: it was not requested by name.
        export(checkpoint, folder, target=target, attentions=attentions, required=False, name=name, progress=_log.info)

    return cached_artifact(root, checkpoint_key(checkpoint, root, target, attentions=attentions), make)


def checkpoint_key(checkpoint: Path, root: Path, target: str, *, attentions: bool = False) -> str:
    """Hash everything that an export depends on.

    Raises:
        StorageError: A file cannot be read.
    """
    try:
        files = {name: cached_sha256(checkpoint / name, root) for name in files_of(checkpoint, _CHECKPOINT_SUFFIXES)}
    except OSError as error:
        raise error if isinstance(error, StorageError) else StorageError(f"{checkpoint} cannot be read: {error}") from None
    document = {"files": files, "fusedbert": version(), "target": target, "attentions": attentions}
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:40]


def cached_artifact(root: Path, key: str, make: Callable[[Path], object]) -> Path:
    """Return the artifact of a ``checkpoint_key`` from the cache; one of several first users makes it, the others wait.

    Raises:
        StorageError: The cache cannot be written.
    """
    folder = root / "artifacts" / key
    if is_complete(folder):  # needs no lock, and no right to write
        return folder
    with locked(root / "locks" / f"{key}.lock"):
        if not is_complete(folder):
            from ..artifact.staging import remove_leftovers  # only for an export

            for name in ("artifacts", "verdicts", "golden", "hashes"):
                remove_leftovers(root / name)
            if folder.exists():
                import shutil  # only to repair

                _log.warning("the cached artifact %s is damaged and is made again", folder)
                try:
                    shutil.rmtree(folder)
                except OSError as error:
                    raise cache_error(folder, error) from None
            make(folder)
    return folder


def is_complete(folder: Path) -> bool:
    """Return whether an artifact has a manifest, and its files have the listed sizes."""
    if not (folder / MANIFEST).is_file():
        return False
    try:
        files = read_manifest(folder).files
        return all((folder / name).stat().st_size == entry["bytes"] for name, entry in files.items())
    except (ArtifactError, OSError):
        return False


def load_exporter() -> Callable[..., object]:
    """Return the installed exporter.

    Raises:
        MissingDependencyError: None is installed, or it lacks a package of the extra.
    """
    import importlib.metadata  # slow to import, and only an export needs it

    task = "export a checkpoint (an artifact needs no export)"
    for entry in importlib.metadata.entry_points(group=EXPORTERS, name="direct"):
        try:
            return cast(Callable[..., object], entry.load())
        except MissingDependencyError:
            raise
        except ImportError as error:
            raise MissingDependencyError.of(error.name or "the exporter", "export", task) from error
    raise MissingDependencyError.of("the exporter", "export", task)


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


def _not_a_folder(path: Path) -> Exception:
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
