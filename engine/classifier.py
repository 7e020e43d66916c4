"""``Classifier``: one loaded model, called as transformers' pipeline or with scikit-learn's verbs, from any thread."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from fusedbert.engine.ahead import ahead
from fusedbert.engine.errors import ClosedError, InferenceError, InputError, OptionError
from fusedbert.engine.inputs import Item, Text, check_item, check_items
from fusedbert.engine.loading import Loaded, Runtime, load
from fusedbert.engine.options import LongText, Options
from fusedbert.engine.outputs import UNSET, Default, Floats, Function, Scored, apply, check_top_k, scored
from fusedbert.engine.planning import plan
from fusedbert.engine.runner import Prepared, Runner
from fusedbert.engine.tokenizer import Row

if TYPE_CHECKING:
    from fusedbert.engine.attention import Attentions
    from fusedbert.engine.attention.graph import AttentionGraph

_STREAM_WINDOW = 256


class Classifier:
    """A fine-tuned classifier, ready to run. Make one with ``from_pretrained``; it is safe to share between threads.

    Attributes:
        runtime: Device, precision, graph and threads that were chosen, and why.

    Example:
        >>> with Classifier.from_pretrained() as clf:  # doctest: +SKIP
        ...     clf("I really loved this movie.")
        [{'label': 'POSITIVE', 'score': 0.999}]
    """

    runtime: Runtime

    def __init__(self, loaded: Loaded, options: Options) -> None:
        self.runtime = loaded.runtime
        self._loaded = loaded.without_graph()
        self._runner: Runner | None = loaded.runner
        self._truncate = options.long_text is LongText.TRUNCATE
        self._options = options
        self._attention: AttentionGraph | None = None
        self._attention_lock = threading.Lock()  # opening may take an export, which must not hold up other calls
        self._lock = threading.Lock()
        self._truncated = 0

    @classmethod
    def from_pretrained(
        cls,
        model: str | os.PathLike[str] | None = None,
        *,
        device: str = "auto",
        precision: str = "auto",
        threads: int | None = None,
        max_length: int | None = None,
        long_text: str = "truncate",
        revision: str | None = None,
        token: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
        session_options: Any = None,
    ) -> Classifier:
        """Load a model.

        Args:
            model: An artifact, a checkpoint folder or a hub id (these two are exported on first use into the cache);
                None for the embedded default.
            device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``. ``cuda`` fails where CUDA does not engage; ``auto``
                then takes the CPU, and ``runtime.why`` says why.
            precision: ``auto``, ``fp32``, ``int8`` or ``fp16``.
            threads: Threads of one run on the CPU; None for the cores that the process may really use.
            max_length: Tokens of a text at most; None for what the model allows.
            long_text: Beyond it, ``truncate`` or ``error``.
            revision: Branch, tag or commit of a hub id.
            token: Access token of a private hub id.
            cache_dir: Folder to use in place of ``FUSEDBERT_CACHE`` and of the hub's cache.
            local_files_only: Never ask the hub.
            session_options: ``onnxruntime.SessionOptions`` to use as it is, or a mapping laid over ours; names in it that
                begin with ``cuda.`` are options of the CUDA provider, as in ``{"cuda.gpu_mem_limit": 2**31}``.

        Raises:
            OptionError: An option has a value that is not one of its values.
            ModelNotFoundError: ``model`` is nothing that can be loaded.
            ArtifactError: The artifact is damaged.
            DeviceError: ``device="cuda"`` and CUDA does not engage.
            MissingDependencyError: ONNX Runtime, or the exporter where one is needed, is not installed.
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
        return cls(load(model, options), options)

    @property
    def classes_(self) -> list[str]:
        """Names of the labels, in the order of the columns of ``predict_proba``."""
        return list(self._loaded.manifest.labels)

    @property
    def problem_type(self) -> str:
        """``regression``, ``single_label_classification`` or ``multi_label_classification``."""
        return self._loaded.manifest.problem_type

    @property
    def max_length(self) -> int:
        """Tokens of a text at most, special tokens included."""
        return self._loaded.tokenizer.max_length

    @property
    def truncated(self) -> int:
        """Number of texts that were cut at ``max_length`` so far."""
        return self._truncated

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
            inputs: A text, a pair as ``{"text", "text_pair"}`` or a tuple, or a list of these.
            top_k: Labels to return for each text, from the best down; None for all. Not given: the best one.
            function_to_apply: ``sigmoid``, ``softmax`` or ``none``; None for what fits the model.
            truncation: Whether to cut texts beyond ``max_length``, or raise; None for what ``long_text`` said.

        Returns:
            For a text ``[{"label", "score"}]``, for a pair ``{"label", "score"}``, for a list a list of the latter;
            with ``top_k`` a list of those in place of each.

        Raises:
            InputError: An input is no text; the message names its index.
            TextTooLongError: A text is too long and ``truncation`` is false.

        Example:
            >>> clf(["fine", "awful"], top_k=None)  # doctest: +SKIP
            [[{'label': 'POSITIVE', 'score': 0.99}, {'label': 'NEGATIVE', 'score': 0.01}], [...]]
        """
        top_k = check_top_k(top_k)
        function = self._function(function_to_apply)
        if isinstance(inputs, list):
            return self._score(check_items(inputs), function, top_k, truncation)
        if not isinstance(inputs, (str, tuple, Mapping)) and isinstance(inputs, Iterable) and not isinstance(inputs, bytes):
            raise InputError(f"inputs is of type {type(inputs).__name__}: give list(inputs), or use stream(inputs)")
        result = self._score([check_item(inputs, 0)], function, top_k, truncation)[0]
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
            texts: A list, array or other collection of texts and pairs.

        Raises:
            InputError: It is a single text, or an item is no text.
        """
        return self._logits(check_items(texts), None)

    def predict_proba(self, texts: Iterable[Item]) -> Floats:
        """Return the probability of each label, float32 ``[n, labels]``; for a regression, its values.

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
        names = self._loaded.manifest.labels
        if self.problem_type == "multi_label_classification":
            return [[names[i] for i in np.flatnonzero(row >= 0.5)] for row in self.predict_proba(texts)]
        return [names[i] for i in self.decision_function(texts).argmax(axis=-1)]

    def attentions(self, text: str, text_pair: str | None = None, *, occlusion: bool = True) -> Attentions:
        """Show how a text was read: the attention weights of every layer and head, and which words the answer hangs on.

        It runs a graph of its own, fp32 on the CPU, that is opened at the first call. An artifact has it where it was
        exported with ``--attentions``; for a checkpoint it is made then, into the cache.

        Args:
            text: The text.
            text_pair: The second text of a pair.
            occlusion: Whether to measure too what each word's leaving out changes, which runs the text once a word.

        Raises:
            ArtifactError: The artifact has no such graph; the message names the command that makes one.
            InputError: ``text`` is no text.

        Example:
            >>> shown = clf.attentions("Action gets results")  # doctest: +SKIP
            >>> shown.tokens, shown.weights.shape  # doctest: +SKIP
            (('[CLS]', 'action', 'gets', 'results', '[SEP]'), (3, 12, 5, 5))
        """
        from fusedbert.engine.attention.graph import AttentionGraph
        from fusedbert.engine.attention.occlusion import occlude

        checked = check_item(text if text_pair is None else (text, text_pair), 0)
        if self._runner is None:
            raise self._closed()
        with self._attention_lock:
            graph = self._attention or AttentionGraph.open(self._loaded, self._options)
            self._attention = graph
        shown = graph.show(checked, truncate=self._truncate)
        return occlude(shown, self.predict_proba) if occlusion else shown

    def close(self) -> None:
        """Let go of the graph and its memory; calls that run finish, later ones raise ``ClosedError``."""
        self._runner = self._attention = None

    def __enter__(self) -> Classifier:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "" if self._runner is not None else ", closed"
        runtime = self.runtime
        return (
            f"Classifier({str(self._loaded.folder)!r}, {runtime.precision} on {runtime.device}, labels={self.classes_}{state})"
        )

    def _closed(self) -> ClosedError:
        return ClosedError("this Classifier was closed: make another with Classifier.from_pretrained")

    def _function(self, given: str | None) -> Function:
        return Function.choose(given, self.problem_type, len(self._loaded.manifest.labels))

    def _score(
        self, texts: list[Text], function: Function, top_k: int | Default | None, truncation: bool | None
    ) -> list[Scored | list[Scored]]:
        scores = apply(function, self._logits(texts, truncation))  # [n, labels]
        return [scored(row, self._loaded.manifest.labels, top_k) for row in scores]

    def _logits(self, texts: list[Text], truncation: bool | None) -> Floats:
        """Run checked texts; results stand in the order of the texts, whatever the batches were."""
        runner = self._opened()  # held here, so that a close() meanwhile does not take it away
        if truncation is not None and not isinstance(truncation, bool):
            raise OptionError(f"truncation is {truncation!r}: give True or False")
        truncate = self._truncate if truncation is None else truncation
        logits = np.empty((len(texts), len(self._loaded.manifest.labels)), dtype=np.float32)  # [n, labels]
        batches = self._prepare(runner, texts, truncate)
        if runner.ahead and len(texts) > runner.window:
            batches = ahead(batches)  # tokenize the next window while this one runs
        with contextlib.closing(batches):  # an error of the graph must not leave a thread behind
            for indices, prepared in batches:
                self._execute(runner, texts, indices, prepared, logits)
        return logits

    def _prepare(self, runner: Runner, texts: list[Text], truncate: bool) -> Generator[tuple[list[int], Prepared], None, None]:
        """Tokenize window after window; yield batches that are ready to run, with the indices of their texts."""
        for start in range(0, len(texts), runner.window):
            rows = self._tokenize(texts[start : start + runner.window], truncate)
            for batch in plan([len(row.ids) for row in rows], runner.budget):
                yield [start + i for i in batch], runner.prepare([rows[i] for i in batch])

    def _opened(self) -> Runner:
        """Return what computes, or raise where it was closed."""
        if self._runner is None:
            raise self._closed()
        return self._runner

    def _tokenize(self, texts: list[Text], truncate: bool) -> list[Row]:
        """Tokenize checked texts, and count those that were cut."""
        rows = self._loaded.tokenizer.encode(texts, truncate=truncate)
        if cut := sum(row.truncated for row in rows):
            with self._lock:
                self._truncated += cut
        return rows

    def _forward(self, runner: Runner, texts: list[Text], rows: list[Row], logits: Floats) -> int:
        """Run tokenized texts, write their logits into ``logits`` ``[n, labels]``, return the tokens run, padding included."""
        tokens = 0
        for batch in plan([len(row.ids) for row in rows], runner.budget):
            prepared = runner.prepare([rows[i] for i in batch])
            tokens += prepared.tokens
            self._execute(runner, texts, batch, prepared, logits)
        return tokens

    def _execute(self, runner: Runner, texts: list[Text], indices: list[int], prepared: Prepared, logits: Floats) -> None:
        """Run one batch, and write the logits of the texts at ``indices`` into ``logits`` ``[n, labels]``."""
        found = runner.execute(prepared)  # [batch, labels]
        if found.shape != (len(indices), logits.shape[1]):
            expected = (len(indices), logits.shape[1])
            raise InferenceError(f"{runner.file} gave logits of shape {found.shape}, expected {expected}: export it again")
        if not np.isfinite(found).all():
            broken = texts[indices[int(np.flatnonzero(~np.isfinite(found).all(axis=1))[0])]].index
            raise InferenceError(f"{runner.file} gave NaN or infinity for text {broken}: try precision='fp32'")
        logits[indices] = found
