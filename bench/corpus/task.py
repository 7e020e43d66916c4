"""The task ``corpus``: texts in, logits out, tokenizing included; what is done is named in ``step``.

``open`` reads the texts, ``trial`` looks for the contender's best batch size, ``run`` times all texts, ``single`` times one
text at a time.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..run.state import State

KEY = "corpus"
MOST_TIMES = 50  # over a corpus in one round
FALLING = 0.97  # of the best rate; two sizes in a row below it end the search


def run(state: State, request: dict[str, Any]) -> dict[str, Any]:
    """Do one step.

    Args:
        state: Holds the loaded contender; keeps the texts.
        request: ``step``, and what the step takes; see the functions below.

    Raises:
        ValueError: The contender gave logits of another shape than ``[texts, labels]``, or ones that are not finite.
    """
    steps: dict[str, Callable[[State, dict[str, Any]], dict[str, Any]]] = {
        "open": open_texts,
        "trial": trial,
        "run": run_all,
        "single": single,
    }
    return steps[request["step"]](state, request)


def open_texts(state: State, request: dict[str, Any]) -> dict[str, Any]:
    """Read the texts from the JSON file ``path``; ``max_length`` is where the contender cuts them."""
    texts = json.loads(Path(request["path"]).read_bytes())
    state.kept[KEY] = {"texts": texts, "max_length": request["max_length"]}
    return {"texts": len(texts)}


def trial(state: State, request: dict[str, Any]) -> dict[str, Any]:
    """Try batch sizes on a sample, which warms up too, and return the sample's logits at the best size.

    The first run of a size is not counted where there is time for a second one.

    Args:
        state: Holds the loaded contender and the texts.
        request: ``blocks``, lists of indices, the texts of each of similar length; ``sizes``, rising; ``seconds`` that a
            run should last at most: fewer blocks are run where the engine is slow.

    Returns:
        ``batch_size``; ``rates``, texts per second by size; ``indices`` of the sample, and its ``logits``.
    """
    blocks, sizes = request["blocks"], request["sizes"]
    probe = blocks[len(blocks) // 2][:16]
    _timed(state, probe, sizes[0])
    seconds, _ = _timed(state, probe, sizes[0])
    rate = len(probe) / seconds
    affordable = max(1, int(request["seconds"] * rate / len(blocks[0])))
    indices = [index for block in _middle(blocks, affordable) for index in block]

    def rate_of(size: int) -> float:
        first, _ = _timed(state, indices, size)
        if first > request["seconds"]:
            return len(indices) / first
        again, _ = _timed(state, indices, size)
        return len(indices) / again

    best, rates = best_size(sizes, rate_of)
    _, logits = _timed(state, indices, best)
    return {
        "batch_size": best,
        "rates": {str(size): rate for size, rate in rates.items()},
        "indices": indices,
        "logits": logits.tolist(),
    }


def best_size(sizes: Sequence[int], rate_of: Callable[[int], float]) -> tuple[int, dict[int, float]]:
    """Climb the sizes until the rate falls twice in a row.

    Returns:
        The size of the highest rate, and the rates of those that were tried.

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
    """Time all texts in the order of the file, as often as ``least`` seconds take, once at least.

    Args:
        state: Holds the loaded contender and the texts.
        request: ``batch_size``; ``least``; ``logits``, the file that they go into, or None.

    Returns:
        ``seconds`` of each time.
    """
    count = len(state.kept[KEY]["texts"])
    times: list[float] = []
    while not times or (sum(times) < request["least"] and len(times) < MOST_TIMES):
        seconds, logits = _timed(state, range(count), request["batch_size"])
        times.append(seconds)
    if request["logits"] is not None:
        np.save(request["logits"], logits.astype(np.float32), allow_pickle=False)
    return {"seconds": times}


def single(state: State, request: dict[str, Any]) -> dict[str, Any]:
    """Time the texts at ``indices`` one at a time, until ``limit`` seconds are spent; the first ``warm`` do not count.

    Returns:
        ``seconds`` of each.
    """
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
    """Run texts once; return the seconds from texts to logits, and these, float32 [texts, labels]."""
    kept, contender = state.kept[KEY], state.engine()
    texts = [kept["texts"][index] for index in indices]
    begun = perf_counter()
    logits = contender.texts(texts, batch_size=batch_size, max_length=kept["max_length"])
    seconds = perf_counter() - begun
    found = np.asarray(logits)
    if found.ndim != 2 or len(found) != len(texts):
        raise ValueError(f"logits of shape {found.shape} for {len(texts)} texts")
    if not np.isfinite(found).all():
        raise ValueError("NaN or infinity among its logits")
    return seconds, found


def _middle(blocks: Sequence[Sequence[int]], most: int) -> Sequence[Sequence[int]]:
    """Leave out blocks from both ends until there are no more than ``most``."""
    spare = max(0, len(blocks) - most)
    return blocks[spare // 2 : len(blocks) - (spare - spare // 2)]
