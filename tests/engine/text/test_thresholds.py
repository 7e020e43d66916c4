"""Thresholds of multi-label models: what a caller gives becomes one for each label, or an error with the way out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fusedbert.engine.errors import OptionError
from fusedbert.engine.text.thresholds import parse_thresholds, threshold_option

LABELS = ("joy", "a=b,c", "joy", "fear")
KIND = "multi_label_classification"
STORED = (0.1, 0.2, 0.3, 0.4)


@pytest.mark.parametrize(
    ("value", "stored", "expected"),
    [
        (None, None, (0.5, 0.5, 0.5, 0.5)),
        (None, STORED, STORED),
        (0.25, STORED, (0.25,) * 4),
        (0, None, (0.0,) * 4),
        (1, None, (1.0,) * 4),
        (np.float64(0.25), None, (0.25,) * 4),
        ([0.9, 0.8, 0.7, 0.6], STORED, (0.9, 0.8, 0.7, 0.6)),
        (np.array([0.9, 0.8, 0.7, 0.6]), None, (0.9, 0.8, 0.7, 0.6)),
        ({}, STORED, STORED),
        ({"fear": 0.9}, STORED, (0.1, 0.2, 0.3, 0.9)),
        ({"fear": 0.9}, None, (0.5, 0.5, 0.5, 0.9)),
        ({"joy": 0.9}, STORED, (0.9, 0.2, 0.9, 0.4)),  # every label of that name
        ({"joy (2)": 0.8, "joy": 0.9}, STORED, (0.9, 0.2, 0.8, 0.4)),
        ({None: 0.7, "a=b,c": 0.6}, STORED, (0.7, 0.6, 0.7, 0.7)),
    ],
)
def test_thresholds_are_one_for_each_label(value: Any, stored: Any, expected: tuple[float, ...]) -> None:
    found = parse_thresholds(value, LABELS, KIND, stored)
    assert found == expected and all(type(each) is float for each in found)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (float("nan"), "threshold is nan"),
        (1.5, "threshold is 1.5"),
        (-0.1, "threshold is -0.1"),
        (10**400, "threshold is 1000"),
        ({"fear": 10**5000}, "the threshold of label 'fear' is of type int, too long to show"),
        ([[0.5], [0.5, 0.6], 0.5, 0.5], "the threshold of label 'joy' is"),
        (True, "threshold is True"),
        ("0.5", "threshold is '0.5'"),
        (b"0.5", "threshold is b'0.5'"),
        ({0.5}, "threshold is {0.5}"),
        ([0.5], "threshold has 1 numbers, expected one for each of 4 labels, joy, a=b,c, joy, fear"),
        (np.full((2, 2), 0.5), "threshold is array"),
        ([0.5, None, 0.5, 0.5], "the threshold of label 'a=b,c' is None"),
        ([0.5, 0.5, 0.5, float("inf")], "the threshold of label 'fear' is inf"),
        ({"fear": "0.5"}, "the threshold of label 'fear' is '0.5'"),
        (
            {"anger": 0.5},
            r"names the label 'anger', which the model lacks: its labels are joy, a=b,c, joy \(2\), fear",
        ),
        ({0: 0.5}, "threshold names the label 0, "),
    ],
)
def test_wrong_thresholds_are_named(value: Any, words: str) -> None:
    with pytest.raises(OptionError, match=words):
        parse_thresholds(value, LABELS, KIND, STORED)


@pytest.mark.parametrize("kind", ["single_label_classification", "regression"])
def test_only_multi_label_models_have_thresholds(kind: str) -> None:
    with pytest.raises(OptionError, match="threshold is for multi-label models"):
        parse_thresholds(0.5, LABELS, kind)


def test_the_option_of_commands_takes_numbers_and_labels() -> None:
    assert threshold_option([]) is None
    assert threshold_option(["0.3"]) == 0.3
    assert threshold_option(["a=b,c=0.6", " 0.3 ", "=1"]) == {"a=b,c": 0.6, None: 0.3, "": 1.0}
    for values, words in (
        (["half"], "'half': give a number from 0 to 1, or LABEL=NUMBER"),
        (["fear="], "'fear=': give a number"),
        (["fear=high"], "'fear=high': give a number"),
        (["1.5"], "threshold is 1.5"),
        (["fear=nan"], "label 'fear' is nan"),
        (["0.1", "0.2"], "twice for all labels"),
        (["a=0.1", "a=0.1"], "twice for 'a'"),
    ):
        with pytest.raises(OptionError, match=words):
            threshold_option(values)
