"""The calls of a classifier that is there: transformers' pipeline, and scikit-learn's verbs. All rest on its logits."""

from __future__ import annotations

import abc
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from .errors import InputError, OptionError
from .text.inputs import Item, Text, alone, check_item, check_items
from .text.outputs import UNSET, Default, Floats, Function, Scored, apply, check_top_k, scored

_STREAM_WINDOW = 256


class Calls(abc.ABC):
    """What may be asked of a classifier; ``Classifier`` answers it."""

    @property
    @abc.abstractmethod
    def classes_(self) -> list[str]:
        """Names of the labels, in the order of the columns of ``predict_proba``."""

    @property
    @abc.abstractmethod
    def problem_type(self) -> str:
        """``regression``, ``single_label_classification`` or ``multi_label_classification``."""

    @property
    @abc.abstractmethod
    def function_to_apply(self) -> str:
        """What makes scores of logits where a call does not say: ``softmax``, ``sigmoid``, or ``none`` for the logits."""

    @abc.abstractmethod
    def _logits(self, texts: list[Text], truncation: bool | None) -> Floats:
        """Run checked texts; logits ``[texts, labels]``, in their order."""

    def __call__(
        self,
        inputs: Item | Sequence[Item],
        *,
        top_k: int | Default | None = UNSET,
        function_to_apply: str | None = None,
        truncation: bool | None = None,
    ) -> Any:
        """Classify, with the arguments and the results of transformers' text classification pipeline.

        Args:
            inputs: A text, a pair as ``{"text", "text_pair"}`` or a tuple, or a list of these. A pair whose second text is
                empty is a single text where it is given alone, as in the pipeline; in a list it stays a pair, as tokenizers
                have it that are called with lists.
            top_k: Labels to return for each text, from the best down; None for all. Not given: the best one.
            function_to_apply: ``sigmoid``, ``softmax`` or ``none``; None for the model's own, as the property says.
            truncation: Whether to cut texts beyond ``max_length``, or raise; None for what ``long_text`` said.

        Returns:
            For a text ``[{"label", "score"}]``, for a pair ``{"label", "score"}``, for a list a list of the latter;
            with ``top_k`` a list of those in place of each.

        Raises:
            InputError: An input is no text; the message names its index.
            TextTooLongError: A text is too long and ``truncation`` is false.

        Example:
            >>> clf("fine", top_k=None)
            [{'label': 'POSITIVE', 'score': 0.9...}, {'label': 'NEGATIVE', 'score': 0.0...}]
            >>> clf(["fine", {"text": "Is it good?", "text_pair": "It is."}])
            [{'label': 'POSITIVE', 'score': 0.9...}, {'label': 'POSITIVE', 'score': 0.9...}]
        """
        top_k = check_top_k(top_k)
        function = self._function(function_to_apply)
        if isinstance(inputs, list):
            return self._score(check_items(inputs), function, top_k, truncation)
        if not isinstance(inputs, (str, tuple, Mapping)) and isinstance(inputs, Iterable) and not isinstance(inputs, bytes):
            raise InputError(f"inputs is of type {type(inputs).__name__}: give list(inputs), or use stream(inputs)")
        result = self._score([alone(check_item(inputs, 0))], function, top_k, truncation)[0]
        return [result] if isinstance(inputs, str) and top_k is UNSET else result

    def stream(
        self,
        inputs: Iterable[Item],
        *,
        top_k: int | Default | None = UNSET,
        function_to_apply: str | None = None,
        truncation: bool | None = None,
    ) -> Iterator[Scored | list[Scored]]:
        """Classify an iterable of any length lazily: results in order, memory flat.

        It reads ahead, one item at first and then up to 256, so that the first result comes soon and the rest fast.

        Args:
            inputs: Texts and pairs, as in a list given to ``__call__``.
            top_k: As in ``__call__``.
            function_to_apply: As in ``__call__``.
            truncation: As in ``__call__``.

        Yields:
            What ``__call__`` returns for each item of a list.

        Example:
            >>> for answer in clf.stream(f"It is {word}." for word in ("fine", "awful")):
            ...     print(answer["label"])
            POSITIVE
            NEGATIVE
        """
        if isinstance(inputs, (str, bytes, Mapping)) or not isinstance(inputs, Iterable):
            raise InputError(f"stream takes an iterable of texts, found {type(inputs).__name__}: give [text]")
        return self._stream(inputs, self._function(function_to_apply), check_top_k(top_k), truncation)

    def _stream(
        self, inputs: Iterable[Item], function: Function, top_k: int | Default | None, truncation: bool | None
    ) -> Iterator[Scored | list[Scored]]:
        iterator = iter(inputs)
        done, size = 0, 1
        while chunk := list(itertools.islice(iterator, size)):
            yield from self._score(check_items(chunk, done), function, top_k, truncation)
            done, size = done + len(chunk), min(2 * size, _STREAM_WINDOW)

    def decision_function(self, texts: Iterable[Item]) -> Floats:
        """Return the logits, float32 ``[n, labels]``.

        Args:
            texts: A list, array or other collection of texts and pairs; a pair whose second text is empty is one, too.

        Raises:
            InputError: It is a single text, or an item is no text.
        """
        return self._logits(check_items(texts), None)

    def predict_proba(self, texts: Iterable[Item]) -> Floats:
        """Return the probability of each label, float32 ``[n, labels]``; where ``function_to_apply`` is none, the values.

        Args:
            texts: A list, array or other collection of texts and pairs.

        Raises:
            InputError: It is a single text, or an item is no text.
        """
        return apply(self._function(None), self.decision_function(texts))

    def predict(self, texts: Iterable[Item]) -> list[str] | list[list[str]]:
        """Return the label of each text; for a multi-label model, the list of those with p >= 0.5.

        Args:
            texts: A list, array or other collection of texts and pairs.

        Raises:
            InputError: It is a single text, or an item is no text.
            OptionError: The model is a regression, which has no labels to choose from.
        """
        if self.problem_type == "regression":
            raise OptionError("this model is a regression and has no classes to predict: use decision_function for its values")
        names = self.classes_
        if self.problem_type == "multi_label_classification":
            return [[names[i] for i in np.flatnonzero(row >= 0.5)] for row in self.predict_proba(texts)]
        return [names[i] for i in self.decision_function(texts).argmax(axis=-1)]

    def _function(self, given: str | None) -> Function:
        return Function.choose(given, self.problem_type, len(self.classes_), self.function_to_apply)

    def _score(
        self, texts: list[Text], function: Function, top_k: int | Default | None, truncation: bool | None
    ) -> list[Scored | list[Scored]]:
        labels = self.classes_
        scores = apply(function, self._logits(texts, truncation))  # [n, labels]
        return [scored(row, labels, top_k) for row in scores]
