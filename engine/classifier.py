"""``Classifier``: one loaded model, called as transformers' pipeline or with scikit-learn's verbs, from any thread."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .calls import Calls
from .errors import ClosedError, OptionError
from .load.open import Loaded, Runtime, load
from .load.process import Origin, after_fork, keep_forever, reload
from .options import LongText, Options, Window
from .run.counters import Counters, Stats
from .run.execution import Execution
from .run.runner import Runner
from .text.inputs import Text, alone, check_item
from .text.labels import distinct
from .text.outputs import Floats, Function, apply
from .text.windows import WindowScore, check_stride

if TYPE_CHECKING:
    from .explain import Attentions
    from .explain.graph import AttentionGraph

_log = logging.getLogger("fusedbert.engine.classifier")


class Classifier(Calls):
    """A fine-tuned classifier, ready to run. Make one with ``from_pretrained``; it is safe to share between threads.

    It may be pickled, and is loaded again, by its path, where it is unpickled. In a process that was forked after it was
    loaded it opens its graph again at its first call, because ONNX Runtime's threads do not come along.

    Attributes:
        runtime: Device, precision, graph and threads that were chosen, and why.

    Example:
        >>> with Classifier.from_pretrained() as clf:
        ...     clf("I really loved this movie.")
        [{'label': 'POSITIVE', 'score': 0.99...}]
    """

    runtime: Runtime

    def __init__(self, loaded: Loaded, options: Options) -> None:
        if options.long_text is LongText.WINDOW:
            check_stride(options.window, loaded.tokenizer)
        self.runtime = loaded.runtime
        self._loaded = loaded.without_graph()
        self._options = options
        self._origin = Origin.of(loaded, options)
        self._labels = list(loaded.manifest.labels)
        self._counters = Counters()
        self._execution: Execution | None = self._execute_with(loaded)
        self._attention: AttentionGraph | None = None
        self._closed = False
        self._lock = threading.Lock()  # opening may take an export, which must not hold up other calls
        after_fork(self)
        _log.debug("loaded %s: %s", self._origin.folder, self.runtime.why)

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
            model: An artifact, a checkpoint folder or a hub id (these two are exported on first use into the cache);
                None for the embedded default.
            device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``. ``cuda`` fails where CUDA does not engage; ``auto``
                then takes the CPU, and ``runtime.why`` says why.
            precision: ``auto``, ``fp32``, ``int8`` or ``fp16``.
            threads: Threads of one run on the CPU; None for the cores that the process may really use.
            max_length: Tokens of a text at most; None for what the model allows.
            long_text: Beyond it: ``truncate`` cuts a text, counts it in ``stats`` and warns at the first one; ``error``
                refuses it; ``window`` reads all of it, in windows that overlap, and takes the mean of their logits;
                ``Window(stride=..., aggregate="mean"|"max")`` does that with other settings.
            revision: Branch, tag or commit of a hub id.
            token: Access token of a private hub id.
            cache_dir: Folder to use in place of ``FUSEDBERT_CACHE`` and of the hub's cache.
            local_files_only: Never ask the hub.
            session_options: ``onnxruntime.SessionOptions`` to use as it is, or a mapping laid over ours; names in it that
                begin with ``cuda.`` are options of the CUDA provider, as in ``{"cuda.gpu_mem_limit": 2**31}``;
                ``{"fusedbert.kernels": "0"}`` leaves int8 to ONNX Runtime's kernels, as a ``SessionOptions`` does.

        Raises:
            OptionError: An option has a value that is not one of its values.
            ModelNotFoundError: ``model`` is nothing that can be loaded.
            ArtifactError: The artifact is damaged.
            DeviceError: ``device="cuda"`` and CUDA does not engage.
            MissingDependencyError: ONNX Runtime, or the exporter where one is needed, is not installed.

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
        return cls(load(model, options), options)

    @property
    def classes_(self) -> list[str]:
        """Names of the labels, in the order of the columns of ``predict_proba``."""
        return self._labels.copy()

    @property
    def problem_type(self) -> str:
        """``regression``, ``single_label_classification`` or ``multi_label_classification``."""
        return self._loaded.manifest.problem_type

    @property
    def function_to_apply(self) -> str:
        """What makes scores of logits where a call does not say: ``softmax``, ``sigmoid``, or ``none`` for the logits."""
        return str(Function.of(self._loaded.manifest))

    @property
    def max_length(self) -> int:
        """Tokens of a text at most, special tokens included."""
        return self._loaded.tokenizer.max_length

    @property
    def stats(self) -> Stats:
        """What was done so far: texts, tokens, padding, truncations, windows, batches, seconds by stage.

        Example:
            >>> clf = Classifier.from_pretrained()
            >>> clf.predict(["fine", "awful"])
            ['POSITIVE', 'NEGATIVE']
            >>> clf.stats.texts, clf.stats.batches, clf.stats.truncated
            (2, 1, 0)
        """
        return self._counters.snapshot()

    @property
    def truncated(self) -> int:
        """Number of texts that were cut at ``max_length`` so far; ``stats`` has it too."""
        return self._counters.truncated

    def windows(self, text: str, text_pair: str | None = None, *, function_to_apply: str | None = None) -> list[WindowScore]:
        """Score each window of a text by itself, to see which passage says what.

        The windows are those of ``long_text=Window(...)``, or ``Window()`` where the classifier was loaded without; a text
        that fits is one window.

        Args:
            text: The text.
            text_pair: The second text of a pair; the longer one is read in windows.
            function_to_apply: As in ``__call__``.

        Returns:
            For each window its characters and its scores.

        Raises:
            InputError: ``text`` is no text.

        Example:
            >>> clf = Classifier.from_pretrained(max_length=16)
            >>> text = "A dull start, a slow middle, and then an end that makes up for all of it: I loved that."
            >>> for window in clf.windows(text):
            ...     print(text[window.start : window.end], round(window.scores["POSITIVE"], 1))
            A dull start, a slow middle, and then an end that makes 0.0
            end that makes up for all of it: I loved that. 1.0
        """
        function = self._function(function_to_apply)
        checked = alone(check_item(text if text_pair is None else (text, text_pair), 0))
        logits, segment, places = self._opened_execution().windows(checked)  # [windows, labels]
        scores = apply(function, logits)
        return [
            WindowScore(
                start=start,
                end=end,
                segment=segment,
                logits=tuple(map(float, row)),
                scores=dict(zip(distinct(self._labels), map(float, shares), strict=True)),
            )
            for (start, end), row, shares in zip(places, logits, scores, strict=True)
        ]

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
            >>> shown = Classifier.from_pretrained().attentions("Action gets results")
            >>> shown.tokens, shown.weights.shape
            (('[CLS]', 'action', 'gets', 'results', '[SEP]'), (3, 12, 5, 5))
        """
        from .explain.graph import AttentionGraph
        from .explain.occlusion import occlude

        checked = alone(check_item(text if text_pair is None else (text, text_pair), 0))
        self._opened_execution()
        with self._lock:
            graph = self._attention or AttentionGraph.open(self._loaded, self._options)
            self._attention = graph
        shown = graph.show(checked, truncate=self._options.long_text is not LongText.ERROR)
        return occlude(shown, self.predict_proba) if occlusion else shown

    def close(self) -> None:
        """Let go of the graph and its memory; calls that run finish, later ones raise ``ClosedError``."""
        self._closed = True
        self._execution = self._attention = None

    def __enter__(self) -> Classifier:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        state = ", closed" if self._closed else ""
        runtime = self.runtime
        return (
            f"Classifier({str(self._loaded.folder)!r}, {runtime.precision} on {runtime.device}, labels={self._labels}{state})"
        )

    def __reduce__(self) -> tuple[Callable[..., Classifier], tuple[type[Classifier], Origin]]:
        """Pickle what it was loaded from, and load it again there: the graph stays, and so does the access token."""
        if self._closed:
            raise _closed()
        return _unpickle, (type(self), self._origin.portable())

    def _after_fork(self) -> None:
        """Make ready for use in a child process: see ``process``."""
        keep_forever(self._execution)
        keep_forever(self._attention)
        self._execution = self._attention = None
        self._lock = threading.Lock()  # another thread of the parent may have held it
        self._counters.restart()

    def _opened_execution(self) -> Execution:
        """Return what computes; open it again in a forked child; raise where it was closed."""
        execution = self._execution  # read once, so that a close() meanwhile does not take it away
        if execution is not None:
            return execution
        with self._lock:
            if self._closed:
                raise _closed()
            if self._execution is None:
                _log.debug("process %d was forked: opening %s again", os.getpid(), self._origin.folder)
                self._execution = self._execute_with(reload(self._origin, self.runtime))
            return self._execution

    def _execute_with(self, loaded: Loaded) -> Execution:
        return Execution(
            runner=loaded.runner,
            tokenizer=loaded.tokenizer,
            labels=len(self._labels),
            window=self._options.window,
            counters=self._counters,
        )

    def _logits(self, texts: list[Text], truncation: bool | None) -> Floats:
        """Run checked texts; results stand in the order of the texts, whatever the batches were."""
        return self._opened_execution().logits(texts, self._long_text(truncation), warn=truncation is None)

    def _long_text(self, truncation: bool | None) -> LongText:
        """Return what becomes of long texts in a call."""
        if truncation is None:
            return self._options.long_text
        if not isinstance(truncation, bool):
            raise OptionError(f"truncation is {truncation!r}: give True or False")
        return LongText.TRUNCATE if truncation else LongText.ERROR

    @property
    def _runner(self) -> Runner | None:
        return None if self._execution is None else self._execution.runner.inner


def _closed() -> ClosedError:
    return ClosedError("this Classifier was closed: make another with Classifier.from_pretrained")


def _unpickle(kind: type[Classifier], origin: Origin) -> Classifier:
    return kind(origin.load(), origin.options)
