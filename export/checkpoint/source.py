"""Where a checkpoint comes from: a folder, or the Hugging Face hub."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from fusedbert.engine.artifact import MANIFEST
from fusedbert.engine.errors import CheckpointError, MissingDependencyError, ModelNotFoundError

PATTERNS = ("*.json", "*.safetensors", "*.txt", "*.model")


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk: its name for the manifest, its folder, and the hub's revision where it has one."""

    id: str
    folder: Path
    revision: str | None


def locate(source: str, *, revision: str | None, token: str | None, local_files_only: bool) -> Checkpoint:
    """Find the folder of a checkpoint, downloading it where ``source`` is a hub id.

    Raises:
        ModelNotFoundError: Neither a folder nor a repository that can be reached.
        CheckpointError: The folder is an artifact, or ``source`` is a file.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        if (folder / MANIFEST).exists():
            raise CheckpointError(f"{folder} is an artifact already: export the checkpoint that it was made from")
        return Checkpoint(folder.resolve().name, folder, None)
    if folder.exists():
        raise CheckpointError(f"{folder} is a file, expected a checkpoint: name the folder that holds config.json")
    if "\\" in source or not 1 <= len(source.split("/")) <= 2 or source.startswith((".", "/", "~")):
        raise ModelNotFoundError(f"{source} does not exist: name the folder of a checkpoint, or a hub id such as org/name")
    return _download(source, revision=revision, token=token, local_files_only=local_files_only)


def _download(repo: str, *, revision: str | None, token: str | None, local_files_only: bool) -> Checkpoint:
    try:
        import huggingface_hub
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    except ImportError:
        raise MissingDependencyError.of("huggingface-hub", "export", "download a checkpoint") from None
    try:
        path = huggingface_hub.snapshot_download(
            repo, revision=revision, token=token, local_files_only=local_files_only, allow_patterns=list(PATTERNS)
        )
    except HFValidationError as error:
        raise ModelNotFoundError(f"{repo} is neither a folder nor a hub id ({error})") from None
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelNotFoundError(
            f"{repo} is no folder here and cannot be had from the hub ({reason}): "
            "check the name, the network and the token, or pass a folder"
        ) from None
    return Checkpoint(repo, Path(path), Path(path).name)
