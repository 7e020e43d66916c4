"""Tasks of ``bench corpus`` in an engine's process: texts in, logits out, tokenizing included.

All raise ``ValueError`` if the engine's logits do not have the shape ``[texts, labels]``, or are not finite.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..run.worker import State

KEY = "corpus"
MOST_TIMES = 50  # over a corpus in one round
FALLING = 0.97  # of the best rate; two sizes in a row below it end the search


def open_texts(state: State, request: dict[str, Any]) -> dict[str, Any]:
    """Read the texts from the JSON file ``path``; the engine cuts them at ``max_length`` tokens."""
    texts = json.loads(Path(request["path"]).read_bytes())
    state.kept[KEY] = {"texts": texts, "max_length": request["max_length"]}
    return {}


def trial(state: State, request: dict[str, Any]) -> dict[str, Any]:
    """Try batch sizes on a sample, which also warms up, and return the sample's logits at the best size.

    The request has ``blocks``, lists of indices, the texts of each of similar length; ``sizes``, rising; and ``seconds``, the
    longest that a run should take: fewer blocks are run if the engine is slow.
    Returns ``batch_size``; ``rates``, texts per second by size; ``indices`` of the sample, and its ``logits``.
    """
    blocks, sizes, most = request["blocks"], request["sizes"], request["seconds"]
    probe = blocks[len(blocks) // 2][:16]
    _timed(state, probe, sizes[0])
    seconds, _ = _timed(state, probe, sizes[0])
    affordable = max(1, int(most * len(probe) / seconds / len(blocks[0])))
    spare = max(0, len(blocks) - affordable)  # left out at both ends
    indices = [index for block in blocks[spare // 2 :][:affordable] for index in block]

    def rate_of(size: int) -> float:
        seconds, _ = _timed(state, indices, size)
        if seconds <= most:
            seconds, _ = _timed(state, indices, size)  # the first run of a size warms up
        return len(indices) / seconds

    best, rates = best_size(sizes, rate_of)
    _, logits = _timed(state, indices, best)
    named = {str(size): rate for size, rate in rates.items()}
    return {"batch_size": best, "rates": named, "indices": indices, "logits": logits.tolist()}


def best_size(sizes: Sequence[int], rate_of: Callable[[int], float]) -> tuple[int, dict[int, float]]:
    """Try rising sizes until the rate falls twice in a row; return the size of the highest rate, and the rates.

    Example:
        >>> best_size([1, 2, 4, 8, 16], lambda size: 100.0 - (size - 2) ** 2)[0]
        2
    """
    rates: dict[int, float] = {}
    below = 0
    for size in sizes:
        rates[size] = rate_of(size)
        below = below + 1 if rates[size] < FALLING * max(rates.values()) else 0
        if below == 2:
            break
    return max(rates, key=lambda size: rates[size]), rates


def run_all(state: State, request: dict[str, Any]) -> dict[str, Any]:
    """Time all texts in the order of the file, for at least ``least`` seconds and at least once; return the ``seconds``.

    The request also has the ``batch_size``, and ``logits``, the file to write them into, or None.
    """
    count = len(state.kept[KEY]["texts"])
    seconds, logits = _timed(state, range(count), request["batch_size"])
    times = [seconds]
    while sum(times) < request["least"] and len(times) < MOST_TIMES:
        seconds, logits = _timed(state, range(count), request["batch_size"])
        times.append(seconds)
    if request["logits"] is not None:
        np.save(request["logits"], logits.astype(np.float32), allow_pickle=False)
    return {"seconds": times}


def single(state: State, request: dict[str, Any]) -> dict[str, Any]:
    """Time the texts at ``indices`` one at a time, until ``limit`` seconds are spent; return the ``seconds`` after ``warm``."""
    times: list[float] = []
    begun = perf_counter()
    for number, index in enumerate(request["indices"]):
        seconds, _ = _timed(state, [index], 1)
        if number >= request["warm"]:
            times.append(seconds)
        if perf_counter() - begun > request["limit"] and times:
            break
    return {"seconds": times}


def _timed(state: State, indices: Sequence[int], batch_size: int) -> tuple[float, NDArray[np.float32]]:
    """Run texts once; return the seconds from texts to logits, and the logits, float32 [texts, labels]."""
    kept, engine = state.kept[KEY], state.open_engine()
    texts = [kept["texts"][index] for index in indices]
    begun = perf_counter()
    found = engine.texts(texts, batch_size=batch_size, max_length=kept["max_length"])
    seconds = perf_counter() - begun
    logits = np.asarray(found)
    if logits.ndim != 2 or len(logits) != len(texts):
        raise ValueError(f"logits of shape {logits.shape} for {len(texts)} texts")
    if not np.isfinite(logits).all():
        raise ValueError("NaN or infinity among its logits")
    return seconds, logits
