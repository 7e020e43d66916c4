"""Texts to train a small classifier on: labelled sentences, and views of them (cut, joined, as typed) that a teacher labels.

A view is never a text that is held out, so what the model is measured on stays unseen.
"""

from __future__ import annotations

import csv
import dataclasses
import random
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

CUTS = 3  # parts of each sentence in an epoch
JOINED = 0.4  # joined texts of an epoch, for each sentence
TOGETHER = (2, 2, 3, 3, 4, 8)  # sentences of a joined text, drawn from these
TYPED = 0.5  # share of the texts that are rewritten as people type them
FEW_WORDS = 0.3  # share of the cuts that have one to three words, which teach the words themselves


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sentence:
    """A text, and its label if a person gave it one."""

    text: str
    label: int | None = None


def read_sentences(path: Path) -> list[Sentence]:
    """Read a tsv with the columns ``sentence`` and ``label``; quotes are plain characters there."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        return [Sentence(text=row["sentence"].strip(), label=int(row["label"])) for row in rows]


def plain(text: str) -> str:
    """Return only the letters and digits of a text, in lower case: equal for texts that differ in spaces and signs."""
    return "".join(filter(str.isalnum, text.lower()))


def as_typed(text: str, rng: random.Random) -> str:
    """Rewrite a sentence that was split into words as people type it: "Did n't work ." becomes "Didn't work."."""
    text = re.sub(r" ([.,!?;:)%]|n't\b|'(?:s|re|ve|ll|d|m)\b)", r"\1", text.replace("( ", "("))
    text = text.replace("`` ", '"').replace(" ''", '"').replace("--", "-")
    style = rng.random()
    if style < 0.7:
        return text[:1].upper() + text[1:]
    return text.upper() if style > 0.95 else text


def draw_views(sentences: Sequence[Sentence], held_out: Collection[str], rng: random.Random) -> list[Sentence]:
    """Draw an epoch's texts: each sentence, parts of it, and joined ones.

    Args:
        sentences: What may be trained on.
        held_out: ``plain`` texts that may not come up.
        rng: Decides everything that is random.

    Returns:
        Texts in random order; only a whole sentence has a label.
    """
    drawn = [Sentence(text=_style(text, rng), label=label) for text, label in _views(sentences, rng)]
    kept = [each for each in drawn if plain(each.text) not in held_out]
    rng.shuffle(kept)
    return kept


def _views(sentences: Sequence[Sentence], rng: random.Random) -> Iterator[tuple[str, int | None]]:
    for sentence in sentences:
        yield sentence.text, sentence.label
        for _ in range(CUTS):
            yield _cut(sentence.text, rng), None
        if rng.random() < JOINED:
            yield " ".join(_part(each.text, rng) for each in rng.choices(sentences, k=rng.choice(TOGETHER))), None


def _cut(text: str, rng: random.Random) -> str:
    words = text.split()
    size = rng.randint(1, min(3, len(words)) if rng.random() < FEW_WORDS else len(words))
    start = rng.randint(0, len(words) - size)
    return " ".join(words[start : start + size])


def _part(text: str, rng: random.Random) -> str:
    """Return a sentence of a joined text, now and then only a part of it."""
    return _cut(text, rng) if rng.random() < 0.25 else text


def _style(text: str, rng: random.Random) -> str:
    return as_typed(text, rng) if rng.random() < TYPED else text
