"""The task of a model: labels of texts or of tokens, by one head or several."""

from __future__ import annotations

from ..artifact import TOKENS, Head, Manifest
from ..errors import OptionError

_OTHER = {
    True: "labels tokens, not texts: use TokenClassifier.from_pretrained, on the command line fusedbert tag",
    False: "labels texts, not tokens: use Classifier.from_pretrained, on the command line fusedbert classify",
}


def check_task(manifest: Manifest, task: str, several: str = "use MultiHeadClassifier.from_pretrained") -> None:
    """Raise ``OptionError`` for a model of another task, or of ``several`` heads; the message names the way out."""
    if manifest.heads:
        names = ", ".join(head.name for head in manifest.heads)
        raise OptionError(f"the artifact has several heads ({names}), of texts: {several}")
    if manifest.task != task:
        raise OptionError(f"{manifest.source.id} {_OTHER[manifest.task == TOKENS]}")


def check_heads(manifest: Manifest) -> tuple[Head, ...]:
    """Return the heads of a manifest; raise ``OptionError`` if it has one."""
    if not manifest.heads:
        kind = "TokenClassifier" if manifest.by_token else "Classifier"
        raise OptionError(f"{manifest.source.id} has one head: use {kind}.from_pretrained")
    return manifest.heads
