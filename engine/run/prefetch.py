"""Prefetching: a thread reads an iterable a few items ahead."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Generator, Iterable
from typing import TypeVar

T = TypeVar("T")


def prefetch(items: Iterable[T], depth: int = 2) -> Generator[T, None, None]:
    """Yield the items of an iterable that a thread reads, with at most ``depth`` of them waiting.

    An exception of the iterable is raised in its place. Closing the generator ends the thread after the current item.

    Example:
        >>> list(prefetch(iter("abc")))
        ['a', 'b', 'c']
    """
    waiting: queue.Queue[list[T]] = queue.Queue(maxsize=depth)  # of single items; an empty list is the end
    errors: list[BaseException] = []
    left = threading.Event()

    def put(item: list[T]) -> bool:
        while not left.is_set():
            with contextlib.suppress(queue.Full):
                waiting.put(item, timeout=0.1)
                return True
        return False

    def read() -> None:
        try:
            for item in items:
                if not put([item]):
                    return
        except BaseException as error:  # any error belongs to the reader
            errors.append(error)
        put([])

    thread = threading.Thread(target=read, name="fusedbert-prefetch", daemon=True)
    thread.start()
    try:
        while item := waiting.get():
            yield item[0]
        if errors:
            raise errors[0]
    finally:
        left.set()
        thread.join()
