"""A session on CUDA: few threads run it, a few shapes keep their buffers, and small shapes that come back are captured.

Why few threads: ONNX Runtime keeps a captured CUDA graph for the thread that captured it, and every thread that runs a
session costs handles and workspaces on the GPU until the session ends. So the first threads that come (``SEATS``) run it
themselves, which saves a single text two switches of threads, and all others hand their batches to one thread of the
session's own. That one ends when nobody holds the session any more.

The GPU runs one batch at a time anyway: callers wait in line, and all sessions of a process do (``turn``).
"""

from __future__ import annotations

import functools
import itertools
import logging
import threading
from collections import Counter, OrderedDict
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import InferenceError
from ...hardware.cuda_errors import diagnose
from ..packing import Batch, Bucket
from ..session import Session, first_line
from .bound import Bound
from .lock import turn
from .staging import Register, cuda_register

GRAPH_TEXTS, GRAPH_TOKENS = 8, 2048  # batches up to this are captured: beyond it kernels run longer than they take to launch
SEATS = 2  # threads that run a session themselves: the one that loaded it, and one more
MAX_GRAPHS = 32  # of a seat; each holds its buffers, and some megabytes of the driver's
MAX_BUFFERS = 16  # of shapes that are not captured; the one unused for longest gives way
CAPTURE_AT = 2  # the use at which a shape is captured: capturing takes longer than the run that it saves once

RETRY_AFTER = 8  # uses of a shape until it is captured again, after a capture that failed; twice as many each time
MOST_FAILURES = 8  # captures that may fail before there are no more
_log = logging.getLogger("fusedbert")


def capturable(texts: int, tokens: int) -> bool:
    """Tell whether a batch is small enough for the launches of its kernels to matter."""
    return texts <= GRAPH_TEXTS and tokens <= GRAPH_TOKENS


class NoMemoryLeftError(InferenceError):
    """The GPU, or what a limit leaves of it, has no room for a batch."""


class ShapedSession:
    """Runs batches on a session through buffers that are kept for each shape.

    Args:
        runtime: The onnxruntime module.
        session: The graph.
        labels: Columns of its logits.
        device: ``cuda``, or ``cpu`` where there is no GPU to test with.
        index: Number of the device.
        graphs: Whether CUDA graphs may be captured.
        pin: Pins host memory; left out, CUDA does.
    """

    def __init__(
        self,
        runtime: Any,
        session: Session,
        *,
        labels: int,
        device: str = "cuda",
        index: int = 0,
        graphs: bool,
        pin: Register | None = None,
    ) -> None:
        self.session = session
        self._runtime = runtime
        self._labels = labels
        self._device, self._index = device, index
        self._pin = pin or functools.partial(cuda_register, index=index)
        self._graphs = graphs
        self._captured: dict[tuple[int, Bucket], int] = {}  # a CUDA graph's number, by who captured it and its shape
        self._kept: dict[Bucket, Bound] = {}  # of captured shapes: a CUDA graph reads and writes there as long as it lives
        self._numbers = itertools.count(1)
        self._failures = 0
        self._seen: Counter[tuple[int, Bucket]] = Counter()
        self._buffers: OrderedDict[Bucket, Bound] = OrderedDict()
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="fusedbert-cuda")
        self._here = threading.local()
        self._seating, self._seated = threading.Lock(), 0

    @property
    def captured(self) -> int:
        """Number of CUDA graphs so far."""
        return len(self._captured)

    def run(self, batch: Batch) -> NDArray[np.float32]:
        """Compute the logits of a batch, ``[batch.texts, labels]``.

        Raises:
            InferenceError: The graph failed.
        """
        seat = self._seat()
        return self._run(batch, seat) if seat else self._worker.submit(self._run, batch, 0).result()

    def _seat(self) -> int:
        """Return the calling thread's number, from 1, or 0 where it has none. No seat is given twice: it costs memory."""
        seat: int | None = getattr(self._here, "seat", None)
        if seat is None:
            with self._seating:
                free = self._seated < SEATS
                self._seated += free
                seat = self._here.seat = self._seated if free else 0
        return seat

    def _run(self, batch: Batch, seat: int) -> NDArray[np.float32]:
        try:
            with turn:
                logits = self._captured_or_plain(batch, seat)
        except Exception as error:  # ONNX Runtime's exceptions share no base but Exception
            raise self._failure(batch, error) from error
        return logits[: batch.texts]

    def _failure(self, batch: Batch, error: Exception) -> InferenceError:
        cause = diagnose(str(error))
        begin = f"{self.session.file} failed on {batch.bucket.texts} texts, {batch.bucket.tokens} tokens"
        if cause is None:
            return InferenceError(f"{begin}: {first_line(error)}")
        if cause.name == "out_of_memory":
            return NoMemoryLeftError(f"{begin}: {cause.says}: {cause.way_out}, or raise cuda.gpu_mem_limit where it is set")
        return InferenceError(f"{begin}: {cause.says}: {cause.way_out}")

    def __del__(self) -> None:
        """Let go of the session and its buffers when nobody captures: a release would spoil that."""
        with turn:
            self._kept.clear()
            self._buffers.clear()
            del self.session

    def _captured_or_plain(self, batch: Batch, seat: int) -> NDArray[np.float32]:
        graph, bound = self._bound(batch, seat)
        try:
            return bound.run(batch.arrays, graph=graph)
        except Exception as error:  # as above
            if graph is None:
                raise
            self._forget((seat, batch.bucket), error)
            graph, bound = self._bound(batch, seat)
            return bound.run(batch.arrays, graph=graph)

    def _forget(self, key: tuple[int, Bucket], error: Exception) -> None:
        """Take back a capture that failed: memory was short, or somebody else's work spoiled it. Later it may succeed."""
        self._failures += 1
        if self._failures >= MOST_FAILURES:
            self._graphs = False
            _log.warning("%s runs without CUDA graphs from now on: %s", self.session.file, first_line(error))
        else:
            _log.info("%s could not capture a CUDA graph, and runs without: %s", self.session.file, first_line(error))
        del self._captured[key]
        self._seen[key] = -RETRY_AFTER * 2**self._failures
        if not any(bucket == key[1] for _, bucket in self._captured):
            self._buffers[key[1]] = self._kept.pop(key[1])

    def _bound(self, batch: Batch, seat: int) -> tuple[int | None, Bound]:
        """Find or make the buffers of a batch's shape, and the number of its CUDA graph where this seat has one."""
        bucket = batch.bucket
        if self._graphs and capturable(bucket.texts, bucket.tokens) and (graph := self._graph(seat, bucket)):
            if bucket not in self._kept:
                self._kept[bucket] = self._buffers.pop(bucket) if bucket in self._buffers else self._make(batch)
            return graph, self._kept[bucket]
        if bucket in self._kept:
            return None, self._kept[bucket]
        if bucket not in self._buffers:
            while len(self._buffers) >= MAX_BUFFERS:
                self._buffers.popitem(last=False)
            self._buffers[bucket] = self._make(batch)
        self._buffers.move_to_end(bucket)
        return None, self._buffers[bucket]

    def _graph(self, seat: int, bucket: Bucket) -> int | None:
        """Return the number of a CUDA graph, captured or now to be; None where it is too early or there are enough."""
        key = seat, bucket
        if key not in self._captured:
            self._seen[key] += 1
            if self._seen[key] < CAPTURE_AT or sum(who == seat for who, _ in self._captured) >= MAX_GRAPHS:
                return None
            self._captured[key] = next(self._numbers)
        return self._captured[key]

    def _make(self, batch: Batch) -> Bound:
        return Bound(
            self._runtime,
            self.session.raw,
            self.session.inputs,
            batch.arrays,
            texts=batch.bucket.texts,
            labels=self._labels,
            device=self._device,
            index=self._index,
            pin=self._pin,
        )
