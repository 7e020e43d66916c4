"""The tagger: token classification with the call of transformers' pipeline."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Sized
from typing import Any, Unpack

from ..artifact import TOKENS
from ..errors import InputError
from ..load import Options, PipelineArguments
from ..load.open import load
from ..load.task import check_task
from ..model import Model
from ..text.inputs import Text, Window, Words, chunks, collection
from ..text.outputs import Floats
from .loaded import Loaded
from .tokens.call import TagArguments, Tagging, check_ignored, check_strategy
from .tokens.entities import Entity, TextTokens
from .tokens.reading import Reading
from .tokens.tagger import Tagger, check_window


class TokenClassifier(Loaded):
    """A fine-tuned token classifier, made with ``from_pretrained`` and safe to share between threads.

    It is pickled and forked as ``Classifier`` is.

    Attributes:
        model: The loaded model, which computes the logits.
        defaults: What a call does without keywords.
        tagger: The steps of a call.
    """

    def __init__(self, model: Model, defaults: Tagging | None = None) -> None:
        check_task(model.source.manifest, TOKENS)
        super().__init__(model)
        self.defaults = defaults or Tagging()
        self.tagger = Tagger(model)

    @classmethod
    def from_pretrained(
        cls,
        model: str | os.PathLike[str],
        *,
        aggregation_strategy: str = "none",
        ignore_labels: Collection[str] = ("O",),
        device: str | int = "auto",
        precision: str = "auto",
        threads: int | None = None,
        max_length: int | None = None,
        long_text: str | Window = "truncate",
        revision: str | None = None,
        token: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
        session_options: Any = None,
        split_special_tokens: bool | None = None,
        **pipeline: Unpack[PipelineArguments],
    ) -> TokenClassifier:
        """Load a model, with the arguments and errors of ``Classifier.from_pretrained``.

        ``aggregation_strategy`` and ``ignore_labels`` are those of a call that gives none. ``long_text="truncate"`` cuts a
        long text as the pipeline does, counts it in ``stats`` and warns once; ``"error"`` refuses it; ``"window"`` reads all
        of it, ``Window(stride=...)`` with that overlap.
        """
        defaults = Tagging(strategy=check_strategy(aggregation_strategy), ignored=check_ignored(ignore_labels))
        options = Options.parse(
            device=device,
            precision=precision,
            threads=threads,
            max_length=max_length,
            long_text=long_text,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            session_options=session_options,
            split_special_tokens=split_special_tokens,
            **pipeline,
        )
        check_window(options.window)
        return cls(Model(load(model, options), options), defaults)

    @property
    def classes_(self) -> list[str]:
        """Names of the labels of a token."""
        return list(self.model.labels)

    def __call__(self, inputs: Any, **arguments: Unpack[TagArguments]) -> Any:
        """Find entities, with the arguments and results of transformers' token classification pipeline.

        Args:
            inputs: A text, or a list, column or other collection of them; with ``is_split_into_words`` lists of words.
            aggregation_strategy: ``none`` for single tokens; ``simple`` puts neighbours of one label together; ``first``,
                ``average`` and ``max`` first give all tokens of a word the label of the first one, of their mean
                probabilities, or of the surest one.
            ignore_labels: Labels to leave out; None for those given to ``from_pretrained``, by default ``["O"]``.
            stride: To read long texts in windows that share this number of tokens; not with ``none``.
            is_split_into_words: Whether a text is a list of words; their characters count in the joined text.
            delimiter: What joins them; None for a space.
            batch_size: As in transformers; an entity does not depend on it.
            num_workers: As ``batch_size``.

        Returns:
            For a text a list of dicts: with ``none`` of each token ``entity``, ``score``, ``index``, ``word``, ``start`` and
            ``end``, else of each group ``entity_group``, ``score``, ``word``, ``start`` and ``end``, in characters of the text.
            For a collection, or a text of words, a list of such lists; for an iterable without a length an iterator.

        Raises:
            InputError: An input is not a text; the message names its index.
            OptionError: A value is not valid, or the pipeline has the keyword and a call does not; the message has the way out.
            TextTooLongError: A text is too long, and ``long_text`` is ``error``.
        """
        call = self.parse(arguments)
        words = call.delimiter is not None
        if not words and isinstance(inputs, (str, tuple, Mapping)):
            return self._entities(call.check([inputs]), call)[0]
        items = collection(inputs)
        if items is None:
            expected = "a list of words, or of such lists" if words else "a text or a list of texts"
            raise InputError(f"expected {expected}, found {type(inputs).__name__}")
        if not isinstance(items, Sized):
            return self._stream(items, call)
        listed = list(items)
        if words and not all(isinstance(item, (list, tuple)) for item in listed):
            listed = [listed]  # as in the pipeline, the words of one text
        return self._entities(call.check(listed), call)

    def stream(self, inputs: Iterable[Any], **arguments: Unpack[TagArguments]) -> Iterator[list[Entity]]:
        """Find the entities of an iterable of any length lazily: results in order, memory flat.

        It reads ahead, one item at first and then up to 256. Arguments, results and errors are those of ``__call__``.
        """
        items = collection(inputs)
        if items is None:
            raise InputError(f"stream takes an iterable of texts, found {type(inputs).__name__}: give [text]")
        return self._stream(items, self.parse(arguments))

    def predict(self, texts: Iterable[Any]) -> list[list[str | None]]:
        """Return the labels of each text: of each of its words, which that of its first token is, or of each token.

        Args:
            texts: Lists of words; or texts, whose tokens without special ones get labels. None stands for a word without
                tokens, or one that was cut off.

        Raises:
            InputError: ``texts`` is a single text, or an item is neither.
        """
        items = collection(texts)
        if items is None:
            raise InputError(f"predict takes a list of texts, found {type(texts).__name__}: give [text]")
        listed = list(items)
        words = bool(listed) and not isinstance(listed[0], (str, Mapping))
        call = Tagging(delimiter=" " if words else None)
        found = []
        for reading, scores in self._scored(call.check(listed), call):
            tokens, probabilities = reading.merged(scores)
            best = [self.model.labels[i] for i in probabilities.argmax(axis=-1)]
            found.append(_by_word(reading.text, tokens, best) if isinstance(reading.text, Words) else list(best))
        return found

    def parse(self, arguments: TagArguments) -> Tagging:
        """Return the options for the keywords of a call; its errors are those of ``__call__``."""
        return self.defaults.updated(arguments) if arguments else self.defaults

    def __reduce__(self) -> tuple[type[TokenClassifier], tuple[Model, Tagging]]:
        return type(self), (self.model, self.defaults)

    def _stream(self, items: Iterable[Any], call: Tagging) -> Iterator[list[Entity]]:
        for start, chunk in chunks(items):
            yield from self._entities(call.check(chunk, start), call)

    def _entities(self, texts: Sequence[Text], call: Tagging) -> list[list[Entity]]:
        return [self.tagger.entities(reading, scores, call) for reading, scores in self._scored(texts, call)]

    def _scored(self, texts: Sequence[Text], call: Tagging) -> Iterator[tuple[Reading, list[Floats]]]:
        """Yield each text's rows and their probabilities."""
        chunk = self.model.open().chunk
        for start in range(0, len(texts), chunk):
            readings = self.tagger.read(texts[start : start + chunk], call)
            scores, _ = self.tagger.run(readings)
            yield from zip(readings, scores, strict=True)


def _by_word(text: Words, tokens: TextTokens, labels: Sequence[str]) -> list[str | None]:
    """Return the label of each word's first token."""
    found: list[str | None] = [None] * len(text.words)
    for word, label in zip(reversed(tokens.words), reversed(labels), strict=True):
        if word is not None:
            found[word] = label
    return found
