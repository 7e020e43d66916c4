import dataclasses
import heapq
import io
import json
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from fusedbert.bench.corpus.texts import Corpus
from fusedbert.bench.load import measure as load_run
from fusedbert.bench.load.measure import Load, Plan, render
from fusedbert.bench.load.open_loop import Clock, Outcome, Server, drive, poisson_schedule, pool
from fusedbert.bench.load.sweep import RateSweep, parse_rates
from fusedbert.bench.load.task import takes_threads
from fusedbert.bench.run import interleave
from fusedbert.bench.run.interleave import Progress, open_run, start
from fusedbert.bench.run.reference import check
from fusedbert.bench.run.setup import Lineup
from fusedbert.engine.errors import OptionError

# Arrivals


def test_arrivals_are_a_poisson_process():
    gaps, counts = [], []
    for seed in range(200):
        times = poisson_schedule(50.0, 4.0, np.random.default_rng(seed))
        assert (np.diff(times) > 0).all()
        assert 0 < times[0] <= times[-1] < 4.0
        gaps.append(np.diff(times))
        counts.append(len(times))
    assert np.mean(counts) == pytest.approx(200, rel=0.02)
    assert np.var(counts) == pytest.approx(200, rel=0.3)  # a Poisson count's variance is its mean
    assert np.mean(np.concatenate(gaps)) == pytest.approx(1 / 50, rel=0.03)
    assert np.std(np.concatenate(gaps)) == pytest.approx(1 / 50, rel=0.05)  # an exponential's deviation is its mean


def test_a_schedule_has_one_arrival_at_least_and_its_seed_decides():
    assert len(poisson_schedule(1e-6, 0.1, np.random.default_rng(0))) == 1
    draw = [poisson_schedule(10.0, 5.0, np.random.default_rng(3)).tolist() for _ in range(2)]
    assert draw[0] == draw[1]


# A simulated server: time passes only while something waits


class FakeClock(Clock):
    def __init__(self):
        self.time = 1000.0

    def now(self):
        return self.time

    def wait_until(self, moment):
        self.time = max(self.time, moment)


class FakeServer(Server):
    """``channels`` servers of a known service time behind one queue, on a clock that the test sets."""

    def __init__(self, clock, service, *, channels=1, refuse=None):
        self.clock, self.service, self.refuse = clock, service, refuse
        self.free = [clock.now()] * channels
        self.taken, self.refused = {}, []

    def submit(self, index):
        if self.refuse is not None and self.refuse(sum(end > self.clock.now() for end in self.taken.values())):
            self.refused.append(index)
            return
        end = max(heapq.heappop(self.free), self.clock.now()) + self.service(index)
        heapq.heappush(self.free, end)
        self.taken[index] = end

    def ends(self, count, seconds):
        last = self.clock.now() + seconds
        yield from ((index, self.clock.now(), "OverloadError") for index in self.refused)
        yield from ((index, end, "") for index, end in self.taken.items() if end <= last)
        self.clock.wait_until(min(last, max([*self.taken.values(), self.clock.now()])))


def simulate(rate, seconds, service, *, seed=0, grace=1e9, give_up=1e9, **server):
    clock = FakeClock()
    offsets = poisson_schedule(rate, seconds, np.random.default_rng(seed))
    times = service if callable(service) else lambda _index: service
    return drive(offsets, FakeServer(clock, times, **server), clock, grace=grace, give_up=give_up), offsets


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_a_queue_with_constant_service_waits_as_long_as_theory_says(load):
    """M/D/1: the mean wait is rho s / 2 (1 - rho) (Pollaczek and Khinchine)."""
    outcome, _ = simulate(load * 100.0, 600.0, 0.01)
    assert outcome.latencies.mean() == pytest.approx(0.01 + load * 0.01 / (2 * (1 - load)), rel=0.1)
    assert outcome.achieved == pytest.approx(load * 100.0, rel=0.03)


def test_every_single_latency_is_that_of_lindleys_recursion():
    outcome, offsets = simulate(80.0, 30.0, 0.01)
    wait, expected = 0.0, [0.01]
    for gap in np.diff(offsets):
        wait = max(0.0, wait + 0.01 - gap)
        expected.append(wait + 0.01)
    np.testing.assert_allclose(outcome.latencies, np.sort(expected), atol=1e-9)
    figures = outcome.figures()
    for name, share in (("p50_ms", 50), ("p90_ms", 90), ("p99_ms", 99)):
        assert figures[name] == pytest.approx(1e3 * np.percentile(expected, share))


def test_exponential_service_has_the_known_percentiles():
    """M/M/1: the time in the system is exponential with rate mu - lambda."""
    random = np.random.default_rng(5)
    outcome, _ = simulate(50.0, 1000.0, lambda _index: float(random.exponential(0.01)))
    for share in (50, 90, 99):
        expected = -np.log(1 - share / 100) / (100 - 50)
        assert np.percentile(outcome.latencies, share) == pytest.approx(expected, rel=0.15)


def test_a_stall_counts_for_all_requests_due_during_it():
    """A client that waits for answers would see one slow request; an open loop sees every request that the stall delays."""
    outcome, offsets = simulate(100.0, 10.0, lambda index: 2.0 if index == 100 else 0.0001)
    stalled = offsets[100]
    hit = ((offsets >= stalled) & (offsets < stalled + 1.9)).sum()
    assert hit > 150
    assert (outcome.latencies > 0.1).sum() >= hit
    assert outcome.latencies[-1] == pytest.approx(2.0)


def test_lateness_of_the_sender_is_part_of_the_latency():
    class Sleepy(FakeClock):
        def wait_until(self, moment):
            super().wait_until(moment)
            self.time += 0.005

    clock = Sleepy()
    offsets = np.array([1.0, 2.0, 3.0])
    outcome = drive(offsets, FakeServer(clock, lambda _index: 0.001), clock, grace=10.0, give_up=10.0)
    np.testing.assert_allclose(outcome.latencies, 0.006, atol=1e-9)
    assert outcome.late_ms == pytest.approx(5.0)


def test_errors_are_counted_and_are_not_answers():
    outcome, offsets = simulate(200.0, 20.0, 0.01, refuse=lambda waiting: waiting >= 5)
    errors = outcome.figures()["errors"]
    assert errors > 100
    assert outcome.kinds == {"OverloadError": errors}
    assert len(outcome.latencies) == outcome.arrivals - errors == len(offsets) - errors
    assert outcome.latencies[-1] <= 0.0501 + 1e-9  # an accepted request waits for four others at most
    assert not outcome.within(1.0)  # though every answer came in time


def test_unanswered_requests_are_given_up_and_exceed_every_budget():
    outcome, offsets = simulate(200.0, 5.0, 0.01, grace=1.0)
    answered = 600  # six seconds at 100 per second
    assert outcome.unfinished == pytest.approx(len(offsets) - answered, abs=2)
    assert len(outcome.latencies) == len(offsets)
    assert not outcome.within(1e6)
    assert outcome.achieved == pytest.approx(100, rel=0.02)


def test_a_sender_that_falls_too_far_behind_stops():
    class Blocking(FakeServer):
        def submit(self, index):
            self.clock.time += 0.1
            super().submit(index)

    clock = FakeClock()
    offsets = poisson_schedule(100.0, 10.0, np.random.default_rng(0))
    server = Blocking(clock, lambda _index: 0.001)
    outcome = drive(offsets, server, clock, grace=1.0, give_up=0.5)
    assert len(server.taken) < 20
    assert outcome.unfinished == len(offsets) - len(server.taken)


def outcome_of(latencies, errors=0, unfinished=0):
    values = np.sort(np.asarray(latencies, dtype=np.float64))
    return Outcome(
        arrivals=len(values) + errors,
        achieved=10.0,
        latencies=values,
        kinds={"E": errors} if errors else {},
        unfinished=unfinished,
        late_ms=0.0,
    )


def test_the_budget_holds_for_99_of_100():
    assert outcome_of([0.01] * 99 + [9.0]).within(0.01)
    assert not outcome_of([0.01] * 98 + [9.0] * 2).within(0.01)
    assert outcome_of([0.01] * 99, errors=1).within(0.01)
    assert not outcome_of([0.01] * 98, errors=2).within(0.01)


def test_rounds_are_pooled():
    whole = pool([outcome_of([0.3, 0.1], errors=1), outcome_of([0.2], errors=2)])
    assert whole.latencies.tolist() == [0.1, 0.2, 0.3]
    assert (whole.arrivals, whole.figures()["errors"], whole.kinds) == (6, 3, {"E": 3})


def test_without_any_answer_the_figures_are_none():
    figures = outcome_of([], errors=3).figures()
    assert figures["p50_ms"] is figures["p99_ms"] is None
    json.dumps(figures, allow_nan=False)


# The pool of threads


def drive_threads(call, offsets, *, callers, grace):
    clock = Clock()
    with ThreadPoolExecutor(callers) as threads:
        server = Server(lambda index: threads.submit(call, index), lambda: threads.shutdown(cancel_futures=True), clock)
        return drive(offsets, server, clock, grace=grace, give_up=30.0)


def test_a_pool_answers_every_request_once_and_leaves_no_thread():
    before = threading.active_count()
    seen = []

    def call(index):
        seen.append(index)
        if index % 10 == 3:
            raise KeyError(index)

    outcome = drive_threads(call, np.linspace(0, 0.02, 100), callers=4, grace=30.0)
    assert sorted(seen) == list(range(100))
    assert (outcome.kinds, outcome.unfinished) == ({"KeyError": 10}, 0)
    assert threading.active_count() == before


def test_a_pool_drops_waiting_requests_when_time_is_up():
    release = threading.Event()
    seen = []

    def call(index):
        seen.append(index)
        release.wait(30)

    threading.Timer(0.3, release.set).start()
    outcome = drive_threads(call, np.zeros(50), callers=2, grace=0.05)
    assert outcome.unfinished == 50
    assert sorted(seen) == [0, 1]


def test_what_ends_when_the_time_is_over_does_not_count():
    futures, stopped = [Future() for _ in range(3)], []
    server = Server(futures.__getitem__, lambda: stopped.append(True), Clock())
    for index in range(3):
        server.submit(index)
    futures[0].set_result("answer")
    ended = list(server.ends(3, 0.05))
    futures[1].set_result("answer")
    futures[2].set_exception(KeyError())
    assert [(index, kind) for index, _, kind in ended] == [(0, "")]
    assert stopped == [True]


def test_an_engine_that_fails_under_threads_is_detected():
    inside = threading.Semaphore(1)

    def fragile(index):
        if not inside.acquire(blocking=False):
            raise RuntimeError("Infer Request is busy")
        try:
            threading.Event().wait(0.0005)
            return np.array([float(index)])
        finally:
            inside.release()

    assert "RuntimeError: Infer Request is busy" in takes_threads(fragile, 16, 8)
    assert takes_threads(fragile, 16, 1) == ""
    assert takes_threads(lambda index: np.array([float(index)]), 16, 8) == ""


# Capacity


@pytest.mark.parametrize(("limit", "estimate"), [(77, 100), (100, 100), (250, 100), (19, 100), (5, 100), (1000, 100)])
def test_the_search_converges_to_the_highest_rate_within_the_budget(limit, estimate):
    search, tried = RateSweep(float(estimate)), []
    while (point := search.next()) is not None:
        tried.append(point.rate)
        point.held = point.rate <= limit
    assert len(tried) == len(set(tried)) <= search.most
    found = search.bounds
    assert found.rate <= limit < found.beyond
    assert found.rate >= 0.85 * limit


def test_capacity_is_none_below_every_rate_and_open_above_every_rate():
    for held in (False, True):
        search, count = RateSweep(100.0), 0
        while (point := search.next()) is not None:
            point.held = held
            count += 1
        assert count <= search.most
        assert (search.bounds.rate is None, search.bounds.beyond is None) == (not held, held)


def test_a_rate_within_the_budget_above_a_failed_one_does_not_count():
    search = RateSweep(100.0, rates=(10, 20, 30, 40, 50))
    for rate, held in ((10, True), (20, False), (30, True)):
        point = search.next()
        assert point is not None and point.rate == rate
        point.held = held
    assert (search.bounds.rate, search.bounds.beyond) == (10, 20)


def test_given_rates_end_after_two_that_fail():
    search, tried = RateSweep(1.0, rates=(30, 10, 20, 50, 40)), []
    while (point := search.next()) is not None:
        tried.append(point.rate)
        point.held = point.rate < 20
    assert tried == [10, 20, 30]


def test_the_search_over_a_simulated_queue_finds_its_capacity():
    """M/D/1 at 100 a second: with a budget of 10 services, p99 crosses it between loads of 0.7 and 0.9."""
    search = RateSweep(100.0)
    while (point := search.next()) is not None:
        point.held = simulate(point.rate, 100.0, 0.01)[0].within(0.1)
    assert search.bounds.rate is not None and search.bounds.beyond is not None
    assert 70 < search.bounds.rate < search.bounds.beyond < 95


def test_rates_are_parsed():
    assert parse_rates("") == ()
    for wrong in ("10,x", "0", "-1", "nan", "inf"):
        with pytest.raises(OptionError, match="arrivals a second"):
            parse_rates(wrong)


# Engines, in real worker processes

LOAD_FAKES = """
import numpy as np
import fake_engines

class Texts(fake_engines.Fake):
    def texts(self, texts, *, batch_size, max_length):
        return np.array([[float(len(text)), 0.0] for text in texts], dtype=np.float32)

class Raises(Texts):
    def texts(self, texts, **options):
        raise MemoryError("no room")

class Entered(Texts):
    inside = 0

    def texts(self, texts, **options):
        import time
        Entered.inside += 1
        try:
            time.sleep(0.001)
            if Entered.inside > 1:
                raise RuntimeError("entered twice")
            return super().texts(texts, **options)
        finally:
            Entered.inside -= 1

def make(name, job):
    return {"right": Texts, "raises": Raises, "slow": Entered}[name](name, job)
"""


@pytest.fixture
def measured(settings, checks, spec, monkeypatch, tmp_path):
    (tmp_path / "load_fakes.py").write_text(LOAD_FAKES)
    names = ("right", "raises", "slow")
    settings = dataclasses.replace(
        settings, python_path=(*settings.python_path, tmp_path), factories=dict.fromkeys(names, "load_fakes:make")
    )
    monkeypatch.setattr(interleave, "python_of", lambda _name: Path(sys.executable))
    monkeypatch.setattr(load_run, "SATURATE_SECONDS", 0.1)

    def go(*wanted, **changes):
        plan = {"seconds": 0.2, "rounds": 2, "callers": 4, "rates": (50.0, 100.0), "budget": 30.0} | changes
        plan = Plan(corpus=Corpus(name="c", texts=("a", "bb")), max_length=64, modes=("plain", "batcher"), **plan)
        benchmark, stream = Load(Mock(Lineup), plan), io.StringIO()
        with open_run([spec(name) for name in wanted], settings, Progress(stream)) as run:
            start(run)
            check(run, checks)
            benchmark.measure(run)
        return {process.name: process for process in run.processes}, benchmark, stream.getvalue()

    return go


def test_each_engine_runs_at_every_rate_and_the_time_is_announced(measured):
    processes, benchmark, printed = measured("right", "raises", "slow")
    assert {name: str(process.status) for name, process in processes.items()} == {
        "right": "measured",
        "raises": "failed",
        "slow": "measured",
    }
    assert "no room" in processes["raises"].why
    assert benchmark.announce() in printed
    assert "2 sweeps, at most 8 runs of 0.2 s" in printed
    for name in ("right", "slow"):
        entry = benchmark.entry(processes[name])
        found = entry["results"]
        assert [(entry["mode"], entry["rate"]) for entry in found] == [("plain", 50.0), ("plain", 100.0)]
        assert all(entry["within_budget"] and entry["errors"] == 0 and len(entry["rounds"]) == 2 for entry in found)
        assert entry["capacity"]["plain"] == entry["search"]["plain"]["rate"] == 100.0
    records = benchmark.records
    assert records["right"].callers == 4
    assert (records["slow"].callers, records["slow"].one_caller) == (1, "RuntimeError: entered twice")


def test_the_same_texts_arrive_at_the_same_times_for_all(measured):
    _, benchmark, _ = measured("right", "slow", rounds=1)
    arrivals = [
        [pool(point.outcomes).arrivals for point in record.sweeps["plain"].points] for record in benchmark.records.values()
    ]
    assert arrivals[0] == arrivals[1]


# The command


@pytest.fixture(scope="module")
def document(fusedbert, artifact):
    command = ("bench", "load", "-m", artifact, "--precision", "fp32", "--threads", "1", "--rates", "20,40", "--seconds", "0.5")
    done = fusedbert(*command, "--budget-ms", "20000", "--json", check=True)
    return json.loads(done.stdout)


def test_the_document_of_the_embedded_default(document):
    assert (document["schema"], document["kind"]) == ("fusedbert.bench/2", "load")
    (engine,) = document["contenders"]
    assert engine["status"] == "measured"
    assert engine["capacity"]["plain"] == 40
    for mode in engine["capacity"]:
        found = [entry for entry in engine["results"] if entry["mode"] == mode]
        assert [entry["rate"] for entry in found] == [20, 40]
        for entry in found:
            assert entry["errors"] == entry["unfinished"] == 0
            assert 0 < entry["p50_ms"] <= entry["p90_ms"] <= entry["p99_ms"]


def test_the_table_and_the_document_agree(document):
    text = render(document)
    assert "within 20000 ms" in text
    assert "fusedbert-fp32 plain" in text
    assert "rates had fewer than 1000 arrivals" in " ".join(document["cautions"])
