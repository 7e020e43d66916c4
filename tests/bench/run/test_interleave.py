import dataclasses
import io
import itertools
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest

from fusedbert.bench.engines.batches import parse_shapes
from fusedbert.bench.latency.measure import Latency, Plan
from fusedbert.bench.run import interleave
from fusedbert.bench.run.interleave import Patience, Progress, Status, duration, open_run, round_robin, start
from fusedbert.bench.run.reference import check
from fusedbert.bench.run.setup import Lineup

SHAPES = parse_shapes("1x8,2x10")
PLAN = Plan(shapes=SHAPES, rounds=3, seconds=0.01, samples=3)


@pytest.fixture
def measured(settings, checks, spec, monkeypatch):
    """Start, check and measure fakes; returns processes by name, visits, and what stderr got."""
    monkeypatch.setattr(interleave, "python_of", lambda name: None if name == "absent" else Path(sys.executable))

    def go(*names, plan=PLAN, **changes):
        benchmark, stream = Latency(Mock(Lineup), plan), io.StringIO()
        specs = [spec(name) if isinstance(name, str) else name for name in names]
        with open_run(specs, dataclasses.replace(settings, **changes), Progress(stream)) as run:
            start(run)
            check(run, checks)
            benchmark.measure(run)
            pids = [process.worker.pid for process in run.running if process.worker is not None]
            assert len(pids) == len(run.running)
        assert not run.running
        return {process.title: process for process in run.processes}, benchmark.visits, stream.getvalue(), pids

    return go


def test_what_fails_is_reported_and_the_rest_is_measured(measured, spec):
    absent = spec("right", name="absent", environment="absent")
    names = ("right", "wrong", "no-mask", "nan", "crashes", "raises", "needs", "slow-start", absent)
    processes, visits, printed, _ = measured(*names)
    statuses = {name: str(process.status) for name, process in processes.items()}
    assert statuses == {
        "right": "measured",
        "wrong": "wrong",
        "no-mask": "wrong",
        "nan": "wrong",
        "crashes": "failed",
        "raises": "failed",
        "needs": "missing",
        "slow-start": "measured",
        "absent": "missing",
    }
    assert set(visits) == {"right", "slow-start"}  # a wrong one is not timed
    assert "a logit is" in processes["wrong"].why
    assert "NaN" in processes["nan"].why
    assert "fusedbert bench setup absent" in processes["absent"].why
    assert "a_package_that_is_not_there" in processes["needs"].why
    assert processes["right"].check["max_abs_logit"] == pytest.approx(0, abs=1e-6)
    assert processes["slow-start"].load_seconds >= 0.3
    for name in ("wrong", "crashes", "raises"):
        assert f"{name} {statuses[name]}: {processes[name].why}" in printed
        assert "\n" not in processes[name].why


def test_a_hang_costs_its_limit_and_no_more(measured):
    processes, visits, _, _ = measured("hangs", "right", patience=Patience(load=3.0))
    assert (processes["hangs"].status, processes["right"].status) == (Status.FAILED, Status.MEASURED)
    assert "no answer within 3 s" in processes["hangs"].why
    assert [len(rounds) for rounds in visits["right"].values()] == [3, 3]


def test_an_engine_that_crashes_while_timed_keeps_its_results(measured):
    processes, visits, printed, _ = measured("crashes-later", "right")
    assert processes["crashes-later"].status is Status.FAILED
    assert "left with status 7" in processes["crashes-later"].why
    assert len(visits["crashes-later"][SHAPES[0]]) >= 1
    assert len(visits["right"][SHAPES[1]]) == 3
    assert printed.count("crashes-later") == 1


def test_a_slow_engine_is_timed_and_no_process_is_left(measured):
    processes, visits, _, pids = measured("slow", "right")
    assert len(pids) == 2
    assert all(not Path(f"/proc/{pid}").exists() for pid in pids)
    assert all(min(visit.seconds) >= 0.002 for visit in visits["slow"][SHAPES[0]])
    assert processes["slow"].entry()["status"] == "measured"


def test_each_engine_is_visited_in_every_round_in_a_changing_order():
    orders = [tuple(round_robin("abc", turn)) for turn in range(6)]
    assert all(sorted(order) == ["a", "b", "c"] for order in orders)
    assert {order[0] for order in orders} == {"a", "b", "c"}
    followers = {pair for order in orders for pair in itertools.pairwise(order)}
    assert len(followers) == 6  # each engine follows each of the others once
    assert round_robin([], 3) == []


def test_ctrl_c_keeps_the_results_so_far(settings, checks, spec):
    benchmark = Latency(Mock(Lineup), PLAN)

    class Interrupting(Progress):
        calls = 0

        def update(self, text, **_):
            self.calls += 1
            if "round 2" in text:
                raise KeyboardInterrupt

    with open_run([spec("right")], settings, Interrupting(io.StringIO())) as run:
        start(run)
        check(run, checks)
        with pytest.raises(KeyboardInterrupt):
            benchmark.measure(run)
    (process,) = run.processes
    assert process.status is Status.INTERRUPTED
    assert [len(rounds) for rounds in benchmark.visits["right"].values()] == [1, 1]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_gets_one_updated_line_with_the_time_left():
    stream = Terminal()
    progress = Progress(stream)
    progress.update("openvino-int8 8x128, round 2 of 9", left=130)
    progress.clear()
    *_, shown, cleared, end = stream.getvalue().split("\r")
    assert (shown, cleared.strip(), end) == ("openvino-int8 8x128, round 2 of 9, 2 min left", "", "")
    assert "\n" not in stream.getvalue()


def test_without_a_terminal_only_slow_rounds_get_a_line():
    stream = io.StringIO()
    progress = Progress(stream)
    progress.update("a visit")
    progress.step("a quick round")
    assert stream.getvalue() == ""
    progress.step("a slow round", left=12.0, after=0.0)
    assert stream.getvalue() == "a slow round, 12 s left\n"
    assert duration(99.4) == "99 s"
