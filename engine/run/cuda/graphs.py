"""A session on CUDA with buffers per batch shape, whose small recurring shapes are captured as CUDA graphs.

A CUDA graph belongs to the thread that captured it, and every thread that runs a session costs GPU memory until its end. So
only the first ones (``SLOTS``) run it themselves, which saves a single text two thread switches; all others use one worker.
"""

from __future__ import annotations

import functools
import itertools
import logging
import os
import threading
from collections import Counter, OrderedDict
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import InferenceError
from ...hardware.cuda_errors import diagnose
from ..batches import Batch, Bucket
from ..session import Session, first_line
from .buffers import IoBuffers, Pin, pin_memory

# The largest captured batch: kernels of larger ones run longer than their launch takes. On an H200, BERT-base, 16 texts of 128
# tokens take 1.34 ms launched and 1.12 replayed, 64 texts 3.84 and 3.85.
GRAPH_TEXTS, GRAPH_TOKENS = 32, 2048
SLOTS = 2  # threads that run a session themselves: the one that loaded it, and one more
# Of a slot, for several texts: the first ones. Single texts, with at most 25 shapes, always get one. Each takes less than
# half a MiB (34 took 14 on an H200). Where 1 to 32 sentences come at a time, 81 graphs serve 96 % of the runs (bench/NOTES.md).
MAX_GRAPHS = 128
MAX_BUFFERS = 16  # of shapes that are not captured; the least recently used one is dropped
CAPTURE_AT = 2  # the use at which a shape is captured: capturing takes longer than the one run that it saves

RETRY_AFTER = 8  # uses of a shape until it is captured again, after a capture that failed; twice as many each time
MOST_FAILURES = 8  # failed captures after which no more are tried
_log = logging.getLogger("fusedbert")


class CudaLock:
    """A process-wide lock: only one thread may create, run, capture or free a CUDA session at a time.

    ONNX Runtime captures in the driver's global mode, in which any other thread's allocation, free or copy spoils the capture.
    The lock is reentrant, and free in a forked child; ``inherited`` if the parent had used CUDA, so that the child cannot.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._used = False
        self.inherited = False
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._renew)

    def __enter__(self) -> None:
        self._lock.acquire()
        self._used = True

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def _renew(self) -> None:
        self._lock = threading.RLock()  # the thread that held the other one does not exist in the child
        self.inherited = self._used


cuda_lock = CudaLock()


def capturable(texts: int, tokens: int) -> bool:
    """Return whether a batch is small enough for kernel launches to matter."""
    return texts <= GRAPH_TEXTS and tokens <= GRAPH_TOKENS


class NoMemoryLeftError(InferenceError):
    """The GPU, or a memory limit, has no room for a batch."""


class GraphCache:
    """A session's buffers and CUDA graphs by batch shape."""

    def __init__(
        self,
        runtime: Any,
        session: Session,
        *,
        labels: int,
        graphs: bool,  # whether to capture CUDA graphs
        by_token: bool = False,  # whether each token has logits, not each text
        device: str = "cuda",  # or cpu, to test without a GPU
        index: int = 0,  # of the device
        pin: Pin | None = None,
    ) -> None:
        self.session = session
        self._runtime = runtime
        self._labels, self._by_token = labels, by_token
        self._device, self._index = device, index
        self._pin = pin or functools.partial(pin_memory, index=index)
        self._graphs = graphs
        self._captured: dict[tuple[int, Bucket], int] = {}  # a CUDA graph's number, by slot and shape
        self._kept: dict[Bucket, IoBuffers] = {}  # of captured shapes: a CUDA graph uses them as long as it lives
        self._numbers = itertools.count(1)
        self._failures = 0
        self._seen: Counter[tuple[int, Bucket]] = Counter()
        self._buffers: OrderedDict[Bucket, IoBuffers] = OrderedDict()
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="fusedbert-cuda")
        self._thread = threading.local()
        self._slots_lock, self._slots = threading.Lock(), iter(range(1, SLOTS + 1))

    @property
    def captured(self) -> int:
        """Number of CUDA graphs."""
        return len(self._captured)

    @property
    def buffered(self) -> int:
        """Number of shapes whose buffers are kept without a CUDA graph."""
        return len(self._buffers)

    def run(self, batch: Batch) -> NDArray[np.float32]:
        """Compute the logits of a batch, ``[batch.texts, labels]``, or those of all its tokens.

        Raises:
            InferenceError: The graph failed.
        """
        slot = self._slot()
        return self._run(batch, slot) if slot else self._worker.submit(self._run, batch, 0).result()

    def _slot(self) -> int:
        """Return the calling thread's slot, from 1, or 0 if none was left; slots are not reused."""
        slot: int | None = getattr(self._thread, "slot", None)
        if slot is None:
            with self._slots_lock:
                slot = self._thread.slot = next(self._slots, 0)
        return slot

    def _run(self, batch: Batch, slot: int) -> NDArray[np.float32]:
        try:
            with cuda_lock:
                logits = self._captured_or_plain(batch, slot)
        except Exception as error:  # ONNX Runtime's exceptions share no base but Exception
            raise self._failure(batch, error) from error
        return batch.own_tokens(logits) if self._by_token else logits[: batch.texts]

    def _failure(self, batch: Batch, error: Exception) -> InferenceError:
        cause = diagnose(str(error))
        detail = f"{cause.says}: {cause.way_out}" if cause else first_line(error)
        message = f"{self.session.file} failed on {batch.bucket.texts} texts, {batch.bucket.tokens} tokens: {detail}"
        if cause and cause.name == "out_of_memory":
            return NoMemoryLeftError(f"{message}, or raise cuda.gpu_mem_limit if it is set")
        return InferenceError(message)

    def __del__(self, lock: CudaLock = cuda_lock) -> None:
        """Free the session and its buffers under the lock, whose name may be gone at the end of a program."""
        with lock:
            self._kept.clear()
            self._buffers.clear()
            del self.session

    def _captured_or_plain(self, batch: Batch, slot: int) -> NDArray[np.float32]:
        graph, buffers = self._buffers_for(batch, slot)
        try:
            return buffers.run(batch.arrays, graph=graph)
        except Exception as error:  # as above
            if graph is None:
                raise
            self._forget((slot, batch.bucket), error)
            graph, buffers = self._buffers_for(batch, slot)
            return buffers.run(batch.arrays, graph=graph)

    def _forget(self, key: tuple[int, Bucket], error: Exception) -> None:
        """Undo a failed capture, for lack of memory or spoiled by another library; later it may succeed."""
        self._failures += 1
        if self._failures >= MOST_FAILURES:
            self._graphs = False
            _log.warning("%s runs without CUDA graphs from now on: %s", self.session.file, first_line(error))
        else:
            _log.info("%s could not capture a CUDA graph, and runs without: %s", self.session.file, first_line(error))
        del self._captured[key]
        self._seen[key] = -RETRY_AFTER * 2**self._failures
        _, bucket = key
        if not any(bucket == other for _, other in self._captured):
            self._buffers[bucket] = self._kept.pop(bucket)

    def _buffers_for(self, batch: Batch, slot: int) -> tuple[int | None, IoBuffers]:
        bucket = batch.bucket
        if self._graphs and capturable(bucket.texts, bucket.tokens) and (graph := self._graph(slot, bucket)):
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

    def _graph(self, slot: int, bucket: Bucket) -> int | None:
        """Return the number of a CUDA graph to capture or replay; None if it is too early, or there are enough."""
        key = slot, bucket
        if key not in self._captured:
            self._seen[key] += 1
            if self._seen[key] < CAPTURE_AT or (bucket.texts > 1 and self._full(slot)):
                return None
            self._captured[key] = next(self._numbers)
        return self._captured[key]

    def _full(self, slot: int) -> bool:
        return sum(owner == slot and bucket.texts > 1 for owner, bucket in self._captured) >= MAX_GRAPHS

    def _make(self, batch: Batch) -> IoBuffers:
        rows = batch.places if self._by_token else (batch.bucket.texts,)
        shape, device, index = (*rows, self._labels), self._device, self._index
        return IoBuffers(self._runtime, self.session, batch, shape=shape, device=device, index=index, pin=self._pin)
