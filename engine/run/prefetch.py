"""Working ahead: an iterator runs in a thread of its own, a few items before whoever reads it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable
from typing import TypeVar

T = TypeVar("T")


def ahead(items: Iterable[T], depth: int = 2) -> Generator[T, None, None]:
    """Yield the items of an iterable that is read in a thread, at most ``depth`` of them waiting.

    An exception of the iterable is raised here, at its place. Closing the generator, or leaving it half read, ends the
    thread after the item that it is at.

    Example:
        >>> list(ahead(iter("abc")))
        ['a', 'b', 'c']
    """
    waiting: queue.Queue[tuple[bool, T | BaseException | None]] = queue.Queue(maxsize=depth)
    left = threading.Event()

    def put(item: tuple[bool, T | BaseException | None]) -> bool:
        while not left.is_set():
            try:
                waiting.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def read() -> None:
        try:
            for item in items:
                if not put((True, item)):
                    return
        except BaseException as error:  # whatever it is, it belongs to the reader
            put((False, error))
        else:
            put((False, None))

    thread = threading.Thread(target=read, name="fusedbert-ahead", daemon=True)
    thread.start()
    try:
        while True:
            more, item = waiting.get()
            if more:
                yield item  # type: ignore[misc]  # True goes with an item of T
            elif item is None:
                return
            else:
                assert isinstance(item, BaseException)
                raise item
    finally:
        left.set()
        thread.join()
