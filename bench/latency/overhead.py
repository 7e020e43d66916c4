"""The task ``overhead``: what a ``Classifier`` adds on top of the bare session, from one text to its label.

Both run on the same tokens, fresh in every iteration: the classifier from the text, the session from arrays that lie
ready. They take turns in going first, and before each the next text is drawn, so that both find the caches and ONNX
Runtime's threads, which spin for a while after a run, as the other does.
"""

from __future__ import annotations

from time import perf_counter
from typing import Any

import numpy as np

from ..run.state import State
from ..stats.timing import WINDOW

WARM_UP = 20 * WINDOW
TRIES = 200  # words are drawn anew where they give another number of tokens than wanted


def run(state: State, request: dict[str, Any]) -> dict[str, Any]:
    """Time both.

    Args:
        state: Not used: the classifier is one of its own.
        request: ``artifact``, ``device``, ``precision``, ``threads``, ``tokens`` of the text, ``seconds`` to go on for.

    Returns:
        ``text_us`` and ``session_us``, the medians; ``overhead_us``, the median of the differences of pairs; ``pairs``.
    """
    del state
    from fusedbert.engine import Classifier
    from fusedbert.engine.artifact import PACKED
    from fusedbert.engine.load.open import load
    from fusedbert.engine.options import Options
    from fusedbert.engine.text.inputs import check_items

    chosen = {"device": request["device"], "precision": request["precision"], "threads": request["threads"]}
    options = Options.parse(**chosen)
    loaded = load(request["artifact"], options)
    classifier = Classifier(loaded, options)
    session, names, packed = loaded.session.raw, loaded.session.inputs, loaded.runtime.layout == PACKED
    random = np.random.default_rng(0)
    words = [word for word in sorted(loaded.tokenizer.raw.get_vocab()) if word.isascii() and word.isalpha() and len(word) > 2]

    def draw() -> tuple[str, Any]:
        for _ in range(TRIES):
            text = " ".join(random.choice(words, size=request["tokens"] - 2).tolist())
            (row,) = loaded.tokenizer.encode(check_items([text]))
            if len(row.ids) == request["tokens"]:
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

    for number in range(WARM_UP):
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
