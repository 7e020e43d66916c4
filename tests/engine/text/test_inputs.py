"""Inputs that are not texts are refused, with the index, the value found, and a way out."""

from __future__ import annotations

import numpy as np
import pytest

from fusedbert.engine.errors import FusedBertError, InputError
from fusedbert.engine.text.inputs import check_item, check_items


@pytest.mark.parametrize(
    ("bad", "found", "way_out"),
    [
        (None, "None", "drop missing values"),
        (float("nan"), "NaN", "drop missing values"),
        (np.float64("nan"), "NaN", "drop missing values"),
        (3, "the int 3", "str(value)"),
        (2.5, "the float 2.5", "str(value)"),
        (b"bytes", "bytes", "decode('utf-8')"),
        (["a", "b"], "list", "a pair is a tuple"),
        (("a",), "tuple of 1", "(text, text_pair)"),
        (("a", None), "None", "drop missing values"),
        ({"texts": "a"}, "'texts'", "text_pair"),
        ({"text": "a", "pair": "b"}, "'pair'", "text_pair"),
        ({"text": 1}, "the int 1", "str(value)"),
        ("caf\udce9", "U+DCE9", "character 3"),
        (("fine", "\ud83d"), "U+D83D", "replace"),
    ],
)
def test_wrong_inputs_are_refused_with_their_index_and_a_way_out(bad: object, found: str, way_out: str) -> None:
    with pytest.raises(InputError) as caught:
        check_items(["good", "", bad])
    message = str(caught.value)
    assert "text 2" in message and found in message and way_out in message
    assert "\n" not in message
    assert isinstance(caught.value, ValueError) and isinstance(caught.value, FusedBertError)


@pytest.mark.parametrize("bad", ["one text", b"bytes", {"text": "a"}, None, 3])
def test_a_single_item_is_not_accepted_as_a_collection(bad: object) -> None:
    with pytest.raises(InputError, match=r"list of texts.*\[text\]"):
        check_items(bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["", " ", "\n\t", "\0", "a\0b", "😀", "\u202e", "x" * 100_000])
def test_unusual_texts_are_accepted(text: str) -> None:
    assert check_item(text, 0).text == text


def test_numpy_strings_and_pairs_are_accepted() -> None:
    assert check_item(("a", "b"), 0).pair == "b"
    assert check_item({"text": "a", "text_pair": "b"}, 0).pair == "b"
    assert check_item({"text": "a", "text_pair": None}, 0).pair is None
    assert [text.text for text in check_items(np.array(["a", "b"]))] == ["a", "b"]
