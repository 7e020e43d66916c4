import numpy as np
import pytest

from fusedbert.bench import timing
from fusedbert.bench.batches import Vocabulary
from fusedbert.bench.latency import measure_latency
from fusedbert.bench.shapes import Shape

VOCABULARY = Vocabulary(first=2, last=3, ordinary=np.arange(5, 1000))
SHAPES = (Shape(batch=1, tokens=8), Shape(batch=4, tokens=16))


class Recorder:
    """A contender that remembers what it was given and takes no time to speak of."""

    name = "recorder"

    def __init__(self):
        self.batches = []

    def load(self):
        pass

    def logits(self, batch):
        self.batches.append(batch.input_ids)
        return np.zeros((len(batch.input_ids), 2), dtype=np.float32)

    def describe(self):
        return {}

    def close(self):
        pass


@pytest.fixture
def quick(monkeypatch):
    """Three samples a visit, so that these tests take no time."""
    monkeypatch.setattr("fusedbert.bench.latency.sample", lambda run: timing.sample(run, least_samples=3, least_seconds=0.0))


def test_every_round_visits_every_shape_and_all_samples_count(quick):
    visits = []
    found = measure_latency(
        Recorder(), SHAPES, VOCABULARY, rounds=3, progress=lambda number, shape: visits.append((number, shape))
    )
    assert visits == [(number, shape) for number in range(3) for shape in SHAPES]
    assert [entry.shape for entry in found] == list(SHAPES)
    for entry in found:
        assert len(entry.rounds) == 3
        assert entry.summary.samples == sum(visit.summary.samples for visit in entry.rounds) == 9


def test_no_batch_is_seen_twice_and_each_has_the_shape(quick):
    contender = Recorder()
    measure_latency(contender, SHAPES, VOCABULARY, rounds=2)
    assert {array.shape for array in contender.batches} == {(1, 8), (4, 16)}
    assert len({array.tobytes() for array in contender.batches}) == len(contender.batches) > 40


def test_another_contender_gets_the_same_batches(quick):
    one, two = Recorder(), Recorder()
    for contender in (one, two):
        measure_latency(contender, SHAPES[:1], VOCABULARY, rounds=1, seed=3)
    pairs = list(zip(one.batches, two.batches, strict=False))  # the warm-up may take more iterations for one of them
    assert len(pairs) >= 13
    assert all(np.array_equal(left, right) for left, right in pairs)


def test_what_is_timed_is_the_contender(quick, monkeypatch):
    clock = iter(range(10_000))
    monkeypatch.setattr("fusedbert.bench.latency.perf_counter", lambda: next(clock) * 0.25)
    found = measure_latency(Recorder(), SHAPES[:1], VOCABULARY, rounds=1)
    assert found[0].summary.p50_ms == found[0].summary.p99_ms == 250.0
