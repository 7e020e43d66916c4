"""Tokenizer files of checkpoints, compared with transformers' reading of the same folder."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from random_tokenizers import Maker, random_text, word_piece
from tokenizers import Tokenizer

from fusedbert.engine.errors import CheckpointError, InputError
from fusedbert.engine.text.tokenizer import TextTokenizer
from fusedbert.export.tokenizer import Tokenization

TEXTS = 40  # of each tokenizer, every other one a pair: 56 tokenizers make more than 2,000
BERT = {"tokenizer_class": "BertTokenizer"}


def shape(family: str = "bert", **changes: Any) -> Any:
    """Return the facts of a model that a tokenizer needs."""
    sizes = {"vocab_size": 2000, "token_types": 2, "max_tokens": 40, "usual_tokens": 0, "heads": 2}
    return SimpleNamespace(**{"family": family, **sizes} | changes)


def expected(judge: Any, text: str, pair: str | None, limit: int) -> tuple[list[int], list[int]]:
    """Return transformers' ids and segments for a batch of one: for a single pair it ignores an empty second text."""
    found = judge([text], None if pair is None else [pair], truncation=True, max_length=limit)
    ids = found["input_ids"][0]
    return ids, found.get("token_type_ids", [[0] * len(ids)])[0]


def found(tokens: Tokenization, text: str, pair: str | None) -> tuple[list[int], list[int]]:
    row = tokens.encode(text, pair)
    return list(row.ids), list(row.types)


def read(folder: Path, family: str = "bert", **changes: Any) -> Tokenization:
    if not (folder / "config.json").exists():
        (folder / "config.json").write_text(json.dumps({"model_type": family, "vocab_size": 2000}))
    return Tokenization(folder, shape(family, **changes))


def judge_of(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(folder))


@pytest.mark.parametrize("seed", range(60))
def test_random_tokenizers_of_each_class_give_the_ids_and_segments_of_transformers(tmp_path: Path, seed: int) -> None:
    family = Maker(seed, tmp_path).make()
    try:
        tokens = read(tmp_path, family)
    except CheckpointError as error:
        assert "lacks" in str(error) or "tokenizer class is made for" in str(error)
        return
    judge, r = judge_of(tmp_path), random.Random(seed)
    tokens.save(tmp_path)  # the artifact's files, over the checkpoint's
    written = TextTokenizer.load(tmp_path, tokens.max_length)
    for i in range(TEXTS):
        text, pair = random_text(r), random_text(r) if i % 2 else None
        ids, types = expected(judge, text, pair, tokens.max_length)
        if not ids:
            with pytest.raises(InputError, match="no tokens"):
                tokens.encode(text, pair)
            continue
        assert found(tokens, text, pair) == (ids, types), (text, pair)
    assert written.cut_left == (judge.truncation_side == "left")


def test_most_random_tokenizers_are_read(tmp_path: Path) -> None:
    """Otherwise a reader that refuses everything would pass the test above."""
    refused = 0
    for seed in range(60):
        folder = tmp_path / str(seed)
        folder.mkdir()
        family = Maker(seed, folder).make()
        try:
            read(folder, family)
        except CheckpointError:
            refused += 1
    assert refused <= 6


# Each pair of switches that contradicts the file, both ways


@pytest.mark.parametrize("name", ["BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer", "PreTrainedTokenizerFast"])
@pytest.mark.parametrize(
    ("switch", "value"),
    [*itertools.product(("do_lower_case", "strip_accents", "tokenize_chinese_chars"), (True, False)), ("strip_accents", None)],
)
def test_switches_that_contradict_the_file(tmp_path: Path, name: str, switch: str, value: bool | None) -> None:
    lower, strip, chinese = not value, value is None, not value
    word_piece(lowercase=lower, strip_accents=strip, handle_chinese_chars=chinese).save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": name, switch: value}))
    tokens, judge = read(tmp_path), judge_of(tmp_path)
    for text in ("Paris is GOOD", "café Good cafe", "电影 good电影"):
        assert found(tokens, text, None) == expected(judge, text, None, tokens.max_length), text
    changed = json.loads((tmp_path / "tokenizer.json").read_text())["normalizer"]
    follows_the_file = (
        Tokenizer.from_str(tokens.runtime.raw.to_str()).normalizer.__getstate__()
        == json.dumps(changed, separators=(",", ":")).encode()
    )
    assert follows_the_file == (name == "PreTrainedTokenizerFast") or name != "PreTrainedTokenizerFast"


@pytest.mark.parametrize("value", ["yes", 1, None])
def test_an_invalid_switch_is_refused(tmp_path: Path, value: Any) -> None:
    word_piece().save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**BERT, "do_lower_case": value}))
    with pytest.raises(CheckpointError, match=r"do_lower_case = .*expected true or false"):
        read(tmp_path)


# Files


def test_a_file_that_says_the_same_is_kept_byte_for_byte(tmp_path: Path) -> None:
    from tokenizers import processors

    tokenizer = word_piece()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))  # the older form of the same
    tokenizer.enable_padding(length=8)
    tokenizer.save(str(tmp_path / "tokenizer.json"), pretty=False)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**BERT, "do_lower_case": True}))
    content, tokens = (tmp_path / "tokenizer.json").read_bytes(), read(tmp_path)
    assert tokens.notes == ()
    tokens.save(tmp_path)
    assert (tmp_path / "tokenizer.json").read_bytes() == content


@pytest.mark.parametrize("separator", ["\u2028", "\u0085", "\x0b", "\x0c"])
def test_a_vocabulary_is_split_only_at_newlines(tmp_path: Path, separator: str) -> None:
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", separator, f"ba{separator}d", "film"]
    for ending in ("\n", "\r\n"):
        (tmp_path / "vocab.txt").write_bytes("".join(piece + ending for piece in pieces).encode())
        tokens, judge = read(tmp_path), judge_of(tmp_path)
        assert tokens.encode("good film").ids == [2, 5, 8, 3]
        assert found(tokens, "good film", None) == expected(judge, "good film", None, 40)
        assert tokens.runtime.raw.token_to_id(separator) == 6


def test_texts_with_added_tokens_without_a_vector_are_refused(tmp_path: Path) -> None:
    tokenizer = word_piece()
    rows = tokenizer.get_vocab_size()
    tokenizer.add_tokens(["beyond"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(BERT))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", "vocab_size": rows}))
    tokens = read(tmp_path, vocab_size=rows)
    assert any("no vectors for the added tokens 'beyond'" in note for note in tokens.notes)
    assert tokens.encode("good").ids and tokens.accepts("good") and not tokens.accepts("it is beyond me")
    tokens.save(tmp_path)
    for tokenizer in (tokens.runtime, TextTokenizer.load(tmp_path, 40)):
        assert tokenizer.vocab_size == rows
    with pytest.raises(InputError, match=rf"text 0 holds the token 'beyond' of id {rows}.*ids below {rows}"):
        tokens.encode("it is beyond me")


def test_a_vocabulary_of_another_model_is_refused(tmp_path: Path) -> None:
    word_piece().save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(BERT))
    with pytest.raises(CheckpointError, match="do not belong together"):
        read(tmp_path, vocab_size=20)


def test_segments_follow_the_input_names(tmp_path: Path) -> None:
    word_piece().save(str(tmp_path / "tokenizer.json"))
    for names, second in (
        (["input_ids", "attention_mask"], 0),
        (["input_ids", "token_type_ids", "attention_mask"], 1),
        (None, 1),
    ):
        config = BERT if names is None else {**BERT, "model_input_names": names}
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
        assert found(read(tmp_path), "good", "bad")[1] == [0, 0, 0, second, second]


def test_a_class_that_versions_of_transformers_read_differently_is_noted(tmp_path: Path) -> None:
    word_piece().save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    assert any("segment 0 throughout, as PreTrainedTokenizerFast of transformers 5" in note for note in read(tmp_path).notes)
    assert read(tmp_path, token_types=1).notes == ()  # a model without segments does not differ


# Refused by name


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"tokenizer_class": "BertJapaneseTokenizer"},
            "'BertJapaneseTokenizer', which cuts Japanese words.*save a tokenizer.json",
        ),
        ({"tokenizer_class": "PhobertTokenizer"}, "'PhobertTokenizer', which reads vocab.txt and bpe.codes"),
        (
            {"tokenizer_class": "MyTokenizer", "auto_map": {"AutoTokenizer": ["code.MyTokenizer", None]}},
            r"checkpoint's own code \(code.MyTokenizer, by auto_map",
        ),
        ({"auto_map": ["code.MyTokenizer", None]}, r"checkpoint's own code \(code.MyTokenizer"),
        ({"tokenizer_class": "NoSuchTokenizer"}, "no tokenizer that transformers can read as NoSuchTokenizer"),
        ({"tokenizer_class": "GPT2Tokenizer"}, r"no tokenizer.json, nor vocab.json and merges.txt, which GPT2Tokenizer reads"),
        ({"tokenizer_class": ["BertTokenizer"]}, "expected the name of a class"),
        ({"tokenizer_class": ""}, "expected the name of a class"),
        ({**BERT, "model_input_names": None}, "model_input_names = None, expected a list of names"),
        ({**BERT, "model_input_names": "token_type_ids"}, "model_input_names = 'token_type_ids', expected a list"),
        (
            {"tokenizer_class": "RobertaTokenizer"},
            "holds no tokenizer.json, nor vocab.json and merges.txt, which RobertaTokenizer",
        ),
        ({"tokenizer_class": "XLMRobertaTokenizer"}, "holds no tokenizer.json"),
        ({"tokenizer_class": "PreTrainedTokenizerFast"}, "holds no tokenizer.json"),
        ({**BERT, "cls_token": None}, "cls_token = null"),
        ({**BERT, "truncation_side": "middle"}, "truncation_side = 'middle', expected left or right"),
        ({**BERT, "added_tokens_decoder": {"7": "text"}}, "have a token in an unknown form"),
        ({**BERT, "fast_tokenizer_files": ["tokenizer.json", "tokenizer.4.0.0.json"]}, "for other versions of transformers"),
        ({**BERT, "unk_token": "<nothing>"}, "lacks <nothing>"),
    ],
    ids=lambda value: "" if isinstance(value, str) else "-".join(map(str, value)),
)
def test_unsupported_settings_are_refused_by_name(tmp_path: Path, config: dict, message: str) -> None:
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "film"]
    (tmp_path / "vocab.txt").write_text("".join(piece + "\n" for piece in pieces))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=message):
        read(tmp_path)


def test_a_tokenizer_that_cuts_at_random_or_stops_at_unknown_words_is_refused(tmp_path: Path) -> None:
    from tokenizers import models

    config = {"tokenizer_class": "PreTrainedTokenizerFast"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = word_piece()
    tokenizer.model = models.WordPiece({"good": 0, "[CLS]": 1, "[SEP]": 2}, unk_token="<nothing>")
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(CheckpointError, match="stops at words that it does not know"):
        read(tmp_path)
    tokenizer.model = models.BPE({"g": 0, "o": 1, "go": 2}, [("g", "o")], dropout=0.5)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(CheckpointError, match=r"model\.dropout = 0\.5"):
        read(tmp_path)


@pytest.mark.parametrize(("limit", "taken"), [(2, 40), (-1, 40), ("20", 40), (True, 40), (20.0, 20), (10**30, 40), (None, 40)])
def test_an_unusable_maximum_length_is_noted(tmp_path: Path, limit: Any, taken: int) -> None:
    word_piece().save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**BERT, "model_max_length": limit}))
    tokens = read(tmp_path)
    assert tokens.max_length == taken
    assert bool(tokens.notes) == (limit in (2, -1, "20", True) and limit is not None)


def test_an_unknown_class_is_refused_even_with_a_complete_tokenizer_json(tmp_path: Path) -> None:
    word_piece().save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "NoSuchTokenizer"}))
    with pytest.raises(CheckpointError, match=r"'NoSuchTokenizer', which is none of transformers.*PreTrainedTokenizerFast"):
        read(tmp_path)


def test_a_class_that_only_transformers_knows_is_read_through_it(tmp_path: Path) -> None:
    word_piece(lowercase=False).save(str(tmp_path / "tokenizer.json"))
    names = {"cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "FunnelTokenizer", **names}))
    tokens, judge = read(tmp_path), judge_of(tmp_path)
    for text, pair in (("the GOOD film", None), ("a café", "is bad")):
        assert found(tokens, text, pair) == expected(judge, text, pair, 40)


def test_the_class_of_config_json_counts_where_the_tokenizer_names_none(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", "tokenizer_class": "BertJapaneseTokenizer"}))
    with pytest.raises(CheckpointError, match="BertJapaneseTokenizer"):
        read(tmp_path)


@pytest.mark.parametrize("name", ["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "tokenizer.json"])
@pytest.mark.parametrize("content", ["[" * 100_000, "[1]", "{", "\ufeff{}"], ids=["deep", "list", "cut", "mark"])
def test_damaged_tokenizer_files_are_one_line(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n")
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(CheckpointError, match=name) as caught:
        read(tmp_path)
    assert "\n" not in str(caught.value)


# The runtime cuts texts before it tokenizes them; the plain path is the tokenizer's own truncation


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("limit", [8, 13, 16])
def test_cutting_the_text_first_changes_nothing_on_thousands_of_pairs(tmp_path: Path, side: str, limit: int) -> None:
    tokenizer = word_piece()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**BERT, "model_max_length": limit, "truncation_side": side}))
    tokens, plain, r = read(tmp_path), Tokenizer.from_file(str(tmp_path / "tokenizer.json")), random.Random(limit)
    plain.enable_truncation(limit, direction=side)

    def text() -> str:
        """Return a text around 32 characters per token; from that size on, only its start is tokenized."""
        words = r.choice([["good", "bad"], ["goodmoviefilmawfulgreat", "good"], ["x" * 40, "a"], ["🙂", "café", "the"]])
        size = r.choice([0, 3, limit, 31 * limit, 33 * limit, 70 * limit])
        whole = ""
        while len(whole) < size:
            whole += r.choice(words) + r.choice([" ", "  ", "", "\t"])
        return whole

    for _ in range(400):
        first, second = text(), text()
        encoding = plain.encode(first, second)
        assert found(tokens, first, second) == (encoding.ids, encoding.type_ids), (
            first[:80],
            len(first),
            second[:80],
            len(second),
        )


def test_the_odd_token_goes_to_the_text_that_has_more(tmp_path: Path) -> None:
    """A very long text of which only the start is tokenized at first, and a shorter one with more tokens than that start."""
    word_piece().save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**BERT, "model_max_length": 16}))
    tokens, judge = read(tmp_path), judge_of(tmp_path)
    long, short = "goodmoviefilmawfulgreatxyz " * 60, "bad " * 40
    for text, pair in ((long, short), (short, long)):
        assert found(tokens, text, pair) == expected(judge, text, pair, 16)
