"""Prefetching: the same items in order, ahead of the reader; errors in their place; no thread is left behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from fusedbert.engine.run.prefetch import prefetch


def test_prefetching_gives_the_same_items() -> None:
    assert list(prefetch(iter(range(100)))) == list(range(100))
    assert list(prefetch(iter(()))) == []


def test_prefetching_runs_while_the_reader_works() -> None:
    begun = threading.Event()

    def items() -> Iterator[int]:
        yield 1
        begun.set()
        yield 2

    source = prefetch(items())
    assert next(source) == 1
    assert begun.wait(10)  # the second is made before it is requested
    assert list(source) == [2]


def test_an_error_is_raised_at_its_place() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise KeyError("here")

    items = prefetch(broken())
    assert next(items) == 1
    with pytest.raises(KeyError, match="here"):
        next(items)


def test_prefetching_ends_when_its_reader_stops() -> None:
    before = threading.active_count()
    items = prefetch(iter(range(10**9)), depth=1)
    assert next(items) == 0
    items.close()
    assert threading.active_count() == before
