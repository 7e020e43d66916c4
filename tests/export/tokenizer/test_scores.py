"""Scores of Unigram vocabularies: the artifact's file is read as the numbers that transformers has, so texts are cut alike."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from fusedbert.engine.text.inputs import Cut, check_items
from fusedbert.engine.text.tokenizer import TextTokenizer
from fusedbert.export.tokenizer import Tokenization
from fusedbert.export.tokenizer.scores import read, spell, to_text

SPECIAL = {
    "deberta-v2": ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"],
    "albert": ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"],
    "xlm-roberta": ["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
}
CLASSES = {"deberta-v2": "DebertaV2Tokenizer", "albert": "AlbertTokenizer", "xlm-roberta": "XLMRobertaTokenizer"}
TEXTS = ["x" * n for n in range(1, 90)] + ["xx xxxxx", "yxxxxxy xyxyx", "xyyyxx " * 12]


def vocabulary(family: str, seed: int) -> list[tuple[str, float]]:
    """Pieces of which a text has many cuts with nearly the same sum: the scores' last digits decide."""
    random = np.random.default_rng(seed)
    unit = random.uniform(1.5, 3)
    runs = {letter * n: -n * unit for letter in "xy" for n in range(1, 6)} | {"▁": -unit, "▁x": -2 * unit, "▁xx": -3 * unit}
    return [*((token, 0.0) for token in SPECIAL[family]), *runs.items()]


def write(folder: Path, family: str, vocab: list[tuple[str, float]], name: str | None) -> None:
    """Write a tokenizer.json as ``tokenizers`` writes it; its parts but for the vocabulary are not read by the classes."""
    unknown = [token.strip("<>[]").lower() for token in SPECIAL[family]].index("unk")
    tokenizer = Tokenizer(models.Unigram(vocab, unknown, False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.add_special_tokens(SPECIAL[family])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps({"model_type": family, "vocab_size": 2000}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": name or "PreTrainedTokenizerFast"}))


def read_folder(folder: Path, family: str) -> Tokenization:
    sizes = {"vocab_size": 2000, "token_types": 2, "max_tokens": 512, "usual_tokens": 0, "heads": 2}
    model: Any = SimpleNamespace(family=family, **sizes)
    return Tokenization(folder, model)


@pytest.mark.parametrize("own", [True, False], ids=["own class", "as the file is"])
@pytest.mark.parametrize("family", SPECIAL)
def test_texts_of_nearly_equal_cuts_become_transformers_ids(tmp_path: Path, family: str, own: bool) -> None:
    """Its own classes have the scores as Python reads them, others as ``tokenizers`` does."""
    from transformers import AutoTokenizer

    moved = 0
    for seed in range(12):
        folder = tmp_path / str(seed)
        (folder / "artifact").mkdir(parents=True)
        vocab = vocabulary(family, seed)
        write(folder, family, vocab, CLASSES[family] if own else None)
        tokens, judge = read_folder(folder, family), AutoTokenizer.from_pretrained(str(folder))
        tokens.save(folder / "artifact")
        engine = TextTokenizer.load(folder / "artifact", 512)
        expected = [judge(text)["input_ids"] for text in TEXTS]
        assert [tokens.encode(text).ids for text in TEXTS] == expected
        assert [row.ids for row in engine.encode(check_items(TEXTS))] == expected
        written = json.loads((folder / "artifact/tokenizer.json").read_bytes())["model"]["vocab"]
        scores = [score for _, score in written]
        if own:  # Python reads the artifact's file alike
            assert scores == [score for _, score in vocab]
        plain = Tokenizer.from_file(str(folder / "tokenizer.json"))
        exact = Tokenizer.from_str(to_text(json.loads((folder / "tokenizer.json").read_bytes())))
        moved += any(plain.encode(text).ids != exact.encode(text).ids for text in TEXTS)
    assert moved  # else the test would show nothing


@pytest.mark.parametrize("digits", [None, 16, 15, 12, 4], ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_spelled_scores_are_read_as_they_are(digits: int | None, dtype: type) -> None:
    numbers = np.random.default_rng(0).uniform(-25, 0, 20_000).astype(dtype).astype(np.float64)
    numbers = numbers if digits is None else np.round(numbers, digits)
    spelled = spell(numbers.tolist())
    off = np.abs(read(spelled) - numbers)
    right = read(map(repr, numbers.tolist())) == numbers
    assert np.count_nonzero(off) <= 0.01 * np.count_nonzero(~right)  # a few have no spelling
    assert np.all(off <= np.spacing(np.abs(numbers)))
    np.testing.assert_array_equal(list(map(float, spelled)), numbers)
    assert all(text == repr(number) for text, number in zip(np.array(spelled)[right], numbers[right].tolist(), strict=True))


def test_odd_numbers_keep_their_value() -> None:
    numbers = [0.0, -0.0, 5.0, -9.007200000000001, 1e300, -1e-300, 5e-324, -7.5e-05, 123456789012345680.0, -1e22, 0.1]
    assert list(map(float, spell(numbers))) == numbers
    assert read(spell([-9.007200000000001]))[0] == -9.007200000000001
    assert spell([]) == []


def test_a_copy_of_a_tokenizer_keeps_the_scores(tmp_path: Path) -> None:
    """Special tokens as text need a second tokenizer; ``copy.deepcopy`` of one goes through JSON."""
    vocab = [*((token, 0.0) for token in SPECIAL["albert"]), ("▁", -9.007200000000001), ("x", -8.5)]
    write(tmp_path, "albert", vocab, CLASSES["albert"])
    raw = read_folder(tmp_path, "albert").runtime.raw
    other = TextTokenizer(raw=raw, max_length=9, pad_id=0, cut_left=False).for_call(Cut(split_special_tokens=True)).raw
    scores = [dict(json.loads(each.model.__getstate__())["vocab"])["▁"] for each in (raw, other, copy.deepcopy(raw))]
    assert scores[:2] == [-9.007200000000001, -9.007200000000001]
    assert [token.content for token in other.get_added_tokens_decoder().values()] == SPECIAL["albert"]
