"""The public prediction API, in the style of transformers' pipeline and of scikit-learn."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import InputError, OptionError
from .load import Options
from .load.open import Runtime, load
from .model import Model
from .run.counters import Stats
from .text.inputs import Item, LongText, Text, Window, check_items, check_single
from .text.outputs import UNSET, Default, Floats, Function, Scored, apply, check_top_k, distinct, scored
from .text.windows import WindowScore

if TYPE_CHECKING:
    from .explain import Attentions

_STREAM_CHUNK = 256


class Classifier:
    """A fine-tuned classifier, made with ``from_pretrained`` and safe to share between threads.

    A pickle holds its path, from which it is loaded again. In a forked process the first call opens the graph again.

    Attributes:
        model: The loaded model, which computes the logits.

    Example:
        >>> with Classifier.from_pretrained() as clf:
        ...     clf("I really loved this movie.")
        [{'label': 'POSITIVE', 'score': 0.99...}]
    """

    def __init__(self, model: Model) -> None:
        self.model = model

    @classmethod
    def from_pretrained(
        cls,
        model: str | os.PathLike[str] | None = None,
        *,
        device: str = "auto",
        precision: str = "auto",
        threads: int | None = None,
        max_length: int | None = None,
        long_text: str | Window = "truncate",
        revision: str | None = None,
        token: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
        session_options: Any = None,
    ) -> Classifier:
        """Load a model.

        Args:
            model: An artifact, or a checkpoint folder or hub id, which the first use exports into the cache; None for the
                embedded default.
            device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``. If CUDA does not engage, ``cuda`` fails and ``auto`` takes the
                CPU; ``runtime.why`` gives the reason.
            precision: ``auto``, ``fp32``, ``int8`` or ``fp16``.
            threads: Threads of one run on the CPU; None for the cores that the process may use.
            max_length: Maximum tokens of a text; None for the model's limit.
            long_text: For longer texts: ``truncate`` cuts them, counts them in ``stats`` and warns once; ``error`` refuses
                them; ``window`` averages the logits of overlapping windows, ``Window(stride=..., aggregate="mean"|"max")``
                with other settings.
            revision: Branch, tag or commit of a hub id.
            token: Access token of a private hub id.
            cache_dir: Folder to use instead of ``FUSEDBERT_CACHE`` and of the hub's cache.
            local_files_only: Whether to stay off the hub.
            session_options: ``onnxruntime.SessionOptions`` to use unchanged, or a mapping that overrides the defaults;
                ``{"cuda.gpu_mem_limit": 2**31}`` sets an option of the CUDA provider, ``{"fusedbert.kernels": "0"}`` leaves
                int8 to ONNX Runtime's kernels, as a ``SessionOptions`` does.

        Raises:
            OptionError: An option has an invalid value.
            ModelNotFoundError: ``model`` cannot be found.
            ArtifactError: The artifact is damaged.
            DeviceError: ``device="cuda"`` and CUDA does not engage.
            MissingDependencyError: ONNX Runtime, or the exporter where it is needed, is not installed.

        Example:
            >>> clf = Classifier.from_pretrained(threads=1, max_length=16, long_text=Window(stride=4, aggregate="mean"))
            >>> clf("A fine start. " * 5 + "And then an end that was awful.")
            [{'label': 'POSITIVE', 'score': 0.8...}]
            >>> clf.stats.windows
            3
        """
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
        )
        return cls(Model(load(model, options), options))

    @property
    def runtime(self) -> Runtime:
        """The chosen device, precision, graph and threads, and why."""
        return self.model.runtime

    @property
    def classes_(self) -> list[str]:
        """Names of the labels, in the order of the columns of ``predict_proba``."""
        return list(self.model.labels)

    @property
    def problem_type(self) -> str:
        """``regression``, ``single_label_classification`` or ``multi_label_classification``."""
        return self.model.problem_type

    @property
    def function_to_apply(self) -> str:
        """The default function from logits to scores: ``softmax``, ``sigmoid`` or ``none``."""
        return str(self.model.function)

    @property
    def max_length(self) -> int:
        """Maximum tokens of a text, special tokens included."""
        return self.model.tokenizer.max_length

    @property
    def stats(self) -> Stats:
        """Counts since loading: texts, tokens, padding, truncations, windows, batches, seconds by stage.

        Example:
            >>> clf = Classifier.from_pretrained()
            >>> clf.predict(["fine", "awful"])
            ['POSITIVE', 'NEGATIVE']
            >>> clf.stats.texts, clf.stats.batches, clf.stats.truncated
            (2, 1, 0)
        """
        return self.model.counters.snapshot()

    @property
    def truncated(self) -> int:
        """Number of texts that were cut at ``max_length``; also in ``stats``."""
        return self.model.counters.truncated

    def __call__(
        self,
        inputs: Item | Sequence[Item],
        *,
        top_k: int | Default | None = UNSET,
        function_to_apply: str | None = None,
        truncation: bool | None = None,
    ) -> Any:
        """Classify, with the arguments and results of transformers' text classification pipeline.

        Args:
            inputs: A text, a pair as ``{"text", "text_pair"}`` or a tuple, or a list of these. As in transformers, an empty
                second text counts only in a list.
            top_k: Labels per text, the best first; None for all. Default: the best one.
            function_to_apply: ``sigmoid``, ``softmax`` or ``none``; None for ``self.function_to_apply``.
            truncation: Whether to cut texts beyond ``max_length``, or raise; None for the option ``long_text``.

        Returns:
            For a text ``[{"label", "score"}]``, for a pair ``{"label", "score"}``, for a list a list of the latter;
            with ``top_k`` a list of those in place of each.

        Raises:
            InputError: An input is not a text; the message names its index.
            TextTooLongError: A text is too long and ``truncation`` is false.

        Example:
            >>> clf("fine", top_k=None)
            [{'label': 'POSITIVE', 'score': 0.9...}, {'label': 'NEGATIVE', 'score': 0.0...}]
            >>> clf(["fine", {"text": "Is it good?", "text_pair": "It is."}])
            [{'label': 'POSITIVE', 'score': 0.9...}, {'label': 'POSITIVE', 'score': 0.9...}]
        """
        top_k = check_top_k(top_k)
        function = self.model.function_for(function_to_apply)
        if isinstance(inputs, list):
            return self._score(check_items(inputs), function, top_k, truncation)
        if not isinstance(inputs, (str, tuple, Mapping)) and isinstance(inputs, Iterable) and not isinstance(inputs, bytes):
            raise InputError(f"inputs is of type {type(inputs).__name__}: give list(inputs), or use stream(inputs)")
        result = self._score([check_single(inputs)], function, top_k, truncation)[0]
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

        It reads ahead, one item at first and then up to 256. Arguments, results and errors are those of ``__call__``.

        Example:
            >>> for answer in clf.stream(f"It is {word}." for word in ("fine", "awful")):
            ...     print(answer["label"])
            POSITIVE
            NEGATIVE
        """
        if isinstance(inputs, (str, bytes, Mapping)) or not isinstance(inputs, Iterable):
            raise InputError(f"stream takes an iterable of texts, found {type(inputs).__name__}: give [text]")
        return self._stream(inputs, self.model.function_for(function_to_apply), check_top_k(top_k), truncation)

    def decision_function(self, texts: Iterable[Item]) -> Floats:
        """Return the logits, float32 ``[n, labels]``.

        Args:
            texts: A list, array or other collection of texts and pairs.

        Raises:
            InputError: ``texts`` is a single text, or an item is not a text.
        """
        return self.model.logits(check_items(texts))

    def predict_proba(self, texts: Iterable[Item]) -> Floats:
        """Return the probabilities, float32 ``[n, labels]``; the logits if ``function_to_apply`` is ``none``.

        Argument and errors are those of ``decision_function``.
        """
        return apply(self.model.function, self.decision_function(texts))

    def predict(self, texts: Iterable[Item]) -> list[str] | list[list[str]]:
        """Return the label of each text; for a multi-label model, the list of those with p >= 0.5.

        Argument and errors are those of ``decision_function``.

        Raises:
            OptionError: The model is a regression.
        """
        if self.problem_type == "regression":
            raise OptionError("this model is a regression and has no classes to predict: use decision_function for its values")
        names = self.model.labels
        if self.problem_type == "multi_label_classification":
            return [[names[i] for i in np.flatnonzero(row >= 0.5)] for row in self.predict_proba(texts)]
        return [names[i] for i in self.decision_function(texts).argmax(axis=-1)]

    def windows(self, text: str, text_pair: str | None = None, *, function_to_apply: str | None = None) -> list[WindowScore]:
        """Score each window of a text by itself, to see what each passage contributes.

        The windows are those of the option ``long_text``, by default ``Window()``.

        Args:
            text: The text.
            text_pair: The second text of a pair.
            function_to_apply: As in ``__call__``.

        Returns:
            The characters and the scores of each window.

        Raises:
            InputError: ``text`` is not a text.

        Example:
            >>> clf = Classifier.from_pretrained(max_length=16)
            >>> text = "A dull start, a slow middle, and then an end that makes up for all of it: I loved that."
            >>> for window in clf.windows(text):
            ...     print(text[window.start : window.end], round(window.scores["POSITIVE"], 1))
            A dull start, a slow middle, and then an end that makes 0.0
            end that makes up for all of it: I loved that. 1.0
        """
        function = self.model.function_for(function_to_apply)
        logits, segment, spans = self.model.windows(check_single(text if text_pair is None else (text, text_pair)))
        names = distinct(self.model.labels)
        return [
            WindowScore(start=start, end=end, segment=segment, logits=tuple(row), scores=dict(zip(names, scores, strict=True)))
            for (start, end), row, scores in zip(spans, logits.tolist(), apply(function, logits).tolist(), strict=True)
        ]

    def attentions(self, text: str, text_pair: str | None = None, *, occlusion: bool = True) -> Attentions:
        """Return a text's attention weights of every layer and head, and the effect of each word on the result.

        They come from a separate fp32 graph on the CPU, which an artifact has if it was exported with ``--attentions``; a
        checkpoint's is exported into the cache at the first call.

        Args:
            text: The text.
            text_pair: The second text of a pair.
            occlusion: Whether to leave out each word, with one run per word, to measure its effect.

        Raises:
            ArtifactError: The artifact lacks the graph; the message names the command that makes it.
            InputError: ``text`` is not a text.

        Example:
            >>> shown = Classifier.from_pretrained().attentions("Action gets results")
            >>> shown.tokens, shown.weights.shape
            (('[CLS]', 'action', 'gets', 'results', '[SEP]'), (3, 12, 5, 5))
        """
        from .explain.attentions import occlude

        truncate = self.model.options.long_text is not LongText.ERROR
        checked = check_single(text if text_pair is None else (text, text_pair))
        shown = self.model.attention_graph().show(checked, truncate=truncate)
        return occlude(shown, self.predict_proba) if occlusion else shown

    def close(self) -> None:
        """Free the graph; calls in progress finish, later ones raise ``ClosedError``."""
        self.model.close()

    def __enter__(self) -> Classifier:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return repr(self.model).replace("Model", "Classifier", 1)

    def __reduce__(self) -> tuple[type[Classifier], tuple[Model]]:
        return type(self), (self.model,)

    def _stream(
        self, inputs: Iterable[Item], function: Function, top_k: int | Default | None, truncation: bool | None
    ) -> Iterator[Scored | list[Scored]]:
        iterator = iter(inputs)
        done, size = 0, 1
        while chunk := list(itertools.islice(iterator, size)):
            yield from self._score(check_items(chunk, done), function, top_k, truncation)
            done, size = done + len(chunk), min(2 * size, _STREAM_CHUNK)

    def _score(
        self, texts: list[Text], function: Function, top_k: int | Default | None, truncation: bool | None
    ) -> list[Scored | list[Scored]]:
        scores = apply(function, self.model.logits(texts, truncation))  # [n, labels]
        return [scored(row, self.model.labels, top_k) for row in scores]
