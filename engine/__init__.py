"""The runtime: text in, labels out, with numpy, tokenizers and ONNX Runtime alone.

Example:
    >>> from fusedbert.engine import Classifier
    >>> clf = Classifier.from_pretrained("artifacts/sst2")  # doctest: +SKIP
    >>> clf("I really loved this movie.")  # doctest: +SKIP
    [{'label': 'POSITIVE', 'score': 0.999}]
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fusedbert.engine.errors import (
    ArtifactError,
    CheckpointError,
    ClosedError,
    DeviceError,
    ExportError,
    FusedBertError,
    InferenceError,
    InputError,
    MissingDependencyError,
    ModelNotFoundError,
    OptionError,
    StorageError,
    TextTooLongError,
)

if TYPE_CHECKING:
    from fusedbert.engine.classifier import Classifier
    from fusedbert.engine.loading import Runtime
    from fusedbert.engine.scoring import Scorer, score_file

    __version__: str

__all__ = [
    "ArtifactError",
    "CheckpointError",
    "Classifier",
    "ClosedError",
    "DeviceError",
    "ExportError",
    "FusedBertError",
    "InferenceError",
    "InputError",
    "MissingDependencyError",
    "ModelNotFoundError",
    "OptionError",
    "Runtime",
    "Scorer",
    "StorageError",
    "TextTooLongError",
    "__version__",
    "score_file",
]


def __getattr__(name: str) -> Any:
    """Import what is heavy when it is asked for: the command line and the exporter pass through this package too."""
    if name == "Classifier":
        from fusedbert.engine.classifier import Classifier

        return Classifier
    if name == "Runtime":
        from fusedbert.engine.loading import Runtime

        return Runtime
    if name in ("Scorer", "score_file"):
        import fusedbert.engine.scoring

        return getattr(fusedbert.engine.scoring, name)
    if name == "__version__":
        from fusedbert.engine.installed import version

        return version()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
