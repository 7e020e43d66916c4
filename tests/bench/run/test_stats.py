import itertools
import statistics

import numpy as np
import pytest

from fusedbert.bench.run.stats import compare, name_some, noise, sample, summarize, summarize_ratios, warm_up


def paired(ours, peers):
    """Compare two series round by round."""
    return summarize_ratios([[a / b for a, b in zip(ours, peers, strict=True)]])


def test_the_ratio_is_the_median_of_the_pairs():
    ours, peers = [1.0, 2.0, 9.0, 4.0], [2.0, 2.0, 10.0, 10.0]
    found = paired(ours, peers)
    assert found.median == pytest.approx(statistics.median(a / b for a, b in zip(ours, peers, strict=True)))
    assert found.pairs == 4
    assert found.low <= found.median <= found.high


def test_the_interval_equals_that_of_all_possible_draws():
    ratios = [0.8, 0.9, 1.3]
    found = paired(ratios, [1.0] * 3)
    medians = [statistics.median(draw) for draw in itertools.product(ratios, repeat=3)]  # all 27, each equally likely
    assert (found.low, found.high) == pytest.approx((np.percentile(medians, 2.5), np.percentile(medians, 97.5)))


def test_a_machine_that_slows_down_for_both_does_not_move_the_ratio():
    drift = [1.0, 1.4, 2.0, 3.0, 1.1]
    found = paired([0.5 * each for each in drift], drift)
    assert (found.median, found.low, found.high) == (0.5, 0.5, 0.5)


def test_an_engine_against_itself_has_1_in_95_percent_of_intervals():
    random = np.random.default_rng(1)
    inside = 0
    for _ in range(200):
        ours, peers = np.exp(0.05 * random.standard_normal((2, 9)))
        found = paired(ours.tolist(), peers.tolist())
        inside += found.low <= 1 <= found.high
    assert inside >= 180


def test_a_real_difference_lies_outside_the_interval():
    random = np.random.default_rng(2)
    scatter = np.exp(0.03 * random.standard_normal((2, 9)))
    found = paired((0.8 * scatter[0]).tolist(), scatter[1].tolist())
    assert found.high < 1


def test_a_round_that_one_engine_lacks_is_not_a_pair():
    ours, peer = rounds({0: 1.0, 2: 3.0, 3: 5.0}), rounds({0: 2.0, 1: 2.0})
    (ratio,), (total,) = compare({"ours": {"1x16": ours}, "peer": {"1x16": peer}}, ["ours"])
    assert (ratio["pairs"], ratio["median"], total["geometric_mean"]) == (1, 0.5, 0.5)
    for none in (rounds({1: 1.0}), {}):
        assert compare({"ours": {"1x16": ours}, "peer": {"1x16": none}}, ["ours"]) == ([], [])


def test_the_geometric_mean_weighs_each_shape_the_same():
    found = summarize_ratios([[0.5] * 3, [2.0] * 9])
    assert (found.median, found.low, found.high) == (pytest.approx(1.0), pytest.approx(1.0), pytest.approx(1.0))
    assert found.pairs == 12


def test_rounds_off_the_median_and_busy_ones_are_named():
    assert noise([1.0, 1.0, 0.95, 1.25], [None] * 4) == [None, None, None, "25 % above its median"]
    reasons = noise([1.0, 1.0, 1.0, 0.8, 1.0], [0.0, None, 0.3, 0.0, 0.1])
    assert reasons == [None, None, "other processes had 30 % of the CPUs", "20 % below its median", None]
    assert name_some(list("abcdefghij")) == "a; b; c; d; e; f; g; h; and 2 more"
    assert name_some(["a", "b"]) == "a; b"


def rounds(times, noisy=()):
    """Rounds as ``compare`` takes them."""
    return {number: (time, number in noisy) for number, time in times.items()}


def test_every_entry_of_fusedbert_is_compared_with_every_other_engine():
    times = {
        "ours-a": {"1x16": rounds({0: 1.0, 1: 1.0}), "8x128": rounds({0: 9.0, 1: 9.0})},
        "ours-b": {"1x16": rounds({0: 2.0, 1: 2.0})},
        "peer": {"1x16": rounds({0: 2.0, 1: 2.0}, noisy=[0]), "8x128": rounds({0: 10.0, 1: 10.0})},
        "failed": {"1x16": rounds({1: 4.0})},
    }
    ratios, summary = compare(times, ["ours-a", "ours-b", "not-there"])
    by_name = {(each["ours"], each["peer"], each["shape"]): each for each in ratios}
    assert set(by_name) == {
        ("ours-a", "peer", "1x16"),
        ("ours-a", "peer", "8x128"),
        ("ours-a", "failed", "1x16"),
        ("ours-b", "peer", "1x16"),
        ("ours-b", "failed", "1x16"),
    }
    assert by_name["ours-a", "failed", "1x16"]["pairs"] == 1
    assert by_name["ours-a", "peer", "1x16"]["median"] == 0.5
    total = next(each for each in summary if (each["ours"], each["peer"]) == ("ours-a", "peer"))
    assert total["geometric_mean"] == pytest.approx((0.5 * 0.9) ** 0.5)
    assert total["worst"] == {"shape": "8x128", "median": 0.9}


def test_noisy_pairs_are_counted_once():
    times = dict.fromkeys(range(3), 1.0)
    found = {"a": {"1x16": rounds(times, noisy=[0])}, "b": {"1x16": rounds(times, noisy=[0, 1])}}
    ratios, _ = compare(found, ["a"])
    assert ratios[0]["noisy"] == 2


# Timing


def replay(times):
    """Give the times one by one, as a run would."""
    return iter(times).__next__


def test_steady_times_need_two_windows():
    found = warm_up(replay([0.01] * 100))
    assert found.converged
    assert found.iterations == 10
    assert found.seconds == pytest.approx(0.1)


def test_warm_up_lasts_while_times_fall():
    falling = [0.1 * 0.9**step for step in range(40)]
    found = warm_up(replay(falling + [falling[-1]] * 60))
    assert found.converged
    assert 40 <= found.iterations <= 55


def test_one_slow_iteration_does_not_prolong_the_warm_up():
    assert warm_up(replay([0.01, 0.01, 0.5, 0.01, 0.01, 0.01, 0.01, 0.01, 0.2, 0.01])).iterations == 10


def test_the_time_limit_ends_a_warm_up_that_never_converges():
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
    times = sample(replay([seconds] * 5000), least_samples=20, least_seconds=1.0, most_seconds=10.0)
    assert len(times) == pytest.approx(expected, abs=1)


def test_the_summary_agrees_with_the_standard_library():
    seconds = [0.001 * (index % 17 + 1) for index in range(101)]
    found = summarize(seconds, batch=8)
    cuts = statistics.quantiles([1e3 * value for value in seconds], n=100, method="inclusive")
    assert found.samples == 101
    assert (found.p50_ms, found.p90_ms, found.p99_ms) == pytest.approx((cuts[49], cuts[89], cuts[98]))
    assert found.sequences_per_second == pytest.approx(8 * 101 / sum(seconds))
