"""Counters of a model: always on, a few additions per batch, read as a frozen snapshot."""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Callable
from typing import Any, TypeAlias

_log = logging.getLogger("fusedbert.engine.run.counters")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Seconds:
    """Time per stage, summed over all threads.

    Attributes:
        tokenize: Texts to token ids.
        prepare: Rows to batches, padded or packed.
        run: The graph.
    """

    tokenize: float = 0.0
    prepare: float = 0.0
    run: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stats:
    """Counts since the classifier was loaded, in this process.

    Attributes:
        texts: Tokenized texts and pairs.
        truncated: Truncated texts.
        windowed: Texts of more than one window.
        windows: Windows of these texts.
        batches: Runs of the graph.
        rows: Rows of these runs, each a text or a window.
        tokens: Tokens of these rows, special tokens included.
        padded: The same with padding, as computed by the graph.
        seconds: Time per stage.
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
        """Share of padding in the computed tokens, 0 to 1."""
        return 1 - self.tokens / self.padded if self.padded else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON document, ``padding`` included."""
        return dataclasses.asdict(self) | {"padding": self.padding}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """One run of the graph, as passed to an observer.

    Attributes:
        rows: Texts, or windows of texts.
        tokens: Their tokens, special tokens included.
        padded: The same with padding.
        prepare_seconds: Time to lay out the arrays.
        run_seconds: Time of the graph.
    """

    rows: int
    tokens: int
    padded: int
    prepare_seconds: float
    run_seconds: float


Observer: TypeAlias = Callable[[Batch], object]


class Counters:
    """The counters behind ``Stats``, with a lock for a few additions per tokenized list and per batch."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.texts = self.truncated = self.windowed = self.windows = 0
        self.batches = self.rows = self.tokens = self.padded = 0
        self._tokenize = self._prepare = self._run = 0.0  # seconds
        self._observers: tuple[Observer, ...] = ()  # never changed in place, so that reading needs no lock
        self._logged = False

    def tokenized(self, *, texts: int, truncated: int, windowed: int, windows: int, seconds: float) -> None:
        """Count texts that were tokenized together."""
        with self._lock:
            self.texts += texts
            self.truncated += truncated
            self.windowed += windowed
            self.windows += windows
            self._tokenize += seconds

    def planned(self, seconds: float) -> None:
        """Count the time of planning batches."""
        with self._lock:
            self._prepare += seconds

    def ran(self, batch: Batch) -> None:
        """Count a batch and call the observers; their first error is logged, and none affects predictions."""
        with self._lock:
            self.batches += 1
            self.rows += batch.rows
            self.tokens += batch.tokens
            self.padded += batch.padded
            self._prepare += batch.prepare_seconds
            self._run += batch.run_seconds
        for observer in self._observers:
            try:
                observer(batch)
            except Exception:
                if not self._logged:
                    self._logged = True
                    _log.warning("an observer of batches failed; its later failures are not logged", exc_info=True)

    def observe(self, observer: Observer) -> Callable[[], None]:
        """Call ``observer`` after each batch, in its thread, until the returned function is called."""
        with self._lock:
            self._observers = (*self._observers, observer)

        def forget() -> None:
            with self._lock:
                self._observers = tuple(each for each in self._observers if each is not observer)

        return forget

    def snapshot(self) -> Stats:
        """Return a snapshot of the counts."""
        with self._lock:
            counts = {field.name: getattr(self, field.name) for field in dataclasses.fields(Stats) if field.name != "seconds"}
            return Stats(**counts, seconds=Seconds(tokenize=self._tokenize, prepare=self._prepare, run=self._run))

    def restart(self) -> None:
        """Reset in a forked child, where the lock may be held by a thread that is gone; observers stay."""
        observers = self._observers
        self.__init__()  # type: ignore[misc]  # resets all fields, the lock too
        self._observers = observers
