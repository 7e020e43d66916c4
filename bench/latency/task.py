"""Tasks of ``bench latency`` in an engine's process: time one shape, and the overhead of a ``Classifier``."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable
from time import perf_counter
from typing import Any

import numpy as np

from ..engines.batches import Shape, random_batch
from ..run.stats import WARM_UP_SECONDS, WINDOW, WarmUp, sample, warm_up
from ..run.worker import State

MOMENT = 0.05  # seconds of warm-up of a later visit, at least one iteration
MOST_WARM_UP = 15.0  # seconds of the first one: for two windows of iterations that last a second
SLOW = 8.0  # times the seconds of a visit, after which it ends with fewer samples than wanted
OVERHEAD_WARM_UP = 20 * WINDOW
TRIES = 200  # draws of words to get the wanted number of tokens


def time_shape(state: State, request: dict[str, Any]) -> dict[str, Any]:
    """Time one visit to a shape, from token ids in memory to logits in memory, as ``time_visit`` says."""
    return time_visit(state, request, functools.partial(_iteration, state))


def time_visit(
    state: State, request: dict[str, Any], iteration: Callable[[Shape, list[int]], Callable[[], float]]
) -> dict[str, Any]:
    """Time one visit; ``iteration`` makes the function that runs once and returns its seconds, of a shape and a seed.

    The first visit warms up until the times settle; later ones run for a moment first, because other engines have changed the
    CPU's caches and clock speed since. The timed batches are new in every iteration and the same for every engine: the tokens
    of the warm-up, whose length differs between engines, come from another generator.

    The request has ``batch`` and ``tokens``; ``seed``, integers that are the same for every engine; ``seconds`` and
    ``samples`` of the visit, at least. Returns ``seconds`` of each iteration, and ``warm_up``.
    """
    shape, seconds = Shape(batch=request["batch"], tokens=request["tokens"]), request["seconds"]
    once, before = iteration(shape, [*request["seed"], 0]), state.warm.get(str(shape))
    if before is None:
        once()  # some engines compile
        warm = warm_up(once, cap=min(MOST_WARM_UP, max(WARM_UP_SECONDS, 11 * once())))
    else:
        spent = sample(once, least_samples=1, least_seconds=min(MOMENT, seconds), most_seconds=MOMENT)
        warm = WarmUp(iterations=len(spent), seconds=sum(spent), converged=before.converged)
    state.warm[str(shape)] = warm
    timed = iteration(shape, [*request["seed"], 1])
    most = max(SLOW * seconds, 1e-3)
    times = sample(timed, least_samples=request["samples"], least_seconds=seconds, most_seconds=most)
    return {"seconds": times, "warm_up": dataclasses.asdict(warm)}


def _iteration(state: State, shape: Shape, seed: list[int]) -> Callable[[], float]:
    """Return the function that runs the engine once on a new batch and returns its seconds."""
    engine, vocabulary, random = state.open_engine(), state.vocabulary, np.random.default_rng(seed)
    assert vocabulary is not None

    def once() -> float:
        batch = random_batch(shape, vocabulary, random)
        begun = perf_counter()
        engine.logits(batch)
        return perf_counter() - begun

    return once


def whole_words(vocabulary: Iterable[str]) -> list[str]:
    """Return the words that are one token after a space, with the space; ``Ġ`` or ``▁`` marks it in byte pairs and Unigram."""
    marked = [token[1:] for token in vocabulary if token.startswith(("Ġ", "▁"))]
    return sorted(f" {word}" for word in marked or vocabulary if word.isascii() and word.isalpha() and len(word) > 2)


def time_overhead(_state: State, request: dict[str, Any]) -> dict[str, Any]:
    """Time a ``Classifier`` from one text to its label, and the bare session on the same tokens.

    They take turns in going first, and before each the next text is drawn, so that both find the caches and ONNX Runtime's
    threads, which spin for a while after a run, in the same state.

    The request has ``artifact``, ``device``, ``precision``, ``threads``, ``tokens`` of the text, and ``seconds`` to go on for.
    Returns ``text_us`` and ``session_us``, the medians; ``overhead_us``, the median of the differences of pairs; ``pairs``.
    """
    from fusedbert.engine.artifact import PACKED
    from fusedbert.engine.load import Options
    from fusedbert.engine.load.open import load
    from fusedbert.engine.model import Model
    from fusedbert.engine.tasks.heads import classifier_of
    from fusedbert.engine.text.inputs import check_items

    options = Options.parse(**{name: request[name] for name in ("device", "precision", "threads")})
    loaded = load(request["artifact"], options)
    classifier = classifier_of(Model(loaded, options))
    session, names, packed = loaded.session.raw, loaded.session.inputs, loaded.runtime.layout == PACKED
    random = np.random.default_rng(0)
    words = whole_words(loaded.tokenizer.raw.get_vocab())

    def draw() -> tuple[str, Any]:
        tries = 0
        while True:
            text = "".join(random.choice(words, size=request["tokens"] - 2).tolist())
            (row,) = loaded.tokenizer.encode(check_items([text]))
            tries += 1
            if len(row.ids) == request["tokens"] or tries == TRIES:
                break
        if packed:
            return text, loaded.runner.prepare([row])
        every = {"input_ids": row.ids, "attention_mask": [1] * len(row.ids), "token_type_ids": row.types}
        return text, {name: np.array([every[name]], dtype=dtype) for name, dtype in names.items()}  # [1, tokens]

    def pair(number: int) -> tuple[float, float]:
        text, feeds = draw()
        bare = (lambda: loaded.runner.execute(feeds)) if packed else (lambda: session.run(["logits"], feeds))
        calls = (lambda: classifier(text)), bare
        spent = [0.0, 0.0]
        for which in (0, 1) if number % 2 else (1, 0):
            draw()
            begun = perf_counter()
            calls[which]()
            spent[which] = perf_counter() - begun
        return spent[0], spent[1]

    for number in range(OVERHEAD_WARM_UP):
        pair(number)
    pairs: list[tuple[float, float]] = []
    until = perf_counter() + request["seconds"]
    while perf_counter() < until or len(pairs) < WINDOW:
        pairs.append(pair(len(pairs)))
    times = 1e6 * np.array(pairs)  # [pairs, 2]
    text, bare = np.median(times, axis=0)
    return {
        "tokens": request["tokens"],
        "text_us": float(text),
        "session_us": float(bare),
        "overhead_us": float(np.median(times[:, 0] - times[:, 1])),
        "pairs": len(pairs),
    }
