"""``ZeroShot``: labels chosen at the call, scored by a model of natural language inference."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence, Sized
from typing import Any, TypeAlias

import numpy as np

from ..artifact import TEXTS
from ..errors import InputError, check_integer
from ..load.task import check_task
from ..text.inputs import Text, check_items, check_single, chunks, collection
from ..text.outputs import apply
from .classifier import Classifier
from .hypotheses import TEMPLATE, Entailment, Hypotheses, LabelModel

_STREAM_PAIRS = 256  # read ahead at most

Labelled: TypeAlias = "dict[str, Any]"  # {"sequence": str, "labels": list[str], "scores": list[float]}


class ZeroShot:
    """transformers' zero-shot classification pipeline around a loaded NLI model (Yin et al. 2019), safe to share.

    Attributes:
        classifier: The NLI model; its ``stats`` count a pair of a text and a label as a text.
    """

    def __init__(self, classifier: Classifier) -> None:
        """Take a classifier with a label that begins with "entail"; without one, warn and take the last, as the pipeline.

        Raises:
            OptionError: The model is a regression, multi-label, or has one label, or several heads.
        """
        check_task(classifier.model.source.manifest, TEXTS, several="give ZeroShot one of them, clf.heads[NAME]")
        self.classifier = classifier
        Entailment.of(classifier.model.labels, classifier.problem_type).warn()
        # The last sets of labels: their hypotheses are tokenized once.
        self._models = functools.lru_cache(maxsize=32)(functools.partial(LabelModel, classifier.model))

    @classmethod
    def from_pretrained(cls, model: Any, **options: Any) -> ZeroShot:
        """Load an NLI model, with the keywords and errors of ``Classifier.from_pretrained``."""
        return cls(Classifier.from_pretrained(model, **options))

    def __call__(
        self,
        sequences: str | Iterable[str],
        candidate_labels: str | Iterable[str],
        hypothesis_template: str = TEMPLATE,
        multi_label: bool = False,
        *,
        batch_size: int | None = None,
        num_workers: int | None = None,
    ) -> Any:
        """Score candidate labels for texts, with the arguments and results of the pipeline.

        Args:
            sequences: A text, or a list, column or other collection of texts.
            candidate_labels: The labels, as a list or as one text with commas between them.
            hypothesis_template: The sentence about a text, with ``{}`` for the label.
            multi_label: Whether each label has its own probability, of entailment against contradiction. If not, softmax
                over the labels' entailment makes their scores 1 together.
            batch_size: As in the pipeline; a score does not depend on it.
            num_workers: As ``batch_size``.

        Returns:
            ``{"sequence", "labels", "scores"}`` with the best label first, a list of these for a collection, and an iterator
            for one without a length.

        Raises:
            InputError: An input is not a text, or is empty.
            OptionError: No label is given, or the template has no ``{}`` for it.
            TextTooLongError: A text is too long and may not be cut, or a hypothesis is.
        """
        check_integer("batch_size", batch_size, optional=True)
        check_integer("num_workers", num_workers, 0, optional=True)
        model = self._model(candidate_labels, hypothesis_template, multi_label)
        items = collection(sequences)
        if items is None:
            return self._score(model, [check_single(sequences)])[0]
        return self._score(model, check_items(items)) if isinstance(items, Sized) else self._stream(model, items)

    def stream(
        self,
        sequences: Iterable[str],
        candidate_labels: str | Iterable[str],
        hypothesis_template: str = TEMPLATE,
        multi_label: bool = False,
    ) -> Iterator[Labelled]:
        """Score an iterable of any length lazily: results in order, memory flat; arguments and errors as of a call."""
        items = collection(sequences)
        if items is None:
            raise InputError(f"stream takes an iterable of texts, found {type(sequences).__name__}: give [text]")
        return self._stream(self._model(candidate_labels, hypothesis_template, multi_label), items)

    def close(self) -> None:
        """Close the classifier."""
        self.classifier.close()

    def __enter__(self) -> ZeroShot:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"ZeroShot({self.classifier!r})"

    def __reduce__(self) -> tuple[type[ZeroShot], tuple[Classifier]]:
        return type(self), (self.classifier,)

    def _model(self, labels: str | Iterable[str], template: str, multi_label: bool) -> LabelModel:
        return self._models(Hypotheses.of(labels, template, multi_label))

    def _stream(self, model: LabelModel, items: Iterable[str]) -> Iterator[Labelled]:
        for start, chunk in chunks(items, max(1, _STREAM_PAIRS // len(model.hypotheses.labels))):
            yield from self._score(model, check_items(chunk, start))

    def _score(self, model: LabelModel, texts: Sequence[Text]) -> list[Labelled]:
        labels = model.hypotheses.labels
        scores = apply(model.hypotheses.function, model.logits(texts))  # [texts, labels]
        orders = np.argsort(scores, axis=-1, kind="stable")[:, ::-1]  # equal scores in the pipeline's order
        return [
            {"sequence": text.text, "labels": [labels[i] for i in order], "scores": row[order].tolist()}
            for text, row, order in zip(texts, scores, orders, strict=True)
        ]
