"""What whoever exports should know, and what does not stop the export: the exporter's warnings."""

from __future__ import annotations


class ExportWarning(UserWarning):
    """What whoever exports should know, and what does not stop the export."""


class LeftOutWarning(ExportWarning):
    """A graph did not pass its gate, and the artifact goes without it."""


class TokenizerWarning(ExportWarning):
    """transformers, which is installed, cuts a text into other tokens."""


class FusionWarning(ExportWarning):
    """The attention of fewer layers was fused than the model has."""


class IgnoredWarning(ExportWarning):
    """A checkpoint holds tensors that its model does not use, and that transformers ignores too."""
