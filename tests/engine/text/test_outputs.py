"""Scores equal SciPy's, without overflow, and functions follow the problem type."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy import special

from fusedbert.engine.errors import OptionError
from fusedbert.engine.text.outputs import UNSET, Function, apply, check_top_k, scored

LOGITS = np.array([[0.0, 1.0, -2.0], [1000.0, -1000.0, 999.0], [-1e30, -1e30, -1e30], [88.8, 120.0, -120.0]], dtype=np.float32)


def test_softmax_and_sigmoid_equal_scipys() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        soft, sigma = apply(Function.SOFTMAX, LOGITS), apply(Function.SIGMOID, LOGITS)
    np.testing.assert_allclose(soft, special.softmax(LOGITS.astype(np.float64), axis=1), atol=1e-6)
    np.testing.assert_allclose(sigma, special.expit(LOGITS.astype(np.float64)), atol=1e-6)
    assert soft.dtype == sigma.dtype == np.float32
    assert apply(Function.SIGMOID, LOGITS.astype(np.float64)).dtype == np.float64  # of the export's parity check
    assert apply(Function.NONE, LOGITS) is LOGITS
    assert apply(Function.SOFTMAX, np.empty((0, 3), dtype=np.float32)).shape == (0, 3)


@pytest.mark.parametrize(
    ("given", "problem_type", "labels", "expected"),
    [
        (None, "regression", 1, Function.NONE),
        (None, "regression", 3, Function.NONE),
        (None, "multi_label_classification", 3, Function.SIGMOID),
        (None, "single_label_classification", 1, Function.SIGMOID),
        (None, "single_label_classification", 2, Function.SOFTMAX),
        ("SIGMOID", "single_label_classification", 2, Function.SIGMOID),
        ("none", "single_label_classification", 2, Function.NONE),
    ],
)
def test_the_function_follows_the_problem_type_or_the_request(
    given: str | None, problem_type: str, labels: int, expected: Function
) -> None:
    assert Function.choose(given, problem_type, labels) is expected


@pytest.mark.parametrize("given", ["tanh", "", 3])
def test_an_unknown_function_is_refused(given: object) -> None:
    with pytest.raises(OptionError, match="sigmoid, softmax, none"):
        Function.choose(given, "regression", 1)


@pytest.mark.parametrize("top_k", [0, -1, 1.5, "2", True])
def test_a_wrong_top_k_is_refused(top_k: object) -> None:
    with pytest.raises(OptionError, match="top_k"):
        check_top_k(top_k)


def test_equal_scores_keep_the_order_of_the_labels() -> None:
    result = scored(np.array([0.2, 0.4, 0.4], dtype=np.float32), ["a", "b", "c"], None)
    assert isinstance(result, list)
    assert [each["label"] for each in result] == ["b", "c", "a"]
    assert scored(np.array([0.4, 0.4], dtype=np.float32), ["a", "b"], UNSET) == {"label": "a", "score": pytest.approx(0.4)}
    assert len(scored(np.array([0.2, 0.8], dtype=np.float32), ["a", "b"], 5)) == 2
