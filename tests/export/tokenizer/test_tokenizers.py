"""The tokenizer's files compared with transformers, on difficult texts."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from fusedbert.engine.errors import CheckpointError, ExportError
from fusedbert.export import export_checkpoint, exporter
from fusedbert.export.checkpoint import TokenizerWarning
from fusedbert.export.checkpoint.architecture import describe, read_config
from fusedbert.export.parity.texts import CHECK_PAIRS, CHECK_TEXTS
from fusedbert.export.parity.tokenizer import against_transformers, check_texts, differences
from fusedbert.export.tokenizer import Tokenization, read_tokenizer, split_pair

EMBEDDED = Path(__file__).parents[3] / "models" / "sst2-mini"
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


def vocabulary_alone(folder: Path, **config: Any) -> Tokenizer:
    """Read the embedded vocabulary as a checkpoint of 2019 has it: vocab.txt and switches."""
    (folder / "vocab.txt").write_bytes((EMBEDDED / "vocab.txt").read_bytes())
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return read_tokenizer(folder, "bert").tokenizer


@pytest.mark.parametrize("options", [{}, {"do_lower_case": False}, {"strip_accents": False}, {"tokenize_chinese_chars": False}])
def test_vocab_txt_without_tokenizer_json_gives_the_tokens_of_transformers(tmp_path: Path, options: dict) -> None:
    from transformers import BertTokenizerFast  # type: ignore[attr-defined]

    ours = vocabulary_alone(tmp_path, **options)
    theirs = BertTokenizerFast(vocab=str(EMBEDDED / "vocab.txt"), **options)
    for text in HARD:
        assert ours.encode(text).ids == theirs(text)["input_ids"], text
    for first, second in CHECK_PAIRS:
        encoding, expected = ours.encode(first, second), theirs(first, second)
        assert (encoding.ids, encoding.type_ids) == (expected["input_ids"], expected["token_type_ids"])


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
def test_a_broken_vocabulary_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "vocab.txt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"vocab"):
        read_tokenizer(tmp_path, "bert")


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


def copy_of_the_embedded(folder: Path, **changes: Any) -> Path:
    """Copy the embedded checkpoint, and change its tokenizer_config.json."""
    folder = Path(shutil.copytree(EMBEDDED, folder))
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8")) | changes
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def test_a_tokenizer_that_differs_from_transformers_is_an_error_unless_it_is_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = copy_of_the_embedded(tmp_path / "cased", do_lower_case=False)
    real = exporter.against_transformers
    monkeypatch.setattr(exporter, "against_transformers", lambda _: real(other))
    with pytest.raises(ExportError, match=r"not that of transformers: .*ids.*--allow-tokenizer-difference"):
        export_checkpoint(EMBEDDED, tmp_path / "out", target="fp32")
    assert not (tmp_path / "out").exists()
    with pytest.warns(TokenizerWarning, match="not that of transformers"):
        export_checkpoint(EMBEDDED, tmp_path / "out", target="fp32", allow_tokenizer_difference=True)


@pytest.mark.parametrize(
    "changes",
    [{"model_input_names": ["input_ids", "attention_mask"]}, {"truncation_side": "left"}, {"model_max_length": 9}],
    ids=["segments", "side", "length"],
)
def test_segments_lengths_and_the_side_of_the_cut_are_compared_too(tmp_path: Path, changes: dict) -> None:
    architecture, _ = describe(read_config(EMBEDDED))
    changed = copy_of_the_embedded(tmp_path / "changed", **changes)
    ours, theirs = Tokenization(EMBEDDED, architecture), Tokenization(changed, architecture)
    with against_transformers(changed) as differences:
        assert differences(theirs) == []
    if "model_max_length" in changes:  # both get the limit: the artifact must have that of the files
        assert theirs.max_length == 9
        return
    with against_transformers(changed) as differences:
        assert differences(ours)


def test_a_token_that_only_transformers_adds_is_detected(tmp_path: Path) -> None:
    """Texts made from fusedbert's tokens do not contain it."""
    architecture, _ = describe(read_config(EMBEDDED))
    more = copy_of_the_embedded(tmp_path / "more", extra_special_tokens=["qqzz"])
    with against_transformers(more) as differences:
        assert any("qqzz" in line for line in differences(Tokenization(EMBEDDED, architecture)))


def test_a_comparison_that_fails_is_reported(tmp_path: Path) -> None:
    architecture, _ = describe(read_config(EMBEDDED))
    broken = copy_of_the_embedded(tmp_path / "broken", padding_side="middle")  # which transformers refuses
    with against_transformers(broken) as differences, pytest.warns(TokenizerWarning, match="not compared with it"):
        assert differences(Tokenization(EMBEDDED, architecture)) == []


@pytest.mark.parametrize(("version", "compared"), [("0.23.2", False), ("0.23.1", False), ("0.23.3", True), ("0.22.0", True)])
def test_pairs_that_some_versions_of_tokenizers_cut_elsewhere_are_not_compared_there(
    version: str, compared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tokenizers.__version__", version)
    architecture, _ = describe(read_config(EMBEDDED))
    tokens = Tokenization(EMBEDDED, architecture)
    rows = [tokens.encode(*split_pair(text)) for text in check_texts(tokens)]
    bare = tokens.runtime.raw.encode("a text without special tokens, café and 李白", add_special_tokens=False).ids
    answers = [[row.ids, row.types] for row in rows]
    answer = {"version": "5", "answers": answers, "own": [], "bare": bare}
    assert differences(tokens, answer) == []
    pairs = [i for i, text in enumerate(check_texts(tokens)) if not isinstance(text, str)]
    full = [i for i in pairs if len(rows[i].ids) == tokens.max_length]
    cut, short = full[-1], next(i for i in full if check_texts(tokens)[i][1] == "short")
    border = rows[cut].types.index(1)
    types = [int(i >= border - 1) for i in range(tokens.max_length)]  # the odd token goes to the second text
    answers[cut] = [rows[cut].ids, types]
    assert len(differences(tokens, answer)) == compared
    # A pair that is not cut, a single text, and a pair of which only one text is cut, so that no token is odd.
    for other in (pairs[0], check_texts(tokens).index(""), short):
        answers[other] = [[7, *rows[other].ids], [0, *rows[other].types]]
    assert len(differences(tokens, answer)) == 3 + compared


def test_the_artifact_is_read_back_as_it_was_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoil(self: Tokenization, folder: Path) -> None:
        save(self, folder)
        spoiled = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        spoiled["normalizer"]["lowercase"] = False
        (folder / "tokenizer.json").write_text(json.dumps(spoiled), encoding="utf-8")

    save = Tokenization.save
    monkeypatch.setattr(Tokenization, "save", spoil)
    with pytest.raises(ExportError, match="the artifact's tokenizer makes"):
        export_checkpoint(EMBEDDED, tmp_path / "out", target="fp32")
