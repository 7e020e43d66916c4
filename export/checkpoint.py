"""Reading a checkpoint's weights: named tensors from safetensors, all of them checked before any is used.

Weights come from ``model.safetensors``, or from the shards that ``model.safetensors.index.json`` lists. A pickle
(``pytorch_model.bin``) can run code when it is opened, so it is refused with the command that converts it.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fusedbert.engine.artifact import sha256_of
from fusedbert.engine.errors import CheckpointError, MissingDependencyError
from fusedbert.export.architecture import Architecture
from fusedbert.export.layouts import Layout

Array = NDArray[np.float32]
FLOATS = ("F64", "F32", "F16", "BF16")


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
        CheckpointError: No safetensors, a damaged file, or tensors that are missing, unknown or misshapen: all are listed.
    """

    def __init__(self, folder: Path, architecture: Architecture, layout: Layout) -> None:
        self.architecture = architecture
        self.files = weight_files(folder)
        self._found = dict(_headers(self.files))
        self._names, self.labels = _match(self._found, architecture, layout)

    def sha256(self) -> dict[str, str]:
        """Return the sha256 of each weight file."""
        return {path.name: sha256_of(path) for path in self.files}

    def read(self, name: str) -> Array:
        """Read one tensor, by our name, as float32.

        Raises:
            CheckpointError: It holds a number that is not finite.
        """
        theirs = self._names[name]
        path, _ = self._found[theirs]
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
        except (OSError, ValueError, KeyError, AttributeError, TypeError):
            raise CheckpointError(f"{index} cannot be read as an index of shards: save the checkpoint again") from None
        bad = [name for name in names if Path(name).name != name or not (folder / name).is_file()]
        if bad or not names:
            raise CheckpointError(f"{index} names shards that are not in the folder: {', '.join(bad) or 'none at all'}")
        return tuple(folder / name for name in names)
    pickles = sorted(path.name for path in folder.glob("*.bin")) + sorted(path.name for path in folder.glob("*.pt*"))
    if pickles:
        raise CheckpointError(
            f"{folder} holds its weights as a pickle ({pickles[0]}), which can run code when opened: "
            'where you trust it, convert it with python -c "from transformers import AutoModelForSequenceClassification as M; '
            f"M.from_pretrained('{folder}').save_pretrained('{folder}', safe_serialization=True)\""
        )
    raise CheckpointError(f"{folder} holds no model.safetensors: point to a folder that save_pretrained wrote")


def _open(path: Path) -> Any:
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError:
        raise MissingDependencyError.of("safetensors", "export", "read a checkpoint") from None
    try:
        return safe_open(path, framework="numpy")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read as safetensors ({error}): download or save it again") from None


def _headers(files: tuple[Path, ...]) -> Iterator[tuple[str, tuple[Path, tuple[int, ...]]]]:
    """List name, file and shape of each tensor without reading its data."""
    for path in files:
        with _open(path) as file:
            for name in file.keys():  # noqa: SIM118 (no mapping)
                part = file.get_slice(name)
                kind = part.get_dtype()
                if kind not in FLOATS and not re.search(r"_ids$", name):
                    raise CheckpointError(f"tensor {name} in {path} is {kind}, expected one of {', '.join(FLOATS)}")
                yield name, (path, tuple(part.get_shape()))


def expected_tensors(a: Architecture, layout: Layout) -> dict[str, tuple[str, tuple[int, ...]]]:
    """List our names with the checkpoint's name, ``^`` before it where it lies inside the prefix, and the shape.

    The classifier's rows are its labels: ``-1`` stands for their number, which the tensor itself tells.
    """
    hidden, inner, width = a.hidden_size, a.intermediate_size, a.embedding_size
    table = {
        "word": (a.vocab_size, width),
        "position": (a.positions, width),
        "token_type": (a.token_types, width),
        "embedding_norm": (width,),
        "embedding_projection": (hidden, width),
        "query": (hidden, hidden),
        "key": (hidden, hidden),
        "value": (hidden, hidden),
        "attention_output": (hidden, hidden),
        "attention_norm": (hidden,),
        "intermediate": (inner, hidden),
        "output": (hidden, inner),
        "output_norm": (hidden,),
        "head_dense": (hidden, hidden),
        "classifier": (-1, hidden),
    }
    parts = {name: (f"^{theirs}", table[name]) for name, theirs in layout.embeddings.items()}
    if width == hidden:
        parts.pop("embedding_projection", None)
    for i in range(a.layers):
        parts |= {f"layer.{i}.{name}": (f"^{theirs.format(i=i)}", table[name]) for name, theirs in layout.layer.items()}
    parts |= {name: (theirs, table[name]) for name, theirs in layout.head.items()}
    expected: dict[str, tuple[str, tuple[int, ...]]] = {}
    for name, (theirs, shape) in parts.items():
        expected[f"{name}.weight"] = (f"{theirs}.weight", shape)
        if name not in ("word", "position", "token_type"):
            expected[f"{name}.bias"] = (f"{theirs}.bias", shape[:1])
    return expected


def _match(
    found: Mapping[str, tuple[Path, tuple[int, ...]]], architecture: Architecture, layout: Layout
) -> tuple[dict[str, str], int]:
    """Find the checkpoint's name of each tensor of ours; say in one error all that does not fit."""
    names: dict[str, str] = {}
    faults: list[str] = []
    labels = 0
    for ours, (pattern, shape) in expected_tensors(architecture, layout).items():
        candidates = _spellings(pattern, layout.prefix)
        theirs = next((name for name in candidates if name in found), None)
        if theirs is None:
            faults.append(f"missing {candidates[0]} {list(shape)}".replace("-1", "labels"))
            continue
        names[ours] = theirs
        actual = found[theirs][1]
        if ours == "classifier.weight" and len(actual) == 2 and actual[0] >= 1:
            labels = actual[0]
        shape = tuple(labels if size == -1 else size for size in shape)
        if actual != shape:
            faults.append(f"{theirs} is {list(actual)}, expected {list(shape)}")
    used = set(names.values())
    unused = [name for name in found if name not in used]
    faults += [f"unknown {name}" for name in unused if not any(re.search(pattern, name) for pattern in layout.ignored)]
    if faults:
        where = next(iter(found.values()))[0].parent if found else "the checkpoint"
        raise CheckpointError(
            f"{where} does not hold a {architecture.family} classifier as its config.json says: {'; '.join(faults)}; "
            "was it fine-tuned for sequence classification, and is config.json the one saved with it?"
        )
    return names, labels


def _spellings(pattern: str, prefix: str) -> list[str]:
    """List the names under which checkpoints keep a tensor: with the prefix or without, new or old norm names."""
    bare = pattern.removeprefix("^")
    names = [prefix + bare, bare] if pattern.startswith("^") else [bare]
    old = [name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta") for name in names]
    return [*names, *(name for name in old if name not in names)]
