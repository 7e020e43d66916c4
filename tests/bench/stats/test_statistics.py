import itertools
import statistics

import numpy as np
import pytest

from fusedbert.bench.stats.comparison import compare, doubts, name_some
from fusedbert.bench.stats.statistics import geometric_mean, off_the_median, paired_ratio


def test_the_median_is_that_of_the_pairs():
    ours, peers = [1.0, 2.0, 9.0, 4.0], [2.0, 2.0, 10.0, 10.0]
    found = paired_ratio(ours, peers)
    assert found.median == pytest.approx(statistics.median(a / b for a, b in zip(ours, peers, strict=True)))
    assert found.pairs == 4
    assert found.low <= found.median <= found.high


def test_the_interval_is_that_of_every_possible_draw():
    ratios = [0.8, 0.9, 1.3]
    found = paired_ratio(ratios, [1.0] * 3)
    medians = [statistics.median(draw) for draw in itertools.product(ratios, repeat=3)]  # all 27, each equally likely
    assert (found.low, found.high) == pytest.approx((np.percentile(medians, 2.5), np.percentile(medians, 97.5)))


def test_a_machine_that_slows_down_for_both_does_not_move_the_ratio():
    drift = [1.0, 1.4, 2.0, 3.0, 1.1]
    found = paired_ratio([0.5 * each for each in drift], drift)
    assert (found.median, found.low, found.high) == (0.5, 0.5, 0.5)


def test_the_same_thing_against_itself_has_1_in_its_interval_as_often_as_95_percent_say():
    random = np.random.default_rng(1)
    inside = 0
    for _ in range(200):
        ours, peers = np.exp(0.05 * random.standard_normal((2, 9)))
        found = paired_ratio(ours.tolist(), peers.tolist())
        inside += found.low <= 1 <= found.high
    assert inside >= 180


def test_a_real_difference_is_outside():
    random = np.random.default_rng(2)
    noise = np.exp(0.03 * random.standard_normal((2, 9)))
    found = paired_ratio((0.8 * noise[0]).tolist(), noise[1].tolist())
    assert found.high < 1


def test_a_round_that_one_lacks_is_no_pair():
    assert paired_ratio([1.0, None, 3.0, 5.0], [2.0, 2.0, None]).pairs == 1
    assert paired_ratio([None], [1.0]) is None
    assert paired_ratio([], []) is None
    assert geometric_mean([([], []), ([1.0], [None])]) is None


def test_the_geometric_mean_weighs_each_shape_the_same():
    found = geometric_mean([([1.0] * 3, [2.0] * 3), ([4.0] * 9, [2.0] * 9), ([], [])])
    assert (found.median, found.low, found.high) == (pytest.approx(1.0), pytest.approx(1.0), pytest.approx(1.0))
    assert found.pairs == 12


def test_rounds_off_the_median_and_busy_ones_are_named():
    assert off_the_median([1.0, 1.0, 0.95, 1.25]) == pytest.approx([0, 0, 0, 0.25])
    reasons = doubts([1.0, 1.0, 1.0, 0.8, 1.0], [0.0, None, 0.3, 0.0, 0.1])
    assert reasons == [None, None, "other processes had 30 % of the CPUs", "20 % below its median", None]
    assert name_some(list("abcdefghij")) == "a; b; c; d; e; f; g; h; and 2 more"


def test_every_one_of_ours_is_held_against_every_other():
    times = {
        "ours-a": {"1x16": [1.0, 1.0], "8x128": [9.0, 9.0]},
        "ours-b": {"1x16": [2.0, 2.0]},
        "peer": {"1x16": [2.0, 2.0], "8x128": [10.0, 10.0]},
        "failed": {"1x16": [None, 4.0]},
    }
    ratios, summary = compare(times, ["ours-a", "ours-b", "not-there"], {"peer": {"1x16": [True, False]}})
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


def test_pairs_in_doubt_are_counted_once():
    times = {"a": {"1x16": [1.0, 1.0, 1.0]}, "b": {"1x16": [1.0, 1.0, 1.0]}}
    noisy = {"a": {"1x16": [True, False, False]}, "b": {"1x16": [True, True, False]}}
    ratios, _ = compare(times, ["a"], noisy)
    assert ratios[0]["noisy"] == 2
