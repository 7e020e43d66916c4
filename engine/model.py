"""The loaded model: texts to logits, through tokenizer, batches and graph.

A session does not survive ``fork()``: its threads are missing in the child. Freeing it would join them, and on CUDA end the
process. So a forked child keeps the parent's session unused, and opens another at the first call.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import itertools
import logging
import os
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Generator, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import ClosedError, DeviceError, InferenceError, OptionError
from .hardware.device import CPU
from .load import Options
from .load.open import Loaded, Runtime, Source, load
from .run.batches import Budget, plan
from .run.counters import Batch, Counters
from .run.prefetch import prefetch
from .run.runner import Prepared, Runner
from .text.call import CallArguments, call_parser
from .text.files import read_config
from .text.heads import Combinations, function_of, heads_parser
from .text.inputs import AS_LOADED, Cut, LongText, Text, Truncation, Window
from .text.outputs import CallOptions, Floats, Function, stated_activation
from .text.tokenizer import Row, TextTokenizer, Tokens
from .text.windows import check_stride, tokenize_windows, trace

if TYPE_CHECKING:
    from .explain.graph import AttentionGraph

_log = logging.getLogger("fusedbert.engine.model")
_CLOSED = "this Classifier was closed: make another with Classifier.from_pretrained"


class Model:
    """A loaded model: tokenize, plan batches, run, gather. It is thread-safe, and can be pickled by its path."""

    def __init__(self, loaded: Loaded, options: Options) -> None:
        if options.long_text is LongText.WINDOW:
            check_stride(options.window, loaded.tokenizer)
        self._describe(loaded.without_graph(), options, loaded.runtime)
        self.tokenizer = _with_special_tokens(loaded.tokenizer, options)
        self.counters = Counters()
        self._folder = loaded.folder.absolute()  # the working directory may change
        self._runner: Runner | None = loaded.runner
        self._attentions: AttentionGraph | None = None
        self._closed = False
        self._warned = False
        self._lock = threading.Lock()  # opening can take long (an export), and must not block calls that run
        if hasattr(os, "register_at_fork"):  # not on Windows
            reference = weakref.WeakMethod(self._restart)
            os.register_at_fork(after_in_child=lambda: (restart := reference()) and restart())
        _log.debug("loaded %s: %s", self._folder, self.runtime.why)

    def _describe(self, source: Source, options: Options, runtime: Runtime) -> None:
        """Set what is known without the graph."""
        manifest = source.manifest
        self.source, self.options, self.runtime = source, options, runtime
        self.labels, self.problem_type = manifest.labels, manifest.problem_type
        self.function = function_of(manifest.outputs[0])
        self._combine = Combinations.of(options.window, manifest.outputs)
        self._parse: Callable[[CallArguments], CallOptions] = (
            heads_parser(manifest) if manifest.heads else call_parser(manifest, self.function)
        )
        self._call = self._parse({})

    def open(self) -> Runner:
        """Return the runner of the open graph, which a forked child opens again.

        Raises:
            ClosedError: The model was closed.
            DeviceError: The model was on a GPU before a fork.
        """
        runner = self._runner  # read once: another thread may call close()
        if runner is not None:
            return runner
        with self._lock:
            if self._closed:
                raise ClosedError(_CLOSED)
            if self._runner is None:
                loaded = self._reopen()
                self.tokenizer, self._runner = _with_special_tokens(loaded.tokenizer, self.options), loaded.runner
            return self._runner

    def attention_graph(self) -> AttentionGraph:
        """Return the fp32 graph with attention weights, opened at the first call.

        Raises:
            ClosedError: The model was closed.
            ArtifactError: The artifact lacks it; the message names the command that makes it.
        """
        from .explain.graph import AttentionGraph

        self.open()
        with self._lock:
            self._attentions = graph = self._attentions or AttentionGraph.open(self.source, self.options)
        return graph

    def close(self) -> None:
        """Free the graphs; calls in progress finish, later ones raise ``ClosedError``."""
        self._closed = True
        self._runner = self._attentions = None

    def function_for(self, name: str | None) -> Function:
        """Return the function of a name, or the default for None.

        Raises:
            OptionError: The name is unknown.
        """
        return self.function if name is None else Function.choose(name, self.problem_type, len(self.labels))

    @property
    def activation(self) -> Function | None:
        """The activation that the checkpoint states for ``CrossEncoder``; ``OptionError`` if it is not known here."""
        return stated_activation(read_config(self.source.folder / "config.json"), len(self.labels), OptionError)

    def call(self, arguments: CallArguments) -> CallOptions:
        """Return the options for the keywords of a call.

        Raises:
            OptionError: A value is not valid.
            TypeError: A keyword is unknown.
        """
        if not arguments:
            return self._call
        options = self._parse(arguments)
        if self.options.long_text is LongText.WINDOW and options.cut.max_length is not None:
            check_stride(self.options.window, self.tokenizer.for_call(options.cut))
        return options

    def logits(self, texts: Sequence[Text], cut: Cut = AS_LOADED) -> Floats:
        """Compute the logits ``[texts, labels]`` of checked texts.

        Raises:
            TextTooLongError: A text is too long, and may not be cut.
            InferenceError: The graph failed, or returned invalid logits.
        """
        runner = self.open()
        logits = np.empty((len(texts), len(self.labels)), dtype=np.float32)  # [texts, labels]
        windowed: list[tuple[int, Tokens, Floats]] = []
        batches = self._batches(runner, texts, cut, logits, windowed)
        if runner.prefetch and len(texts) > runner.chunk:
            batches = prefetch(batches)  # tokenize the next chunk while this one runs
        with contextlib.closing(batches):  # after an error of the graph, end the prefetch thread
            for batch in batches:
                self._execute(runner, batch)
        for start, tokens, rows in windowed:
            combined = self._combine(tokens, rows)  # [texts, labels]
            logits[start : start + len(combined)] = combined
        return logits

    def tokenize(self, texts: Sequence[Text], cut: Cut = AS_LOADED) -> Tokens:
        """Tokenize and count checked texts; the model's first text to be cut without a caller's word gives a warning.

        Raises:
            TextTooLongError: A text is too long, and may not be cut.
            InputError: A text has no tokens, or one without a vector in the model.
        """
        self.open()  # in a forked child, replaces the tokenizer too
        start = time.perf_counter()
        tokenizer, long_text = self.tokenizer.for_call(cut), cut.long_text or self.options.long_text
        if long_text is LongText.WINDOW:
            tokens = tokenize_windows(tokenizer, texts, self.options.window)
        else:
            tokens = Tokens(rows=tokenizer.encode(texts, truncate=long_text is LongText.TRUNCATE))
        self.count(texts, tokens, start, cut)
        return tokens

    def count(self, texts: Sequence[Text], tokens: Tokens, start: float, cut: Cut = AS_LOADED) -> None:
        """Count tokenized texts, which took the time since ``start``; the first one to be cut gives a warning."""
        if not cut.counted:
            return
        truncated = self._count_tokens(tokens, start)
        if not self._warned and any(truncated) and cut.as_loaded:
            self._warn(texts[truncated.index(True)], cut.long_text or self.options.long_text, cut)

    def keep(self, texts: Iterable[str]) -> None:
        """Keep the tokens of texts, such as a query or hypotheses, that many pairs of later calls will have."""
        self.open()  # as in ``tokenize``
        self.tokenizer.pairs.keep(self.tokenizer, texts)

    def plan(self, rows: Sequence[Row], budget: Budget | None = None) -> list[list[int]]:
        """Group rows of similar length into batches within a budget, by default the runner's; return their indices."""
        start = time.perf_counter()
        batches = list(plan([len(row.ids) for row in rows], budget or self.open().budget))
        self.counters.planned(time.perf_counter() - start)
        return batches

    def run(self, texts: Sequence[Text], rows: Sequence[Row]) -> Floats:
        """Compute the logits ``[rows, labels]`` of one batch; ``texts`` has each row's text, for messages."""
        runner = self.open()
        logits = np.empty((len(rows), len(self.labels)), dtype=np.float32)  # [rows, labels]
        self._execute(runner, self._prepare(runner, texts, rows, range(len(rows)), logits))
        return logits

    def token_logits(self, texts: Sequence[Text], rows: Sequence[Row]) -> list[Floats]:
        """Compute the logits ``[tokens, labels]`` of each row of a token classifier; ``texts`` as for ``run``."""
        return self.forward_tokens(texts, rows)[0]

    def forward_tokens(self, texts: Sequence[Text], rows: Sequence[Row]) -> tuple[list[Floats], int]:
        """Return what ``token_logits`` does, and the number of computed tokens."""
        runner = self.open()
        ends = list(itertools.accumulate(len(row.ids) for row in rows))
        logits = np.empty((ends[-1] if ends else 0, len(self.labels)), dtype=np.float32)  # [all tokens, labels]
        padded = 0
        for indices in self.plan(rows):
            batch = self._prepare(runner, texts, rows, indices, logits, ends)
            padded += batch.prepared.tokens
            self._execute(runner, batch)
        return (np.split(logits, ends[:-1]) if ends else []), padded

    def forward(self, texts: Sequence[Text], tokens: Tokens) -> tuple[Floats, int]:
        """Compute the logits ``[texts, labels]`` of tokenized texts; also return the number of computed tokens."""
        runner = self.open()
        logits = np.empty((len(tokens.rows), len(self.labels)), dtype=np.float32)  # [rows, labels]
        owners = tokens.owners(texts)
        padded = 0
        for indices in self.plan(tokens.rows):
            batch = self._prepare(runner, owners, tokens.rows, indices, logits)
            padded += batch.prepared.tokens
            self._execute(runner, batch)
        return self._combine(tokens, logits), padded

    def windows(self, text: Text, window: Window | None = None) -> tuple[Floats, int, list[tuple[int, int]]]:
        """Return the logits ``[windows, labels]`` of a text's windows, their segment (0 or 1) and their character spans."""
        self.open()
        if window is not None:
            check_stride(window, self.tokenizer)
        start = time.perf_counter()
        rows, segment, spans = trace(self.tokenizer, text, window or self.options.window)
        self._count_tokens(Tokens(rows=rows, starts=[0]), start)
        logits, _ = self.forward([text] * len(rows), Tokens(rows=rows))  # each window as a text
        return logits, segment, spans

    def __repr__(self) -> str:
        state = ", closed" if self._closed else ""
        where = f"{self.runtime.precision} on {self.runtime.device}"
        return f"Model({str(self.source.folder)!r}, {where}, labels={list(self.labels)}{state})"

    def __reduce__(self) -> tuple[Callable[..., Model], tuple[Any, Path, Options]]:
        """Pickle the path and the options, without the access token."""
        if self._closed:
            raise ClosedError(_CLOSED)
        if type(self.options.session_options).__name__ == "SessionOptions":
            raise OptionError("session_options is a SessionOptions, which cannot be pickled: give a mapping in its place")
        model = None if self.source.model is None else os.fspath(self.source.model)
        return _unpickle, (model, self._folder, dataclasses.replace(self.options, token=None))

    def _batches(
        self,
        runner: Runner,
        texts: Sequence[Text],
        cut: Cut,
        logits: Floats,
        windowed: list[tuple[int, Tokens, Floats]],
    ) -> Generator[_Batch, None, None]:
        """Tokenize chunk by chunk and yield prepared batches; chunks with windows are added to ``windowed``."""
        for start in range(0, len(texts), runner.chunk):
            chunk = texts[start : start + runner.chunk]
            tokens = self.tokenize(chunk, cut)
            out = logits[start : start + len(chunk)]  # a view
            if tokens.starts is not None:
                out = np.empty((len(tokens.rows), len(self.labels)), dtype=np.float32)  # [rows, labels]
                windowed.append((start, tokens, out))
                chunk = tokens.owners(chunk)
            for indices in self.plan(tokens.rows, runner.budget):
                yield self._prepare(runner, chunk, tokens.rows, indices, out)

    def _prepare(
        self,
        runner: Runner,
        texts: Sequence[Text],
        rows: Sequence[Row],
        indices: Sequence[int],
        out: Floats,
        ends: Sequence[int] | None = None,  # of each row's tokens in ``out``; None if a row is one place of it
    ) -> _Batch:
        start = time.perf_counter()
        chosen = [rows[i] for i in indices]
        prepared = runner.prepare(chosen)
        tokens = sum(len(row.ids) for row in chosen)
        owners, places = indices, indices
        if ends is not None:
            owners = [i for i in indices for _ in rows[i].ids]
            places = [place for i in indices for place in range(ends[i] - len(rows[i].ids), ends[i])]
        seconds = time.perf_counter() - start
        return _Batch(prepared, texts, owners, places, len(chosen), tokens, seconds, out)

    def _execute(self, runner: Runner, batch: _Batch) -> None:
        """Run a batch, count it, check its logits and write them to ``batch.out``."""
        start = time.perf_counter()
        logits = runner.execute(batch.prepared)  # [batch, labels]
        seconds = time.perf_counter() - start
        padded = batch.prepared.tokens
        self.counters.ran(
            Batch(rows=batch.rows, tokens=batch.tokens, padded=padded, prepare_seconds=batch.seconds, run_seconds=seconds)
        )
        expected = (len(batch.places), len(self.labels))
        if logits.shape != expected:
            raise InferenceError(f"{runner.file} gave logits of shape {logits.shape}, expected {expected}: export it again")
        finite = np.isfinite(logits)
        if not finite.all():
            broken = batch.texts[batch.owners[int(np.flatnonzero(~finite.all(axis=1))[0])]].index
            raise InferenceError(f"{runner.file} gave NaN or infinity for text {broken}: try precision='fp32'")
        batch.out[batch.places] = logits

    def _count_tokens(self, tokens: Tokens, start: float) -> list[bool]:
        """Count tokenized texts; return which of them were truncated."""
        truncated = tokens.truncated()
        windowed, windows = tokens.windows()
        seconds, cut = time.perf_counter() - start, sum(truncated)
        self.counters.tokenized(texts=len(truncated), truncated=cut, windowed=windowed, windows=windows, seconds=seconds)
        return truncated

    def _warn(self, text: Text, long_text: LongText, cut: Cut) -> None:
        with self._lock:
            if self._warned:
                return
            self._warned = True
        if long_text is LongText.WINDOW:
            what, way = f"text {text.index} is a pair of two long texts, and the shorter one was cut", "shorten that one"
        else:
            what = f"text {text.index} has more tokens than max_length, {self.tokenizer.max_length}, and was cut"
            way = "give long_text='window' to read all of a text, 'error' to refuse it"
            if cut.strategy is Truncation.LONGEST_FIRST and not self.source.manifest.by_token:  # only a classifier's call
                way += ", or truncation=True to a call"
        message = f"{what}; later ones are counted in stats.truncated without a warning: {way}"
        warnings.warn(message, UserWarning, stacklevel=caller_level())

    def _reopen(self) -> Loaded:
        """Open the graph in a forked process."""
        if self.runtime.provider != CPU:
            raise DeviceError(
                f"this Classifier was loaded on {self.runtime.device} before process {os.getpid()} was forked, and CUDA does "
                "not survive a fork: load it only in the child, or start processes with multiprocessing's 'spawn'"
            )
        _log.debug("process %d was forked: opening %s again", os.getpid(), self._folder)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the parent had them
            return load(self._folder if self._folder.is_dir() else self.source.model, self.options)

    def _restart(self) -> None:
        """Reset in a forked child; the parent's sessions are never freed."""
        import ctypes  # numpy has imported it

        for graph in filter(None, (self._runner, self._attentions)):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(graph))
        self._runner = self._attentions = None
        self._warned = False
        self._lock = threading.Lock()  # another thread of the parent may have held it
        self.counters.restart()


@dataclasses.dataclass(frozen=True, slots=True)
class _Batch:
    """A batch that is laid out for its run."""

    prepared: Prepared  # the runner's arrays
    texts: Sequence[Text]  # of all rows, for messages
    owners: Sequence[int]  # the row that each of its logits belongs to
    places: Sequence[int]  # of its logits in ``out``
    rows: int
    tokens: int  # of these rows, without padding
    seconds: float  # for laying them out
    out: Floats  # logits of all rows, [rows, labels]


def _with_special_tokens(tokenizer: TextTokenizer, options: Options) -> TextTokenizer:
    """Return a tokenizer, after the load has checked the golden texts with it, that reads special tokens as asked for."""
    if options.split_special_tokens is not None:
        tokenizer.raw.encode_special_tokens = options.split_special_tokens
    return tokenizer


def _unpickle(model: str | None, folder: Path, options: Options) -> Model:
    """Load the artifact again; on a machine without its folder, load MODEL."""
    return Model(load(folder if folder.is_dir() else model, options), options)


def caller_level() -> int:
    """Return the stack level, for ``warnings``, of the code that called the library."""
    level, frame = 0, inspect.currentframe()
    while frame is not None and str(frame.f_globals.get("__name__", "")).startswith("fusedbert."):
        level, frame = level + 1, frame.f_back
    return level
