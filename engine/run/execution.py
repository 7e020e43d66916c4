"""From checked texts to logits: tokenize, sort into batches, run, put together. What every call of a classifier ends in."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
import warnings
from collections.abc import Generator, Sequence

import numpy as np

from ..errors import InferenceError
from ..options import LongText, Window
from ..text.inputs import Text
from ..text.outputs import Floats
from ..text.tokenizer import TextTokenizer
from ..text.windows import Tokens, tokenize, trace
from .counters import CountedRunner, Counters
from .plan import plan
from .prefetch import ahead
from .runner import Prepared, Runner


class Execution:
    """A graph that is open, and the way of texts through it; safe to share between threads.

    Attributes:
        runner: Computes, and counts its batches.
        tokenizer: The artifact's.
        labels: Number of labels.
        window: How long texts are read, where they are read in windows.
        counters: Where texts and batches are counted.
    """

    def __init__(self, *, runner: Runner, tokenizer: TextTokenizer, labels: int, window: Window, counters: Counters) -> None:
        self.runner = CountedRunner(inner=runner, counters=counters)
        self.tokenizer = tokenizer
        self.labels = labels
        self.window = window
        self.counters = counters
        self._warned = False
        self._lock = threading.Lock()

    def tokenize(self, texts: Sequence[Text], long_text: LongText, *, warn: bool = False) -> Tokens:
        """Turn checked texts into rows of tokens, and count them.

        Args:
            texts: Checked texts and pairs.
            long_text: What becomes of long ones.
            warn: Whether to warn, once, where tokens are cut off.

        Raises:
            TextTooLongError: A text is too long, and ``long_text`` is ``error``.
        """
        start = time.perf_counter()
        tokens = tokenize(self.tokenizer, texts, long_text, self.window)
        windowed, windows = tokens.windows()
        cut = sum(tokens.truncated())
        seconds = time.perf_counter() - start
        self.counters.tokenized(texts=len(texts), truncated=cut, windowed=windowed, windows=windows, seconds=seconds)
        if cut and warn and not self._warned:
            self._warn(texts[tokens.truncated().index(True)], long_text)
        return tokens

    def logits(self, texts: Sequence[Text], long_text: LongText, *, warn: bool = False) -> Floats:
        """Run checked texts.

        Args:
            texts: Checked texts and pairs.
            long_text: What becomes of long ones.
            warn: As in ``tokenize``.

        Returns:
            Logits ``[texts, labels]``, in the order of the texts whatever the batches were.

        Raises:
            TextTooLongError: As ``tokenize``.
            InferenceError: The graph failed, or gave what are no logits.
        """
        logits = np.empty((len(texts), self.labels), dtype=np.float32)  # [texts, labels]
        spread: list[tuple[int, Tokens, Floats]] = []  # windows of texts whose rows are more than the texts
        batches = self._batches(texts, long_text, warn, logits, spread)
        if self.runner.ahead and len(texts) > self.runner.window:
            batches = ahead(batches)  # tokenize the next window while this one runs
        with contextlib.closing(batches):  # an error of the graph must not leave a thread behind
            for owners, indices, prepared, out in batches:
                execute(self.runner, owners, indices, prepared, out)
        for start, tokens, rows in spread:
            found = tokens.gather(rows, self.window.aggregate)  # [texts, labels]
            logits[start : start + len(found)] = found
        return logits

    def forward(self, texts: Sequence[Text], tokens: Tokens) -> tuple[Floats, int]:
        """Run texts that were tokenized before.

        Returns:
            Logits ``[texts, labels]``, and the tokens that were computed, padding included.
        """
        logits = np.empty((len(tokens.rows), self.labels), dtype=np.float32)  # [rows, labels]
        owners = _owners(texts, tokens)
        padded = 0
        for batch in self._plan(tokens):
            prepared = self.runner.prepare([tokens.rows[i] for i in batch])
            padded += prepared.tokens
            execute(self.runner, owners, batch, prepared, logits)
        return tokens.gather(logits, self.window.aggregate), padded

    def windows(self, text: Text) -> tuple[Floats, int, list[tuple[int, int]]]:
        """Run each window of a text by itself.

        Returns:
            Logits ``[windows, labels]``; which text of a pair they are windows of; the characters of each.
        """
        start = time.perf_counter()
        tokens, segment, places = trace(self.tokenizer, text, self.window)
        windowed, windows = tokens.windows()
        cut = sum(tokens.truncated())
        seconds = time.perf_counter() - start
        self.counters.tokenized(texts=1, truncated=cut, windowed=windowed, windows=windows, seconds=seconds)
        logits, _ = self.forward([text] * len(tokens.rows), Tokens(rows=tokens.rows))  # as texts of their own
        return logits, segment, places

    def _batches(
        self,
        texts: Sequence[Text],
        long_text: LongText,
        warn: bool,
        logits: Floats,
        spread: list[tuple[int, Tokens, Floats]],
    ) -> Generator[tuple[Sequence[Text], list[int], Prepared, Floats], None, None]:
        """Tokenize window after window; yield batches that are ready to run, and where their logits go."""
        step = self.runner.window
        for start in range(0, len(texts), step):
            part = texts[start : start + step]
            tokens = self.tokenize(part, long_text, warn=warn)
            out = logits[start : start + step]  # a view
            if tokens.starts is not None:
                out = np.empty((len(tokens.rows), self.labels), dtype=np.float32)  # [rows, labels]
                spread.append((start, tokens, out))
            owners = _owners(part, tokens)
            for batch in self._plan(tokens):
                yield owners, batch, self.runner.prepare([tokens.rows[i] for i in batch]), out

    def _plan(self, tokens: Tokens) -> list[list[int]]:
        start = time.perf_counter()
        batches = list(plan([len(row.ids) for row in tokens.rows], self.runner.budget))
        self.counters.planned(time.perf_counter() - start)
        return batches

    def _warn(self, text: Text, long_text: LongText) -> None:
        with self._lock:
            if self._warned:
                return
            self._warned = True
        limit = self.tokenizer.max_length
        if long_text is LongText.WINDOW:
            what, way = f"text {text.index} is a pair of two long texts, and the shorter one was cut", "shorten that one"
        else:
            what = f"text {text.index} has more tokens than max_length, {limit}, and was cut"
            way = "give long_text='window' to read all of a text, 'error' to refuse it, or truncation=True to a call"
        message = f"{what}; later ones are counted in stats.truncated without a warning: {way}"
        warnings.warn(message, UserWarning, stacklevel=_callers_level())


def execute(runner: Runner, texts: Sequence[Text], indices: Sequence[int], prepared: Prepared, out: Floats) -> None:
    """Run one batch, and write its logits into ``out``.

    Args:
        runner: What computes.
        texts: The text of each row of ``out``, for messages.
        indices: The rows of ``out`` that the batch is of.
        prepared: The batch.
        out: ``[rows, labels]``.

    Raises:
        InferenceError: The graph failed, or gave what are no logits.
    """
    found = runner.execute(prepared)  # [batch, labels]
    if found.shape != (len(indices), out.shape[1]):
        expected = (len(indices), out.shape[1])
        raise InferenceError(f"{runner.file} gave logits of shape {found.shape}, expected {expected}: export it again")
    if not np.isfinite(found).all():
        broken = texts[indices[int(np.flatnonzero(~np.isfinite(found).all(axis=1))[0])]].index
        raise InferenceError(f"{runner.file} gave NaN or infinity for text {broken}: try precision='fp32'")
    out[indices] = found


def _owners(texts: Sequence[Text], tokens: Tokens) -> Sequence[Text]:
    """Return the text of each row."""
    if tokens.starts is None:
        return texts
    return [texts[tokens.owner(row)] for row in range(len(tokens.rows))]


def _callers_level() -> int:
    """Return the stack level, for ``warnings``, of whoever called the library."""
    level, frame = 2, sys._getframe(2)
    while frame.f_back is not None and str(frame.f_globals.get("__name__", "")).startswith("fusedbert."):
        level, frame = level + 1, frame.f_back
    return level
