"""Counts of what a classifier did: always on, a few additions a batch, read as one frozen snapshot."""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..text.tokenizer import Row
from .plan import Budget
from .runner import Prepared, Runner

_log = logging.getLogger("fusedbert.engine.run.counters")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Seconds:
    """Time by stage, summed over all threads; the stages of different calls overlap.

    Attributes:
        tokenize: Texts to token ids, long ones cut.
        prepare: Rows sorted into batches, and laid out as padded or packed arrays.
        run: The graph.
    """

    tokenize: float = 0.0
    prepare: float = 0.0
    run: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stats:
    """What a classifier did since it was loaded, in this process.

    Attributes:
        texts: Texts and pairs that were tokenized.
        truncated: Those of them that tokens were cut off.
        windowed: Those of them that were read in more than one window.
        windows: Windows that these were read in.
        batches: Runs of the graph.
        rows: Rows of these: a text each, or a window of one.
        tokens: Tokens of these rows, special tokens included.
        padded: The same with padding: what the graph computed.
        seconds: Time by stage.
    """

    texts: int = 0
    truncated: int = 0
    windowed: int = 0
    windows: int = 0
    batches: int = 0
    rows: int = 0
    tokens: int = 0
    padded: int = 0
    seconds: Seconds = dataclasses.field(default_factory=Seconds)

    @property
    def padding(self) -> float:
        """Share of what was computed that was padding, 0 to 1."""
        return 1 - self.tokens / self.padded if self.padded else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return all as JSON takes it, ``padding`` included."""
        return dataclasses.asdict(self) | {"padding": self.padding}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """One run of the graph, as ``metrics.observe`` tells it.

    Attributes:
        rows: Texts, or windows of texts.
        tokens: Their tokens, special ones included.
        padded: The same with padding.
        prepare_seconds: Time to lay them out as arrays.
        run_seconds: Time of the graph.
    """

    rows: int
    tokens: int
    padded: int
    prepare_seconds: float
    run_seconds: float


Observer: TypeAlias = Callable[[Batch], object]


class Counters:
    """The counts behind ``Stats``; a lock is held for a few additions, once a tokenized list and once a batch."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._texts = self._truncated = self._windowed = self._windows = 0
        self._batches = self._rows = self._tokens = self._padded = 0
        self._tokenize = self._prepare = self._run = 0.0
        self._observers: tuple[Observer, ...] = ()  # replaced whole, so that a batch needs no lock to read it
        self._complained = False

    @property
    def truncated(self) -> int:
        """Texts that tokens were cut off."""
        return self._truncated

    def tokenized(self, *, texts: int, truncated: int, windowed: int, windows: int, seconds: float) -> None:
        """Count texts that were tokenized together."""
        with self._lock:
            self._texts += texts
            self._truncated += truncated
            self._windowed += windowed
            self._windows += windows
            self._tokenize += seconds

    def planned(self, seconds: float) -> None:
        """Count the time of sorting rows into batches."""
        with self._lock:
            self._prepare += seconds

    def ran(self, batch: Batch) -> None:
        """Count a batch, and tell it to who wants to know; an error of theirs is logged once and harms no prediction."""
        with self._lock:
            self._batches += 1
            self._rows += batch.rows
            self._tokens += batch.tokens
            self._padded += batch.padded
            self._prepare += batch.prepare_seconds
            self._run += batch.run_seconds
        for observer in self._observers:
            try:
                observer(batch)
            except Exception:
                if not self._complained:
                    self._complained = True
                    _log.warning("an observer of batches failed; its later failures are not logged", exc_info=True)

    def observe(self, observer: Observer) -> Callable[[], None]:
        """Call ``observer`` after each batch, in the thread that ran it; the function that is returned ends that."""
        with self._lock:
            self._observers = (*self._observers, observer)

        def forget() -> None:
            with self._lock:
                self._observers = tuple(each for each in self._observers if each is not observer)

        return forget

    def snapshot(self) -> Stats:
        """Return the counts of one moment."""
        with self._lock:
            return Stats(
                texts=self._texts,
                truncated=self._truncated,
                windowed=self._windowed,
                windows=self._windows,
                batches=self._batches,
                rows=self._rows,
                tokens=self._tokens,
                padded=self._padded,
                seconds=Seconds(tokenize=self._tokenize, prepare=self._prepare, run=self._run),
            )

    def restart(self) -> None:
        """Begin anew in a forked child, where another thread may have held the lock; observers stay."""
        observers = self._observers
        self.__init__()  # type: ignore[misc]  # all fields as at first, the lock among them
        self._observers = observers


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class CountedBatch:
    """A prepared batch, and what of it is counted once it has run."""

    prepared: Prepared
    rows: int
    filled: int
    seconds: float

    @property
    def tokens(self) -> int:
        """Tokens that the graph will compute, padding included."""
        return self.prepared.tokens


@dataclasses.dataclass(frozen=True, kw_only=True)
class CountedRunner:
    """A runner whose batches are counted.

    Attributes:
        inner: The runner.
        counters: Where.
    """

    inner: Runner
    counters: Counters

    @property
    def file(self) -> Path:
        """The graph."""
        return self.inner.file

    @property
    def budget(self) -> Budget:
        """Limits of one batch."""
        return self.inner.budget

    @property
    def window(self) -> int:
        """Texts that are tokenized and sorted together."""
        return self.inner.window

    @property
    def ahead(self) -> bool:
        """Whether to prepare in a thread of its own."""
        return self.inner.ahead

    def prepare(self, rows: Sequence[Row]) -> CountedBatch:
        """Lay out a batch."""
        start = time.perf_counter()
        prepared = self.inner.prepare(rows)
        filled = sum(len(row.ids) for row in rows)
        return CountedBatch(prepared=prepared, rows=len(rows), filled=filled, seconds=time.perf_counter() - start)

    def execute(self, prepared: CountedBatch) -> NDArray[np.float32]:
        """Compute the logits ``[rows, labels]``, and count the batch."""
        start = time.perf_counter()
        logits = self.inner.execute(prepared.prepared)
        self.counters.ran(
            Batch(
                rows=prepared.rows,
                tokens=prepared.filled,
                padded=prepared.tokens,
                prepare_seconds=prepared.seconds,
                run_seconds=time.perf_counter() - start,
            )
        )
        return logits
