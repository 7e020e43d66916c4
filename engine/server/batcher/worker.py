"""Worker threads of a ``Batcher``: they take requests, tokenize, run batch by batch, and resolve the requests."""

from __future__ import annotations

import abc
import dataclasses
import time
from collections.abc import Sequence
from typing import Any, Generic, Protocol, TypeVar

from ...errors import DeadlineError, InferenceError
from ...model import Model
from ...run.batches import Budget
from ...tasks.tokens.call import Tagging
from ...tasks.tokens.reading import Reading
from ...tasks.tokens.tagger import Tagger
from ...text.outputs import CallOptions
from ...text.tokenizer import Row, Tokens
from .queue import Queue
from .request import Request, own_copy, resolve_all

LATE = "the deadline passed before the text's turn came: it was not run"

# Tokens that cost about as much as another run on the CPU; measured with three layers and with twelve.
_FREE = 8
_WASTE = 0.06


def run_budget(model: Model, max_tokens: int | None) -> Budget:
    """Return the runner's limits of one run, with at most ``max_tokens`` padded tokens."""
    budget = model.open().budget
    tokens = min(budget.tokens, max_tokens or budget.tokens)
    free = min(budget.free, _FREE) if model.runtime.device == "cpu" else budget.free
    return dataclasses.replace(budget, tokens=tokens, free=free, waste=_WASTE)


class Piece(Protocol):
    """A tokenized text."""

    @property
    def rows(self) -> list[Row]:
        """Its rows, several if it is read in windows."""
        ...


P = TypeVar("P", bound=Piece)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Worker(abc.ABC, Generic[P]):
    """The work of the threads, which do not hold the batcher."""

    queue: Queue
    model: Model
    budget: Budget  # limits of one run

    @abc.abstractmethod
    def read(self, requests: Sequence[Request]) -> list[P]:
        """Tokenize the texts of requests whose calls read them alike."""

    @abc.abstractmethod
    def alike(self, one: Request, other: Request) -> bool:
        """Return whether two requests can be tokenized together."""

    @abc.abstractmethod
    def results(self, requests: Sequence[Request], pieces: Sequence[P]) -> list[Any]:
        """Run the texts of requests as one batch, several or a single one in windows; return the result of each."""

    def work(self) -> None:
        """Run requests until the queue is closed; errors go to the callers that they concern."""
        while self._turn():
            pass

    def _turn(self) -> bool:
        """Run the requests of one take; when it returns, an idle thread holds no texts."""
        requests = self.queue.take()
        live = self._start(requests)
        if live:
            self._answer(live)
        return bool(requests)

    def _start(self, requests: Sequence[Request]) -> list[Request]:
        """Start requests, without cancelled and late ones."""
        now = time.monotonic()
        live, late, cancelled = [], [], 0
        for request in requests:
            if not request.start():
                cancelled += 1
            elif request.deadline is not None and request.deadline < now:
                late.append(request)
            else:
                live.append(request)
        if late or cancelled:
            self.queue.done(taken=len(late) + cancelled, expired=len(late), cancelled=cancelled)
            resolve_all([(request, None, DeadlineError(LATE)) for request in late])
        return live

    def _answer(self, requests: list[Request]) -> None:
        """Tokenize and run, short texts first."""
        tokenized = self._tokenize(requests)
        for request, piece in tokenized:
            request.tokens = sum(len(row.ids) for row in piece.rows)
        single = [(request, piece) for request, piece in tokenized if len(piece.rows) == 1]
        for batch in self.model.plan([piece.rows[0] for _, piece in single], self.budget):
            self._run(self._wanted([single[i] for i in batch]))
        for pair in tokenized:
            if len(pair[1].rows) > 1:
                self._run(self._wanted([pair]))

    def _wanted(self, pairs: list[tuple[Request, P]]) -> list[tuple[Request, P]]:
        """Drop the texts whose callers have gone since the take, which may be many runs ago."""
        kept = [pair for pair in pairs if not pair[0].gone]
        if gone := len(pairs) - len(kept):
            self.queue.done(taken=gone, cancelled=gone)
        return kept

    def _tokenize(self, requests: list[Request]) -> list[tuple[Request, P]]:
        """Tokenize together on a GPU; on the CPU, or after an error, one by one, so that a text fails only its own caller.

        On the CPU the tokenizer's threads would wait for cores that the graph keeps busy (p99 at 70 % load of two cores: 6 to
        18 ms together, 3.4 to 3.7 ms one by one).
        """
        together = self.model.runtime.device != "cpu" and all(self.alike(requests[0], each) for each in requests)
        if len(requests) == 1 or together:
            try:
                return list(zip(requests, self.read(requests), strict=True))
            except BaseException as error:
                if len(requests) == 1:
                    self._fail(requests, error)
                    return []
        return [pair for request in requests for pair in self._tokenize([request])]

    def _run(self, pairs: list[tuple[Request, P]]) -> None:
        """Run one batch, which may be empty; if the graph fails, its texts one by one."""
        if not pairs:
            return
        requests, pieces = [request for request, _ in pairs], [piece for _, piece in pairs]
        rows = [row for piece in pieces for row in piece.rows]
        start = time.perf_counter()
        try:
            results = self.results(requests, pieces)
        except BaseException as error:
            if len(pairs) == 1 or not isinstance(error, InferenceError):
                self._fail(requests, error)
                return
            for pair in pairs:
                self._run([pair])
            return
        self.queue.cost.observe(len(rows) * max(len(row.ids) for row in rows), time.perf_counter() - start)
        self.queue.done(taken=len(requests), answered=len(requests), batches=1)
        resolve_all([(request, result, None) for request, result in zip(requests, results, strict=True)])

    def _fail(self, requests: Sequence[Request], error: BaseException) -> None:
        self.queue.done(taken=len(requests), failed=len(requests))
        resolve_all([(request, None, own_copy(error) if len(requests) > 1 else error) for request in requests])


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextWorker(Worker[Tokens]):
    """The work for a classifier of texts."""

    def read(self, requests: Sequence[Request]) -> list[Tokens]:
        """Tokenize the texts."""
        tokens = self.model.tokenize([request.text for request in requests], _call(requests[0]).cut)
        return [Tokens(rows=rows) for rows in tokens.by_text()]

    def alike(self, one: Request, other: Request) -> bool:
        """Return whether they are cut alike."""
        return _call(one).cut == _call(other).cut

    def results(self, requests: Sequence[Request], pieces: Sequence[Tokens]) -> list[Any]:
        """Return the results from the logits."""
        texts, rows = [request.text for request in requests], [row for piece in pieces for row in piece.rows]
        if len(requests) == len(rows):
            logits = self.model.run(texts, rows)  # [requests, labels]
        else:
            logits, _ = self.model.forward(texts, Tokens(rows=rows, starts=[0]))  # the windows of one text
        lines: dict[CallOptions, list[int]] = {}
        for line, request in enumerate(requests):
            lines.setdefault(_call(request), []).append(line)
        results: list[Any] = [None] * len(requests)
        for call, own in lines.items():
            for line, result in zip(own, call.results(logits[own], self.model.labels), strict=True):
                results[line] = [result] if requests[line].form.in_list else result
        return results


@dataclasses.dataclass(frozen=True, kw_only=True)
class TagWorker(Worker[Reading]):
    """The work for a token classifier."""

    tagger: Tagger

    def read(self, requests: Sequence[Request]) -> list[Reading]:
        """Tokenize the texts, with the characters of their tokens."""
        return self.tagger.read([request.text for request in requests], _tagging(requests[0]))

    def alike(self, one: Request, other: Request) -> bool:
        """Return whether they have the same windows, and are both words or both not."""
        first, second = _tagging(one), _tagging(other)
        return first.stride == second.stride and (first.delimiter is None) == (second.delimiter is None)

    def results(self, requests: Sequence[Request], pieces: Sequence[Reading]) -> list[Any]:
        """Return the entities."""
        scores, _ = self.tagger.run(pieces)
        return [
            self.tagger.entities(reading, found, _tagging(request))
            for request, reading, found in zip(requests, pieces, scores, strict=True)
        ]


def _call(request: Request) -> CallOptions:
    assert isinstance(request.form.call, CallOptions)
    return request.form.call


def _tagging(request: Request) -> Tagging:
    assert isinstance(request.form.call, Tagging)
    return request.form.call
