"""The model of a run: what its output's bytes depend on, and the classifier, where it runs in this process."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

from ..artifact import MANIFEST, Manifest, sha256_of
from ..artifact.foreign import read_manifest
from ..classifier import Classifier
from ..load.resolve import resolve_model
from ..options import DeviceKind, LongText, Options
from ..text.outputs import Function
from .options import Engine


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
    """A model that is there to be run.

    Attributes:
        labels: Its labels.
        problem_type: Its problem type.
        function: What makes scores of its logits.
        device: ``cpu`` or ``cuda``.
        identity: What tells it from others: the hash of its manifest, which has those of all its files; precision; device.
        classifier: The loaded model, or None where only Ray's actors have the device for it.
    """

    labels: tuple[str, ...]
    problem_type: str
    function: str
    device: str
    identity: dict[str, Any]
    classifier: Classifier | None

    @classmethod
    def load(cls, engine: Engine, *, remote: bool = False) -> Model:
        """Load a model, or only look at it where ``remote`` actors have the GPU that it is for."""
        options = Options.parse(
            device=engine.device, precision=engine.precision, threads=engine.threads, long_text=engine.long_text
        )
        if remote and options.device.kind is DeviceKind.CUDA:
            folder, classifier = resolve_model(engine.model, options, "all"), None
            device, precision = "cuda", str(options.precision)
        else:
            classifier = load(engine)
            folder = classifier._loaded.folder
            device, precision = classifier.runtime.device.split(":")[0], classifier.runtime.precision
        manifest = read_manifest(folder)
        return cls(
            labels=manifest.labels,
            problem_type=manifest.problem_type,
            function=str(Function.of(manifest)),
            device=device,
            identity={
                "manifest": _fingerprint(folder, manifest),
                "precision": precision,
                "device": device,
                **_long_text(options),
            },
            classifier=classifier,
        )

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *_: object) -> None:
        if self.classifier is not None:
            self.classifier.close()


def load(engine: Engine) -> Classifier:
    """Load the classifier that an ``Engine`` describes."""
    return Classifier.from_pretrained(
        engine.model, device=engine.device, precision=engine.precision, threads=engine.threads, long_text=engine.long_text
    )


def _long_text(options: Options) -> dict[str, Any]:
    """Return what the scores of long texts depend on; nothing for the default, under which older runs can be resumed."""
    if options.long_text is LongText.TRUNCATE:
        return {}
    window = dataclasses.asdict(options.window) if options.long_text is LongText.WINDOW else {}
    return {"long_text": str(options.long_text), **window}


def _fingerprint(folder: Path, manifest: Manifest) -> str:
    """Return the hash of an artifact's manifest, which has those of all files; without one, that of its files."""
    if manifest.verifiable:
        return sha256_of(folder / MANIFEST)
    names = {*(variant.file for variant in manifest.variants), "config.json", "tokenizer.json", "tokenizer_config.json"}
    files = [f"{name} {sha256_of(folder / name)}" for name in sorted(names) if (folder / name).is_file()]
    return hashlib.sha256("\n".join(files).encode()).hexdigest()
