"""``Batcher.rank``: the ranking of ``clf.rank``, from many threads at once, with errors, deadlines and cancelled callers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from typing import Any

import pytest

from fusedbert.engine import Batcher, Classifier, ClosedError, DeadlineError, InputError, OptionError, OverloadError

DOCUMENTS = ["not dull", "the plot was very dull", "fine actor", "", "not dull", "bright music !", "awful"]
QUERIES = ["good movie", "bad", "", "was the film very good"]


@pytest.fixture
def held(clf: Classifier, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Hold every run until the event is set."""
    go, execute = threading.Event(), clf.model.run

    def run(*arguments: Any) -> Any:
        go.wait(20)
        return execute(*arguments)

    monkeypatch.setattr(clf.model, "run", run)
    yield go
    go.set()


def test_rankings_of_many_callers_are_those_of_the_classifier(clf: Classifier) -> None:
    expected = [clf.rank(query, DOCUMENTS, return_documents=True) for query in QUERIES]
    with Batcher(clf, workers=2) as batcher, ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(lambda query: batcher.rank(query, DOCUMENTS, None, True).result(), q) for q in QUERIES * 5]
        for i, future in enumerate(futures):
            found, wanted = future.result(), expected[i % len(QUERIES)]
            assert [each["corpus_id"] for each in found] == [each["corpus_id"] for each in wanted]
            assert [each["text"] for each in found] == [each["text"] for each in wanted]
            assert [each["score"] for each in found] == pytest.approx([each["score"] for each in wanted], abs=1e-5)
        assert batcher.stats.answered == 5 * len(QUERIES) * len(DOCUMENTS)
        assert [each["corpus_id"] for each in batcher.rank("good", DOCUMENTS, 2).result()] == [1, 2]
        assert batcher.rank("good", []).result() == []
        other = batcher.rank("good", iter(DOCUMENTS), label="NEGATIVE").result()
        assert [e["corpus_id"] for e in other] == [e["corpus_id"] for e in clf.rank("good", DOCUMENTS, label="NEGATIVE")]


def test_a_coroutine_awaits_it(clf: Classifier) -> None:
    async def main() -> list[Any]:
        async with Batcher(clf) as batcher:
            return await asyncio.gather(*(asyncio.wrap_future(batcher.rank(query, DOCUMENTS)) for query in QUERIES))

    for found, query in zip(asyncio.run(main()), QUERIES, strict=True):
        assert [each["corpus_id"] for each in found] == [each["corpus_id"] for each in clf.rank(query, DOCUMENTS)]


def test_invalid_calls_fail_at_once(clf: Classifier) -> None:
    with Batcher(clf, max_queue=5) as batcher:
        calls: list[tuple[type[Exception], str, Callable[[], Any]]] = [
            (InputError, "document 1 is None", lambda: batcher.rank("a", ["b", None])),  # type: ignore[list-item]
            (InputError, "the query is None", lambda: batcher.rank(None, ["b"])),  # type: ignore[arg-type]
            (OptionError, "top_k", lambda: batcher.rank("a", ["b"], 0)),
            (OptionError, "label is 'x'", lambda: batcher.rank("a", ["b"], label="x")),
            (OptionError, "timeout", lambda: batcher.rank("a", ["b"], timeout=-1)),
            (OverloadError, "7 documents are more than max_queue, 5", lambda: batcher.rank("a", DOCUMENTS)),
        ]
        for kind, message, call in calls:
            with pytest.raises(kind, match=message):
                call()
        assert batcher.stats.submitted == 0
    with pytest.raises(ClosedError):
        batcher.rank("a", ["b"])


def test_a_full_queue_takes_no_part_of_a_ranking(clf: Classifier, held: threading.Event) -> None:
    with Batcher(clf, max_queue=7, workers=1) as batcher:
        first = batcher.submit("good")
        while batcher.stats.running == 0:
            pass
        waiting = [batcher.submit("bad") for _ in range(3)]
        with pytest.raises(OverloadError):
            batcher.rank("good", DOCUMENTS)
        assert batcher.stats.waiting == 3
        held.set()
        assert [future.result() for future in (first, *waiting)]


def test_a_cancelled_ranking_frees_its_places(clf: Classifier, held: threading.Event) -> None:
    with Batcher(clf, workers=1) as batcher:
        first = batcher.submit("good")
        while batcher.stats.running == 0:
            pass
        ranking = batcher.rank("good", DOCUMENTS)
        assert batcher.stats.waiting == 7 and ranking.cancel() and batcher.stats.waiting == 0
        with pytest.raises(CancelledError):
            ranking.result()
        late = batcher.rank("good", DOCUMENTS, timeout=0)
        held.set()
        assert first.result()
        with pytest.raises(DeadlineError):
            late.result()
        assert len(batcher.rank("good", DOCUMENTS).result()) == 7


def test_one_document_that_fails_fails_the_ranking(make_artifact: Callable[..., Any]) -> None:
    with Classifier.from_pretrained(make_artifact(name="strict"), long_text="error") as clf, Batcher(clf) as batcher:
        with pytest.raises(InputError, match=r"text 1 has .* tokens"):
            batcher.rank("good", ["bad", "dull " * 50, *DOCUMENTS]).result()
        assert len(batcher.rank("good", DOCUMENTS).result()) == 7
