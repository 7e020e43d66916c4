"""The artifact: a folder with graphs, tokenizer, config, and ``fusedbert.json``, the manifest that describes them.

The export stage writes it, the engine reads it, and this module is all that the two share. The contract:

* ``fusedbert.json`` lists every other file of the folder with its size and sha256, and ends with its own, so that damage
  is found. That is no signature: who can write all of the folder can write hashes that fit.
* A path in the manifest is relative, stays inside the folder, and is no link out of it; anything else is refused. The one
  link that passes is the hub cache's own, from a snapshot to its blobs.
* A folder is written to a temporary sibling and renamed whole: an interrupted export leaves no artifact.
* Nothing in it depends on the clock: the same checkpoint and versions give the same bytes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import ArtifactError, StorageError

MANIFEST = "fusedbert.json"
FORMAT = 1
NO_MANIFEST = 0  # the format of a manifest that was made up for another tool's export
PADDED, PACKED = "padded", "packed"
_NO_HASH = "0" * 64
PROBLEM_TYPES = ("regression", "single_label_classification", "multi_label_classification")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parity:
    """How far a graph is from the checkpoint, measured before the graph was kept.

    Attributes:
        reference: What it was held against, e.g. ``numpy float64``.
        texts: The number of check texts.
        max_abs_logit: Largest absolute difference of a logit.
        label_agreement: Share of check texts with the reference's label, 0 to 1.
        mean_abs_probability: Mean absolute difference of a probability.
        max_abs_probability: Largest absolute difference of a probability.
        measured_on: ``this graph``, or what stood in for it where its ops run on CUDA alone.
        scale: What the difference of a logit is relative to, where that is not 1. With several labels, a tenth of the largest
            logit of the check texts; of a regression or of a model with one logit, their ``spread``, and a share of what the
            output is summed of, for float32's own rounding.
        spread: Of a regression or of a model with one logit: from the least to the largest output of the check texts.
        rank_correlation: Of such a model: Spearman's, between the graph's outputs and the reference's; the least of them.
        mean_of_spread: Of such a model: mean absolute change of an output, as a share of ``spread``.
        max_of_spread: Likewise the largest change.
    """

    reference: str
    texts: int
    max_abs_logit: float
    label_agreement: float
    mean_abs_probability: float = 0.0
    max_abs_probability: float = 0.0
    measured_on: str = "this graph"
    scale: float | None = None
    spread: float | None = None
    rank_correlation: float | None = None
    mean_of_spread: float | None = None
    max_of_spread: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Variant:
    """One graph of the artifact and what is known about it.

    Attributes:
        file: Path inside the artifact, e.g. ``onnx/model.onnx``.
        target: ``cpu`` or ``cuda``.
        precision: ``fp32``, ``int8`` or ``fp16``.
        outputs: Graph outputs, ``("logits",)`` or ``("logits", "attentions", "queries", "keys")``.
        opset: Version of the default ONNX operator set.
        nodes: Number of nodes of each op type.
        fused_attention: Number of fused attention nodes.
        parity: The gate's figures.
        layout: ``padded``: inputs ``[batch, seq]`` as transformers feeds them. ``packed``: the tokens of all texts one
            after the other, with the plan of ``fusedbert.engine.run.packing``.
    """

    file: str
    target: str
    precision: str
    outputs: tuple[str, ...]
    opset: int
    nodes: Mapping[str, int]
    fused_attention: int
    parity: Parity
    layout: str = PADDED


@dataclasses.dataclass(frozen=True, kw_only=True)
class Golden:
    """A text with the logits of the reference, which the engine can replay on any machine."""

    text: str
    logits: tuple[float, ...]
    text_pair: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """Where the weights came from: hub id or folder name, revision, sha256 of each weight file."""

    id: str
    revision: str | None
    sha256: Mapping[str, str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
    """The content of ``fusedbert.json``; what is None or empty by default is written only where it says something.

    Attributes:
        source: Where the weights came from.
        created_with: Versions of the packages that made it.
        architecture: Hugging Face ``model_type``.
        problem_type: One of ``PROBLEM_TYPES``.
        labels: Names of the outputs, in their order; two may be the same.
        max_length: Tokens of a text at most.
        variants: The graphs.
        golden: Texts with the reference's logits.
        files: Size and sha256 of every other file of the folder.
        format: Version of this form.
        requires: For each graph what runs it: ``{"opset": 23, "onnxruntime": "1.23"}``, the least versions.
        function_to_apply: What turns logits into scores where that is not what ``problem_type`` implies: ``none`` or
            ``sigmoid``, as the checkpoint's own ``config.json`` says.
    """

    source: Source
    created_with: Mapping[str, str]
    architecture: str
    problem_type: str
    labels: tuple[str, ...]
    max_length: int
    variants: tuple[Variant, ...]
    golden: tuple[Golden, ...] = ()
    files: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    format: int = FORMAT
    requires: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    function_to_apply: str | None = None

    @property
    def verifiable(self) -> bool:
        """Whether it was read from an artifact; of another tool's export there is nothing to hold the files against."""
        return self.format != NO_MANIFEST

    def variant(
        self, *, target: str, precision: str, outputs: tuple[str, ...] = ("logits",), layout: str = PADDED
    ) -> Variant | None:
        """Return the graph for a target, precision and layout, or None where the artifact has none."""
        wanted = (target, precision, outputs, layout)
        for variant in self.variants:
            if (variant.target, variant.precision, variant.outputs, variant.layout) == wanted:
                return variant
        return None


def write_manifest(folder: Path, manifest: Manifest) -> Manifest:
    """Record size and sha256 of every file in ``folder`` and write ``fusedbert.json`` there.

    Returns:
        The manifest as written, its ``files`` filled.
    """
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    files = {path.relative_to(folder).as_posix(): {"sha256": sha256_of(path), "bytes": path.stat().st_size} for path in paths}
    manifest = dataclasses.replace(manifest, files=files)
    document = {"format": manifest.format, **_without_defaults(dataclasses.asdict(manifest)), "sha256": _NO_HASH}
    content = (json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
    head, _, tail = content.rpartition(_NO_HASH.encode())
    (folder / MANIFEST).write_bytes(head + hashlib.sha256(content).hexdigest().encode() + tail)
    return manifest


def _without_defaults(document: dict[str, Any]) -> dict[str, Any]:
    """Leave out what says nothing, so that a manifest without it is one that earlier versions read as well."""
    for variant in document["variants"]:
        variant["parity"] = {name: value for name, value in variant["parity"].items() if value is not None}
    return {name: value for name, value in document.items() if not (name in _OPTIONAL and not value)}


_OPTIONAL = ("requires", "function_to_apply")


def _is_whole(content: bytes, given: Any) -> bool:
    """Tell whether a manifest has the sha256 that it ends with: that of its bytes with zeros in the place of these 64."""
    if not isinstance(given, str) or len(given) != len(_NO_HASH) or not given.isascii():
        return False
    head, found, tail = content.rpartition(given.encode())
    return bool(found) and hashlib.sha256(head + _NO_HASH.encode() + tail).hexdigest() == given


def read_manifest(folder: Path) -> Manifest:
    """Read ``fusedbert.json`` and check its form and its own hash; the files it lists are checked by ``verify_files``.

    Raises:
        ArtifactError: The manifest is missing, damaged, of a newer format, or a part of it has the wrong form.
    """
    path = folder / MANIFEST
    try:
        content = path.read_bytes()
        document = json.loads(content.decode())
    except FileNotFoundError:
        raise ArtifactError(f"{folder} holds no {MANIFEST}: not an artifact; make one with fusedbert export") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ArtifactError(f"{path} cannot be read as JSON ({error}): export the checkpoint again") from None
    found = document.get("format") if isinstance(document, dict) else None
    if isinstance(found, int) and found > FORMAT:
        raise ArtifactError(f"{path} has format {found}, this version reads up to {FORMAT}: upgrade fusedbert")
    if found != FORMAT:
        raise ArtifactError(f"{path} has format {found!r}, expected {FORMAT}: export the checkpoint again")
    try:
        manifest = _parse(document)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        detail = f"{type(error).__name__}: {error}"
        raise ArtifactError(f"{path} does not have the form of a manifest ({detail}): export the checkpoint again") from None
    for name in {*manifest.files, *(variant.file for variant in manifest.variants)}:
        inside(folder, name)
    # A manifest that another tool wrote may go without its own hash; one whose hash was damaged has a key that nobody knows.
    unknown = document.keys() - {field.name for field in dataclasses.fields(Manifest)} - {"sha256"}
    if "sha256" not in document and unknown:
        raise ArtifactError(f"{path} has {sorted(unknown)} and no sha256 of its own: copy it again, or export again")
    if "sha256" in document and not _is_whole(content, document["sha256"]):
        raise ArtifactError(f"{path} is not as it was written (its sha256 differs): copy it again, or export again")
    return manifest


def _parse(document: dict[str, Any]) -> Manifest:
    variants = tuple(
        Variant(**{**entry, "outputs": tuple(entry["outputs"]), "parity": Parity(**entry["parity"])})
        for entry in document["variants"]
    )
    if document.get("function_to_apply") not in (None, "none", "sigmoid"):
        raise ValueError(f"function_to_apply is {document['function_to_apply']!r}, expected none or sigmoid")
    golden = tuple(Golden(**{**entry, "logits": tuple(map(float, entry["logits"]))}) for entry in document["golden"])
    labels = tuple(document["labels"])
    max_length = document["max_length"]
    if document["problem_type"] not in PROBLEM_TYPES:
        raise ValueError(f"problem_type is {document['problem_type']!r}, expected one of {', '.join(PROBLEM_TYPES)}")
    if not labels or not all(isinstance(label, str) for label in labels):
        raise ValueError("labels must be a list of strings")
    if not isinstance(max_length, int) or max_length < 3:
        raise ValueError(f"max_length is {max_length!r}, expected an integer from 3 up")
    for name, entry in document["files"].items():
        if not isinstance(entry["bytes"], int) or not isinstance(entry["sha256"], str):
            raise ValueError(f"files[{name!r}] needs bytes and sha256")
    for name, entry in document.get("requires", {}).items():
        if not isinstance(entry["opset"], int) or not isinstance(entry["onnxruntime"], str):
            raise ValueError(f"requires[{name!r}] needs opset and onnxruntime")
    known = {field.name for field in dataclasses.fields(Manifest)}
    rest = {name: value for name, value in document.items() if name in known}
    rest |= {"variants": variants, "golden": golden, "labels": labels, "source": Source(**document["source"])}
    return Manifest(**rest)


def inside(folder: Path, name: str) -> Path:
    """Return the path of an artifact's file, refusing a name that leads out of the folder.

    Raises:
        ArtifactError: The name is absolute, climbs with ``..``, or passes through a link that leaves the folder.
    """
    pure = PurePosixPath(name)
    path = folder / name
    if pure.is_absolute() or ".." in pure.parts or "\\" in name or "\0" in name or ":" in name or not pure.parts:
        raise ArtifactError(
            f"{folder / MANIFEST} names {name!r}, which is not a path inside the folder: do not use this artifact"
        )
    real = folder.resolve()
    target = path.resolve()
    if not target.is_relative_to(real) and not target.is_relative_to(_blobs(real) or real):
        raise ArtifactError(f"{path} is a link out of its folder: do not use it, or copy the file in its place")
    return path


def _blobs(folder: Path) -> Path | None:
    """Return where the files of a snapshot of the hub's cache really are: models--ORG--NAME/{blobs,snapshots/COMMIT}."""
    for parent in folder.parents:
        if parent.name == "snapshots" and parent.parent.name.startswith("models--"):
            return parent.parent / "blobs"
    return None


def verify_files(folder: Path, manifest: Manifest, names: tuple[str, ...] | None = None) -> None:
    """Check size and sha256 of the artifact's files against the manifest.

    Args:
        folder: The artifact.
        manifest: Its manifest.
        names: Paths to check; all that the manifest lists where None.

    Raises:
        ArtifactError: A file is missing, not listed, of another size, or of other content; the message names it.
    """
    for name in manifest.files if names is None else names:
        path = inside(folder, name)
        if name not in manifest.files:
            raise ArtifactError(f"{path} is not listed in {MANIFEST}: export the checkpoint again")
        expected = manifest.files[name]
        if not path.is_file():
            raise ArtifactError(f"{path} is missing: export the checkpoint again")
        if path.stat().st_size != expected["bytes"]:
            raise ArtifactError(
                f"{path} has {path.stat().st_size} bytes, the manifest says {expected['bytes']}: copy or export it again"
            )
        if sha256_of(path) != expected["sha256"]:
            raise ArtifactError(f"{path} does not have the sha256 that the manifest gives: copy or export it again")


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file in hexadecimal, read in pieces.

    Raises:
        StorageError: The file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror or error}") from None


@contextlib.contextmanager
def staged_folder(output: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield an empty temporary sibling of ``output`` and rename it to ``output`` when the block ends well.

    Parents are made. Where the block raises, the sibling is removed and ``output`` stays as it was. An existing
    ``output`` is an error unless ``replace``; it is then kept until the new folder stands complete beside it.

    Raises:
        StorageError: The folder exists, cannot be made, or the disk is full.
    """
    if os.path.lexists(output) and not replace and not (output.is_dir() and not any(output.iterdir())):
        raise StorageError(f"{output} exists already: choose another folder, or replace it with --force")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(prefix=f".{output.name}.", suffix=".part", dir=output.parent))
        stage.chmod(0o755)
    except OSError as error:
        raise StorageError(f"{output} cannot be written: {error.strerror or error}") from None
    try:
        yield stage
        _swap(stage, output)
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError(f"{output} could not be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _swap(stage: Path, output: Path) -> None:
    """Rename ``stage`` to ``output``; a folder that stands there is moved aside first and removed last."""
    if not os.path.lexists(output) or (output.is_dir() and not output.is_symlink() and not any(output.iterdir())):
        stage.rename(output)  # rename(2) replaces an empty folder
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{output.name}.", suffix=".old", dir=output.parent)) / "old"
    output.rename(aside)
    try:
        stage.rename(output)
    except OSError:
        aside.rename(output)
        raise
    finally:
        shutil.rmtree(aside.parent, ignore_errors=True)
