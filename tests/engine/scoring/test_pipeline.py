"""Stages that overlap: order, bounds, exceptions, and equal texts of a chunk that run once."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fusedbert.engine import Classifier, score_file
from fusedbert.engine.model import Model
from fusedbert.engine.scoring.formats.base import Record, Rows, cut
from fusedbert.engine.scoring.formats.csv import CsvData, CsvSource
from fusedbert.engine.scoring.options import ModelOptions
from fusedbert.engine.scoring.pipeline import distinct, load_model, run, timed, tokenize


def test_the_time_of_each_item_is_reported() -> None:
    def slow() -> Iterator[int]:
        for number in range(3):
            time.sleep(0.02)
            yield number

    times = list(timed(slow()))
    assert [item for item, _ in times] == [0, 1, 2] and all(0.015 < seconds < 0.5 for _, seconds in times)


def test_no_more_chunks_are_read_than_the_stages_hold(artifact: Path, write: Any, tmp_path: Path) -> None:
    """Three stages, a chunk in each and one waiting before the next; the reader is never further ahead."""
    lead: list[int] = []
    read: list[int] = []
    source = write("in.csv", [{"text": f"good {number}"} for number in range(400)])

    def columns(self: CsvSource, values: Any, first: int, *rest: Any) -> Any:
        read.append(first)
        return real(self, values, first, *rest)

    real = CsvSource.texts_of
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CsvSource, "texts_of", columns)

        def progress(done: Any) -> None:
            time.sleep(0.02)  # a slow disk
            lead.append(len(read) - done.rows // 10)

        score_file(source, tmp_path / "out.csv", model=artifact, part_rows=10, progress=progress)
    assert len(read) == 40 and 1 <= max(lead) <= 7


def test_threads_end_when_a_run_stops_early(artifact: Path, write: Any, tmp_path: Path) -> None:
    def stop(_: Any) -> None:
        raise KeyError("stop")

    source = write("in.csv", [{"text": f"good {number}"} for number in range(400)])
    before = threading.active_count()
    with pytest.raises(KeyError, match="stop"):
        score_file(source, tmp_path / "out.csv", model=artifact, part_rows=10, progress=stop)
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.02)
    assert threading.active_count() == before


def test_chunks_are_cut_by_number_and_by_size() -> None:
    small = [len(chunk) for chunk in cut([Record(value=None, size=1)] * 25, 10)]
    assert small == [10, 10, 5]
    assert [len(chunk) for chunk in cut([Record(value=None, size=5 << 20)] * 5, 10)] == [2, 2, 1]


@pytest.fixture(scope="module")
def model(artifact: Path) -> Iterator[Model]:
    loaded = load_model(ModelOptions(model=artifact))
    yield loaded
    loaded.close()


def rows_of(texts: list[str | None], pairs: list[str | None] | None = None) -> Rows:
    return Rows(first=100, data=CsvData((), []), texts=texts, pairs=pairs, errors={}, size=0, done=None)


def test_identical_texts_run_once(classifier: Classifier, model: Model) -> None:
    rows = rows_of(["good", "bad", "good", None, "bad", "good film"])
    texts, places = distinct(rows)
    assert [text.text for text in texts] == ["good", "bad", "good film"] and places == [0, 1, 0, -1, 1, 2]
    assert [text.index for text in texts] == [101, 102, 106]  # rows from 1, for messages
    tokenized = tokenize(model, rows)
    logits = run(model, tokenized)
    assert logits.shape == (3, 2) and tokenized.counts.run == 3 and tokenized.counts.rows == 6
    assert logits == pytest.approx(classifier.decision_function(["good", "bad", "good film"]), abs=1e-5)


def test_pairs_are_identical_only_in_both_texts() -> None:
    texts, places = distinct(rows_of(["a", "a", "a"], ["x", "y", "x"]))
    assert [(text.text, text.pair) for text in texts] == [("a", "x"), ("a", "y")] and places == [0, 1, 0]


def test_padding_is_counted(model: Model) -> None:
    texts: list[str | None] = ["good", "a very long and dull film, not good at all"]
    tokenized = tokenize(model, rows_of(texts))
    run(model, tokenized)
    counts, lengths = tokenized.counts, sorted(len(row.ids) for row in tokenized.tokens.rows)
    assert counts.tokens == sum(lengths) <= counts.padded <= 2 * lengths[1]


def test_progress_is_reported(artifact: Path, write: Any, tmp_path: Path) -> None:
    seen = []
    source = write("in.csv", [{"text": f"good {number % 3}"} for number in range(1000)])
    score_file(source, tmp_path / "out.csv", model=artifact, part_rows=100, progress=seen.append)
    assert [progress.rows for progress in seen] == list(range(100, 1001, 100))
    assert seen[-1].total == 1000 and all(0 <= progress.padding < 1 for progress in seen)


def test_memory_does_not_grow_with_the_file(artifact: Path, tmp_path: Path) -> None:
    """Peak allocations of Python objects while a file twelve times as long is read and written.

    How many chunks wait at once depends on which stage is faster at that moment, so the peak varies by half either way;
    a tenth of the file held in memory would double it.
    """
    import tracemalloc

    peaks = []
    for rows in (6_000, 72_000):
        source = tmp_path / f"{rows}.csv"
        with source.open("w", encoding="utf-8") as file:
            file.write("id,text\n")
            file.writelines(f"{number},good film {number % 5} {'x' * 100}\n" for number in range(rows))
        tracemalloc.start()
        score_file(source, tmp_path / f"out-{rows}.csv", model=artifact, part_rows=500)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 2 * peaks[0]
