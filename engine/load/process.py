"""A classifier in other processes: forked ones, and those that it is pickled for.

What a fork copies of a session cannot be used: the threads of its pool are not there. Nor may it be let go of: joining a
thread that is not there waits for ever once another thread has taken its place, and CUDA ends the process. So the copy is
kept until the process ends, its pages shared with the parent as long as nobody writes to them, and a new session opened.
"""

from __future__ import annotations

import dataclasses
import os
import warnings
import weakref
from pathlib import Path
from typing import Protocol

from ..errors import DeviceError, OptionError
from ..hardware.device import CPU
from ..options import Options
from .open import Loaded, Runtime, Source, load


class Forkable(Protocol):
    """What has to be made ready in a forked child."""

    def _after_fork(self) -> None: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Origin:
    """What a classifier can be loaded from again.

    Attributes:
        model: MODEL as the caller gave it.
        folder: The artifact that was found for it, absolute.
        options: How it was loaded.
    """

    model: str | os.PathLike[str] | None
    folder: Path
    options: Options

    @classmethod
    def of(cls, loaded: Source, options: Options) -> Origin:
        """Note where a model is, as long as the working directory is the one that its path is relative to."""
        return cls(model=loaded.model, folder=loaded.folder.absolute(), options=options)

    def load(self) -> Loaded:
        """Load the artifact; MODEL, where this machine does not have that folder.

        Raises:
            FusedBertError: As ``Classifier.from_pretrained``.
        """
        return load(self.folder if self.folder.is_dir() else self.model, self.options)

    def portable(self) -> Origin:
        """Return it as it may be pickled: without the access token, which is nobody else's.

        Raises:
            OptionError: The session's options are an object that cannot be pickled.
        """
        given = self.options.session_options
        if given is not None and type(given).__name__ == "SessionOptions":
            raise OptionError("session_options is a SessionOptions, which cannot be pickled: give a mapping in its place")
        model = None if self.model is None else os.fspath(self.model)
        return dataclasses.replace(self, model=model, options=dataclasses.replace(self.options, token=None))


def reload(origin: Origin, runtime: Runtime) -> Loaded:
    """Open a model in a process that was forked after it was loaded.

    Args:
        origin: What it was loaded from.
        runtime: What ran in the parent.

    Raises:
        DeviceError: It was on a GPU: CUDA cannot be used in a child of a process that used it.
        FusedBertError: As ``Classifier.from_pretrained``.
    """
    if runtime.provider != CPU:
        raise DeviceError(
            f"this Classifier was loaded on {runtime.device} before process {os.getpid()} was forked, and CUDA does not "
            "survive a fork: load it only in the child, or start processes with multiprocessing's 'spawn'"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the parent had them
        return origin.load()


def after_fork(owner: Forkable) -> None:
    """Have ``owner._after_fork()`` called in each process that is forked from this one, as long as it is in use."""
    if not hasattr(os, "register_at_fork"):  # Windows, which has no fork
        return
    reference = weakref.ref(owner)

    def tell() -> None:
        found = reference()
        if found is not None:
            found._after_fork()

    os.register_at_fork(after_in_child=tell)


def keep_forever(thing: object) -> None:
    """Never let go of an object, not even when the interpreter ends."""
    import ctypes  # numpy has imported it

    if thing is not None:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))
