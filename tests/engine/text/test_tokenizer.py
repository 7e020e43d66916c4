"""Ids, segments and truncation equal those of transformers; cutting very long texts first changes none of them."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from fusedbert.engine import Classifier
from fusedbert.engine.artifact import read_manifest, write_manifest
from fusedbert.engine.errors import ArtifactError, InputError, TextTooLongError
from fusedbert.engine.text.inputs import Window, check_items
from fusedbert.engine.text.tokenizer import Row, TextTokenizer, pad, share_room
from fusedbert.engine.text.windows import tokenize_windows


@pytest.fixture
def load(artifact: Path) -> Callable[[int], TextTokenizer]:
    return lambda max_length: TextTokenizer.load(artifact, max_length)


def words(count: int) -> str:
    return " ".join(["good", "movie", "plot"][i % 3] for i in range(count))


def test_padding_and_truncation_in_the_tokenizer_file_are_ignored(
    load: Callable[[int], TextTokenizer], tokenizer: Tokenizer
) -> None:
    row = load(32).encode(check_items([words(10)]))[0]  # the file pads to 16 and cuts at 8
    assert row.ids == tokenizer.encode(words(10)).ids and len(row.ids) == 12
    assert not row.truncated


@given(first=st.integers(0, 30), second=st.one_of(st.none(), st.integers(0, 30)), max_length=st.integers(3, 25))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_truncation_equals_that_of_transformers(
    load: Callable[[int], TextTokenizer], judge: Any, first: int, second: int | None, max_length: int
) -> None:
    text, pair = words(first), None if second is None else words(second)
    ours = load(max_length).encode(check_items([text if pair is None else (text, pair)]))[0]
    pairs = None if pair is None else [pair]  # as a batch: transformers ignores an empty second text of a single pair
    theirs = judge([text], pairs, truncation=True, max_length=max_length, return_token_type_ids=True)
    assert ours.ids == theirs["input_ids"][0]
    assert ours.types == theirs["token_type_ids"][0]
    assert ours.truncated == (first + (second or 0) + (2 if pair is None else 3) > max_length)


@given(first=st.integers(0, 12), second=st.integers(0, 12), room=st.integers(0, 24))
def test_a_truncated_pair_uses_all_tokens(first: int, second: int, room: int) -> None:
    kept = share_room(first, second, room)
    assert sum(kept) == min(first + second, room)
    assert kept[0] <= first and kept[1] <= second
    assert kept == (first, second) or max(kept) - min(kept) <= 1 or min(kept) == min(first, second)


def test_a_megabyte_is_cut_before_it_is_tokenized(load: Callable[[int], TextTokenizer], tokenizer: Tokenizer) -> None:
    text = "  ".join(["good, movie!", "music"] * 60_000)
    assert len(text) > 1_000_000
    ours = load(32)
    started = time.perf_counter()
    row = ours.encode(check_items([text]))[0]
    cut = time.perf_counter()
    whole = tokenizer.encode(text).ids
    assert cut - started < (time.perf_counter() - cut) / 5
    assert row.ids == [*whole[:31], whole[-1]] and row.truncated
    pair = load(32).encode(check_items([("good film", text)]))[0]
    assert pair.ids == [*tokenizer.encode("good film", text[:2000]).ids[:31], whole[-1]] and pair.truncated


@pytest.mark.parametrize("text", ["x" * 5000, " " * 5000, "\x01" * 3000 + " good", "a " * 20 + " " * 4000 + "good"])
def test_long_texts_of_few_tokens_are_not_truncated(
    load: Callable[[int], TextTokenizer], tokenizer: Tokenizer, text: str
) -> None:
    assert load(32).encode(check_items([text]))[0].ids == tokenizer.encode(text).ids


def test_without_truncation_a_long_text_is_refused_with_its_length(load: Callable[[int], TextTokenizer]) -> None:
    with pytest.raises(TextTooLongError, match="text 1 has 42 tokens, max_length is 32"):
        load(32).encode(check_items(["good", words(40)]), truncate=False)
    with pytest.raises(TextTooLongError, match="more than"):
        load(32).encode(check_items([words(100_000)]), truncate=False)


def test_a_limit_too_short_for_a_pair_is_refused(load: Callable[[int], TextTokenizer]) -> None:
    assert load(3).encode(check_items([("good", "bad")]))[0].types == [0, 0, 1]
    with pytest.raises(InputError, match="separators"):
        load(2).encode(check_items([("good", "bad")]))


def test_the_checkpoint_decides_which_end_is_cut(artifact: Path, tokenizer: Tokenizer) -> None:
    (artifact / "tokenizer_config.json").write_text('{"truncation_side": "left"}')
    whole = tokenizer.encode(words(50)).ids
    assert TextTokenizer.load(artifact, 10).encode(check_items([words(50)]))[0].ids == [whole[0], *whole[-9:]]


@pytest.mark.parametrize("content", ["", "{}", "garbage", '{"model": null}'])
def test_a_damaged_tokenizer_is_refused(artifact: Path, content: str) -> None:
    (artifact / "tokenizer.json").write_text(content)
    with pytest.raises(ArtifactError, match=r"tokenizer\.json cannot be read"):
        TextTokenizer.load(artifact, 32)
    (artifact / "tokenizer.json").unlink()
    with pytest.raises(ArtifactError, match=r"tokenizer\.json is missing"):
        TextTokenizer.load(artifact, 32)


def test_segments_are_zero_where_the_input_names_lack_them(artifact: Path) -> None:
    pair = check_items([("good", "bad film")])
    assert TextTokenizer.load(artifact, 32).encode(pair)[0].types == [0, 0, 0, 1, 1, 1]
    (artifact / "tokenizer_config.json").write_text('{"model_input_names": ["input_ids", "attention_mask"]}')
    assert TextTokenizer.load(artifact, 32).encode(pair)[0].types == [0] * 6


def test_special_tokens_in_a_text_are_split_where_the_checkpoint_says_so(artifact: Path, tokenizer: Tokenizer) -> None:
    text = check_items(["good [SEP] film"])
    assert TextTokenizer.load(artifact, 32).encode(text)[0].ids == tokenizer.encode("good [SEP] film").ids
    (artifact / "tokenizer_config.json").write_text('{"split_special_tokens": true}')
    tokenizer.encode_special_tokens = True
    assert TextTokenizer.load(artifact, 32).encode(text)[0].ids == tokenizer.encode("good [SEP] film").ids
    assert tokenizer.encode("good [SEP] film").ids.count(3) == 1


def test_a_text_without_tokens_and_a_token_without_a_vector_are_errors(artifact: Path, tokenizer: Tokenizer) -> None:
    from tokenizers import processors

    tokenizer.post_processor = processors.TemplateProcessing(single="$A", pair="$A $B", special_tokens=[])
    tokenizer.add_tokens(["beyond"])
    tokenizer.save(str(artifact / "tokenizer.json"))
    rows = tokenizer.get_vocab_size() - 1
    (artifact / "config.json").write_text(json.dumps({"vocab_size": rows}))
    ours = TextTokenizer.load(artifact, 32)
    assert len(ours.encode(check_items(["good film"]))[0].ids) == 2
    with pytest.raises(InputError, match="text 1 has no tokens"):
        ours.encode(check_items(["good", ""]))
    with pytest.raises(InputError, match=f"text 1 holds the token 'beyond' of id {rows}.*ids below {rows}"):
        ours.encode(check_items(["good", "it is beyond this"]))
    write_manifest(artifact, dataclasses.replace(read_manifest(artifact), golden=()))
    with Classifier.from_pretrained(artifact) as clf:
        with pytest.raises(InputError, match="text 2 holds the token"):
            clf(["good", "bad", "beyond"])
        for long_text in ("truncate", "window", "error"):
            with Classifier.from_pretrained(artifact, long_text=long_text) as other:
                assert other.predict_proba(["good"]).shape == (1, 2)
                with pytest.raises(InputError, match="text 0 has no tokens"):
                    other.predict_proba([""])


def test_pad_id_follows_the_pad_token(artifact: Path) -> None:
    (artifact / "tokenizer_config.json").write_text('{"pad_token": {"content": "[SEP]"}}')
    assert TextTokenizer.load(artifact, 32).pad_id == 3
    (artifact / "tokenizer_config.json").unlink()
    (artifact / "config.json").write_text('{"pad_token_id": 7}')
    assert TextTokenizer.load(artifact, 32).pad_id == 7


def test_a_text_on_which_the_tokenizer_panics_is_named(artifact: Path, tokenizer: Tokenizer) -> None:
    from tokenizers import Regex, pre_tokenizers

    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("(a+)+$"), "isolated")  # exponential in the number of a
    tokenizer.save(str(artifact / "tokenizer.json"))
    ours = TextTokenizer.load(artifact, 32)
    texts = check_items(["good", "bad", "a" * 40 + "b"])
    for tokenize in (ours.encode, lambda texts: tokenize_windows(ours, texts, Window()), lambda texts: ours.trace(texts[2])):
        with pytest.raises(InputError, match=r"^text 2 cannot be tokenized \(.*retry-limit.*\): leave it out") as caught:
            tokenize(texts)
        assert "\n" not in str(caught.value)
    assert len(ours.encode(texts[:2])) == 2


def test_pad_marks_real_tokens() -> None:
    feeds = pad([Row(ids=[2, 9, 3], types=[0, 0, 1], truncated=False), Row(ids=[2, 3], types=[0, 0], truncated=False)], 7)
    assert feeds["input_ids"].tolist() == [[2, 9, 3], [2, 3, 7]]
    assert feeds["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert feeds["token_type_ids"].tolist() == [[0, 0, 1], [0, 0, 0]]
