"""Every error that fusedbert raises on purpose.

One root, ``FusedBertError``, so that a service can catch them all; each child is also the built-in exception that
fits, so that ``except ValueError`` keeps working. A message is one line: what was found, what was expected, the way out.
"""

from __future__ import annotations


class FusedBertError(Exception):
    """The root of all errors raised by fusedbert."""


class InputError(FusedBertError, ValueError):
    """A text, or what was given in place of one, cannot be classified."""


class TextTooLongError(InputError):
    """A text has more tokens than ``max_length``, and truncation was not allowed."""


class OptionError(FusedBertError, ValueError):
    """An option has a value that is not one of its values."""


class CheckpointError(FusedBertError, ValueError):
    """A checkpoint folder lacks files or tensors, or holds ones that do not fit its config."""


class ArtifactError(FusedBertError, ValueError):
    """An exported folder is damaged, unsafe, or of a format that this version does not read."""


class ModelNotFoundError(FusedBertError, FileNotFoundError):
    """MODEL is neither an artifact, nor a checkpoint folder, nor a hub id that can be reached."""

    # OSError's own __str__ prints errno and filename; the message is all there is to say here.
    def __str__(self) -> str:
        """Return the message as it was given."""
        return str(self.args[0]) if self.args else ""


class ExportError(FusedBertError, RuntimeError):
    """An exported graph did not pass a gate: parity with the checkpoint, or the fused nodes that it must hold."""


class DeviceError(FusedBertError, RuntimeError):
    """The device that was asked for cannot be used; the message gives the reason."""


class InferenceError(FusedBertError, RuntimeError):
    """The graph failed while it ran."""


class ClosedError(FusedBertError, RuntimeError):
    """The classifier was closed before the call."""


class ForkError(FusedBertError, RuntimeError):
    """What was made before this process was forked cannot be used in it."""


class OverloadError(FusedBertError, RuntimeError):
    """A queue is full: more texts arrive than can be classified. Trying again later may help."""


class DeadlineError(FusedBertError, TimeoutError):
    """A text's turn did not come before its deadline; it was not run."""

    def __str__(self) -> str:
        """Return the message as it was given."""
        return str(self.args[0]) if self.args else ""


class StorageError(FusedBertError, OSError):
    """A file or folder could not be read or written: no space, no permission, a locked cache."""

    def __str__(self) -> str:
        """Return the message as it was given."""
        return str(self.args[0]) if self.args else ""


class MissingDependencyError(FusedBertError, ImportError):
    """An optional package is not installed; the message names the pip line that installs it."""

    @classmethod
    def of(cls, package: str, extra: str, purpose: str) -> MissingDependencyError:
        """Name the missing package, what it is for, and the extra that brings it.

        Args:
            package: The package that could not be imported, as pip knows it.
            extra: The extra of fusedbert that installs it.
            purpose: What cannot be done without it, to follow the word "to".
        """
        return cls(f'{package} is needed to {purpose}, and is not installed: pip install "fusedbert[{extra}]"')
