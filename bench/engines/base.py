"""Base of the engines under measurement, their entry and their job, and the cache of converted checkpoints.

A benchmark makes an engine from an entry of the registry and a job, calls ``prepare`` and ``load``, and times ``logits``:
from token ids in memory to logits in memory, with all copies, so an asynchronous engine waits there for its result.
Benchmarks that begin with texts time ``texts``.

An engine's file imports at the top only what all environments have: numpy, tokenizers and the standard library.
"""

from __future__ import annotations

import abc
import dataclasses
import enum
import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fusedbert.engine.artifact.staging import staged_folder
from fusedbert.engine.errors import CheckpointError, ClosedError, InputError
from fusedbert.engine.hardware.packages import versions
from fusedbert.engine.hardware.storage import cache_root, cached_sha256, locked

from .batches import Batch, Logits, Shape, TextBatches
from .environments import bench_folder, stage_folder

RANKED = 32  # pairs of a batch, CrossEncoder's default
_WEIGHTS = (".safetensors", ".bin", ".onnx", ".onnx_data")


class Tolerance(enum.StrEnum):
    """Required closeness to the reference of an engine's logits: exact, rounded to 16 bits, or quantized."""

    FP32 = "fp32"
    REDUCED = "reduced"
    INT8 = "int8"


@dataclasses.dataclass(frozen=True, kw_only=True)
class EngineSpec:
    """An entry of the registry."""

    name: str  # on the command line and in documents
    title: str  # in tables and pages
    engine: str  # its group: all precisions and forms of one engine
    precision: str  # of most of its arithmetic: fp32, bf16, fp16, int8 or int8+bf16
    environment: str
    implementation: str  # file:Class in fusedbert.bench.engines
    devices: tuple[str, ...]  # cpu, cuda, or both
    per_shape: bool = False  # compiled, so at its best in a process that sees one shape only: `bench latency` gives it these

    @property
    def is_fusedbert(self) -> bool:
        """True for fusedbert's entries, which need only an artifact; the others convert the checkpoint."""
        return self.engine == "fusedbert"

    @property
    def tolerance(self) -> Tolerance:
        """Required exactness of its logits."""
        if self.precision == "fp32":
            return Tolerance.FP32
        return Tolerance.INT8 if self.precision.startswith("int8") else Tolerance.REDUCED


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """The model and settings that an engine runs with: plain values, sent to its process as JSON."""

    checkpoint: Path | None
    artifact: Path  # fusedbert's export of the checkpoint; every engine uses its tokenizer.json
    work: Path  # for converted checkpoints; kept between runs
    device: str  # cpu or cuda
    threads: int  # of one run on the CPU
    max_length: int  # tokens of a text, special tokens included
    calibration: Path | None = None  # texts, one a line, for engines that calibrate
    shape: Shape | None = None  # the only one of the process, for an engine that is compiled; None: any may come

    @classmethod
    def make(cls, *, checkpoint: Path | None, artifact: Path, device: str, threads: int, max_length: int) -> Job:
        """Make a job with the folder for conversions, and the calibration texts of fusedbert's own int8 export.

        Raises:
            CheckpointError: The folder holds no weights.
        """
        return cls(
            checkpoint=checkpoint and checkpoint.absolute(),
            artifact=artifact.absolute(),
            work=bench_folder() / "converted" / _checkpoint_key(checkpoint or artifact),
            device=device,
            threads=threads,
            max_length=max_length,
            calibration=stage_folder("export") / "calibration.txt",
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {key: str(value) if isinstance(value, Path) else value for key, value in dataclasses.asdict(self).items()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Job:
        """Read the output of ``to_json``."""
        paths = ("checkpoint", "artifact", "work", "calibration")
        shape = values["shape"] and Shape(**values["shape"])
        return cls(**{**values, **{name: values[name] and Path(values[name]) for name in paths}, "shape": shape})


class Engine(abc.ABC):
    """An engine with a model. A subclass implements ``load``, which sets ``self._model``, and ``logits``."""

    packages: tuple[str, ...] = ()  # distributions whose versions are recorded, the engine's own first

    def __init__(self, spec: EngineSpec, job: Job) -> None:
        self.spec, self.job, self.name = spec, job, spec.name
        self._model: Any = None

    @property
    def checkpoint(self) -> Path:
        """The checkpoint's folder; a ``CheckpointError`` if the job has none."""
        if self.job.checkpoint is None:
            raise CheckpointError(f"{self.name} is converted from a checkpoint, and none is known: give its folder as MODEL")
        return self.job.checkpoint

    @functools.cached_property
    def folder(self) -> Path:
        """The folder that ``load`` reads: the checkpoint itself, unless a subclass converts it at the first access."""
        return self.checkpoint

    def converted(self, name: str, make: Callable[[Path], object], *depends_on: str) -> Path:
        """Return the folder of a conversion, making it if it is missing; of several processes one makes it and the rest wait.

        Args:
            name: The conversion's name.
            make: Writes into an empty folder, which is kept whole or not at all.
            depends_on: Whatever changes the result besides the checkpoint and the packages: options, hashes of texts.

        Raises:
            StorageError: The folder cannot be written.
        """
        installed = sorted(f"{package} {version}" for package, version in versions(self.packages).items())
        key = hashlib.sha256("\n".join([*installed, *depends_on]).encode()).hexdigest()[:12]
        folder = self.job.work / f"{name}-{key}"
        if not folder.is_dir():
            with locked(self.job.work / f"{folder.name}.lock"):
                if not folder.is_dir():
                    with staged_folder(folder) as stage:
                        make(stage)
        return folder

    def prepare(self) -> None:
        """Convert the checkpoint, unless an earlier run did. Not timed.

        Raises:
            FusedBertError: The checkpoint cannot be converted.
        """
        _ = self.folder

    @abc.abstractmethod
    def load(self) -> None:
        """Make the engine ready to run; called once, before anything is timed.

        Raises:
            FusedBertError: The model, the device or the precision is not available.
        """

    @abc.abstractmethod
    def logits(self, batch: Batch) -> Logits:
        """Compute the logits of a batch, float32 [batch, labels]; rows may be padded on the right."""

    def texts(self, texts: Sequence[str], *, batch_size: int, max_length: int) -> Logits:
        """Compute the logits of texts, tokenizing included, float32 [texts, labels], in the order of the texts.

        Args:
            texts: One or more; they run in batches of similar length.
            batch_size: Texts of a batch; an engine that plans its own batches ignores it.
            max_length: Tokens at which a text is cut, special tokens included.

        Raises:
            InputError: ``texts`` is empty.
        """
        if not texts:
            raise InputError("no texts to run: give one or more")
        rows = self._text_batches.encode(texts, max_length=max_length)
        order = np.argsort([len(row.ids) for row in rows], kind="stable")
        parts = (order[start : start + batch_size] for start in range(0, len(rows), batch_size))
        by_length = np.concatenate([self.logits(self._text_batches.pad([rows[i] for i in part])) for part in parts])
        return by_length[np.argsort(order)]  # [texts, labels]

    def rank(self, query: str, documents: Sequence[str]) -> list[int]:
        """Return the documents' places, the best for the query first, by the last logit less the first one of several.

        Engines without such a call tokenize pairs and run them in batches of similar length, as CrossEncoder does.
        """
        pairs = [(query, document) for document in documents]
        rows = self._text_batches.encode(pairs, max_length=self.job.max_length)
        order = np.argsort([-len(row.ids) for row in rows], kind="stable")
        parts = [order[start : start + RANKED] for start in range(0, len(rows), RANKED)]
        found = np.concatenate([self.logits(self._text_batches.pad([rows[i] for i in part])) for part in parts])
        logits = found[np.argsort(order)]  # [documents, labels]
        scores = logits[:, -1] - logits[:, 0] if logits.shape[1] > 1 else logits[:, 0]
        best: list[int] = np.argsort(-scores, kind="stable").tolist()
        return best

    @functools.cached_property
    def _text_batches(self) -> TextBatches:
        return TextBatches.read(self.job.artifact)

    def describe(self) -> Mapping[str, Any]:
        """Describe what was loaded, as plain values for JSON; a subclass adds to it."""
        found = versions(self.packages)
        return {
            "engine": f"{self.packages[0]} {found.get(self.packages[0], '')}".rstrip(),
            "precision": self.spec.precision,
            "device": self.job.device,
            "threads": self.job.threads,
            "versions": found,
        }

    def close(self) -> None:
        """Free the model; ``load`` is not called again."""
        self._model = None

    def _open(self) -> Any:
        if self._model is None:
            raise ClosedError(f"{self.name} is not loaded: call load() first")
        return self._model


def _checkpoint_key(folder: Path) -> str:
    """Return a hash of a checkpoint's config, tokenizer and weights."""
    files = sorted(path for path in folder.rglob("*") if path.suffix in (*_WEIGHTS, ".json", ".txt") and path.is_file())
    if not any(path.suffix in _WEIGHTS for path in files):
        raise CheckpointError(f"{folder} holds no weights: give the folder of a checkpoint")
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.relative_to(folder).as_posix()} {cached_sha256(path, cache_root())}\n".encode())
    return digest.hexdigest()[:24]
