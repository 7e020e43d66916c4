"""The begin and end of words, in several scripts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusedbert.engine.explain.words import words

CASES = {
    "I didn't... love it!": ["I", "didn't", "...", "love", "it", "!"],
    "a well-made -- 'odd' rock'n'roll": ["a", "well-made", "--", "'", "odd", "'", "rock'n'roll"],
    "cafe\u0301 naïve": ["cafe\u0301", "naïve"],
    "这部电影 ok": ["这", "部", "电", "影", "ok"],
    "مرحبًا بالعالم": ["مرحبًا", "بالعالم"],
    "नमस्ते दुनिया": ["नमस्ते", "दुनिया"],
    "👍🏽 👨\u200d👩\u200d👧!": ["👍🏽", "👨\u200d👩\u200d👧", "!"],
    " \t\n": [],
    "\u202e\u200b": [],
}


@pytest.mark.parametrize("text", CASES)
def test_words_are_split_at_their_ends(text):
    assert [text[start:end] for start, end in words(text)] == CASES[text]


@given(st.text())
def test_words_are_in_order_and_cover_all_letters(text):
    found = words(text)
    ends = [0, *(end for _, end in found)]
    assert all(before <= start < end for before, (start, end) in zip(ends, found, strict=False))
    outside = set(range(len(text))) - {i for start, end in found for i in range(start, end)}
    assert not any(text[i].isalnum() for i in outside)
