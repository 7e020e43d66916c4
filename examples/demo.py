"""Classify a file of sentences and time one text at a time: what ``make demo`` runs, and the Python interface in use.

python examples/demo.py artifacts/sst2-mini examples/sentences.txt
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

from fusedbert.engine import Classifier

ROUNDS = 10
NEXT = """Try next
  .venv/bin/fusedbert classify -m {model} "Your own sentence."
  .venv/bin/fusedbert bench latency -m {model}
  .venv/bin/fusedbert doctor -m {model}
  make test"""


def single_text_milliseconds(clf: Classifier, texts: list[str]) -> float:
    """Return the median time from one text to its label, tokenizing included, after a warm-up of the same length."""
    times = []
    for _ in range(2 * ROUNDS):
        for text in texts:
            start = time.perf_counter()
            clf(text)
            times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times[len(times) // 2 :])


def main(model: str, sentences: str) -> None:
    """Print label and score of each line, what they were computed with, and how long one takes."""
    texts = Path(sentences).read_text(encoding="utf-8").splitlines()
    with Classifier.from_pretrained(model, precision="fp32") as clf:  # one after the other: their threads would compete
        exact = clf(texts)
    start = time.perf_counter()
    with Classifier.from_pretrained(model) as clf:
        first = clf(texts[0])
        ready = time.perf_counter() - start
        runtime = clf.runtime

        print(f"\n  {'label':<9} {'fp32':<6}  {runtime.precision:<6}  text")
        for text, answer, quick in zip(texts, exact, clf.predict_proba(texts), strict=True):
            score = quick[clf.classes_.index(answer["label"])]
            print(f"  {answer['label']:<9} {answer['score']:.4f}  {score:.4f}  {text}")

        print()
        print(f"  model      {model}")
        print(f"  device     {runtime.device} ({runtime.provider}, {runtime.threads} threads)")
        print(f"  precision  {runtime.precision} ({runtime.file.name}, {runtime.fused_attention} fused attention nodes)")
        print(f"  why        {runtime.why}")
        print(f"  latency    {single_text_milliseconds(clf, texts):.2f} ms a text (p50 of single texts, tokenizing included)")
        print(f"  start      {ready:.2f} s from loading the artifact to the first answer ({first[0]['label']})")
        print()
        print(NEXT.format(model=model))


if __name__ == "__main__":
    main(*sys.argv[1:])
