"""The artifact: a folder with graphs, tokenizer, config, and ``fusedbert.json``, the manifest that describes them.

It lists every other file with size and SHA-256, and ends with its own hash, which detects damage but is not a signature. Its
paths stay inside the folder, except for a hub snapshot's links to its blobs. The same checkpoint and versions give the same
bytes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import ArtifactError
from ..hardware.storage import inside, sha256_of, staged_folder

__all__ = [
    "FORMAT",
    "MANIFEST",
    "NO_MANIFEST",
    "PACKED",
    "PADDED",
    "PROBLEM_TYPES",
    "Golden",
    "Manifest",
    "Parity",
    "Source",
    "Variant",
    "inside",
    "read_manifest",
    "sha256_of",
    "staged_folder",
    "write_manifest",
]

MANIFEST = "fusedbert.json"
FORMAT = 1
NO_MANIFEST = 0  # the format of a manifest that was derived from another tool's export
PADDED, PACKED = "padded", "packed"
PROBLEM_TYPES = ("regression", "single_label_classification", "multi_label_classification")
_NO_HASH = "0" * 64
_OPTIONAL = ("requires", "function_to_apply")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parity:
    """A graph's distance from the checkpoint, measured at export on check texts.

    Attributes:
        reference: Implementation it was compared with, e.g. ``numpy float64``.
        texts: Number of check texts.
        max_abs_logit: Largest absolute difference of a logit.
        label_agreement: Share of texts with the reference's label, 0 to 1.
        mean_abs_probability: Mean absolute difference of a probability.
        max_abs_probability: Largest of them.
        measured_on: ``this graph``, or the stand-in for a graph that runs only on CUDA.
        scale: Unit of a logit's difference, if not 1: a tenth of the largest logit; without several labels, ``spread`` plus a
            share of the output's summands, for float32's rounding.
        spread: Largest minus smallest output. Like the rest, only of a regression or of a model with one logit.
        rank_correlation: Spearman's, with the reference's outputs; the smallest of them.
        mean_of_spread: Mean absolute change of an output, as a share of ``spread``.
        max_of_spread: Largest change, likewise.
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
    """One graph of the artifact.

    Attributes:
        file: Path inside the artifact, e.g. ``onnx/model.onnx``.
        target: ``cpu`` or ``cuda``.
        precision: ``fp32``, ``int8`` or ``fp16``.
        outputs: ``("logits",)`` or ``("logits", "attentions", "queries", "keys")``.
        opset: Version of the default ONNX operator set.
        nodes: Number of nodes by op type.
        fused_attention: Number of fused attention nodes.
        parity: The gate's figures.
        layout: ``padded``, inputs ``[batch, seq]``, or ``packed``, see ``engine.run.batches.pack``.
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
    """A text with the reference's logits, which the engine replays."""

    text: str
    logits: tuple[float, ...]
    text_pair: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """The origin of the weights: hub id or folder name, revision, SHA-256 of each weight file."""

    id: str
    revision: str | None
    sha256: Mapping[str, str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
    """The content of ``fusedbert.json``.

    Attributes:
        source: Origin of the weights.
        created_with: Versions of the packages that made it.
        architecture: Hugging Face ``model_type``.
        problem_type: One of ``PROBLEM_TYPES``.
        labels: Names of the outputs, in their order; two may be the same.
        max_length: Maximum tokens of a text.
        variants: The graphs.
        golden: Texts with the reference's logits.
        files: ``{"bytes": size, "sha256": hash}`` of every other file, by path.
        format: Version of the manifest.
        requires: Minimum versions by graph: ``{"opset": 23, "onnxruntime": "1.23"}``; not written if empty.
        function_to_apply: ``none`` or ``sigmoid`` if ``config.json`` says so against ``problem_type``; not written if unset.
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
        """False for another tool's export, which has no hashes."""
        return self.format != NO_MANIFEST

    def variant(
        self, *, target: str, precision: str, outputs: tuple[str, ...] = ("logits",), layout: str = PADDED
    ) -> Variant | None:
        """Return the graph that has these properties, or None."""
        wanted = (target, precision, outputs, layout)
        return next((v for v in self.variants if (v.target, v.precision, v.outputs, v.layout) == wanted), None)


_FIELDS = {field.name for field in dataclasses.fields(Manifest)}


def write_manifest(folder: Path, manifest: Manifest) -> Manifest:
    """Write ``fusedbert.json`` with size and SHA-256 of every file in ``folder``; return the manifest with ``files``."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    files = {path.relative_to(folder).as_posix(): {"sha256": sha256_of(path), "bytes": path.stat().st_size} for path in paths}
    manifest = dataclasses.replace(manifest, files=files)
    document = {"format": manifest.format, **_without_defaults(dataclasses.asdict(manifest)), "sha256": _NO_HASH}
    content = (json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
    head, _, tail = content.rpartition(_NO_HASH.encode())
    (folder / MANIFEST).write_bytes(head + hashlib.sha256(content).hexdigest().encode() + tail)
    return manifest


def _without_defaults(document: dict[str, Any]) -> dict[str, Any]:
    """Leave out unset fields, which earlier versions do not know."""
    for variant in document["variants"]:
        variant["parity"] = {name: value for name, value in variant["parity"].items() if value is not None}
    return {name: value for name, value in document.items() if not (name in _OPTIONAL and not value)}


def _has_its_hash(content: bytes, sha256: Any) -> bool:
    """Compare a manifest's hash with that of its bytes, with zeros in place of the hash at its end."""
    if not isinstance(sha256, str) or len(sha256) != len(_NO_HASH) or not sha256.isascii():
        return False
    head, separator, tail = content.rpartition(sha256.encode())
    return bool(separator) and hashlib.sha256(head + _NO_HASH.encode() + tail).hexdigest() == sha256


def read_manifest(folder: Path) -> Manifest:
    """Read ``fusedbert.json`` and check its form and hash; ``verify.FileCheck`` checks the files.

    Raises:
        ArtifactError: It is missing, damaged, of a newer format, or not a manifest.
    """
    path = folder / MANIFEST
    try:
        content = path.read_bytes()
        document = json.loads(content.decode())
    except FileNotFoundError:
        raise ArtifactError(f"{folder} holds no {MANIFEST}: not an artifact; make one with fusedbert export") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ArtifactError(f"{path} cannot be read as JSON ({error}): export the checkpoint again") from None
    version = document.get("format") if isinstance(document, dict) else None
    if isinstance(version, int) and version > FORMAT:
        raise ArtifactError(f"{path} has format {version}, this version reads up to {FORMAT}: upgrade fusedbert")
    if version != FORMAT:
        raise ArtifactError(f"{path} has format {version!r}, expected {FORMAT}: export the checkpoint again")
    try:
        manifest = _parse(document)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        detail = f"{type(error).__name__}: {error}"
        raise ArtifactError(f"{path} does not have the form of a manifest ({detail}): export the checkpoint again") from None
    for name in {*manifest.files, *(variant.file for variant in manifest.variants)}:
        inside(folder, name, named_by=MANIFEST)
    # A manifest that another tool wrote may have no hash; one whose hash key was damaged has an unknown key.
    unknown = document.keys() - _FIELDS - {"sha256"}
    if "sha256" not in document and unknown:
        raise ArtifactError(f"{path} has {sorted(unknown)} and no sha256: copy it again, or export again")
    if "sha256" in document and not _has_its_hash(content, document["sha256"]):
        raise ArtifactError(f"{path} is damaged (its sha256 differs): copy it again, or export again")
    return manifest


def _parse(document: dict[str, Any]) -> Manifest:
    variants = tuple(
        Variant(**{**entry, "outputs": tuple(entry["outputs"]), "parity": Parity(**entry["parity"])})
        for entry in document["variants"]
    )
    if document.get("function_to_apply") not in (None, "none", "sigmoid"):
        raise ValueError(f"function_to_apply is {document['function_to_apply']!r}, expected none or sigmoid")
    golden = tuple(Golden(**{**entry, "logits": tuple(map(float, entry["logits"]))}) for entry in document["golden"])
    labels, max_length = tuple(document["labels"]), document["max_length"]
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
    known = {name: value for name, value in document.items() if name in _FIELDS}
    parsed = {"variants": variants, "golden": golden, "labels": labels, "source": Source(**document["source"])}
    return Manifest(**(known | parsed))
