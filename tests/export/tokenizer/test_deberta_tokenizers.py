"""Tokenizers of DeBERTa-v2 and ALBERT (Unigram) and of MPNet (WordPiece), compared with transformers on the same folder."""

from __future__ import annotations

import base64
import functools
import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from random_tokenizers import BASE, MORE, SENTENCES, random_text
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

from fusedbert.engine.errors import CheckpointError
from fusedbert.engine.text.inputs import check_items
from fusedbert.engine.text.tokenizer import TextTokenizer
from fusedbert.export.tokenizer import Tokenization
from fusedbert.export.tokenizer.spm import read_pieces

LIMIT = 60
DEBERTA: dict[str, Any] = {
    **{"pad_id": 0, "bos_id": 1, "eos_id": 2, "unk_id": 3},
    **{"pad_piece": "[PAD]", "bos_piece": "[CLS]", "eos_piece": "[SEP]", "unk_piece": "[UNK]"},
}
ALBERT: dict[str, Any] = {
    **{"pad_id": 0, "unk_id": 1, "bos_id": -1, "eos_id": -1, "pad_piece": "<pad>", "unk_piece": "<unk>"},
    **{"control_symbols": ["[CLS]", "[SEP]"], "user_defined_symbols": ["[MASK]"]},
}
FILES = {"deberta-v2": ("spm.model", DEBERTA), "albert": ("spiece.model", ALBERT)}
TEXTS = [
    *("", "a", " ", "The movie was GOOD, not bad!", "naïve CAFÉ Ångström ﬁne ½ ①", "e\u0301 a\u0300\u0301 \ufeff\u200b\u00ad"),
    *("李白 writes 诗, 김치 and ひらがな; Привет; مرحبا ﷺ", "🙂🙃 👩‍👩‍👧 lol!!! 🇩🇪", "\x00 NUL \x01\x02\x7f\u2028b\u0085c"),
    *("  two  spaces ", "\n\n\ttabs\r\n \n y\u00a0\u3000z", "tail \n", "``quoted'' b", "１２３ ＡＢＣ", "a_b!c?d,1,000 50%"),
    *("[CLS] [SEP] [MASK]   [MASK]<mask> [PAD]<pad><unk>[UNK]", "<s></s> [mask] <user>x<USER>", "<0x0A> ▁▁ ▁ a▁b", "x" * 500),
    *("good " * 100, "电影很好" * 60, "....!!!" * 90),
]
PAIRS = [*zip(TEXTS, reversed(TEXTS), strict=True)]


@functools.cache
def trained(**options: Any) -> bytes:
    """Return a sentencepiece model, with the table of characters that DeBERTa's has."""
    import sentencepiece

    model = io.BytesIO()
    defaults: dict[str, Any] = {"vocab_size": 150, "model_type": "unigram", "hard_vocab_limit": False, "minloglevel": 2}
    given: dict[str, Any] = {name: list(value) if isinstance(value, tuple) else value for name, value in options.items()}
    texts = [*SENTENCES, *BASE, "good ﬁne ½ ①", "it was 1,000 dollars, 2,5", "naïve café"] * 40
    settings = {**defaults, **given, "sentence_iterator": iter(texts), "model_writer": model}
    sentencepiece.SentencePieceTrainer.train(**settings)
    return model.getvalue()


def train(**options: Any) -> bytes:
    return trained(**{name: tuple(value) if isinstance(value, list) else value for name, value in options.items()})


def write(folder: Path, family: str, config: dict[str, Any], **options: Any) -> None:
    """Write a folder as the first checkpoints had it: a vocabulary and settings."""
    (folder / "config.json").write_text(json.dumps({"model_type": family, "vocab_size": 2000}))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    if family == "mpnet":
        words = ["<s>", "<pad>", "</s>", "<unk>", "[UNK]", *BASE, "##s", "##ing", *",.!?[]<>", "Good", "mask", "<mask>"]
        (folder / "vocab.txt").write_text("".join(word + "\n" for word in dict.fromkeys(words)))
    else:
        name, defaults = FILES[family]
        (folder / name).write_bytes(train(**defaults | options))


def saved_by_5(folder: Path, target: Path) -> Path:
    """Save what transformers 5 reads in a folder."""
    judge_of(folder).save_pretrained(target)
    (target / "config.json").write_bytes((folder / "config.json").read_bytes())
    return target


def saved_by_4(folder: Path, target: Path) -> Path:
    """Write DeBERTa's tokenizer.json as its first converter made it: sentencepiece's table of characters, and single spaces."""
    held = read_pieces(folder / "spm.model")
    made = Tokenizer(models.Unigram(held.vocab, held.unknown, False))
    steps = [normalizers.Strip(), normalizers.Precompiled(held.table), normalizers.Replace(Regex(" {2,}"), " ")]
    made.normalizer = normalizers.Sequence(steps)
    made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace()])
    made.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 1), ("[SEP]", 2)],
    )
    made.add_special_tokens(["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"])
    target.mkdir(exist_ok=True)
    made.save(str(target / "tokenizer.json"))
    for name in ("config.json", "tokenizer_config.json"):
        (target / name).write_bytes((folder / name).read_bytes())
    return target


def judge_of(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(folder))


def read(folder: Path, limit: int = LIMIT, token_types: int = 2) -> Tokenization:
    family = json.loads((folder / "config.json").read_text())["model_type"]
    sizes = {"token_types": token_types, "max_tokens": limit, "usual_tokens": 0, "heads": 2}
    model: Any = SimpleNamespace(family=family, vocab_size=2000, **sizes)
    return Tokenization(folder, model)


def compare(folder: Path, texts: list[Any], limit: int = LIMIT) -> Tokenization:
    """Check the ids and segments of the export's tokenizer, and of the engine's from the artifact's files."""
    judge, tokens, artifact = judge_of(folder), read(folder, limit), folder / "artifact"
    artifact.mkdir(exist_ok=True)
    tokens.save(artifact)
    engine = TextTokenizer.load(artifact, tokens.max_length)
    for each in texts:
        text, pair = each if isinstance(each, tuple) else (each, None)
        found = judge([text], None if pair is None else [pair], truncation=True, max_length=tokens.max_length)
        ids = found["input_ids"][0]
        expected = ids, found.get("token_type_ids", [[0] * len(ids)])[0]
        (row,) = engine.encode(check_items([each]))
        assert (row.ids, row.types) == expected, each
        own = tokens.encode(text, pair)
        assert (own.ids, own.types) == expected, each
    return tokens


CONFIGS = [
    *(("deberta-v2", config) for config in ({}, {"do_lower_case": True}, {"split_by_punct": True})),
    ("deberta-v2", {"add_prefix_space": False, "do_lower_case": False, "vocab_type": "spm", "model_max_length": 1e30}),
    ("deberta-v2", {"extra_special_tokens": ["<user>"], "unk_token": "<what>", "model_input_names": ["input_ids"]}),
    *(("albert", config) for config in ({}, {"do_lower_case": False}, {"keep_accents": True}, {"add_prefix_space": False})),
    ("albert", {"mask_token": {"__type": "AddedToken", "content": "[MASK]", "lstrip": True, "normalized": False}}),
    ("albert", {"model_input_names": ["input_ids", "token_type_ids", "attention_mask"], "truncation_side": "left"}),
    *(("mpnet", config) for config in ({}, {"do_lower_case": False}, {"strip_accents": False}, {"mask_token": "<mask>"})),
    ("mpnet", {"trim_offsets": False, "add_prefix_space": True, "tokenize_chinese_chars": False, "cls_token": "<s>"}),
]


@pytest.mark.parametrize(("family", "config"), CONFIGS)
def test_a_vocabulary_and_what_transformers_saves_of_it_give_its_ids(tmp_path: Path, family: str, config: Any) -> None:
    write(tmp_path, family, config)
    compare(tmp_path, [*TEXTS, *PAIRS])
    compare(saved_by_5(tmp_path, tmp_path / "5"), [*TEXTS, *PAIRS])


@pytest.mark.parametrize("family", ["deberta-v2", "albert"])
@pytest.mark.parametrize(
    "options",
    [
        {"user_defined_symbols": ["<user>", "[MASK]"]},
        {"byte_fallback": True, "vocab_size": 400},
        {"normalization_rule_name": "identity"},
        {"control_symbols": ["[CLS]", "[SEP]", "<user>"], "add_dummy_prefix": False},
    ],
    ids=lambda options: "-".join(options),
)
def test_models_of_other_settings_give_the_ids_of_transformers(tmp_path: Path, family: str, options: Any) -> None:
    if family == "deberta-v2" and "control_symbols" in options:
        options = {**options, "control_symbols": ["<user>"]}
    write(tmp_path, family, {}, **options)
    compare(tmp_path, [*TEXTS, *PAIRS])


@pytest.mark.parametrize("name", ["DebertaV2Tokenizer", "DebertaV2TokenizerFast", "PreTrainedTokenizerFast", None])
def test_a_file_of_transformers_4_is_read_as_transformers_5_reads_it(tmp_path: Path, name: str | None) -> None:
    config = {"do_lower_case": False, "vocab_type": "spm", **({"tokenizer_class": name} if name else {})}
    write(tmp_path, "deberta-v2", config)
    tokens = compare(saved_by_4(tmp_path, tmp_path / "4"), [*TEXTS, *PAIRS])
    if name == "PreTrainedTokenizerFast":
        assert tokens.encode("ＡＢＣ ﬁne").ids == tokens.encode("ABC fine").ids
        assert tokens.encode("good", "bad").types == [0] * 5 and "segment 0 throughout" in tokens.notes[0]
    else:
        (note,) = tokens.notes
        assert "its normalizer from tokenizer.json" in note and "transformers 4 took the file's" in note
        assert 1 in tokens.encode("good", "bad").types


@pytest.mark.parametrize("seed", range(40))
def test_random_settings_give_the_ids_of_transformers(tmp_path: Path, seed: int) -> None:
    r = random.Random(seed)
    family = r.choice(["deberta-v2", "deberta-v2", "albert", "mpnet"])
    switches = ["do_lower_case", "split_by_punct", "keep_accents", "add_prefix_space", "tokenize_chinese_chars"]
    config: dict[str, Any] = {name: r.random() < 0.5 for name in r.sample(switches, 2)}
    tokens = r.sample([*MORE, "<user>"], 2)
    config |= r.choice(
        [
            {},
            {"extra_special_tokens": tokens},
            {"additional_special_tokens": tokens},
            {"extra_special_tokens": []},
            {"extra_special_tokens": {"user_token": tokens[0]}},
            {"user_token": tokens[0]},
            {"mask_token": tokens[0]},
            {"added_tokens_decoder": {"900": {"content": tokens[0], "normalized": r.random() < 0.5, "lstrip": True}}},
        ]
    )
    if r.random() < 0.3:
        mapped = r.choice([{"additional_special_tokens": tokens}, {"mask_token": {"content": "[MASK]", "lstrip": True}}])
        (tmp_path / "special_tokens_map.json").write_text(json.dumps(mapped))
    if r.random() < 0.2:
        (tmp_path / "added_tokens.json").write_text(json.dumps({tokens[0]: 500, "[MASK]": 501}))
    options = r.choice([{}, {"user_defined_symbols": ["<user>", "[MASK]"]}, {"vocab_size": 120}])
    write(tmp_path, family, config, **options)
    folder = tmp_path
    if r.random() < 0.6:
        folder = saved_by_4 if family == "deberta-v2" and r.random() < 0.5 else saved_by_5
        folder = folder(tmp_path, tmp_path / "saved")  # type: ignore[operator]
    compare(folder, [random_text(r) if i % 2 else (random_text(r), random_text(r)) for i in range(30)])


@pytest.mark.parametrize("by", ["5", "4"])
@pytest.mark.parametrize("unit", ["The film was not bad. ", "电影很好", "Zm9v+", " \t\n", "....", "🙂 "])
def test_a_text_of_a_megabyte_has_the_ids_of_transformers(tmp_path: Path, by: str, unit: str) -> None:
    config = {"tokenizer_class": "PreTrainedTokenizerFast"} if by == "4" else {}
    write(tmp_path, "deberta-v2", config)
    folder = saved_by_4(tmp_path, tmp_path / "4") if by == "4" else tmp_path
    text = unit * (1_000_000 // len(unit.encode()))
    compare(folder, [text, ("a question?", text)], limit=512)


def test_segments_are_those_that_the_model_has(tmp_path: Path) -> None:
    write(tmp_path, "deberta-v2", {})
    for token_types in (0, 1, 2):
        assert read(tmp_path, token_types=token_types).encode("good", "bad").types.count(1) == (2 if token_types == 2 else 0)


def test_pairs_of_albert_get_a_note_where_versions_of_transformers_differ(tmp_path: Path) -> None:
    write(tmp_path, "albert", {})
    assert any("segment 0 throughout" in note for note in read(tmp_path).notes)
    assert read(tmp_path, token_types=1).notes == ()


# The model file


@pytest.mark.parametrize("options", [DEBERTA, ALBERT, {**DEBERTA, "unk_id": 7, "normalization_rule_name": "identity"}])
def test_a_model_file_is_read_as_protobuf_reads_it(tmp_path: Path, options: dict[str, Any]) -> None:
    from transformers.convert_slow_tokenizer import import_protobuf

    (tmp_path / "m.model").write_bytes(train(**options))
    protobuf: Any = import_protobuf()
    held = protobuf.ModelProto()
    found = read_pieces(tmp_path / "m.model")
    held.ParseFromString((tmp_path / "m.model").read_bytes())
    assert found.vocab == [(piece.piece, piece.score) for piece in held.pieces]
    assert (found.unknown, found.table) == (held.trainer_spec.unk_id, held.normalizer_spec.precompiled_charsmap)
    assert [token.content for token in found.added] == [piece.piece for piece in held.pieces if piece.type in (3, 4)]
    assert [token.special for token in found.added] == [piece.type == 3 for piece in held.pieces if piece.type in (3, 4)]
    stored = found.spec()
    assert base64.b64decode((stored["normalizer"] or {}).get("precompiled_charsmap", "")) == found.table


def damaged(change: Callable[[bytes], bytes]) -> bytes:
    return change(train(**DEBERTA))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda: b"", "holds no pieces"),
        (lambda: b"\x12\x00", "holds no pieces"),
        (lambda: damaged(lambda model: model[:700]), "cannot be read as a sentencepiece model .*ends within a field"),
        (lambda: b"\xff" * 40, "cannot be read as a sentencepiece model .*more than 64 bits"),
        (lambda: b"\x0b" + train(**DEBERTA), "cannot be read as a sentencepiece model .*wire type 3"),
        (lambda: b"\x0a\x02\x08\x05", "cannot be read as a sentencepiece model .*number 5"),
        (lambda: b"\x0a\x03\x0a\x01\xff", "cannot be read as a sentencepiece model"),
        (lambda: b"\x0a\x02\x10\x05", "cannot be read as a sentencepiece model"),
        (lambda: train(**DEBERTA, model_type="bpe", vocab_size=90), "was made for BPE, and the tokenizer's class for Unigram"),
        (lambda: train(**DEBERTA, model_type="char"), "was made for characters"),
    ],
)
def test_a_model_file_that_is_damaged_or_of_another_kind_is_refused(
    tmp_path: Path, content: Callable[[], bytes], message: str
) -> None:
    write(tmp_path, "deberta-v2", {})
    (tmp_path / "spm.model").write_bytes(content())
    with pytest.raises(CheckpointError, match=message) as caught:
        read(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("cut", range(1, 120, 7))
def test_a_model_file_cut_anywhere_is_an_error_in_one_line_or_has_fewer_pieces(tmp_path: Path, cut: int) -> None:
    path, whole = tmp_path / "spm.model", train(**DEBERTA)
    path.write_bytes(whole)
    pieces = read_pieces(path).vocab
    path.write_bytes(whole[:-cut] if cut % 2 else whole[: cut * 8])
    try:
        found = read_pieces(path).vocab
    except CheckpointError as error:
        assert "\n" not in str(error)
    else:
        assert found == pieces[: len(found)]


@pytest.mark.parametrize(
    ("family", "config", "message"),
    [
        ("deberta-v2", {"split_by_punct": "yes"}, "split_by_punct = 'yes', expected true or false"),
        ("deberta-v2", {"cls_token": None}, "cls_token = null"),
        ("deberta-v2", {"tokenizer_class": "BertTokenizer"}, "holds no tokenizer.json, nor vocab.txt.*found: spm.model"),
        ("albert", {"keep_accents": 1}, "keep_accents = 1, expected true or false"),
        ("albert", {"add_bos_token": True}, r"has add_bos_token, by which transformers leaves out \[CLS\] and \[SEP\]"),
        ("albert", {"tokenizer_class": "DebertaV2Tokenizer"}, "nor spm.model, which DebertaV2Tokenizer reads"),
        ("mpnet", {"sep_token": None}, "sep_token = null"),
        ("mpnet", {"unk_token": "<what>"}, "lacks <what>"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(tmp_path: Path, family: str, config: Any, message: str) -> None:
    write(tmp_path, family, config)
    with pytest.raises(CheckpointError, match=message):
        read(tmp_path)


def test_a_tokenizer_json_of_another_kind_than_the_class_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "mpnet", {})
    folder = saved_by_5(tmp_path, tmp_path / "5")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "DebertaV2Tokenizer"}))
    with pytest.raises(CheckpointError, match="is WordPiece, and the checkpoint's tokenizer class is made for Unigram"):
        read(folder)
