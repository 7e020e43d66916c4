"""A squeezed text has the same tokens and is short."""

from __future__ import annotations

import pytest
from random_tokenizers import word_piece

from fusedbert.engine.text.squeeze import Squeezer

RUNS = {
    "a word that is too long": "good a" + "b" * 3_000 + " film",
    "one at either end": "ab" * 2_000 + ", good " + "bx" * 2_000,
    "accents within": "a" + "b\u0301" * 3_000 + " good",
    "removed characters within": "a" + "b\u200b\x01" * 3_000 + " good",
    "spaces": "good" + " " * 4_000 + "film",
    "spaces and removed characters": "good" + "\x01" * 2_000 + " " + "\u200b" * 2_000 + "s film",
    "removed characters alone": "good" + "\u200b" * 3_000 + "s film",
    "an added token at its end": "good" + "x" * 3_000 + "ab@ film",
    "nothing else": "\x01\n" * 3_000,
}


@pytest.mark.parametrize("added", [[], ["[USER]", "ab@", "@bx"]], ids=["", "added tokens"])
@pytest.mark.parametrize("name", RUNS)
def test_a_run_is_shortened(name: str, added: list[str]) -> None:
    tokenizer = word_piece()
    tokenizer.add_tokens(added)
    text = RUNS[name].replace("good", "good @b[USER]@") if added else RUNS[name]
    short = Squeezer(tokenizer, added, removes_space=True)(text)
    assert len(short) < 2_500 < len(text)
    assert tokenizer.encode(short).tokens == tokenizer.encode(text).tokens


@pytest.mark.parametrize(
    ("added", "text"),
    [
        (["abab"], "ab" * 2_000),  # a token within the run
        (["\u200bx"], "good" + "\u200bx" * 2_000),  # a token of characters that are removed elsewhere
        (["very good"], "very" + "\x01" * 2_000 + " good"),  # normalized, it is found across the run
    ],
)
def test_a_run_that_may_hold_an_added_token_is_kept(added: list[str], text: str) -> None:
    tokenizer = word_piece()
    tokenizer.add_tokens(added)
    assert Squeezer(tokenizer, added, removes_space=True)(text) == text


@pytest.mark.parametrize("text", ["good film " * 900, "a" * 350 + " good " + "b" * 350, "电影" * 2_000, "." * 3_000])
def test_other_texts_are_kept(text: str) -> None:
    tokenizer = word_piece()
    assert Squeezer(tokenizer, [], removes_space=True)(text) == text
    assert Squeezer(tokenizer, [], removes_space=False)(RUNS["spaces"]) == RUNS["spaces"]
