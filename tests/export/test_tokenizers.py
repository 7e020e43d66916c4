"""The tokenizer's files against transformers, on texts that tokenizers stumble over."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from fusedbert.engine.errors import CheckpointError
from fusedbert.export import export_checkpoint
from fusedbert.export.architecture import describe, read_config
from fusedbert.export.texts import CHECK_PAIRS, CHECK_TEXTS
from fusedbert.export.tokenizer import Tokenization, word_piece
from fusedbert.export.tokenizer_check import against_transformers
from fusedbert.export.variants import TokenizerWarning

EMBEDDED = Path(__file__).parents[2] / "models" / "sst2-mini"
HARD = (
    *CHECK_TEXTS,
    "naïve café Ångström ÀÉÎÕÜ ﬁne ½ ①",
    "李白 writes 诗, 김치 and ひらがな",
    "a\u0300\u0301 e\u0301 \u200b\u200d\ufeff \u00ad \u2028 \u0085",
    "x" * 101 + " " + "y" * 100,
    "don't stop!!! #hash @at $5.00 50% a_b a-b",
    "\x01\x02\x7f control",
    "   leading and   inner   spaces   ",
    "[CLS] special [SEP] tokens [MASK] inside [PAD]",
)


def test_vocab_txt_alone_gives_the_tokens_of_transformers(tmp_path: Path) -> None:
    from transformers import BertTokenizerFast

    ours = word_piece(EMBEDDED / "vocab.txt", {})
    theirs = BertTokenizerFast.from_pretrained(EMBEDDED)
    for text in HARD:
        assert ours.encode(text).ids == theirs(text)["input_ids"], text
    for first, second in CHECK_PAIRS:
        encoding, expected = ours.encode(first, second), theirs(first, second)
        assert (encoding.ids, encoding.type_ids) == (expected["input_ids"], expected["token_type_ids"])


@pytest.mark.parametrize("options", [{"do_lower_case": False}, {"strip_accents": False}, {"tokenize_chinese_chars": False}])
def test_the_options_of_tokenizer_config_count(options: dict) -> None:
    from transformers import BertTokenizerFast

    ours = word_piece(EMBEDDED / "vocab.txt", options)
    theirs = BertTokenizerFast(vocab=str(EMBEDDED / "vocab.txt"), **options)
    for text in HARD:
        assert ours.encode(text).ids == theirs(text)["input_ids"], text


def test_tokenizer_json_is_kept_byte_for_byte(tmp_path: Path) -> None:
    architecture, _ = describe(read_config(EMBEDDED))
    tokens = Tokenization(EMBEDDED, architecture)
    tokens.save(tmp_path)
    assert (tmp_path / "tokenizer.json").read_bytes() == (EMBEDDED / "tokenizer.json").read_bytes()
    assert tokens.max_length == 512


def test_padding_and_truncation_of_the_file_do_not_count_but_the_model_limit_does(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_file(str(EMBEDDED / "tokenizer.json"))
    tokenizer.enable_padding(length=128)
    tokenizer.enable_truncation(8)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    architecture, _ = describe(read_config(EMBEDDED))
    for limit, expected in ((10**30, 512), (1000, 512), (100, 100), (None, 512), (0, 512)):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"model_max_length": limit}))
        tokens = Tokenization(tmp_path, architecture)
        assert tokens.max_length == expected
        assert len(tokens.encode("one two three four five six seven eight nine").ids) == 11
        assert len(tokens.encode("good " * 2000).ids) == expected


@pytest.mark.parametrize("content", [b"", b"hello\nworld\n", b"\xff\xfe"])
def test_a_vocabulary_that_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "vocab.txt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"vocab\.txt"):
        word_piece(tmp_path / "vocab.txt", {})


@pytest.mark.parametrize("tokens", [1, 2, 3, 17, 40])
def test_a_text_of_any_length_can_be_made(tokens: int) -> None:
    architecture, _ = describe(read_config(EMBEDDED))
    assert len(Tokenization(EMBEDDED, architecture).repeat("some words", tokens).ids) == tokens


def test_an_export_compares_its_tokenizer_with_transformers(make_checkpoint, tmp_path: Path) -> None:
    source = make_checkpoint("bert", num_hidden_layers=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error", TokenizerWarning)
        export_checkpoint(source, tmp_path / "same", target="fp32")
        export_checkpoint(EMBEDDED, tmp_path / "embedded", target="fp32")


def test_a_tokenizer_that_differs_from_transformers_is_told(tmp_path: Path) -> None:
    architecture, _ = describe(read_config(EMBEDDED))
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((EMBEDDED / name).read_bytes())
    with against_transformers(tmp_path) as differences:
        assert differences(Tokenization(EMBEDDED, architecture)) == []
    document = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    document["normalizer"]["lowercase"] = False
    (tmp_path / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
    cased = Tokenization(tmp_path, architecture)
    with against_transformers(EMBEDDED) as differences:
        told = differences(cased)
    assert told and any("Antidisestablishmentarianism" in line for line in told)
