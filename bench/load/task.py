"""The task ``arrivals``: single texts under load; what is done is named in ``step``.

``open`` reads the texts, finds out whether the contender takes calls from several threads at once, and how fast it answers
without waiting. ``saturate`` keeps it busy for a moment and returns the rate. ``run`` sends arrivals of one rate.

``plain`` is how a service calls a classifier from its pool of threads; ``batcher`` is ours through ``Batcher``.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from ..run.state import State
from .open_loop import Clock, Log, PoolServer, Server, WallClock, drive, poisson_schedule

KEY = "arrivals"
PLAIN, BATCHER = "plain", "batcher"
WARM, ALONE = 20, 100  # texts one after the other: thrown away, then timed
PROBED = 64  # texts that are run from several threads at once, to see whether the answers stay the same
PROBE_SECONDS = 1.0  # how long that goes on at least: two calls may miss each other
CLOSE = 1e-3  # of the largest logit: how far an answer may move for that (batch mates and threads change roundings)
AT_ONCE = 64  # open requests while a Batcher is kept busy


def run(state: State, request: dict[str, Any]) -> dict[str, Any]:
    """Do one step.

    Args:
        state: Holds the loaded contender; keeps the texts.
        request: ``step``, and what the step takes; see the functions below.
    """
    steps: dict[str, Callable[[State, dict[str, Any]], dict[str, Any]]] = {
        "open": open_texts,
        "saturate": saturate,
        "run": run_rate,
    }
    return steps[request["step"]](state, request)


def open_texts(state: State, request: dict[str, Any]) -> dict[str, Any]:
    """Read the texts from ``path`` (JSON), with ``max_length`` and the number of ``callers`` of plain mode.

    Returns:
        ``alone_ms``, the median time of a text while nothing else runs; ``callers``, how many threads call in plain mode: one,
        where the engine does not stand more; ``why``, what it did then; and ``modes``, those that there are.
    """
    texts = json.loads(Path(request["path"]).read_bytes())
    kept = {"texts": texts, "max_length": request["max_length"], "callers": request["callers"]}
    state.kept[KEY] = kept
    call = _caller(state)
    for index in range(WARM):
        call(index % len(texts))
    times = []
    for index in range(ALONE):
        begun = perf_counter()
        call((WARM + index) % len(texts))
        times.append(perf_counter() - begun)
        if sum(times) > 3.0:
            break
    why = stands_threads(lambda index: _logits(state, index), min(PROBED, len(texts)), request["callers"])
    if why:
        kept["callers"] = 1
    return {
        "alone_ms": 1e3 * float(np.median(times)),
        "callers": kept["callers"],
        "why": why,
        "modes": [PLAIN, BATCHER] if _has_batcher(state) else [PLAIN],
    }


def stands_threads(call: Callable[[int], Any], count: int, callers: int) -> str:
    """Call from several threads at once and compare with one after the other.

    Args:
        call: Returns the logits of text ``index``.
        count: Number of texts.
        callers: Number of threads.

    Returns:
        What went wrong; empty where nothing did.
    """
    if callers == 1:
        return ""
    alone = [np.asarray(call(index)) for index in range(count)]
    scale = max(1.0, max(float(np.abs(a).max()) for a in alone))
    end = perf_counter() + PROBE_SECONDS
    while True:
        try:
            with ThreadPoolExecutor(callers) as threads:
                together = list(threads.map(call, range(count)))
        except Exception as error:  # whatever an engine raises when it is entered twice
            return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        off = max(float(np.abs(np.asarray(b) - a).max()) for a, b in zip(alone, together, strict=True))
        if not off <= CLOSE * scale:
            return f"a logit moved by {off:.3g}"
        if perf_counter() > end:
            return ""


def saturate(state: State, request: dict[str, Any]) -> dict[str, Any]:
    """Keep the contender busy in ``mode`` for ``seconds``; return the ``rate`` of its answers a second.

    Where it does not stand several callers after all, ``callers`` and ``why`` say so, as for ``open_texts``.
    """
    kept = state.kept[KEY]
    count = len(kept["texts"])
    if request["mode"] == BATCHER:
        begun, done = perf_counter(), 0
        end = begun + request["seconds"]
        room = threading.Semaphore(AT_ONCE)
        with _batcher(state) as batcher:
            while perf_counter() < end:
                room.acquire()
                future = batcher.submit(kept["texts"][done % count])
                future.add_done_callback(lambda _: room.release())
                done += 1
            return {"rate": (done - AT_ONCE) / (perf_counter() - begun)}
    try:
        return {"rate": _rate(_caller(state), count, kept["callers"], request["seconds"])}
    except Exception as error:  # the probe was too short to see it
        if kept["callers"] == 1:
            raise
        kept["callers"] = 1
        why = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return {"rate": _rate(_caller(state), count, 1, request["seconds"]), "callers": 1, "why": why}


def _rate(call: Callable[[int], object], count: int, callers: int, seconds: float) -> float:
    """Call from threads that never wait, and return how many calls a second ended."""
    begun = perf_counter()

    def work(first: int) -> int:
        done = 0
        while perf_counter() < begun + seconds:
            call((first + done * callers) % count)
            done += 1
        return done

    with ThreadPoolExecutor(callers) as threads:
        done = sum(threads.map(work, range(callers)))
    return done / (perf_counter() - begun)


def run_rate(state: State, request: dict[str, Any]) -> dict[str, Any]:
    """Send arrivals.

    Args:
        state: Holds the contender and the texts.
        request: ``mode``, ``rate``, ``seconds``, ``seed`` (integers: which texts arrive when), ``grace`` and ``give_up``
            as for ``arrivals.drive``.

    Returns:
        The fields of ``arrivals.Outcome``, ``latencies`` in seconds, ascending.
    """
    kept = state.kept[KEY]
    random = np.random.default_rng(request["seed"])
    offsets = poisson_schedule(request["rate"], request["seconds"], random)
    drawn = random.integers(0, len(kept["texts"]), size=len(offsets)).tolist()
    with _server(state, request["mode"], drawn) as (server, clock):
        outcome = drive(offsets, server, clock, rate=request["rate"], grace=request["grace"], give_up=request["give_up"])
    return {**vars(outcome), "latencies": np.round(outcome.latencies, 7).tolist()}


@contextlib.contextmanager
def _server(state: State, mode: str, drawn: list[int]) -> Iterator[tuple[Server, Clock]]:
    """Set up what requests go to; request ``n`` is text ``drawn[n]``."""
    clock, kept = WallClock(), state.kept[KEY]
    if mode == BATCHER:
        texts = [kept["texts"][index] for index in drawn]
        with _batcher(state) as batcher:
            yield BatcherServer(batcher, texts, clock), clock
        return
    call = _caller(state)
    yield PoolServer(lambda index: call(drawn[index]), callers=kept["callers"], clock=clock), clock


class BatcherServer:
    """Requests go to ``Batcher.submit``; where it refuses one, that is the request's error.

    Args:
        batcher: A ``fusedbert.engine.batcher.Batcher``.
        texts: The text of each request.
        clock: What time it is.
    """

    def __init__(self, batcher: Any, texts: list[str], clock: Clock) -> None:
        self._batcher, self._texts, self._clock = batcher, texts, clock

    def submit(self, index: int, log: Log) -> None:
        """Submit a request."""
        try:
            future = self._batcher.submit(self._texts[index])
        except Exception as error:  # its queue is full
            log.fail(index, type(error).__name__)
            return

        def ended(future: Any) -> None:
            if future.cancelled():
                log.fail(index, "CancelledError")
            elif (error := future.exception()) is not None:
                log.fail(index, type(error).__name__)
            else:
                log.answer(index, self._clock.now())

        future.add_done_callback(ended)

    def drain(self, log: Log, seconds: float) -> None:
        """Wait for the answers; those that are open then are dropped."""
        if not log.wait(seconds):
            log.close()
            self._batcher.close(drain=False)


def _caller(state: State) -> Callable[[int], object]:
    """Return what answers text ``index`` as an application would ask: ours by calling the classifier, peers by their logits."""
    classifier = _classifier(state)
    if classifier is None:
        return lambda index: _logits(state, index)
    texts = state.kept[KEY]["texts"]
    return lambda index: classifier(texts[index])


def _logits(state: State, index: int) -> Any:
    kept = state.kept[KEY]
    return state.engine().texts([kept["texts"][index]], batch_size=1, max_length=kept["max_length"])


def _classifier(state: State) -> Any:
    """Return our ``Classifier``, or None where the contender is another engine."""
    return getattr(state.engine(), "classifier", None)


def _has_batcher(state: State) -> bool:
    if _classifier(state) is None:
        return False
    try:
        import fusedbert.engine.batcher  # noqa: F401  # only whether it is there
    except ImportError:
        return False
    return True


@contextlib.contextmanager
def _batcher(state: State) -> Iterator[Any]:
    """Open a ``Batcher`` as it comes."""
    from fusedbert.engine.batcher import Batcher

    batcher = Batcher(_classifier(state))
    try:
        yield batcher
    finally:
        batcher.close(drain=False)
