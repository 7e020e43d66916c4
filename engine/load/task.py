"""The task of a model: labels of texts, or of tokens."""

from __future__ import annotations

from ..artifact import TOKENS, Manifest
from ..errors import OptionError

_OTHER = {
    True: "labels tokens, not texts: use TokenClassifier.from_pretrained, on the command line fusedbert tag",
    False: "labels texts, not tokens: use Classifier.from_pretrained, on the command line fusedbert classify",
}


def check_task(manifest: Manifest, task: str) -> None:
    """Raise ``OptionError`` for a model of another task; the message names the class that it is for."""
    if manifest.task != task:
        raise OptionError(f"{manifest.source.id} {_OTHER[manifest.task == TOKENS]}")
