"""The public prediction API, in the style of transformers' pipeline and of scikit-learn."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sized
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from ..artifact import TEXTS
from ..errors import InputError, OptionError
from ..load import Options, PipelineArguments
from ..load.open import load
from ..load.task import check_task
from ..model import Model
from ..text.call import CallArguments
from ..text.inputs import Item, LongText, Text, Window, check_items, check_single, chunks, collection
from ..text.outputs import CallOptions, Floats, Scored, apply, distinct, passing
from ..text.thresholds import MULTI_LABEL, Threshold, parse_thresholds
from ..text.windows import WindowScore
from .loaded import Loaded
from .rank import Pair, PairArguments, Ranked, predict_pairs, rank

if TYPE_CHECKING:
    from ..explain import Attentions


class Classifier(Loaded):
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
        check_task(model.source.manifest, TEXTS)
        super().__init__(model)

    @classmethod
    def from_pretrained(
        cls,
        model: str | os.PathLike[str] | None = None,
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
    ) -> Classifier:
        """Load a model.

        Args:
            model: An artifact, or a checkpoint folder or hub id, which the first use exports into the cache; None for the
                embedded default.
            device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; as in transformers, N stands for ``cuda:N``, -1 for ``cpu``, and
                a ``torch.device`` for itself. If CUDA does not engage, ``cuda`` fails and ``auto`` takes the CPU;
                ``runtime.why`` gives the reason.
            precision: ``auto``, ``fp32``, ``int8``, ``bf16`` or ``fp16``.
            threads: Threads of one run on the CPU; None for the cores that the process may use.
            max_length: Maximum tokens of a text; None for the model's limit.
            long_text: For longer texts: ``truncate`` cuts them, counts them in ``stats`` and warns once; ``error`` refuses
                them; ``window`` averages the logits of overlapping windows, ``Window(...)`` with other settings.
            revision: Branch, tag or commit of a hub id.
            token: Access token of a private hub id.
            cache_dir: Folder to use instead of ``FUSEDBERT_CACHE`` and of the hub's cache.
            local_files_only: Whether to stay off the hub.
            session_options: ``onnxruntime.SessionOptions`` to use unchanged, or a mapping that overrides the defaults;
                ``{"cuda.gpu_mem_limit": 2**31}`` sets an option of the CUDA provider,
                ``{"fusedbert.kernels": "onnxruntime"}`` leaves everything to ONNX Runtime's kernels, as a ``SessionOptions``
                does, and another level (``fusedbert doctor`` names those of this CPU) is forced.
            split_special_tokens: Whether ``[SEP]`` in a text is read as text, and not as the token; give True for texts of
                strangers. None for what ``tokenizer_config.json`` says, by default False.
            **pipeline: Keywords of transformers' pipeline that belong to a call or are not needed; refused with the way out.

        Raises:
            OptionError: An option has an invalid value, or is only the pipeline's.
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
            split_special_tokens=split_special_tokens,
            **pipeline,
        )
        return cls(Model(load(model, options), options))

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
    def thresholds(self) -> tuple[float, ...] | None:
        """The threshold of each label in ``predict``: the artifact's, else 0.5. None if the model is not multi-label."""
        manifest = self.model.source.manifest
        if self.problem_type != MULTI_LABEL:
            return None
        return parse_thresholds(None, manifest.labels, manifest.problem_type, manifest.thresholds)

    def __call__(self, inputs: Item | Iterable[Item], **arguments: Unpack[CallArguments]) -> Any:
        """Classify, with the arguments and results of transformers' text classification pipeline.

        Args:
            inputs: A text, a pair as ``{"text", "text_pair"}`` or a tuple, or a list, column or other collection of these. As
                in transformers, an empty second text counts only in a collection.
            top_k: Labels per text, the best first; None for all. Default: the best one.
            function_to_apply: ``sigmoid``, ``softmax`` or ``none``; None for ``self.function_to_apply``.
            threshold: For a multi-label model, the least probability of a label in the result: a number, a list of one for
                each label, or a dict of them by name, where labels that are left out have that of ``self.thresholds``.
            truncation: Whether to cut texts beyond ``max_length``, or raise; ``only_first`` or ``only_second`` to cut only that
                text of a pair, ``longest_first`` as True, ``do_not_truncate`` as False; None for the option ``long_text``.
            max_length: Maximum tokens of a text in this call, up to the model's limit; as in transformers, without
                ``truncation`` it counts only if ``padding`` is not given, and with ``truncation=False`` not at all.
            truncation_side: ``left`` or ``right``, where texts are cut; None for the tokenizer's.
            split_special_tokens: As in ``from_pretrained``; None for what was given there.
            return_all_scores: True is refused, because transformers 4 and 5 differ: give ``top_k=None``.
            padding: As in transformers; a score does not depend on it.
            batch_size: As ``padding``.
            num_workers: As ``padding``.

        Returns:
            For a text ``[{"label", "score"}]``, for a pair ``{"label", "score"}``, for a collection a list of the latter;
            with ``top_k`` or ``threshold`` a list of those in place of each. For a generator, another iterable without a
            length, or transformers' ``KeyDataset``: an iterator, as from ``stream``.

        Raises:
            InputError: An input is not a text; the message names its index.
            OptionError: A value is not valid, or the pipeline has the keyword and a call does not; the message has the way out.
            TextTooLongError: A text is too long and ``truncation`` does not cut it.

        Example:
            >>> clf("fine", top_k=None)
            [{'label': 'POSITIVE', 'score': 0.9...}, {'label': 'NEGATIVE', 'score': 0.0...}]
            >>> clf(["fine", {"text": "Is it good?", "text_pair": "It is."}])
            [{'label': 'POSITIVE', 'score': 0.9...}, {'label': 'POSITIVE', 'score': 0.9...}]
        """
        call = self.model.call(arguments)
        if isinstance(inputs, str):
            result = self._score([check_single(inputs)], call)[0]
            return [result] if call.best_only else result
        items = None if isinstance(inputs, (tuple, Mapping)) else collection(inputs)
        if items is None:
            return self._score([check_single(inputs)], call)[0]
        return self._score(check_items(items), call) if isinstance(items, Sized) else self._stream(items, call)

    def stream(self, inputs: Iterable[Item], **arguments: Unpack[CallArguments]) -> Iterator[Scored | list[Scored]]:
        """Classify an iterable of any length lazily: results in order, memory flat.

        It reads ahead, one item at first and then up to 256. Arguments, results and errors are those of ``__call__``.

        Example:
            >>> for answer in clf.stream(f"It is {word}." for word in ("fine", "awful")):
            ...     print(answer["label"])
            POSITIVE
            NEGATIVE
        """
        items = collection(inputs)
        if items is None:
            raise InputError(f"stream takes an iterable of texts, found {type(inputs).__name__}: give [text]")
        return self._stream(items, self.model.call(arguments))

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
        return self.probabilities(self.decision_function(texts))

    def probabilities(self, logits: Floats) -> Floats:
        """Return the probabilities of logits ``[n, labels]``, as ``predict_proba``."""
        return apply(self.model.function, logits)

    def predict(self, texts: Iterable[Item], *, threshold: Threshold | None = None) -> list[str] | list[list[str]]:
        """Return the label of each text; for a multi-label model, the list of those whose probability reaches their threshold.

        Argument and errors are those of ``decision_function``.

        Args:
            texts: As in ``decision_function``.
            threshold: As in ``__call__``; None for ``self.thresholds``.

        Raises:
            OptionError: The model is a regression, or ``threshold`` is not valid for it.

        Example:
            >>> clf.predict(["A waste of time."])
            ['NEGATIVE']
        """
        return self.labels_of(self.decision_function(texts), threshold=threshold)

    def labels_of(self, logits: Floats, *, threshold: Threshold | None = None) -> list[str] | list[list[str]]:
        """Return the labels of logits ``[n, labels]``, as ``predict``."""
        if self.problem_type == "regression":
            raise OptionError("this model is a regression and has no classes to predict: use decision_function for its values")
        manifest, names = self.model.source.manifest, self.model.labels
        if self.problem_type == MULTI_LABEL or threshold is not None:
            thresholds = parse_thresholds(threshold, names, self.problem_type, manifest.thresholds)
            return [[names[i] for i in np.flatnonzero(row)] for row in passing(logits, thresholds)]
        return [names[i] for i in logits.argmax(axis=-1)]

    def rank(
        self,
        query: str,
        documents: Iterable[str],
        top_k: int | None = None,
        return_documents: bool = False,
        *,
        label: str | int | None = None,
        **arguments: Unpack[PairArguments],
    ) -> list[Ranked]:
        """Rank documents for a query, with the result of ``CrossEncoder.rank``: the best first, equal ones in their order.

        The score is that of a model's only label, or the probability of the second of two, else of ``label``.

        Raises:
            OptionError: The model has more labels, or a keyword of ``CrossEncoder`` is not taken; the message has the way out.

        Example:
            >>> [each["corpus_id"] for each in clf.rank("Was it good?", ["A waste of time.", "I loved it."])]
            [1, 0]
        """
        return rank(self.model, query, documents, top_k, return_documents, label, arguments)

    def predict_pairs(self, pairs: Pair | Iterable[Pair], **arguments: Unpack[PairArguments]) -> Any:
        """Return the scores of pairs as ``CrossEncoder.predict``: float32 ``[n]``, with several labels logits ``[n, labels]``.

        A single pair has a scalar or ``[labels]``. ``function_to_apply`` is as in ``__call__``. Errors are those of ``rank``.
        """
        return predict_pairs(self.model, pairs, arguments)

    def windows(
        self,
        text: str,
        text_pair: str | None = None,
        *,
        function_to_apply: str | None = None,
        window: Window | None = None,
    ) -> list[WindowScore]:
        """Score each window of a text by itself, to see what each passage contributes.

        Args:
            text: The text.
            text_pair: The second text of a pair.
            function_to_apply: As in ``__call__``.
            window: Other windows than those of the option ``long_text``, which are by default ``Window()``;
                ``Window(by="sentence", sentences=1)`` scores each sentence.

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
        logits, segment, spans = self.model.windows(check_single(text if text_pair is None else (text, text_pair)), window)
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
        from ..explain.attentions import occlude

        truncate = self.model.options.long_text is not LongText.ERROR
        checked = check_single(text if text_pair is None else (text, text_pair))
        shown = self.model.attention_graph().show(checked, truncate=truncate)
        return occlude(shown, self.predict_proba) if occlusion else shown

    def _stream(self, inputs: Iterable[Item], call: CallOptions) -> Iterator[Scored | list[Scored]]:
        for start, chunk in chunks(inputs):
            yield from self._score(check_items(chunk, start), call)

    def _score(self, texts: list[Text], call: CallOptions) -> list[Scored | list[Scored]]:
        return call.results(self.model.logits(texts, call.cut), self.model.labels)
