"""Weights of a checkpoint: tensors found by name and shape, all checked before any is used."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fusedbert.engine.errors import CheckpointError

from . import IgnoredWarning
from .architecture import Architecture, HeadStep
from .layouts import Layout
from .relative import BIAS, C2P, P2C
from .tensors import headers, ignored, match, open_tensors, weight_files

Array = NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class Dense:
    """A dense layer ``y = x W + b``: ``weight`` ``[in, out]``, ``bias`` ``[out]``."""

    weight: NDArray[Any]
    bias: Array

    def columns(self, order: NDArray[np.intp]) -> Self:
        """Return the layer with its outputs in another order."""
        return dataclasses.replace(self, weight=self.weight[:, order], bias=self.bias[order])

    def filled(self, count: int) -> Self:
        """Return the layer with ``count`` more outputs, of zeros."""
        return dataclasses.replace(self, weight=np.pad(self.weight, ((0, 0), (0, count))), bias=np.pad(self.bias, (0, count)))

    def beside(self, other: Dense) -> Self:
        """Return the layer with the outputs of ``other`` after its own."""
        weight = np.concatenate([self.weight, other.weight], axis=1)
        return dataclasses.replace(self, weight=weight, bias=np.concatenate([self.bias, other.bias]))


@dataclasses.dataclass(frozen=True)
class Norm:
    """A layer normalization: ``weight`` is gamma and ``bias`` is beta, each ``[width]``."""

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
    position_key: NDArray[Any] | None = None  # for queries: vectors of distances, ``[heads, columns, d]``, see ``relative.py``
    position_query: NDArray[Any] | None = None  # for keys
    position_bias: NDArray[Any] | None = None  # numbers, ``[heads, columns]``
    gate: Dense | None = None  # a product next to ``intermediate``, by which its activation is multiplied (GLU)


@dataclasses.dataclass(frozen=True)
class Embeddings:
    """Tables ``[rows, embedding_size]``, their normalization, and small ELECTRA's projection to ``hidden_size``."""

    word: NDArray[Any]
    position: Array | None
    token_type: Array | None
    norm: Norm
    projection: Dense | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Head:
    """A classifier on the encoder, with the steps before it; ``name`` is empty for the only one."""

    name: str
    steps: tuple[HeadStep, ...]
    weights: Weights

    @property
    def classifier(self) -> Dense:
        """The dense layer that gives the logits."""
        return self.weights.dense("classifier")


class Weights:
    """The tensors of a checkpoint under our names, read from disk at each access.

    Raises:
        CheckpointError: There is no safetensors file, one is damaged, or tensors are missing or misshapen.

    Warns:
        IgnoredWarning: There are tensors that the model does not use; transformers ignores them too.
    """

    def __init__(self, folder: Path, architecture: Architecture, layout: Layout) -> None:
        self.architecture = architecture
        self.layout = layout
        self._heads: tuple[Head, ...] = ()
        self.files = weight_files(folder)
        self.tensors = headers(self.files)
        self._names, self.labels, unused = match(self.tensors, architecture, layout, folder)
        if unused:
            warnings.warn(ignored(folder, architecture.family, unused), IgnoredWarning, stacklevel=2)

    @property
    def heads(self) -> tuple[Head, ...]:
        """Classifiers that read the last layer."""
        return self._heads or (Head(name="", steps=self.architecture.head, weights=self),)

    @property
    def encoder(self) -> tuple[str, ...]:
        """Our names of all tensors but the head's."""
        return tuple(name for name in self._names if name.rpartition(".")[0] not in self.layout.head)

    def join(self, heads: tuple[Head, ...]) -> None:
        """Take several heads in place of the one that the checkpoint has."""
        self._heads = heads

    def find(self, name: str) -> tuple[Path, str] | None:
        """Return the file and the name there of one of our names; None for a bias that the model has not."""
        key = self._names.get(name)
        return None if key is None else (self.tensors[key].file, key)

    def read(self, name: str) -> Array:
        """Read one tensor as float32; raise ``CheckpointError`` if it holds NaN or infinity."""
        found = self.find(name)
        if found is None:
            raise KeyError(name)
        path, key = found
        with open_tensors(path) as file:
            tensor = np.ascontiguousarray(file.get_tensor(key), dtype=np.float32)
        if not np.isfinite(tensor).all():
            raise CheckpointError(f"tensor {key} in {path} holds NaN or infinity: the checkpoint is damaged")
        return tensor

    def dense(self, name: str) -> Dense:
        """Read a dense layer as ``[in, out]``; PyTorch has ``[out, in]``. A bias that the model has not is zeros."""
        weight = self.read(f"{name}.weight")
        return Dense(np.ascontiguousarray(weight.T), self._bias(name, len(weight)))

    def norm(self, name: str) -> Norm:
        """Read a layer normalization; a bias that the model has not is zeros."""
        weight = self.read(f"{name}.weight")
        return Norm(weight, self._bias(name, len(weight)))

    def _bias(self, name: str, width: int) -> Array:
        return np.zeros(width, np.float32) if self.find(f"{name}.bias") is None else self.read(f"{name}.bias")

    def _parts(self, at: str) -> dict[str, Dense]:
        """Read the dense layers of layer ``at`` whose weights are one tensor, by name."""
        found: dict[str, Dense] = {}
        for whole, names in self.layout.joined.items():
            joined = self.dense(at + whole)
            weights = np.split(joined.weight, len(names), axis=1)
            biases = np.split(joined.bias, len(names))
            parts = (Dense(np.ascontiguousarray(weight), bias) for weight, bias in zip(weights, biases, strict=True))
            found |= dict(zip(names, parts, strict=True))
        return found

    def embeddings(self) -> Embeddings:
        """Read the embedding tables."""
        tables = Embeddings(
            word=self.read("word.weight"),
            position=self.read("position.weight") if "position" in self.layout.embeddings else None,
            token_type=self.read("token_type.weight") if self.architecture.token_types else None,
            norm=self.norm("embedding_norm"),
            projection=self.dense("embedding_projection") if "embedding_projection.weight" in self._names else None,
        )
        return _projected(tables) if self.layout.projection_first else tables

    def layer(self, i: int) -> Layer:
        """Read encoder layer ``i``."""
        at, parts = f"layer.{i}.", self._parts(f"layer.{i}.")

        def dense(name: str) -> Dense:
            return parts[name] if name in parts else self.dense(at + name)

        return Layer(
            query=dense("query"),
            key=dense("key"),
            value=dense("value"),
            attention_output=dense("attention_output"),
            attention_norm=self.norm(at + "attention_norm"),
            intermediate=dense("intermediate"),
            output=dense("output"),
            output_norm=self.norm(at + "output_norm"),
            gate=parts.get("gate"),
            **self._positions(at, dense),
        )

    def _positions(self, at: str, dense: Callable[[str], Dense]) -> dict[str, NDArray[np.float64]]:
        """Compute the constants of relative positions of layer ``at``, in float64."""
        a, relative = self.architecture, self.architecture.relative
        if relative is None:
            return {}
        rows, _ = relative.columns()
        table = self.read("relative.weight").astype(np.float64)
        if BIAS in relative.terms:
            return {"position_bias": np.ascontiguousarray(table[rows].T)}
        if relative.normalized:
            norm = self.norm("relative_norm")
            table -= table.mean(axis=1, keepdims=True)
            table /= np.sqrt((table**2).mean(axis=1, keepdims=True) + a.norm_eps)
            table = table * norm.weight + norm.bias
        found = {}
        for term, name, own in ((C2P, "key", "position_key"), (P2C, "query", "position_query")):
            if term in relative.terms:
                projection = dense(name) if relative.shared else self.dense(at + own)
                vectors = table[rows] @ projection.weight.astype(np.float64) + projection.bias  # [columns, hidden]
                by_head = vectors.reshape(len(rows), a.heads, a.head_size).transpose(1, 0, 2)
                found[own] = np.ascontiguousarray(by_head)
        return found


def _projected(tables: Embeddings) -> Embeddings:
    """Project the tables, in place of their sum."""
    if tables.projection is None:
        return tables
    by = tables.projection.weight.astype(np.float64)
    word, position, token_type = (
        None if table is None else (table.astype(np.float64) @ by).astype(np.float32)
        for table in (tables.word, tables.position, tables.token_type)
    )
    assert word is not None
    return dataclasses.replace(tables, word=word, position=position, token_type=token_type, projection=None)
