"""The task ``load``: make the prepared contender ready to run, and say what it is."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import Any

from ..engines.batches import read_vocabulary
from .state import State


def run(state: State, request: dict[str, Any]) -> dict[str, Any]:
    """Load.

    Args:
        state: Holds the contender from ``prepare``; gets the vocabulary.
        request: ``tokenizer``, the folder with the ``tokenizer.json`` that random texts are drawn from.

    Returns:
        ``seconds``, and ``description``, what the contender says of itself.
    """
    contender = state.engine()
    begun = perf_counter()
    contender.load()
    seconds = perf_counter() - begun
    state.vocabulary = read_vocabulary(Path(request["tokenizer"]))
    return {"seconds": seconds, "description": dict(contender.describe())}
