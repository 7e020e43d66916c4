"""Entities: the spans of a text whose tokens have one label, as transformers' token classification pipeline finds them.

Each strategy first gives labels, to tokens (``none``, ``simple``) or to words (``first``, ``average``, ``max``); then, except
with ``none``, neighbours of one label become a group. A label "B-PER" begins a group, "I-PER" and "PER" go on with it (Ramshaw
and Marcus 1995).
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from ...text.outputs import Floats

Entity = dict[str, Any]


class Strategy(enum.StrEnum):
    """The pipeline's ways to put tokens together."""

    NONE = "none"
    SIMPLE = "simple"
    FIRST = "first"
    AVERAGE = "average"
    MAX = "max"

    @property
    def by_word(self) -> bool:
        """True if all tokens of a word get one label."""
        return self in (Strategy.FIRST, Strategy.AVERAGE, Strategy.MAX)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spelling:
    """A tokenizer's tokens as text."""

    name: Callable[[int], str | None]  # of an id
    join: Callable[[list[str]], str]  # tokens to text
    marked: bool  # whether tokens inside a word have a mark, as "##" in WordPiece
    unknown: int | None  # the id of unknown words

    @classmethod
    def of(cls, raw: Tokenizer, unknown: int | None) -> Spelling:
        """Return the spelling of a tokenizer."""
        model: Any = raw.model
        return cls(
            name=raw.id_to_token,
            join=" ".join if raw.decoder is None else raw.decoder.decode,
            marked=bool(getattr(model, "continuing_subword_prefix", None)),
            unknown=unknown,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextTokens:
    """The tokens of a row, without special ones."""

    text: str
    ids: Sequence[int]
    places: Sequence[int]  # of each token in the row
    starts: Sequence[int]  # its first character in the text
    ends: Sequence[int]  # the character after its last one
    words: Sequence[int | None] = ()  # its word, of a text that is given as words

    def word(self, i: int, spelling: Spelling) -> str:
        """Return a token as the pipeline writes it: an unknown word as it stands in the text."""
        if self.ids[i] == spelling.unknown:
            return self.text[self.starts[i] : self.ends[i]]
        return spelling.name(self.ids[i]) or ""

    def heads(self, spelling: Spelling) -> NDArray[np.intp]:
        """Return the first token of each word."""
        inside = [i > 0 and self._goes_on(i, spelling) for i in range(len(self.ids))]
        return np.flatnonzero(~np.array(inside, dtype=bool))

    def _goes_on(self, i: int, spelling: Spelling) -> bool:
        """Return whether a token goes on with the word before it."""
        token, start = self.ids[i], self.starts[i]
        if token == spelling.unknown:
            return False
        if spelling.marked:  # the mark makes a token longer than its part of the text
            return len(spelling.name(token) or "") != self.ends[i] - start
        return start > 0 and " " not in self.text[start - 1 : start + 1]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Names:
    """The names of the labels, and which of them make a group."""

    labels: tuple[str, ...]
    groups: tuple[str, ...]  # the name of the group that a label begins
    tags: NDArray[np.intp]  # labels of one tag have one number, [labels]
    begins: NDArray[np.bool_]  # whether a label always begins a group, [labels]

    @classmethod
    def of(cls, labels: Sequence[str]) -> Names:
        """Take the labels apart.

        Example:
            >>> Names.of(["O", "B-PER", "I-PER"]).groups
            ('O', 'PER', 'PER')
        """
        tags = [label[2:] if label.startswith(("B-", "I-")) else label for label in labels]
        return cls(
            labels=tuple(labels),
            groups=tuple(label.split("-", 1)[-1] for label in labels),
            tags=np.array([tags.index(tag) for tag in tags], dtype=np.intp),
            begins=np.array([label.startswith("B-") for label in labels], dtype=bool),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Units:
    """Tokens or words, each with one label."""

    best: NDArray[np.intp]  # its label
    scores: Floats  # of that label
    firsts: NDArray[np.intp]  # its first token
    lasts: NDArray[np.intp]


def find_entities(
    tokens: TextTokens, scores: Floats, names: Names, spelling: Spelling, strategy: Strategy, ignored: Collection[str]
) -> list[Entity]:
    """Return the entities of a row from the probabilities of its tokens, ``[tokens, labels]``."""
    if not len(tokens.ids):
        return []
    if strategy is Strategy.NONE:
        return _each(tokens, scores, names, spelling, ignored)
    units = _units(scores, tokens.heads(spelling) if strategy.by_word else None, strategy)

    def word(unit: int) -> str:
        first, last = int(units.firsts[unit]), int(units.lasts[unit])
        if not strategy.by_word:
            return tokens.word(first, spelling)
        return spelling.join([tokens.word(i, spelling) for i in range(first, last + 1)])

    tags = names.tags[units.best]
    ends = np.flatnonzero((tags[1:] != tags[:-1]) | names.begins[units.best[1:]]) + 1  # of groups
    found = []
    for start, end in zip([0, *ends.tolist()], [*ends.tolist(), len(tags)], strict=True):
        name = names.groups[units.best[start]]
        if name in ignored:
            continue
        entity = {
            "entity_group": name,
            "score": float(units.scores[start:end].mean()),
            "word": spelling.join([word(unit) for unit in range(start, end)]),
            "start": tokens.starts[units.firsts[start]],
            "end": tokens.ends[units.lasts[end - 1]],
        }
        found.append(entity)
    return found


def _each(tokens: TextTokens, scores: Floats, names: Names, spelling: Spelling, ignored: Collection[str]) -> list[Entity]:
    """Return an entity for each token."""
    best = scores.argmax(axis=-1).tolist()
    return [
        {
            "entity": names.labels[label],
            "score": float(scores[i, label]),
            "index": tokens.places[i],
            "word": tokens.word(i, spelling),
            "start": tokens.starts[i],
            "end": tokens.ends[i],
        }
        for i, label in enumerate(best)
        if names.labels[label] not in ignored
    ]


def _units(scores: Floats, heads: NDArray[np.intp] | None, strategy: Strategy) -> _Units:
    """Label tokens, or the words that begin at ``heads``."""
    count = len(scores)
    best = scores.argmax(axis=-1)  # [tokens]
    highest = scores[np.arange(count), best]
    if heads is None:
        every = np.arange(count)
        return _Units(best=best, scores=highest, firsts=every, lasts=every)
    lasts = np.append(heads[1:], count) - 1
    if strategy is Strategy.AVERAGE:
        means = scores[heads]  # [words, labels]
        for word in np.flatnonzero(lasts > heads):  # one by one: np.add.reduceat rounds otherwise than the pipeline
            means[word] = scores[heads[word] : lasts[word] + 1].mean(axis=0)
        best = means.argmax(axis=-1)
        return _Units(best=best, scores=means[np.arange(len(heads)), best], firsts=heads, lasts=lasts)
    chosen = heads
    if strategy is Strategy.MAX:
        chosen = np.array([i + highest[i : j + 1].argmax() for i, j in zip(heads, lasts, strict=True)], dtype=np.intp)
    return _Units(best=best[chosen], scores=highest[chosen], firsts=heads, lasts=lasts)


def join_windows(entities: list[Entity]) -> list[Entity]:
    """Choose among entities of overlapping windows: of two that overlap the longer one, then the likelier one."""
    ordered = sorted(entities, key=lambda entity: entity["start"])
    if not ordered:
        return ordered
    kept, current = [], ordered[0]
    for entity in ordered:
        if not current["start"] <= entity["start"] < current["end"]:
            kept.append(current)
            current = entity
        elif _rank(entity) > _rank(current):
            current = entity
    return [*kept, current]


def _rank(entity: Entity) -> tuple[int, float]:
    return entity["end"] - entity["start"], entity["score"]
