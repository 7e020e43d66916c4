"""The task of ``bench rank`` in an engine's process: rank random documents for a random query."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from ...engines.batches import Shape
from ...run.worker import State
from ..task import time_visit, whole_words

QUERY = 8  # words of the query, a token each
KEY = "rank"


def time_ranking(state: State, request: dict[str, Any]) -> dict[str, Any]:
    """Time one visit, from a query and documents in memory to their order; as ``latency.task.time_shape``.

    Of the shape, ``batch`` is the number of documents and ``tokens`` that of each; ``tokenizer`` names a tokenizer.json.
    """
    if KEY not in state.kept:
        state.kept[KEY] = read_words(Path(request["tokenizer"]))
    return time_visit(state, request, functools.partial(_iteration, state))


def _iteration(state: State, shape: Shape, seed: list[int]) -> Callable[[], float]:
    """Return the function that ranks new documents once and returns the seconds."""
    engine, words, random = state.open_engine(), state.kept[KEY], np.random.default_rng(seed)

    def once() -> float:
        query, *documents = draw(words, shape, random)
        begun = perf_counter()
        order = engine.rank(query, documents)
        seconds = perf_counter() - begun
        if sorted(order) != list(range(shape.batch)):
            raise ValueError(f"a ranking of {len(order)} documents, expected each of {shape.batch} once")
        return seconds

    return once


def draw(words: list[str], shape: Shape, random: np.random.Generator) -> list[str]:
    """Draw a query, and documents of ``shape.tokens`` words, each a token."""
    texts = [random.choice(words, size=QUERY), *random.choice(words, size=(shape.batch, shape.tokens))]
    return ["".join(text).strip() for text in texts]


def read_words(path: Path) -> list[str]:
    """Read the words that are one token of a tokenizer, with the space in front of them.

    Raises:
        ValueError: There are too few to draw texts from.
    """
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    found = whole_words(tokenizer.get_vocab())
    known = tokenizer.encode_batch([f"a{word} a" for word in found], add_special_tokens=False)
    words = [word for word, encoding in zip(found, known, strict=True) if len(encoding.ids) == 3]
    if len(words) < QUERY:
        raise ValueError(f"{path} has {len(words)} words of one token, too few to draw texts from")
    return words
