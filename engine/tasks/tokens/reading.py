"""Texts as rows whose tokens keep their characters: cut at ``max_length``, or in windows."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from ...errors import InputError
from ...text.encode import encode_texts
from ...text.inputs import Text, Words
from ...text.outputs import Floats
from ...text.tokenizer import Row, TextTokenizer
from ...text.windows import spans
from .entities import TextTokens


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reading:
    """A text's rows."""

    text: Text
    encoding: Encoding
    rows: list[Row]
    kept: list[list[int]]  # the places in the encoding of each row's tokens
    spaced: bool  # whether the first token of a row keeps the space before it, see ``keeps_space``

    # Of all tokens, read from the encoding once: each reading makes a list, and a long text has many rows.

    @functools.cached_property
    def _special(self) -> NDArray[np.bool_]:
        return np.array(self.encoding.special_tokens_mask, dtype=np.bool_)

    @functools.cached_property
    def _offsets(self) -> list[tuple[int, int]]:
        return self.encoding.offsets

    @functools.cached_property
    def _ids(self) -> list[int]:
        return self.encoding.ids

    @functools.cached_property
    def _names(self) -> list[str]:
        return self.encoding.tokens

    @functools.cached_property
    def _word_ids(self) -> list[int | None]:
        return self.encoding.word_ids

    def own(self, row: int) -> NDArray[np.intp]:
        """Return the places in a row of its tokens without special ones."""
        return np.flatnonzero(~self._special[self.kept[row]])

    def tokens(self, row: int) -> TextTokens:
        """Return a row's tokens without special ones."""
        places = self.own(row).tolist()
        return self._tokens([self.kept[row][i] for i in places], places)

    def merged(self, scores: Sequence[Floats]) -> tuple[TextTokens, Floats]:
        """Return all tokens, and of rows' probabilities, each ``[tokens, labels]``, those where a token is deepest inside."""
        if len(self.rows) == 1:
            return self.tokens(0), scores[0][self.own(0)]
        special = self._special
        places = np.flatnonzero(~special)  # in the encoding
        joined = np.empty((len(special), scores[0].shape[1]), dtype=np.float32)
        depth = np.full(len(special), -1)  # tokens to the nearer end of the window that was taken
        for row, found in enumerate(scores):
            own = self.own(row)
            window = np.array(self.kept[row], dtype=np.intp)[own]
            before = np.arange(len(window))
            after = before[::-1]
            # at the ends of the text a token lacks no neighbour
            near = np.minimum(
                before + (window[0] == places[0]) * len(special), after + (window[-1] == places[-1]) * len(special)
            )
            deeper = near > depth[window]
            depth[window[deeper]] = near[deeper]
            joined[window[deeper]] = found[own[deeper]]
        return self._tokens(places.tolist(), places.tolist()), joined[places]

    def _tokens(self, kept: list[int], places: list[int]) -> TextTokens:
        """Return the tokens at some places of the encoding; ``places`` are those in the row."""
        ids, offsets = self._ids, self._offsets
        chosen = [offsets[i] for i in kept]
        if self.spaced and kept and kept[0] != int(self._special.argmin()):
            chosen[0] = _with_space(chosen[0], self._names[kept[0]])
        words: list[int | None] = []
        if isinstance(self.text, Words):  # offsets count from the start of each word
            word_ids = self._word_ids
            words = [word_ids[i] for i in kept]
            first = [0 if word is None else self.text.starts[word] for word in words]
            chosen = [(start + at, end + at) for (start, end), at in zip(chosen, first, strict=True)]
        return TextTokens(
            text=self.text.text,
            ids=[ids[i] for i in kept],
            places=places,
            starts=[start for start, _ in chosen],
            ends=[end for _, end in chosen],
            words=words,
        )


def read_texts(tokenizer: TextTokenizer, texts: Sequence[Text], *, stride: int | None, truncate: bool) -> list[Reading]:
    """Tokenize texts, in windows that share ``stride`` tokens if it is not None.

    Raises:
        TextTooLongError: A text is too long, and neither ``truncate`` nor ``stride`` allows it.
    """
    spaced = keeps_space(tokenizer.raw)
    if stride is None:
        traced = tokenizer.traces(texts, truncate=truncate)
        return [
            Reading(text=text, encoding=encoding, rows=[row], kept=[kept], spaced=spaced)
            for text, (encoding, kept, row) in zip(texts, traced, strict=True)
        ]
    readings = []
    for text, encoding in zip(texts, encode_texts(tokenizer.raw, texts, offsets=True), strict=True):
        kept = _windows(tokenizer, encoding, text, stride)
        ids, types = encoding.ids, encoding.type_ids
        rows = [tokenizer.row([ids[i] for i in places], [types[i] for i in places], text) for places in kept]
        readings.append(Reading(text=text, encoding=encoding, rows=rows, kept=kept, spaced=spaced))
    return readings


def _windows(tokenizer: TextTokenizer, encoding: Encoding, text: Text, stride: int) -> list[list[int]]:
    """Return the places of the tokens of each window, as tokenizers cuts them: from the end where texts are cut on the left."""
    count = len(encoding)
    if count <= tokenizer.max_length:
        return [list(range(count))]
    owners = encoding.sequence_ids
    own = [i for i, owner in enumerate(owners) if owner is not None]
    around = [i for i, owner in enumerate(owners) if owner is None]
    width = tokenizer.max_length - len(around)
    if width <= stride:
        raise InputError(
            f"text {text.index} cannot be read in windows of {width} tokens that share {stride}: give a lower stride"
        )
    windows = spans(len(own), width, stride)
    if tokenizer.cut_left:
        windows = [(len(own) - end, len(own) - start) for start, end in windows]
    return [sorted([*around, *own[start:end]]) for start, end in windows]


def keeps_space(raw: Tokenizer) -> bool:
    """Return whether the first token of each row has the space before it among its characters.

    Byte-level BPE leaves the space out, except at a first token, whose space it has added itself; and it does not know
    that a window's first token may be another one.
    """
    spec = {} if raw.post_processor is None else json.loads(raw.post_processor.__getstate__())
    steps = spec.get("processors", [spec] if spec else [])
    return any(
        step["type"] in ("ByteLevel", "RobertaProcessing") and step.get("trim_offsets") and step.get("add_prefix_space")
        for step in steps
    )


def _with_space(span: tuple[int, int], token: str) -> tuple[int, int]:
    """Return the characters of a row's first token, with one space more unless it was the first one before."""
    rest = token.lstrip("Ġ \t\n\r\v\f")
    spaces = len(token) - len(rest)
    start, end = span
    if not spaces or start <= spaces - 1:
        return span
    # tokenizers also takes spaces off the end, so that a token of nothing else has no characters
    return start - 1, end if rest else start - 1
