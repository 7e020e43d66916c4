"""Checkpoints: their folder on disk or on the hub, and the warnings of an export."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from fusedbert.engine.artifact import MANIFEST, given_path
from fusedbert.engine.errors import CheckpointError, MissingDependencyError, ModelNotFoundError

_EXPECTED = "name the folder of a checkpoint, or a hub id such as org/name"
PATTERNS = ("*.json", "*.safetensors", "*.txt", "*.model")


class ExportWarning(UserWarning):
    """Base class of the warnings of an export."""


class LeftOutWarning(ExportWarning):
    """A graph failed its parity check and is left out."""


class TokenizerWarning(ExportWarning):
    """A tokenizer differs from its files or from the installed transformers."""


class FusionWarning(ExportWarning):
    """Attention was fused in fewer layers than the model has."""


class IgnoredWarning(ExportWarning):
    """A checkpoint holds tensors that its model does not use."""


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk: name for the manifest, folder, and revision on the hub."""

    id: str
    folder: Path
    revision: str | None


def locate(source: str | os.PathLike[str], *, revision: str | None, token: str | None, local_files_only: bool) -> Checkpoint:
    """Find the folder of a checkpoint, or download a hub id.

    Raises:
        ModelNotFoundError: ``source`` is neither a folder nor a repository that can be reached.
        CheckpointError: The folder is an artifact, or ``source`` is a file.
    """
    folder, name = given_path(source, "the checkpoint", ModelNotFoundError, _EXPECTED), os.fspath(source)
    if folder.is_dir():
        if (folder / MANIFEST).exists():
            raise CheckpointError(f"{folder} is an artifact already: export the checkpoint that it was made from")
        return Checkpoint(folder.resolve().name, folder, None)
    if folder.exists():
        raise CheckpointError(f"{folder} is a file, expected a checkpoint: name the folder that holds config.json")
    if "\\" in name or not 1 <= len(name.split("/")) <= 2 or name.startswith((".", "/", "~")):
        raise ModelNotFoundError(f"{name} does not exist: {_EXPECTED}")
    return _download(name, revision=revision, token=token, local_files_only=local_files_only)


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
            f"{repo} is not a folder here and cannot be downloaded from the hub ({reason}): "
            "check the name, the network and the token, or pass a folder"
        ) from None
    return Checkpoint(repo, Path(path), Path(path).name)
