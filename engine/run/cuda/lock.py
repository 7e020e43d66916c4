"""One at a time on a GPU: the lock that whoever opens, runs, captures or lets go of a session holds.

ONNX Runtime captures in the driver's global mode, in which an allocation, a release or a copy of any other thread spoils the
capture; so all sessions of a process take turns.
"""

from __future__ import annotations

import os
import threading
from types import TracebackType


class Turn:
    """A lock that a thread may take again, and that a forked child finds free.

    Attributes:
        inherited: Whether this process was forked from one that had used CUDA, so that it cannot.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._used = False
        self.inherited = False
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._renew)

    def __enter__(self) -> None:
        """Wait for it."""
        self._lock.acquire()
        self._used = True

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Give it back."""
        self._lock.release()

    def _renew(self) -> None:
        self._lock = threading.RLock()  # a thread that held the other one is not there any more
        self.inherited = self._used


turn = Turn()
