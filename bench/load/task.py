"""Tasks of ``bench load`` in an engine's process: single texts under load.

Mode ``plain`` calls the engine from a pool of threads, as a service does; ``batcher`` is fusedbert's ``Batcher``.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from ..run.worker import State
from .open_loop import Clock, Server, drive, poisson_schedule

KEY = "load"
PLAIN, BATCHER = "plain", "batcher"
WARM, ALONE = 20, 100  # texts one after the other: thrown away, then timed
PROBED = 64  # texts that are run from several threads at once, to see whether their answers stay the same
PROBE_SECONDS = 1.0  # at least: two calls may miss each other
CLOSE = 1e-3  # of the largest logit: how far an answer may move (batches and threads change roundings)
AT_ONCE = 64  # open requests while a Batcher is kept busy


def open_texts(state: State, request: dict[str, Any]) -> dict[str, Any]:
    """Read the texts from ``path`` (JSON), with ``max_length`` and the number of ``callers`` of plain mode.

    Returns ``alone_ms``, the median time of a text while nothing else runs, and ``modes``, those it has.
    """
    texts = json.loads(Path(request["path"]).read_bytes())
    kept = state.kept[KEY] = {"texts": texts, "max_length": request["max_length"], "callers": request["callers"]}
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
    kept["why"] = takes_threads(lambda index: _logits(state, index), min(PROBED, len(texts)), request["callers"])
    if kept["why"]:
        kept["callers"] = 1
    modes = [PLAIN] if _classifier(state) is None else [PLAIN, BATCHER]
    return {"alone_ms": 1e3 * float(np.median(times)), "modes": modes}


def takes_threads(call: Callable[[int], Any], count: int, callers: int) -> str:
    """Compare calls from several threads at once with calls one after the other; return the failure, or an empty text.

    ``call`` returns the logits of a text, by its index below ``count``.
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
            return _one_line(error)
        off = max(float(np.abs(np.asarray(b) - a).max()) for a, b in zip(alone, together, strict=True))
        if not off <= CLOSE * scale:
            return f"a logit moved by {off:.3g}"
        if perf_counter() > end:
            return ""


def saturate(state: State, request: dict[str, Any]) -> dict[str, Any]:
    """Keep the engine busy in ``mode`` for ``seconds``.

    Returns ``rate``, of its answers a second; ``callers``, one if the engine does not take more; and ``why``, its failure then.
    """
    kept, seconds = state.kept[KEY], request["seconds"]
    call, count = _caller(state), len(kept["texts"])
    if request["mode"] == BATCHER:
        rate = _batcher_rate(state, kept["texts"], seconds)
    else:
        try:
            rate = _rate(call, count, kept["callers"], seconds)
        except Exception as error:  # the probe was too short to see it
            if kept["callers"] == 1:
                raise
            kept |= {"callers": 1, "why": _one_line(error)}
            rate = _rate(call, count, 1, seconds)
    return {"rate": rate, "callers": kept["callers"], "why": kept["why"]}


def _batcher_rate(state: State, texts: list[str], seconds: float) -> float:
    """Keep ``AT_ONCE`` requests open; return the number of answers a second."""
    begun, done = perf_counter(), 0
    room = threading.Semaphore(AT_ONCE)
    with _batcher(state) as batcher:
        while perf_counter() < begun + seconds:
            room.acquire()
            batcher.submit(texts[done % len(texts)]).add_done_callback(lambda _: room.release())
            done += 1
        rate = (done - AT_ONCE) / (perf_counter() - begun)
        batcher.close(drain=False)  # what still waits is not counted
        return rate


def _rate(call: Callable[[int], object], count: int, callers: int, seconds: float) -> float:
    """Call from threads that never wait; return the number of calls a second."""
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
    """Send arrivals, and return the fields of ``open_loop.Outcome``.

    The request has ``mode``, ``rate``, ``seconds``, ``seed`` (integers: which texts arrive when), and ``grace`` and ``give_up``
    as for ``open_loop.drive``.
    """
    kept, clock, random = state.kept[KEY], Clock(), np.random.default_rng(request["seed"])
    texts, call = kept["texts"], _caller(state)
    offsets = poisson_schedule(request["rate"], request["seconds"], random)
    drawn = random.integers(0, len(texts), size=len(offsets)).tolist()
    limits = {"grace": request["grace"], "give_up": request["give_up"]}
    if request["mode"] == BATCHER:
        with _batcher(state) as batcher:
            server = Server(lambda n: batcher.submit(texts[drawn[n]]), lambda: batcher.close(drain=False), clock)
            outcome = drive(offsets, server, clock, **limits)
    else:
        with ThreadPoolExecutor(kept["callers"]) as pool:
            server = Server(lambda n: pool.submit(call, drawn[n]), lambda: pool.shutdown(cancel_futures=True), clock)
            outcome = drive(offsets, server, clock, **limits)
    return {**vars(outcome), "latencies": np.round(outcome.latencies, 7).tolist()}


def _caller(state: State) -> Callable[[int], object]:
    """Return the call that answers text ``index`` as in an application: fusedbert's classifier, other engines' logits."""
    classifier, texts = _classifier(state), state.kept[KEY]["texts"]
    if classifier is None:
        return lambda index: _logits(state, index)
    return lambda index: classifier(texts[index])


def _logits(state: State, index: int) -> Any:
    kept = state.kept[KEY]
    return state.open_engine().texts([kept["texts"][index]], batch_size=1, max_length=kept["max_length"])


def _classifier(state: State) -> Any:
    """Return fusedbert's ``Classifier``; None for another engine."""
    return getattr(state.open_engine(), "classifier", None)


def _batcher(state: State) -> Any:
    from fusedbert.engine.server.batcher import Batcher

    return Batcher(_classifier(state))


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
