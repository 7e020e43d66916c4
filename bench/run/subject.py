"""What is measured: MODEL as a user names it, found once as an artifact for us and a checkpoint for the others."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fusedbert.engine.artifact import MANIFEST, Manifest, read_manifest
from fusedbert.engine.errors import ArtifactError, OptionError
from fusedbert.engine.hardware.cpu import Machine, inspect_machine
from fusedbert.engine.hardware.device import CUDA, choose, import_onnxruntime, inspect_offer
from fusedbert.engine.load.cache import cache_root, file_hash
from fusedbert.engine.load.resolve import download, embedded_checkpoint, resolve_model
from fusedbert.engine.load.select import select_variant
from fusedbert.engine.options import Options, Precision

from ..engines.shapes import Shape

# Names of the same three sizes in the families that we know.
_LAYERS = ("num_hidden_layers", "n_layers")
_HIDDEN = ("hidden_size", "dim")
_INTERMEDIATE = ("intermediate_size", "hidden_dim")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Size:
    """The sizes that the work of an encoder follows from.

    Attributes:
        layers: Encoder layers.
        hidden: Width of a token's vector.
        intermediate: Width inside the feed-forward.
    """

    layers: int
    hidden: int
    intermediate: int

    def flops(self, shape: Shape) -> float:
        """Count the floating point operations of a batch, a multiplication and an addition each counted.

        For ``T`` tokens in all, ``n`` in each sequence, hidden width ``h`` and intermediate width ``i``, a layer takes
        ``8 T h^2`` for query, key, value and output, ``4 T n h`` for attention's two products, ``4 T h i`` for the
        feed-forward: with ``i = 4h`` that is ``24 T h^2 + 4 T n h``. The head adds ``2 h^2`` a sequence. Embeddings, norms and
        activations are left out, and so is that an engine may skip work which does not reach the answer: it then
        comes out nearer to the ceiling, or above it, and is seen to.
        """
        tokens = shape.batch * shape.tokens
        layer = 8 * self.hidden**2 + 4 * shape.tokens * self.hidden + 4 * self.hidden * self.intermediate
        return float(self.layers * tokens * layer + 2 * shape.batch * self.hidden**2)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subject:
    """A model under measurement.

    Attributes:
        artifact: The artifact's folder.
        checkpoint: The folder of the checkpoint that it was made from, or None where that is not known.
        manifest: The artifact's.
        size: For the share of the ceiling; None where config.json does not tell.
        device: ``cpu`` or ``cuda``.
        index: Number of the CUDA device.
        threads: Threads that every engine gets.
        machine: What the machine offers.
    """

    artifact: Path
    checkpoint: Path | None
    manifest: Manifest
    size: Size | None
    device: str
    index: int
    threads: int
    machine: Machine

    def ours(self, precision: Precision, *, both: bool) -> tuple[str, ...]:
        """Name our contenders.

        Args:
            precision: What the user asked for.
            both: Whether ``auto`` on a CPU means every precision of the artifact, and not the one that it would choose.

        Raises:
            OptionError: The artifact has no such graph.
        """
        if both and precision is Precision.AUTO and self.device == "cpu":
            found = [each for each in ("fp32", "int8") if self.manifest.variant(target="cpu", precision=each)]
        else:
            found = [
                select_variant(self.manifest, target=self.device, precision=precision, machine=self.machine).variant.precision
            ]
        return tuple(f"fusedbert-{each}" for each in found)

    def describe(self) -> dict[str, Any]:
        """Return the document's ``model``."""
        return {
            "name": self.manifest.source.id,
            "source": dict(self.manifest.source.sha256),
            "architecture": self.manifest.architecture,
            "labels": list(self.manifest.labels),
            "max_length": self.manifest.max_length,
            "size": None if self.size is None else dataclasses.asdict(self.size),
        }


def find_subject(model: str | None, checkpoint: Path | None, options: Options) -> Subject:
    """Find or make the artifact of MODEL, with all graphs for the device, and the checkpoint behind it.

    Args:
        model: MODEL; None for the embedded default.
        checkpoint: The checkpoint of an artifact, where the user gave one.
        options: Device and threads, among others.

    Raises:
        FusedBertError: MODEL, the device or the checkpoint cannot be had; see ``fusedbert.engine.load.resolve``.
        OptionError: The checkpoint is not the one that the artifact was made from.
    """
    choice = choose(options.device, inspect_offer(import_onnxruntime()))
    device = "cuda" if choice.provider == CUDA else "cpu"
    folder = resolve_model(model, options, "all" if device == "cuda" else "cpu")
    manifest = read_manifest(folder)
    source = _checkpoint(model, options)
    if checkpoint is not None:
        source = checkpoint.absolute()
        _compare(source, manifest, folder, options)
    machine = inspect_machine()
    return Subject(
        artifact=folder.absolute(),
        checkpoint=source,
        manifest=manifest,
        size=read_size(folder),
        device=device,
        index=choice.index,
        threads=options.threads or machine.cores,
        machine=machine,
    )


def _checkpoint(model: str | None, options: Options) -> Path | None:
    """Return the checkpoint's folder where MODEL names one, or None where it is an artifact."""
    if model is None:
        return embedded_checkpoint()
    path = Path(model).expanduser()
    if path.is_dir():
        return None if (path / MANIFEST).is_file() else path.absolute()
    return download(model, options)  # resolved before, so this reads the hub's cache


def _compare(checkpoint: Path, manifest: Manifest, artifact: Path, options: Options) -> None:
    """Refuse a checkpoint with other weights than the artifact's: two different models would be compared."""
    root = cache_root(options.cache_dir)
    for name, digest in manifest.source.sha256.items():
        file = checkpoint / name
        if not file.is_file() or file_hash(file, root) != digest:
            raise OptionError(f"{file} is not what {artifact} was made from: give the checkpoint of {manifest.source.id}")


def need_checkpoint(subject: Subject, names: Sequence[str], model: str | None) -> Path:
    """Return the checkpoint for contenders that convert it themselves.

    Raises:
        OptionError: MODEL is an artifact and nothing says which checkpoint it was made from.
    """
    if subject.checkpoint is None:
        raise OptionError(
            f"{names[0]} converts a checkpoint, and {model} is an artifact: "
            "give the checkpoint as MODEL, or as --checkpoint FOLDER"
        )
    return subject.checkpoint


def read_size(folder: Path) -> Size | None:
    """Read the sizes from ``config.json``; None where it does not have them.

    Raises:
        ArtifactError: It is not JSON.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} cannot be read ({error}): export the checkpoint again") from None
    sizes = [_first(config, names) for names in (_LAYERS, _HIDDEN, _INTERMEDIATE)]
    if any(size is None for size in sizes):
        return None
    layers, hidden, intermediate = (int(size or 0) for size in sizes)
    return Size(layers=layers, hidden=hidden, intermediate=intermediate)


def _first(config: Mapping[str, Any], names: Sequence[str]) -> int | None:
    return next((config[name] for name in names if isinstance(config.get(name), int)), None)
