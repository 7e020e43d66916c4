"""The process around a command: streams that may be closed, and SIGTERM as a clean end."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from types import FrameType

from ..errors import StorageError

_STDOUT = ("-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1")  # names of stdout as an output
_closed: set[str] = set()  # names of the streams that were closed at the start


class TerminatedError(BaseException):
    """SIGTERM arrived. Like KeyboardInterrupt it passes through handlers of Exception, and what was begun is cleaned up."""


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Turn the first SIGTERM into ``TerminatedError``; only in the main thread, and where it is not ignored or handled yet."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not interrupt the cleaning
        raise TerminatedError

    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def open_closed_streams() -> None:
    """Put the null device in place of stdin, stdout and stderr that are closed (``>&-``, cron, a daemon).

    Otherwise the next file that is opened would become stdout, and whatever is printed would be written into it.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is not None:
            continue
        with contextlib.suppress(OSError):
            os.fstat(number)
            continue  # open, and not for Python: without a console
        handle = os.open(os.devnull, os.O_RDWR)
        if handle != number:
            os.dup2(handle, number)
            os.close(handle)
        setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))
        _closed.add(name)


def refuse_closed_stdout(command: str, arguments: Sequence[str]) -> None:
    """Refuse a command whose result would go to a closed stdout; one that writes files does not need it.

    Raises:
        StorageError: It would.
    """
    to_stdout = dict.fromkeys(("classify", "rank", "tag", "doctor"), True)
    to_stdout |= {"explain": "--json" in arguments, "score": _score_to_stdout(arguments)}
    to_stdout["bench"] = _bench_to_stdout(arguments)
    if "stdout" in _closed and to_stdout.get(command, False):
        raise StorageError(f"stdout is closed, and fusedbert {command} writes its result there: give it a file or a pipe")


def _bench_to_stdout(arguments: Sequence[str]) -> bool:
    makes = arguments[:1] in (["setup"], ["checkpoint"])  # these two make folders
    return not makes and not any(each.partition("=")[0] == "--report" for each in arguments)


def _score_to_stdout(arguments: Sequence[str]) -> bool:
    outputs = {value for option, value in itertools.pairwise(arguments) if option in ("-o", "--output")}
    for prefix in ("-o", "--output="):
        outputs |= {each.removeprefix(prefix) for each in arguments if each.startswith(prefix)}
    return not outputs.isdisjoint(_STDOUT)


def discard_stdout() -> None:
    """Send what is left in stdout's buffer nowhere, so that the interpreter does not report it at its end."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
