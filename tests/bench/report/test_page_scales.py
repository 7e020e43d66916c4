"""The parts that every plot is made of: colours, axes, numbers, texts."""

import itertools

import numpy as np
import pytest

from fusedbert.bench.report.page.palette import COLOURS
from fusedbert.bench.report.page.scale import figure, log_scale, number, tick_text
from fusedbert.bench.report.page.svg import fit, text_width


def test_the_colours_keep_apart_under_every_sight():
    machado = {
        "usual": np.eye(3),
        "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
        "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
    }
    for scheme, background in ((0, "card"), (1, "card")):
        for group in ([f"c{index}" for index in range(6)], ["p0", "p1", "p2", "p3"]):
            colours = [linear(COLOURS[name][scheme]) for name in group]
            for sight in machado.values():
                seen = [oklab(np.asarray(sight) @ colour) for colour in colours]
                assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 0.1
        for name in COLOURS:
            least = (
                {"c": 3.0, "p": 3.0}.get(name[0], 0)
                if name[-1].isdigit()
                else {"ink": 7, "quiet": 4.5, "accent": 4.5}.get(name, 0)
            )
            for behind in (background, "paper"):
                assert contrast(COLOURS[name][scheme], COLOURS[behind][scheme]) >= least, name


def linear(colour):
    value = np.array([int(colour[index : index + 2], 16) for index in (1, 3, 5)]) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def contrast(one, other):
    low, high = sorted(float(linear(colour) @ [0.2126, 0.7152, 0.0722]) for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


def oklab(colour):
    """Björn Ottosson's OKLab, in which distances are about as large as they look."""
    cone = np.cbrt(
        np.array(
            [[0.41222147, 0.53633254, 0.05144599], [0.2119035, 0.68069955, 0.10739696], [0.08830246, 0.28171884, 0.6299787]]
        )
        @ np.clip(colour, 0, 1)
    )
    turn = [[0.21045426, 0.79361778, -0.00407205], [1.9779985, -2.42859221, 0.45059371], [0.02590404, 0.78277177, -0.80867577]]
    return np.array(turn) @ cone


@pytest.mark.parametrize("ends", [(1, 1000), (3.3, 16.5), (0.93, 1.02), (85, 96), (1e-4, 9e5), (200, 200), (999, 1001)])
@pytest.mark.parametrize("most", [2, 4, 9])
def test_ticks_are_round_few_and_inside(ends, most):
    scale = log_scale(ends)
    ticks = scale.ticks(most)
    assert ticks == sorted(set(ticks)) and all(scale.shows(tick) for tick in ticks)
    assert 1 <= len(ticks) <= max(most, 2) + 2
    assert all(float(tick_text(tick).replace("k", "e3").replace("M", "e6")) == pytest.approx(tick, rel=1e-4) for tick in ticks)


def test_numbers_are_read_forgivingly_and_written_in_three_digits():
    assert [number(value) for value in (1, 2.5, True, None, "3", float("nan"), float("inf"), 10**400)] == [
        1.0,
        2.5,
        *[None] * 6,
    ]
    shown = [figure(value) for value in (0, 7, 1234567, 99.96, 9.996, 0.9996, 0.4, 0.0123456, -3.14159, None)]
    assert shown == ["0", "7", "1,234,567", "100", "10.0", "1.00", "0.400", "0.0123", "-3.14", "–"]


def test_long_texts_are_cut_to_fit():
    for text in ("short", "W" * 300, "transformers-compile-" * 9, "语言" * 80):
        assert text_width(fit(text, 12, 150), 12) <= 150
    assert fit("short", 12, 150) == "short"
