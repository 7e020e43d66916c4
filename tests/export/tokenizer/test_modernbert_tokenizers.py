"""Tokenizers of ModernBERT (byte-level BPE) and mmBERT (Gemma's BPE), compared with transformers on the same folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from random_tokenizers import gemma_pieces, modernbert_bytes
from tokenizers import Tokenizer

from fusedbert.engine.errors import CheckpointError, InputError
from fusedbert.engine.text.inputs import check_items
from fusedbert.engine.text.tokenizer import TextTokenizer
from fusedbert.export.tokenizer import Tokenization

LIMIT = 8192
INPUTS = ["input_ids", "attention_mask"]
NAMES: dict[Callable[[], Tokenizer], dict[str, str]] = {
    modernbert_bytes: {f"{name}_token": f"[{name.upper()}]" for name in ("unk", "sep", "pad", "cls", "mask")},
    gemma_pieces: {
        **{f"{name}_token": f"<{name}>" for name in ("unk", "bos", "eos", "pad", "mask")},
        **{"cls_token": "<bos>", "sep_token": "<eos>"},
    },
}
TEXTS = [
    *(
        "",
        " ",
        "a",
        "The movie was GOOD, not bad!",
        "it's  don't we'LL",
        "naïve café Ångström ﬁne ½ ①",
        "e\u0301 a\u0300\u0301 \ufeff",
    ),
    *(
        "李白 writes 诗, 김치 and ひらがな; Привет; مرحبا",
        "🙂🙃 👩‍👩‍👧 lol!!! 🇩🇪",
        "\x00 NUL \x01\x02\x7f\u2028\u0085",
        "\U0010ffff \ue000 \ufffe",
    ),
    *(
        "  two spaces",
        "tail  ",
        "a  b   c" + " " * 23 + "d" + " " * 24 + "e" + " " * 61 + "f",
        "\n\n\n\tx\r\n \n y\u00a0\u3000z",
    ),
    *(
        "good [MASK] film [CLS][SEP][PAD][UNK]",
        "good   [MASK]   film",
        "[mask] [unused0]x",
        "<bos><eos> <mask> <pad><unk> <table>",
    ),
    *("mail |||EMAIL_ADDRESS||| and|||IP_ADDRESS|||", "▁▁ ▁ a▁b ▁▁▁▁", "<0x0A> <0xFF>", "x" * 500, "1234567890 $5.00 50%"),
]
PAIRS = [*zip(TEXTS, reversed(TEXTS), strict=True)]
MAKERS = pytest.mark.parametrize("make", [modernbert_bytes, gemma_pieces], ids=["ModernBERT", "mmBERT"])
SAVED = pytest.mark.parametrize("saved", ["by transformers 5", "by transformers 4", "by transformers 4.33"])


def write(folder: Path, make: Callable[[], Tokenizer], saved: str = "by transformers 4", **changes: Any) -> None:
    """Write a tokenizer's files, and a config.json."""
    tokenizer, settings = make(), {"model_max_length": LIMIT, "model_input_names": INPUTS, **NAMES[make]}
    (folder / "config.json").write_text(json.dumps({"model_type": "modernbert", "vocab_size": 2000}))
    if saved == "by transformers 5":
        from transformers import PreTrainedTokenizerFast

        PreTrainedTokenizerFast(tokenizer_object=tokenizer, **settings).save_pretrained(folder)
    else:
        tokenizer.save(str(folder / "tokenizer.json"))
        names = ("content", "lstrip", "normalized", "rstrip", "single_word")
        added = {
            i: {name: getattr(token, name) for name in names} | {"special": token.special} for i, token in added_of(tokenizer)
        }
        objects = {each["content"]: {name: each[name] for name in names} for each in added.values()}
        special = {name: objects[content] for name, content in NAMES[make].items()}
        (folder / "special_tokens_map.json").write_text(json.dumps(special))
        settings |= {"clean_up_tokenization_spaces": True, "tokenizer_class": "PreTrainedTokenizerFast"}
        if saved == "by transformers 4":
            settings |= {"added_tokens_decoder": {str(i): each for i, each in added.items()}, "extra_special_tokens": {}}
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    config = json.loads((folder / "tokenizer_config.json").read_text()) | changes
    (folder / "tokenizer_config.json").write_text(json.dumps({name: each for name, each in config.items() if each is not None}))


def added_of(tokenizer: Tokenizer) -> list[tuple[int, Any]]:
    return sorted(tokenizer.get_added_tokens_decoder().items())


def read(folder: Path, limit: int = LIMIT, token_types: int = 1) -> Tokenization:
    sizes = {"token_types": token_types, "max_tokens": limit, "usual_tokens": 0, "heads": 2}
    model: Any = SimpleNamespace(family="modernbert", vocab_size=2000, **sizes)
    return Tokenization(folder, model)


def judge_of(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(folder))


def compare(tokens: Tokenization, engine: TextTokenizer, judge: Any, text: str, pair: str | None) -> None:
    """Check both tokenizers' ids; a batch of one, since transformers ignores an empty second text of a single pair."""
    expected = judge([text], None if pair is None else [pair], truncation=True, max_length=tokens.max_length)
    assert expected.keys() == {*INPUTS}
    (row,) = engine.encode(check_items([text if pair is None else (text, pair)]))
    assert tokens.encode(text, pair).ids == row.ids == expected["input_ids"][0], (text[:80], pair and pair[:80])
    assert not any(row.types)


@MAKERS
@SAVED
def test_ids_are_those_of_transformers_from_the_checkpoint_to_the_engine(tmp_path: Path, make: Any, saved: str) -> None:
    write(tmp_path, make, saved)
    content = (tmp_path / "tokenizer.json").read_bytes()
    judge, tokens, artifact = judge_of(tmp_path), read(tmp_path), tmp_path / "artifact"
    assert tokens.max_length == LIMIT and tokens.notes == ()
    artifact.mkdir()
    tokens.save(artifact)
    assert (artifact / "tokenizer.json").read_bytes() == content
    engine = TextTokenizer.load(artifact, LIMIT)
    assert engine.pad_id == judge.pad_token_id
    long = [("good " * 9_000, "bad"), ("bad", "good " * 9_000), ("good " * 9_000, "bad " * 9_000)]
    for text, pair in [*((text, None) for text in TEXTS), *PAIRS, *long]:
        compare(tokens, engine, judge, text, pair)


@MAKERS
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("limit", [5, 16, LIMIT])
def test_texts_are_cut_where_transformers_cuts_them(tmp_path: Path, make: Any, side: str, limit: int) -> None:
    write(tmp_path, make, truncation_side=side)
    tokens, judge = read(tmp_path, limit), judge_of(tmp_path)
    texts = [*TEXTS, *("good film, " * count for count in (limit // 4, limit)), "电影   " * limit, "x" * (40 * limit)]
    for text, pair in [*((text, None) for text in texts), *PAIRS]:
        compare(tokens, tokens.runtime, judge, text, pair)


@MAKERS
@pytest.mark.parametrize("unit", ["The film was not bad. ", "电影很好", "Zm9v"])
def test_a_text_of_a_megabyte_has_the_ids_of_transformers(tmp_path: Path, make: Any, unit: str) -> None:
    write(tmp_path, make)
    text = (unit * (1_000_000 // len(unit.encode()) + 1)).encode()[: 1_000_000 // 12 * 12].decode()
    tokens, judge = read(tmp_path), judge_of(tmp_path)
    compare(tokens, tokens.runtime, judge, text, None)
    compare(tokens, tokens.runtime, judge, "a question?", text)


@MAKERS
@pytest.mark.parametrize("tokens", [LIMIT - 1, LIMIT, LIMIT + 1])
def test_a_text_of_as_many_tokens_as_the_limit_is_whole(tmp_path: Path, make: Any, tokens: int) -> None:
    write(tmp_path, make)
    reading = read(tmp_path)
    (row,) = reading.runtime.encode(check_items(["\u2603" * ((tokens - 2) // 3) + "5" * ((tokens - 2) % 3)]))
    assert (len(row.ids), row.truncated) == (min(tokens, LIMIT), tokens > LIMIT)
    assert len(reading.repeat("the film was good", tokens).ids) == tokens


@MAKERS
@pytest.mark.parametrize(
    "name", [None, "GemmaTokenizer", "GemmaTokenizerFast", "BertTokenizer", "LlamaTokenizerFast", "NoSuchTokenizer"]
)
def test_the_file_counts_whatever_class_the_config_names(tmp_path: Path, make: Any, name: str | None) -> None:
    """transformers 5 does so for ``model_type`` modernbert, and skips add_bos_token where there is a tokenizer.json."""
    switches: dict[str, Any] = {
        "add_bos_token": False,
        "add_eos_token": name is None,
        "add_prefix_space": True,
        "do_lower_case": True,
    }
    write(tmp_path, make, tokenizer_class=name, **switches)
    tokens, judge = read(tmp_path), judge_of(tmp_path)
    assert type(judge).__name__ == "TokenizersBackend"
    for text in TEXTS:
        compare(tokens, tokens.runtime, judge, text, None)


@MAKERS
@pytest.mark.parametrize(
    "names", [{"extra_special_tokens": ["<x>", "film"]}, {"extra_special_tokens": {"x_token": "<x>"}}, {"user_token": "film"}]
)
def test_further_special_tokens_are_added_as_in_transformers(tmp_path: Path, make: Any, names: dict[str, Any]) -> None:
    write(tmp_path, make, "by transformers 5", **names)
    tokens, judge = read(tmp_path), judge_of(tmp_path)
    for text in ("a <x> film", "films<x>x", "<X>"):
        compare(tokens, tokens.runtime, judge, text, "film <x>")


@MAKERS
def test_special_tokens_in_a_text_are_split_where_the_checkpoint_says_so(tmp_path: Path, make: Any) -> None:
    write(tmp_path, make, split_special_tokens=True)
    tokens, judge = read(tmp_path), judge_of(tmp_path)
    for text in TEXTS:
        compare(tokens, tokens.runtime, judge, text, None)


@MAKERS
def test_a_lone_surrogate_is_refused(tmp_path: Path, make: Any) -> None:
    write(tmp_path, make)
    with pytest.raises(InputError, match=r"text 1 has a lone surrogate \(U\+D83D\) at character 2"):
        read(tmp_path).runtime.encode(check_items(["good", "a \ud83d"]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"auto_map": {"AutoTokenizer": [None, "code.Own"]}}, r"checkpoint's own code \(code.Own"),
        ({"tokenizer_class": "BertJapaneseTokenizer"}, "cuts Japanese words"),
        ({"truncation_side": "middle"}, "truncation_side = 'middle', expected left or right"),
        ({"model_input_names": "input_ids"}, "expected a list of names"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    write(tmp_path, modernbert_bytes, **changes)
    with pytest.raises(CheckpointError, match=message):
        read(tmp_path)


def test_a_folder_without_tokenizer_json_is_refused(tmp_path: Path) -> None:
    write(tmp_path, modernbert_bytes)
    modernbert_bytes().model.save(str(tmp_path))  # vocab.json and merges.txt do not say how texts are split
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"holds no tokenizer\.json, which PreTrainedTokenizer reads"):
        read(tmp_path)
