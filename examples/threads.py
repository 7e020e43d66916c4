"""One classifier for many threads: called directly, and through a ``Batcher``; the answers are the same.

python examples/threads.py artifacts/sst2-mini examples/sentences.txt
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from fusedbert.engine import Batcher, Classifier, OverloadError

THREADS = 16
CALLS = 2000


def timed(ask: Callable[[str], Any], texts: list[str]) -> tuple[list[Any], float]:
    """Ask from many threads at once; return the answers in the order of the texts, and texts per second."""
    with ThreadPoolExecutor(THREADS) as pool:
        start = time.perf_counter()
        answers = list(pool.map(ask, texts))
        return answers, len(texts) / (time.perf_counter() - start)


def main(model: str, sentences: str) -> None:
    """Print how many texts a second either way gives, and what the batcher counted."""
    lines = Path(sentences).read_text(encoding="utf-8").splitlines()
    texts = [lines[number % len(lines)] for number in range(CALLS)]
    # Many callers on the CPU: a thread a run, so that runs go side by side and wait for nobody.
    with Classifier.from_pretrained(model, threads=1) as clf:
        expected = [clf(text)[0]["label"] for text in lines]
        direct, rate = timed(clf, texts)
        print(f"  {rate:6.0f} texts/s  clf(text) from {THREADS} threads")
        with Batcher(clf, max_queue=256) as batcher:
            gathered, rate = timed(lambda text: batcher.submit(text).result(), texts)
            print(f"  {rate:6.0f} texts/s  batcher.submit(text).result() from {THREADS} threads")
            stats = batcher.stats
            print(f"  {stats.answered / stats.batches:6.1f} texts a batch")

            # More than it can take is refused at once, so that a caller can go elsewhere; nothing piles up.
            refused = 0
            futures = []
            for text in texts:
                try:
                    futures.append(batcher.submit(text, timeout=5.0))
                except OverloadError:
                    refused += 1
            print(f"  {refused:6d} of {len(texts)} texts refused when all came at once")
            late = [future.result()[0]["label"] for future in futures]
    labels = [expected[number % len(lines)] for number in range(CALLS)]
    assert [answer[0]["label"] for answer in direct] == labels
    assert [answer[0]["label"] for answer in gathered] == labels
    assert len(late) + refused == CALLS
    print("  the same answers either way")


if __name__ == "__main__":
    main(*sys.argv[1:])
