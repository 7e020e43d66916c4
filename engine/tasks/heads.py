"""Several classifiers on one encoder: a text is tokenized and run once, and each head answers by its name."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from typing import Any, Unpack

from ..artifact import Head, columns_of
from ..errors import InputError, OptionError
from ..load import Options, PipelineArguments
from ..load.open import load
from ..load.task import check_heads
from ..model import Model
from ..run.runner import Runner
from ..text.call import CallArguments
from ..text.inputs import AS_LOADED, Cut, Item, Text, Window, check_items, check_single, chunks, collection
from ..text.outputs import CallOptions, Floats, Function, Scored
from ..text.tokenizer import Row, TextTokenizer, Tokens
from .classifier import Classifier
from .loaded import Loaded


class MultiHeadClassifier(Loaded):
    """Several classifiers on one encoder, with one run for all, made with ``from_pretrained``.

    Attributes:
        heads: Each head as a ``Classifier``, by its name, on the same graph.

    Example:
        >>> clf = MultiHeadClassifier.from_pretrained("artifacts/support")  # doctest: +SKIP
        >>> clf("My parcel never came, and nobody answers.")  # doctest: +SKIP
        {'sentiment': {'label': 'NEGATIVE', 'score': 0.99...}, 'topic': {'label': 'delivery', 'score': 0.98...}}
    """

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        self._heads = check_heads(model.source.manifest)
        self.heads: Mapping[str, Classifier] = {
            head.name: Classifier(HeadModel(model, head, columns)) for head, columns in columns_of(self._heads)
        }

    @classmethod
    def from_pretrained(
        cls,
        model: str | os.PathLike[str],
        *,
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
    ) -> MultiHeadClassifier:
        """Load an artifact of several heads, with the arguments and errors of ``Classifier.from_pretrained``."""
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
        return cls(Model(load(model, options), options))

    def __call__(self, inputs: Item | Iterable[Item], **arguments: Unpack[CallArguments]) -> Any:
        """Classify by every head, with the arguments and errors of ``Classifier``.

        A ``threshold`` is one number, and counts for the heads that give several labels to a text.

        Returns:
            For a text or a pair ``{head: {"label", "score"}}``, with ``top_k`` or ``threshold`` lists in place of the inner
            dicts; for a collection a list of such dicts; for an iterable without a length an iterator.
        """
        call = self.model.call(arguments)
        items = None if isinstance(inputs, (str, tuple, Mapping)) else collection(inputs)
        if items is None:
            return self._score([check_single(inputs)], call)[0]
        return self._score(check_items(items), call) if isinstance(items, Sized) else self._stream(items, call)

    def stream(self, inputs: Iterable[Item], **arguments: Unpack[CallArguments]) -> Iterator[dict[str, Any]]:
        """Classify an iterable of any length lazily, as ``Classifier.stream``."""
        items = collection(inputs)
        if items is None:
            raise InputError(f"stream takes an iterable of texts, found {type(inputs).__name__}: give [text]")
        return self._stream(items, self.model.call(arguments))

    def decision_function(self, texts: Iterable[Item]) -> dict[str, Floats]:
        """Return each head's logits, float32 ``[n, labels]``; errors are those of ``Classifier.decision_function``."""
        logits = self.model.logits(check_items(texts))
        return {head.name: logits[:, columns] for head, columns in columns_of(self._heads)}

    def predict_proba(self, texts: Iterable[Item]) -> dict[str, Floats]:
        """Return each head's probabilities, as ``Classifier.predict_proba``."""
        return {name: self.heads[name].probabilities(logits) for name, logits in self.decision_function(texts).items()}

    def predict(self, texts: Iterable[Item]) -> dict[str, list[str] | list[list[str]]]:
        """Return each head's label of each text, as ``Classifier.predict``.

        Raises:
            OptionError: A head is a regression; take ``decision_function``.
        """
        values = [head.name for head in self._heads if head.problem_type == "regression"]
        if values:
            raise OptionError(
                f"regressions ({', '.join(values)}) have no classes to predict: use decision_function for the values of all "
                "heads, or clf.heads[NAME].predict for one of the others"
            )
        return {name: self.heads[name].labels_of(logits) for name, logits in self.decision_function(texts).items()}

    def _stream(self, inputs: Iterable[Item], call: CallOptions) -> Iterator[Any]:
        for start, chunk in chunks(inputs):
            yield from self._score(check_items(chunk, start), call)

    def _score(self, texts: list[Text], call: CallOptions) -> list[Scored | list[Scored]]:
        return call.results(self.model.logits(texts, call.cut), self.model.labels)


def load_classifier(model: str | os.PathLike[str] | None = None, **options: Any) -> Classifier | MultiHeadClassifier:
    """Load a model of one head or of several, with the arguments and errors of ``Classifier.from_pretrained``."""
    parsed = Options.parse(**options)
    return classifier_of(Model(load(model, parsed), parsed))


def classifier_of(model: Model) -> Classifier | MultiHeadClassifier:
    """Return the classifier of a loaded model."""
    return MultiHeadClassifier(model) if model.source.manifest.heads else Classifier(model)


class HeadModel(Model):
    """One head of a loaded model, used as a whole one: its labels, and its columns of the logits."""

    def __init__(self, whole: Model, head: Head, columns: slice) -> None:
        self._whole, self._head, self._columns = whole, head, columns
        manifest = whole.source.manifest.of(head)
        self._describe(dataclasses.replace(whole.source, manifest=manifest), whole.options, whole.runtime)
        self.counters = whole.counters

    def open(self) -> Runner:
        """Return the runner of the whole model."""
        return self._whole.open()

    @property
    def tokenizer(self) -> TextTokenizer:
        """The tokenizer of the whole model, which a forked child opens again."""
        return self._whole.tokenizer

    @tokenizer.setter
    def tokenizer(self, tokenizer: TextTokenizer) -> None:
        self._whole.tokenizer = tokenizer

    @property
    def activation(self) -> Function | None:
        """The activation that the head's own checkpoint states for ``CrossEncoder``."""
        return None if self._head.activation is None else Function(self._head.activation)

    def attention_graph(self) -> Any:
        """Refuse: its logits are those of all heads.

        Raises:
            OptionError: Always.
        """
        raise OptionError("attentions are those of an artifact with one head: export the checkpoint by itself")

    def close(self) -> None:
        """Free the graph of all heads."""
        self._whole.close()

    def logits(self, texts: Sequence[Text], cut: Cut = AS_LOADED) -> Floats:
        """Compute the head's logits ``[texts, labels]``."""
        return self._whole.logits(texts, cut)[:, self._columns]

    def tokenize(self, texts: Sequence[Text], cut: Cut = AS_LOADED) -> Tokens:
        """Tokenize as the whole model."""
        return self._whole.tokenize(texts, cut)

    def count(self, texts: Sequence[Text], tokens: Tokens, start: float, cut: Cut = AS_LOADED) -> None:
        """Count tokenized texts, as the whole model."""
        self._whole.count(texts, tokens, start, cut)

    def keep(self, texts: Iterable[str]) -> None:
        """Keep the tokens of texts, as the whole model."""
        self._whole.keep(texts)

    def run(self, texts: Sequence[Text], rows: Sequence[Row]) -> Floats:
        """Compute the head's logits of one batch."""
        return self._whole.run(texts, rows)[:, self._columns]

    def forward(self, texts: Sequence[Text], tokens: Tokens) -> tuple[Floats, int]:
        """Compute the head's logits of tokenized texts."""
        logits, padded = self._whole.forward(texts, tokens)
        return logits[:, self._columns], padded

    def windows(self, text: Text, window: Window | None = None) -> tuple[Floats, int, list[tuple[int, int]]]:
        """Return the head's logits of a text's windows, and these."""
        logits, segment, spans = self._whole.windows(text, window)
        return logits[:, self._columns], segment, spans

    def __repr__(self) -> str:
        return repr(self._whole)

    def __reduce__(self) -> Any:
        return _head_of, (self._whole, self._columns.start)


def _head_of(whole: Model, start: int) -> HeadModel:
    head, columns = next(each for each in columns_of(whole.source.manifest.heads) if each[1].start == start)
    return HeadModel(whole, head, columns)
