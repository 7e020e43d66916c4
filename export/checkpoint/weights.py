"""Reading a checkpoint's weights: named tensors from safetensors, all of them checked before any is used.

Weights come from ``model.safetensors``, or from the shards that ``model.safetensors.index.json`` lists. A pickle
(``pytorch_model.bin``) can run code when it is opened, so it is refused with the command that converts it. Which tensor is
which of ours is in ``tensors``.
"""

from __future__ import annotations

import dataclasses
import json
import warnings
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fusedbert.engine.artifact import sha256_of
from fusedbert.engine.errors import CheckpointError, MissingDependencyError
from fusedbert.engine.load.kinds import listed, refuse

from .architecture import Architecture
from .layouts import Layout
from .notes import IgnoredWarning
from .tensors import Found, ignored, match

Array = NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class Dense:
    """A dense layer ``y = x W + b``: ``weight`` ``[in, out]``, ``bias`` ``[out]``."""

    weight: NDArray[Any]
    bias: Array


@dataclasses.dataclass(frozen=True)
class Norm:
    """A layer normalization's gain and shift (gamma and beta), each ``[width]``."""

    weight: Array
    bias: Array


@dataclasses.dataclass(frozen=True)
class Layer:
    """The weights of one encoder layer."""

    query: Dense
    key: Dense
    value: Dense
    attention_output: Dense
    attention_norm: Norm
    intermediate: Dense
    output: Dense
    output_norm: Norm


@dataclasses.dataclass(frozen=True)
class Embeddings:
    """Tables ``[rows, embedding_size]``, their normalization, and small ELECTRA's projection to the hidden size."""

    word: NDArray[Any]
    position: Array
    token_type: Array | None
    norm: Norm
    projection: Dense | None


class Parameters(Protocol):
    """What a graph is built from: the parts of a model, asked for one at a time."""

    def embeddings(self) -> Embeddings:
        """Return the embedding tables."""

    def layer(self, i: int) -> Layer:
        """Return encoder layer ``i``."""

    def dense(self, name: str) -> Dense:
        """Return a dense layer of the head: ``head_dense`` or ``classifier``."""


class Weights:
    """The tensors of a checkpoint under our names, read from disk when asked for and kept by nobody.

    Args:
        folder: The checkpoint.
        architecture: Its description.
        layout: The table of its tensor names.

    Raises:
        CheckpointError: No safetensors, a damaged file, or tensors that are missing or misshapen: five are listed.

    Warns:
        IgnoredWarning: There are tensors that the model does not use.
    """

    def __init__(self, folder: Path, architecture: Architecture, layout: Layout) -> None:
        self.architecture = architecture
        self.files = weight_files(folder)
        self._found = headers(self.files)
        self._names, self.labels, unused = match(self._found, architecture, layout, folder)
        if unused:
            warnings.warn(ignored(folder, architecture.family, unused), IgnoredWarning, stacklevel=2)

    def sha256(self) -> dict[str, str]:
        """Return the sha256 of each weight file."""
        return {path.name: sha256_of(path) for path in self.files}

    def read(self, name: str) -> Array:
        """Read one tensor, by our name, as float32.

        Raises:
            CheckpointError: It holds a number that is not finite.
        """
        theirs = self._names[name]
        path = self._found[theirs].file
        with _open(path) as file:
            tensor = np.ascontiguousarray(file.get_tensor(theirs), dtype=np.float32)
        if not np.isfinite(tensor).all():
            raise CheckpointError(f"tensor {theirs} in {path} holds NaN or infinity: the checkpoint is damaged")
        return tensor

    def dense(self, name: str) -> Dense:
        """Read a dense layer; PyTorch keeps ``[out, in]``, the equations want ``[in, out]``."""
        return Dense(np.ascontiguousarray(self.read(f"{name}.weight").T), self.read(f"{name}.bias"))

    def norm(self, name: str) -> Norm:
        """Read a layer normalization."""
        return Norm(self.read(f"{name}.weight"), self.read(f"{name}.bias"))

    def embeddings(self) -> Embeddings:
        """Read the embedding tables."""
        return Embeddings(
            word=self.read("word.weight"),
            position=self.read("position.weight"),
            token_type=self.read("token_type.weight") if self.architecture.token_types else None,
            norm=self.norm("embedding_norm"),
            projection=self.dense("embedding_projection") if "embedding_projection.weight" in self._names else None,
        )

    def layer(self, i: int) -> Layer:
        """Read encoder layer ``i``."""
        at = f"layer.{i}."
        return Layer(
            query=self.dense(at + "query"),
            key=self.dense(at + "key"),
            value=self.dense(at + "value"),
            attention_output=self.dense(at + "attention_output"),
            attention_norm=self.norm(at + "attention_norm"),
            intermediate=self.dense(at + "intermediate"),
            output=self.dense(at + "output"),
            output_norm=self.norm(at + "output_norm"),
        )


def weight_files(folder: Path) -> tuple[Path, ...]:
    """Find the weight files of a checkpoint: one, or the shards of its index.

    Raises:
        CheckpointError: There are none, or an index names files that are not there or lie outside the folder.
    """
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        return (single,)
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError):
            raise CheckpointError(f"{index} cannot be read as an index of shards: save the checkpoint again") from None
        bad = [str(name) for name in names if Path(str(name)).name != name or not (folder / name).is_file()]
        if bad or not names:
            raise CheckpointError(f"{index} names shards that are not in the folder: {listed(bad) or 'none at all'}")
        return tuple(folder / name for name in names)
    refuse(folder)
    others = sorted(path.name for path in folder.glob("*.safetensors"))
    if others:
        raise CheckpointError(
            f"{folder} holds {listed(others)}, and transformers reads model.safetensors, or shards that "
            "model.safetensors.index.json lists: rename the file, or save the checkpoint again"
        )
    raise CheckpointError(f"{folder} has no weights (*.safetensors): point to a folder that save_pretrained wrote")


def _open(path: Path) -> Any:
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError:
        raise MissingDependencyError.of("safetensors", "export", "read a checkpoint") from None
    try:
        return safe_open(path, framework="numpy")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read as safetensors ({error}): download or save it again") from None


def headers(files: tuple[Path, ...]) -> dict[str, Found]:
    """List name, file, shape and type of each tensor without reading its data.

    Raises:
        CheckpointError: A file is no safetensors file.
    """
    found: dict[str, Found] = {}
    for path in files:
        with _open(path) as file:
            for name in file.keys():  # noqa: SIM118 (no mapping)
                part = file.get_slice(name)
                found[name] = Found(path, tuple(part.get_shape()), str(part.get_dtype()))
    return found
