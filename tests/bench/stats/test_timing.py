import statistics

import pytest

from fusedbert.bench.stats.timing import sample, summarize, warm_up


def replay(times):
    """Give the times one by one, as a run would."""
    return iter(times).__next__


def test_times_that_hold_still_from_the_start_need_two_windows():
    found = warm_up(replay([0.01] * 100))
    assert found.converged
    assert found.iterations == 10
    assert found.seconds == pytest.approx(0.1)


def test_warm_up_lasts_as_long_as_the_times_fall():
    falling = [0.1 * 0.9**step for step in range(40)]
    found = warm_up(replay(falling + [falling[-1]] * 60))
    assert found.converged
    assert 40 <= found.iterations <= 55


def test_one_slow_iteration_does_not_prolong_the_warm_up():
    assert warm_up(replay([0.01, 0.01, 0.5, 0.01, 0.01, 0.01, 0.01, 0.01, 0.2, 0.01])).iterations == 10


def test_the_cap_in_time_ends_a_warm_up_that_never_converges_and_says_so():
    doubling = [0.001 * 2**step for step in range(30)]
    found = warm_up(replay(doubling), cap=1.0)
    assert not found.converged
    assert 1.0 <= found.seconds < 2.1
    assert found.iterations == 10


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.001, 1000),  # quick ones run for a second
        (0.1, 20),  # slow ones until there are twenty
        (2.0, 5),  # and no longer than ten seconds
        (60.0, 1),
    ],
)
def test_the_number_of_samples_follows_from_count_and_time(seconds, expected):
    assert len(sample(replay([seconds] * 5000))) == pytest.approx(expected, abs=1)


def test_the_summary_agrees_with_the_standard_library():
    seconds = [0.001 * (index % 17 + 1) for index in range(101)]
    found = summarize(seconds, batch=8)
    cuts = statistics.quantiles([1e3 * value for value in seconds], n=100, method="inclusive")
    assert found.samples == 101
    assert (found.p50_ms, found.p90_ms, found.p99_ms) == pytest.approx((cuts[49], cuts[89], cuts[98]))
    assert found.sequences_per_second == pytest.approx(8 * 101 / sum(seconds))
