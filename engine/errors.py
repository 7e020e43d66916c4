"""Errors of fusedbert, and checks of option values.

Each error derives from ``FusedBertError`` and from a built-in exception. Its message is one line: the value found, the one
expected, the way out.
"""

from __future__ import annotations

import contextlib
import enum
import math
from collections.abc import Iterator
from typing import Any, TypeVar

E = TypeVar("E", bound=enum.StrEnum)


class FusedBertError(Exception):
    """The base of all errors raised by fusedbert."""

    # Before that of OSError, which would print an errno and a file name that are not set. In one line, whatever names and
    # other libraries' messages are part of it.
    def __str__(self) -> str:
        return " ".join(str(self.args[0]).splitlines()) if self.args else ""


class InputError(FusedBertError, ValueError):
    """An input is not a text, or cannot be classified."""


class TextTooLongError(InputError):
    """A text has more tokens than ``max_length``, and may not be cut."""


class OptionError(FusedBertError, ValueError):
    """An option has an invalid value."""


class CheckpointError(FusedBertError, ValueError):
    """A checkpoint lacks files or tensors, or they do not fit its config."""


class ArtifactError(FusedBertError, ValueError):
    """An artifact is damaged, unsafe, or of an unknown format."""


class ModelNotFoundError(FusedBertError, FileNotFoundError):
    """MODEL is neither an artifact, nor a checkpoint folder, nor a reachable hub id."""


class ExportError(FusedBertError, RuntimeError):
    """An exported graph failed a check: parity with the checkpoint, or its number of fused nodes."""


class DeviceError(FusedBertError, RuntimeError):
    """The requested device cannot be used; the message gives the reason."""


class InferenceError(FusedBertError, RuntimeError):
    """The graph failed during a run."""


class ClosedError(FusedBertError, RuntimeError):
    """The classifier was closed before the call."""


class ForkError(FusedBertError, RuntimeError):
    """An object from before a fork cannot be used in the child process."""


class OverloadError(FusedBertError, RuntimeError):
    """A queue is full, because more texts arrive than can be classified."""


class DeadlineError(FusedBertError, TimeoutError):
    """The deadline of a text passed before its turn; it was not run."""


class StorageError(FusedBertError, OSError):
    """A file or folder could not be read or written: no space, no permission, a locked cache."""


class MissingDependencyError(FusedBertError, ImportError):
    """An optional package is not installed; the message names the pip line that installs it."""

    @classmethod
    def of(cls, package: str, extra: str, purpose: str) -> MissingDependencyError:
        """Return the error for a package and its extra of fusedbert; ``purpose`` follows the word "to"."""
        return cls(f'{package} is needed to {purpose}, and is not installed: pip install "fusedbert[{extra}]"')


@contextlib.contextmanager
def without_panic() -> Iterator[None]:
    """Turn the PanicException of a Rust library such as tokenizers, which is no Exception, into a RuntimeError.

    Raises:
        RuntimeError: The library panicked.
    """
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise RuntimeError(f"the library panicked: {error}") from error


def shown(value: object) -> str:
    """Return a value's ``repr`` for a message, of up to 80 characters.

    Example:
        >>> shown("x" * 100)[-10:]
        'xxxxxxx...'
    """
    try:
        text = repr(value)
    except ValueError:  # Python prints no integer of thousands of digits
        text = f"of type {type(value).__name__}, too long to show"
    return text if len(text) <= 80 else f"{text[:77]}..."


def check_member(kind: type[E], name: str, value: Any) -> E:
    """Return the member of an enumeration for an option's string.

    Raises:
        OptionError: It has no such member; the message lists them.
    """
    try:
        return kind(value)
    except ValueError:
        raise OptionError(f"{name} is {shown(value)}: give one of {', '.join(kind)}") from None


def check_integer(name: str, value: object, least: int = 1, most: float = math.inf, *, optional: bool = False) -> None:
    """Check that an option is an integer from ``least`` to ``most``, or None if it is optional.

    Raises:
        OptionError: It is not.
    """
    if value is None and optional:
        return
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        limits = f"from {least} {'up' if most == math.inf else f'to {most}'}"
        raise OptionError(f"{name} is {shown(value)}: give an integer {limits}{', or None' if optional else ''}")
