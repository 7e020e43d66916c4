"""The model of a run: what its output's bytes depend on, and the classifier, where it runs in this process."""

from __future__ import annotations

import dataclasses
from typing import Any

from fusedbert.engine.artifact import MANIFEST, read_manifest, sha256_of
from fusedbert.engine.classifier import Classifier
from fusedbert.engine.options import DeviceKind, Options
from fusedbert.engine.resolve import resolve_model
from fusedbert.engine.scoring.options import Engine


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
    """A model that is there to be run.

    Attributes:
        labels: Its labels.
        problem_type: Its problem type.
        device: ``cpu`` or ``cuda``.
        identity: What tells it from others: the hash of its manifest, which has those of all its files; precision; device.
        classifier: The loaded model, or None where only Ray's actors have the device for it.
    """

    labels: tuple[str, ...]
    problem_type: str
    device: str
    identity: dict[str, Any]
    classifier: Classifier | None

    @classmethod
    def load(cls, engine: Engine, *, remote: bool = False) -> Model:
        """Load a model, or only look at it where ``remote`` actors have the GPU that it is for."""
        options = Options.parse(device=engine.device, precision=engine.precision, threads=engine.threads)
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
            device=device,
            identity={"manifest": sha256_of(folder / MANIFEST), "precision": precision, "device": device},
            classifier=classifier,
        )

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *_: object) -> None:
        if self.classifier is not None:
            self.classifier.close()


def load(engine: Engine) -> Classifier:
    """Load the classifier that an ``Engine`` describes."""
    return Classifier.from_pretrained(engine.model, device=engine.device, precision=engine.precision, threads=engine.threads)
