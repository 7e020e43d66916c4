"""A ranking in a ``Batcher``: each document waits by itself, and shares runs with the texts of other callers."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from typing import Any

from ...tasks.rank import Ranked, ranking
from .request import ThreadRequest


class RankingFuture(Future[list[Ranked]]):
    """The ranking of documents that run one by one; the first error of a document is its own."""

    def __init__(self, requests: Sequence[ThreadRequest], top_k: int | None, return_documents: bool) -> None:
        super().__init__()
        self.requests, self._top_k, self._return_documents = requests, top_k, return_documents
        self._left, self._lock = len(requests), threading.Lock()
        for request in requests:
            request.add_done_callback(self._arrived)
        if not requests:
            self.set_result([])

    def cancel(self) -> bool:
        """Cancel it unless it is done, and free the places of the documents that wait."""
        cancelled = super().cancel()
        if cancelled:
            self._drop()
        return cancelled

    def _arrived(self, request: Future[Any]) -> None:
        if request.cancelled():  # by ``_drop``
            return
        error = request.exception()
        with self._lock:
            self._left -= 1
            last = self._left == 0
        with contextlib.suppress(InvalidStateError):  # cancelled, or failed with another document's error
            if error is not None:
                self.set_exception(error)
                self._drop()
            elif last:
                scores = [each.result() for each in self.requests]
                self.set_result(ranking(scores, [each.text for each in self.requests], self._top_k, self._return_documents))

    def _drop(self) -> None:
        for request in self.requests:
            request.cancel()
