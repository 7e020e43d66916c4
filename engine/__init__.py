"""The runtime: text in, labels out, with only numpy, tokenizers and ONNX Runtime.

Example:
    >>> from fusedbert.engine import Classifier
    >>> clf = Classifier.from_pretrained()  # the embedded default; or an artifact, a checkpoint folder, a hub id
    >>> clf("I really loved this movie.")
    [{'label': 'POSITIVE', 'score': 0.99...}]
"""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Any

from .errors import (
    ArtifactError,
    CheckpointError,
    ClosedError,
    DeadlineError,
    DeviceError,
    ExportError,
    ForkError,
    FusedBertError,
    InferenceError,
    InputError,
    MissingDependencyError,
    ModelNotFoundError,
    OptionError,
    OverloadError,
    StorageError,
    TextTooLongError,
)

if TYPE_CHECKING:
    from .load.open import Runtime
    from .run.counters import Batch, Stats
    from .run.prometheus import observe, prometheus
    from .scoring import Scorer, score_file
    from .server.batcher import Batcher, BatcherStats
    from .tasks.classifier import Classifier
    from .tasks.heads import MultiHeadClassifier
    from .tasks.token_classifier import TokenClassifier
    from .tasks.zero_shot import ZeroShot
    from .text.inputs import Window
    from .text.windows import WindowScore

    __version__: str

__all__ = [
    "ArtifactError",
    "Batch",
    "Batcher",
    "BatcherStats",
    "CheckpointError",
    "Classifier",
    "ClosedError",
    "DeadlineError",
    "DeviceError",
    "ExportError",
    "ForkError",
    "FusedBertError",
    "InferenceError",
    "InputError",
    "MissingDependencyError",
    "ModelNotFoundError",
    "MultiHeadClassifier",
    "OptionError",
    "OverloadError",
    "Runtime",
    "Scorer",
    "Stats",
    "StorageError",
    "TextTooLongError",
    "TokenClassifier",
    "Window",
    "WindowScore",
    "ZeroShot",
    "__version__",
    "observe",
    "prometheus",
    "score_file",
]


# A library logs nothing unless its user configures logging: logging.getLogger("fusedbert").
logging.getLogger("fusedbert").addHandler(logging.NullHandler())

# Names whose import is too slow for the command line and the exporter, which import this package too.
_LAZY = {
    "Batch": "run.counters",
    "Batcher": "server.batcher",
    "BatcherStats": "server.batcher",
    "Classifier": "tasks.classifier",
    "MultiHeadClassifier": "tasks.heads",
    "Runtime": "load.open",
    "Scorer": "scoring",
    "Stats": "run.counters",
    "TokenClassifier": "tasks.token_classifier",
    "Window": "text.inputs",
    "WindowScore": "text.windows",
    "ZeroShot": "tasks.zero_shot",
    "observe": "run.prometheus",
    "prometheus": "run.prometheus",
    "score_file": "scoring",
}


def __getattr__(name: str) -> Any:
    """Import a name of ``_LAZY`` on first use."""
    if name in _LAZY:
        return getattr(importlib.import_module(f"fusedbert.engine.{_LAZY[name]}"), name)
    if name == "__version__":
        from .hardware.packages import version

        return version()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
