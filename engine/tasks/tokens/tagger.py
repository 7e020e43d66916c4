"""The steps of a tagger, shared by ``TokenClassifier``, scoring and ``Batcher``: read texts, run their rows, find entities."""

from __future__ import annotations

import dataclasses
import itertools
import time
import warnings
from collections.abc import Sequence

from ...errors import OptionError
from ...model import Model, caller_level
from ...text.inputs import AS_LOADED, Aggregate, By, Cut, LongText, Text, Window
from ...text.outputs import Floats, Function, apply
from ...text.tokenizer import TextTokenizer, Tokens
from ...text.windows import check_stride, stride_of
from .call import Tagging
from .entities import Entity, Names, Spelling, Strategy, find_entities, join_windows
from .reading import Reading, read_texts


class Tagger:
    """The steps, with the model that they share."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.names = Names.of(model.labels)
        self._warned = False

    def read(self, texts: Sequence[Text], call: Tagging, cut: Cut = AS_LOADED) -> list[Reading]:
        """Tokenize and count texts; the ``long_text`` of a cut takes the place of the loaded one, without a warning.

        Raises:
            OptionError: The stride of the call is not shorter than a window.
            TextTooLongError: A text is too long, and may not be cut.
        """
        self.model.open()  # in a forked child, replaces the tokenizer too
        start = time.perf_counter()
        tokenizer, stride, wanted = self.model.tokenizer, call.stride, cut.long_text or self.model.options.long_text
        if stride is not None:
            check_stride(Window(stride=stride), tokenizer)
        elif wanted is LongText.WINDOW:
            width = tokenizer.max_length - tokenizer.raw.num_special_tokens_to_add(False)
            stride = stride_of(self.model.options.window, width)
        readings = read_texts(tokenizer, texts, stride=stride, truncate=wanted is LongText.TRUNCATE)
        self.model.count(texts, tokens_of(readings), start, cut)
        return readings

    def run(self, readings: Sequence[Reading]) -> tuple[list[list[Floats]], int]:
        """Return the probabilities of each text's rows, ``[tokens, labels]``, and the number of computed tokens."""
        rows = [row for reading in readings for row in reading.rows]
        owners = [reading.text for reading in readings for _ in reading.rows]
        found, computed = self.model.forward_tokens(owners, rows)
        logits = iter(found)
        return [[apply(Function.SOFTMAX, next(logits)) for _ in reading.rows] for reading in readings], computed

    def entities(self, reading: Reading, scores: Sequence[Floats], call: Tagging) -> list[Entity]:
        """Return the entities of a text from the probabilities of its rows."""
        tokenizer = self.model.tokenizer
        spelling = Spelling.of(tokenizer.raw, tokenizer.unknown)
        if call.strategy is Strategy.NONE:
            tokens, merged = reading.merged(scores)
            return find_entities(tokens, merged, self.names, spelling, call.strategy, call.ignored)
        if call.strategy.by_word and not spelling.marked:
            self._warn()
        rows = [
            find_entities(reading.tokens(row), found[reading.own(row)], self.names, spelling, call.strategy, call.ignored)
            for row, found in enumerate(scores)
        ]
        return rows[0] if len(rows) == 1 else join_windows([entity for row in rows for entity in row])

    def _warn(self) -> None:
        if self._warned:
            return
        self._warned = True
        warnings.warn(
            "this tokenizer does not mark tokens inside a word, so words are taken to end at spaces, as in the pipeline",
            UserWarning,
            stacklevel=caller_level(),
        )


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ReadTokens(Tokens):
    """Texts as rows, with the characters of their tokens."""

    readings: list[Reading]


class EntityModel:
    """A model as one of entities, for scoring. It is thread-safe."""

    def __init__(self, model: Model, call: Tagging) -> None:
        self.options = model.options
        self._tagger, self._call = Tagger(model), call

    @property
    def tokenizer(self) -> TextTokenizer:
        """The tokenizer of the model."""
        return self._tagger.model.tokenizer

    def tokenize(self, texts: Sequence[Text], cut: Cut = AS_LOADED) -> ReadTokens:
        """Tokenize and count texts; its errors are those of ``Tagger.read``."""
        readings = self._tagger.read(texts, self._call, cut)
        tokens = tokens_of(readings)
        return ReadTokens(rows=tokens.rows, starts=tokens.starts, readings=readings)

    def forward(self, texts: Sequence[Text], tokens: Tokens) -> tuple[list[list[Entity]], int]:
        """Return the entities of each text, and the number of computed tokens."""
        assert isinstance(tokens, ReadTokens) and len(tokens.readings) == len(texts)
        scores, computed = self._tagger.run(tokens.readings)
        return [self._tagger.entities(*each, self._call) for each in zip(tokens.readings, scores, strict=True)], computed


def tokens_of(readings: Sequence[Reading]) -> Tokens:
    """Return the rows of all texts."""
    counts = [len(reading.rows) for reading in readings]
    starts = list(itertools.accumulate(counts, initial=0))[:-1]
    return Tokens(
        rows=[row for reading in readings for row in reading.rows], starts=starts if sum(counts) > len(counts) else None
    )


def check_window(window: Window) -> None:
    """Raise ``OptionError`` for windows that a tagger does not have."""
    if window.by != By.TOKENS or window.aggregate != Aggregate.MEAN:  # a label needs aggregate='max'
        raise OptionError("long_text is a Window by sentence, or with aggregate='max': a tagger takes Window(stride=...) only")
