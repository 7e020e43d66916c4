"""Worker threads of a ``Batcher``: they take requests, tokenize, run batch by batch, and resolve the requests."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence

from ..errors import DeadlineError, InferenceError
from ..model import Model
from ..run.batches import Budget
from ..text.outputs import CallOptions, Floats
from ..text.tokenizer import Row, Tokens
from .queue import Queue
from .request import Outcome, Request, own_copy, resolve_all

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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Worker:
    """The work of the threads, which do not hold the batcher."""

    queue: Queue
    model: Model
    budget: Budget  # limits of one run

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
        single = [(request, rows[0]) for request, rows in tokenized if len(rows) == 1]
        for batch in self.model.plan([row for _, row in single], self.budget):
            self._run([single[i][0] for i in batch], [single[i][1] for i in batch])
        for request, rows in tokenized:
            if len(rows) > 1:
                self._run([request], rows)

    def _tokenize(self, requests: list[Request]) -> list[tuple[Request, list[Row]]]:
        """Tokenize together on a GPU; on the CPU, or after an error, one by one, so that a text fails only its own caller.

        On the CPU the tokenizer's threads would wait for cores that the graph keeps busy (p99 at 70 % load of two cores: 6 to
        18 ms together, 3.4 to 3.7 ms one by one).
        """
        cut = requests[0].form.call.cut
        together = self.model.runtime.device != "cpu" and all(each.form.call.cut == cut for each in requests)
        if len(requests) == 1 or together:
            try:
                texts = [request.text for request in requests]
                return list(zip(requests, self.model.tokenize(texts, cut).by_text(), strict=True))
            except BaseException as error:
                if len(requests) == 1:
                    self._fail(requests, error)
                    return []
        return [pair for request in requests for pair in self._tokenize([request])]

    def _run(self, requests: list[Request], rows: list[Row]) -> None:
        """Run one batch; if the graph fails, its texts one by one."""
        texts = [request.text for request in requests]
        start = time.perf_counter()
        try:
            if len(requests) == len(rows):
                logits = self.model.run(texts, rows)  # [requests, labels]
            else:
                logits, _ = self.model.forward(texts, Tokens(rows=rows, starts=[0]))  # the windows of one text
            outcomes = self._outcomes(requests, logits)
        except BaseException as error:
            if len(requests) == 1 or not isinstance(error, InferenceError):
                self._fail(requests, error)
                return
            for request, row in zip(requests, rows, strict=True):
                self._run([request], [row])
            return
        self.queue.cost.observe(len(rows) * max(len(row.ids) for row in rows), time.perf_counter() - start)
        self.queue.done(taken=len(requests), answered=len(requests), batches=1)
        resolve_all(outcomes)

    def _outcomes(self, requests: Sequence[Request], logits: Floats) -> list[Outcome]:
        """Return the results of requests from their logits ``[requests, labels]``."""
        lines: dict[CallOptions, list[int]] = {}
        for line, request in enumerate(requests):
            lines.setdefault(request.form.call, []).append(line)
        outcomes: list[Outcome] = []
        for call, own in lines.items():
            for line, result in zip(own, call.results(logits[own], self.model.labels), strict=True):
                outcomes.append((requests[line], [result] if requests[line].form.in_list else result, None))
        return outcomes

    def _fail(self, requests: Sequence[Request], error: BaseException) -> None:
        self.queue.done(taken=len(requests), failed=len(requests))
        resolve_all([(request, None, own_copy(error) if len(requests) > 1 else error) for request in requests])
