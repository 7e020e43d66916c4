"""Batcher: what each caller gets, order and batches, overload, cancellation, deadlines, errors, shutdown."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pytest

from fusedbert.engine import Batcher, Classifier
from fusedbert.engine.errors import (
    ClosedError,
    DeadlineError,
    ForkError,
    InferenceError,
    InputError,
    OptionError,
    OverloadError,
    TextTooLongError,
)
from fusedbert.engine.model import Model
from fusedbert.engine.server.batcher.queue import RunCost

WORDS = ["good", "bad", "movie", "plot", "was", "very", "not", "the", "dull"]
TEXTS = [" ".join(WORDS[(i * k) % 9] for k in range(1 + i % 17)) for i in range(60)]


@pytest.fixture
def batcher(clf: Classifier) -> Iterator[Batcher]:
    with Batcher(clf, workers=1) as made:
        yield made


class Gate:
    """Holds each run of the graph until the gate is opened, and records the texts of the runs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open = threading.Event()
        self.begun = threading.Semaphore(0)
        self.runs: list[list[str]] = []
        self.fail: Callable[[list[str]], BaseException | None] = lambda texts: None
        inner = Model.run

        def run(model: Model, texts: list[Any], rows: list[Any]) -> Any:
            names = [text.text for text in texts]
            self.runs.append(names)
            self.begun.release()
            assert self.open.wait(20)
            if error := self.fail(names):
                raise error
            return inner(model, texts, rows)

        monkeypatch.setattr(Model, "run", run)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    made = Gate(monkeypatch)
    yield made
    made.open.set()


def same(found: Any, expected: Any) -> None:
    """Compare results; labels exactly, scores within float32's rounding."""
    assert type(found) is type(expected)
    pairs = zip(found, expected, strict=True) if isinstance(expected, list) else [(found, expected)]
    for one, other in pairs:
        assert one["label"] == other["label"] and one["score"] == pytest.approx(other["score"], abs=1e-6)


def hold(batcher: Batcher, gate: Gate) -> Future[Any]:
    """Occupy the one worker."""
    first = batcher.submit("the movie")
    assert gate.begun.acquire(timeout=20)
    return first


def test_each_caller_gets_what_the_classifier_gives(batcher: Batcher, clf: Classifier) -> None:
    items: list[Any] = ["good movie", "", ("good", "bad"), {"text": "dull"}, {"text": "dull", "text_pair": "plot"}]
    calls: list[dict[str, Any]] = [{}, {"top_k": None}, {"top_k": 1}, {"function_to_apply": "none"}, {"truncation": True}]
    for item in items:
        for options in calls:
            same(batcher.submit(item, **options).result(20), clf(item, **options))


def test_many_texts_of_all_lengths_keep_their_results(batcher: Batcher, clf: Classifier) -> None:
    futures = [batcher.submit(text, top_k=None) for text in TEXTS]
    for future, text in zip(futures, TEXTS, strict=True):
        same(future.result(20), clf(text, top_k=None))
    assert batcher.stats.answered == len(TEXTS) and batcher.stats.waiting == batcher.stats.running == 0


def test_many_threads_get_their_own_results(clf: Classifier) -> None:
    expected = {text: clf(text)[0] for text in TEXTS}
    with Batcher(clf, workers=2) as batcher, ThreadPoolExecutor(16) as pool:

        def ask(number: int) -> bool:
            text = TEXTS[number * 7 % len(TEXTS)]
            found = batcher.submit(text).result(20)[0]
            return found["label"] == expected[text]["label"] and abs(found["score"] - expected[text]["score"]) <= 1e-6

        assert all(pool.map(ask, range(1600)))


def test_texts_that_arrive_during_a_run_are_batched_by_length(batcher: Batcher, gate: Gate) -> None:
    first = hold(batcher, gate)
    long = " ".join(["good"] * 25)
    rest = [batcher.submit(text) for text in (long, "good", long + " bad", "bad")]
    gate.open.set()
    wait([first, *rest], timeout=20)
    assert gate.runs == [["the movie"], ["good", "bad"], [long, long + " bad"]]
    assert batcher.stats.batches == 3


def test_a_batch_stays_within_max_tokens(clf: Classifier, gate: Gate) -> None:
    with Batcher(clf, workers=1, max_tokens=40) as batcher:
        first = hold(batcher, gate)
        rest = [batcher.submit("good bad") for _ in range(25)]  # 4 tokens each
        gate.open.set()
        wait([first, *rest], timeout=20)
    assert max(map(len, gate.runs)) <= 10 and sum(map(len, gate.runs)) == 26


def test_a_full_queue_refuses_at_once_and_recovers(clf: Classifier, gate: Gate) -> None:
    with Batcher(clf, workers=1, max_queue=3) as batcher:
        first = hold(batcher, gate)
        rest = [batcher.submit("good") for _ in range(3)]
        for _ in range(2):
            with pytest.raises(OverloadError, match="3 texts wait already"):
                batcher.submit("bad")
        assert batcher.stats.refused == 2 and batcher.stats.waiting == 3
        gate.open.set()
        wait([first, *rest], timeout=20)
        same(batcher.submit("bad").result(20), clf("bad"))


def test_a_cancelled_text_is_not_run_and_gives_up_its_place(clf: Classifier, gate: Gate) -> None:
    with Batcher(clf, workers=1, max_queue=2) as batcher:
        first = hold(batcher, gate)
        assert not first.cancel()  # runs already
        gone, kept = batcher.submit("bad"), batcher.submit("good")
        assert gone.cancel() and gone.cancel() and gone.cancelled()
        other = batcher.submit("dull")  # the place is free
        gate.open.set()
        wait([first, kept, other], timeout=20)
        with pytest.raises(CancelledError):
            gone.result(0)
    assert sorted(text for run in gate.runs for text in run) == ["dull", "good", "the movie"]
    assert batcher.stats.cancelled == 1 and batcher.stats.answered == 3


def test_an_expired_text_is_not_run(batcher: Batcher, gate: Gate) -> None:
    first = hold(batcher, gate)
    late, early = batcher.submit("bad", timeout=0.0), batcher.submit("good", timeout=60)
    time.sleep(0.002)
    gate.open.set()
    with pytest.raises(DeadlineError, match="was not run") as caught:
        late.result(20)
    assert isinstance(caught.value, TimeoutError)
    wait([first, early], timeout=20)
    assert ["bad"] not in gate.runs and batcher.stats.expired == 1 and batcher.stats.answered == 2


def test_expired_texts_make_room_in_a_full_queue(clf: Classifier, gate: Gate) -> None:
    with Batcher(clf, workers=1, max_queue=2) as batcher:
        hold(batcher, gate)
        late = [batcher.submit("bad", timeout=0.0) for _ in range(2)]
        time.sleep(0.002)
        kept = batcher.submit("good")  # takes the place of one
        assert all(isinstance(each.exception(0), DeadlineError) for each in late)  # reported at once
        gate.open.set()
        kept.result(20)


def test_a_bad_text_fails_only_its_caller(artifact: Path, gate: Gate) -> None:
    with Classifier.from_pretrained(artifact, threads=1, long_text="error") as clf, Batcher(clf, workers=1) as batcher:
        first = hold(batcher, gate)
        for wrong, error in ((None, InputError), (["good"], InputError), ("\ud800", InputError), (b"good", InputError)):
            with pytest.raises(error):
                batcher.submit(wrong)  # type: ignore[arg-type]
        good, long, other = batcher.submit("good"), batcher.submit("good " * 40), batcher.submit("bad")
        cut = batcher.submit("good " * 40, truncation=True)
        gate.open.set()
        with pytest.raises(TextTooLongError, match="42 tokens"):
            long.result(20)
        for future, text in ((first, "the movie"), (good, "good"), (other, "bad")):
            same(future.result(20), clf(text))
        same(cut.result(20), clf("good " * 40, truncation=True))
        assert batcher.stats.failed == 1


@pytest.mark.parametrize(
    "options", [{"top_k": 0}, {"top_k": True}, {"top_k": []}, {"function_to_apply": "max"}, {"truncation": 1}, {"timeout": -1}]
)
def test_wrong_options_are_refused(batcher: Batcher, options: dict[str, Any]) -> None:
    batcher.submit("good", top_k=1, truncation=True).result(20)  # True equals 1, but is a wrong top_k
    with pytest.raises(OptionError):
        batcher.submit("good", **options)


@pytest.mark.parametrize(
    "options",
    [
        {"window_ms": -1},
        {"window_ms": "2"},
        {"window_ms": -(10**5000)},
        {"max_tokens": 0},
        {"max_queue": 0},
        {"max_queue": None},
        {"workers": 0},
    ],
)
def test_wrong_settings_are_refused(clf: Classifier, options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=next(iter(options))):
        Batcher(clf, **options)


def test_times_beyond_all_clocks_are_for_ever(clf: Classifier) -> None:
    with Batcher(clf, window_ms=10**400) as batcher:
        assert batcher.submit("good", timeout=10**400).result(20) == clf("good")
        assert asyncio.run(batcher.classify("good", timeout=10**400)) == clf("good")


def test_where_the_graph_fails_for_one_text_the_others_get_their_results(batcher: Batcher, gate: Gate) -> None:
    gate.fail = lambda texts: InferenceError("NaN") if "bad" in texts else None
    first = hold(batcher, gate)
    futures = [batcher.submit(text) for text in ("good", "bad", "dull")]
    gate.open.set()
    wait([first, *futures], timeout=20)
    assert [future.exception() is None for future in futures] == [True, False, True]
    assert batcher.stats.failed == 1


def test_an_error_of_a_batch_reaches_only_its_callers(batcher: Batcher, gate: Gate) -> None:
    gate.fail = lambda texts: MemoryError("no") if "bad" in texts else InferenceError("broken") if "dull" in texts else None
    first = hold(batcher, gate)
    long = " ".join(["plot"] * 25)
    futures = [batcher.submit(text) for text in ("good", "bad", "dull " * 3, long)]
    gate.open.set()
    wait([first, *futures], timeout=20)
    assert isinstance(futures[0].exception(), MemoryError) and futures[3].exception() is None
    gate.fail = lambda texts: InferenceError("broken")
    both = [batcher.submit("good").exception(20), batcher.submit("bad").exception(20)]
    assert all(isinstance(each, InferenceError) for each in both) and both[0] is not both[1]
    gate.fail = lambda texts: None
    batcher.submit("good").result(20)


def test_a_callback_that_raises_does_no_harm(batcher: Batcher, gate: Gate, caplog: pytest.LogCaptureFixture) -> None:
    first = hold(batcher, gate)
    futures = [batcher.submit(text) for text in ("good", "bad")]

    def leave(_: Future[Any]) -> None:
        raise SystemExit

    futures[0].add_done_callback(leave)
    gate.open.set()
    wait([first, *futures], timeout=20)
    batcher.submit("good").result(20)
    assert "could not be delivered" in caplog.text


def test_closing_finishes_the_queue(clf: Classifier, gate: Gate) -> None:
    batcher = Batcher(clf, workers=1)
    futures = [hold(batcher, gate), *(batcher.submit("good") for _ in range(5))]
    closer = threading.Thread(target=batcher.close)
    closer.start()
    with pytest.raises(ClosedError, match="Batcher was closed"):
        while True:
            futures.append(batcher.submit("bad"))
    gate.open.set()
    closer.join(20)
    assert not closer.is_alive() and all(future.result(0) for future in futures)
    batcher.close()


def test_closing_may_drop_the_queue(clf: Classifier, gate: Gate) -> None:
    batcher = Batcher(clf, workers=1)
    first, second = hold(batcher, gate), batcher.submit("good")
    closer = threading.Thread(target=batcher.close, kwargs={"drain": False})
    closer.start()
    with pytest.raises(ClosedError, match="was not run"):
        second.result(20)
    gate.open.set()
    closer.join(20)
    assert first.result(0) and gate.runs == [["the movie"]]


def test_no_thread_is_left_behind(clf: Classifier) -> None:
    before = set(threading.enumerate())
    with Batcher(clf, workers=3) as batcher:
        assert len(set(threading.enumerate()) - before) == 3
        batcher.submit("good").add_done_callback(lambda _: batcher.close())  # in a worker: it must not wait for itself
    assert set(threading.enumerate()) == before


def test_a_forgotten_batcher_finishes_and_its_threads_end(clf: Classifier) -> None:
    before = set(threading.enumerate())
    batcher = Batcher(clf)
    mine = set(threading.enumerate()) - before
    reference = weakref.ref(batcher)
    future = batcher.submit("good")
    del batcher
    gc.collect()
    assert reference() is None and future.result(20)
    for thread in mine:
        thread.join(20)
        assert not thread.is_alive()


def test_a_closed_classifier_is_reported(artifact: Path) -> None:
    clf = Classifier.from_pretrained(artifact, threads=1)
    with Batcher(clf) as batcher:
        clf.close()
        assert isinstance(batcher.submit("good").exception(20), ClosedError)
    with pytest.raises(ClosedError):
        Batcher(clf)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_batcher_in_a_forked_child_is_refused(batcher: Batcher) -> None:
    batcher.submit("good").result(20)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            batcher.submit("good")
        except ForkError as error:
            os.write(writer, str(error).encode())
        batcher.close()  # returns
        os.write(writer, b" closed")
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        message = pipe.read()
    assert "make one in each process" in message and message.endswith(" closed")


def test_a_program_that_does_not_close_it_ends_quietly(artifact: Path) -> None:
    code = (
        "import sys; from fusedbert.engine import Batcher, Classifier\n"
        "batcher = Batcher(Classifier.from_pretrained(sys.argv[1]))\n"
        "print(batcher.submit('good').result()[0]['label'])\n"
        "futures = [batcher.submit('good ' * 20) for _ in range(500)]\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(artifact)], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.strip() in ("POSITIVE", "NEGATIVE")


def test_long_texts_are_read_in_windows(artifact: Path) -> None:
    with Classifier.from_pretrained(artifact, threads=1, long_text="window") as clf, Batcher(clf, workers=1) as batcher:
        texts = ["good", "bad plot " * 60, "dull", "the movie was " * 40]
        for future, text in zip([batcher.submit(text) for text in texts], texts, strict=True):
            same(future.result(20), clf(text))


def test_repr_and_stats_describe_the_batcher(batcher: Batcher, monkeypatch: pytest.MonkeyPatch) -> None:
    observed: list[float] = []
    monkeypatch.setattr(RunCost, "observe", lambda self, tokens, seconds: observed.append(seconds))
    batcher.submit("good").result(20)
    assert repr(batcher).startswith("Batcher(Classifier(")
    stats = batcher.stats
    assert (stats.submitted, stats.answered, stats.batches) == (1, 1, 1)
    assert len(observed) == 1 and observed[0] > 0
