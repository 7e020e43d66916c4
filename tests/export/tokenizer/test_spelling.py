"""An artifact's tokenizer writes tokens as text, and knows the token for unknown words, as transformers does."""

from __future__ import annotations

import contextlib
import random
import warnings
from pathlib import Path

from random_tokenizers import Maker, random_text, word_piece
from tokenizers import Tokenizer

from fusedbert.engine.errors import CheckpointError
from fusedbert.engine.tasks.tokens.entities import Spelling
from fusedbert.engine.text.tokenizer import TextTokenizer
from fusedbert.export.tokenizer import read_tokenizer


def test_random_tokenizers_write_tokens_as_those_of_transformers(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    compared = 0
    for seed in range(60):
        folder = tmp_path / str(seed)
        folder.mkdir()
        family = Maker(seed, folder).make()
        with contextlib.suppress(CheckpointError), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reading = read_tokenizer(folder, family)
            (folder / "config.json").write_text(f'{{"model_type": "{family}"}}')
            theirs = AutoTokenizer.from_pretrained(folder)
            ours = TextTokenizer.of(Tokenizer.from_str(reading.stored.decode()), reading.config, {}, 40)
            spelling = Spelling.of(ours.raw, ours.unknown)
            assert spelling.unknown == theirs.unk_token_id, (seed, family)
            for text in (random_text(random.Random(f"{seed}{i}")) for i in range(8)):
                ids = ours.raw.encode(text).ids
                assert ids == theirs(text)["input_ids"]
                tokens = [spelling.name(i) or "" for i in ids]
                assert tokens == theirs.convert_ids_to_tokens(ids)
                assert spelling.join(tokens) == theirs.convert_tokens_to_string(tokens), (seed, family)
            compared += 1
    assert compared > 40


def test_a_file_without_decoder_gets_that_of_its_class(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = word_piece()
    tokenizer.decoder = None
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    reading = read_tokenizer(tmp_path, "bert")
    ours = Spelling.of(Tokenizer.from_str(reading.stored.decode()), None)
    tokens = ["good", "##s", "!"]
    assert ours.join(tokens) == AutoTokenizer.from_pretrained(tmp_path).convert_tokens_to_string(tokens) == "goods!"
