import json
from pathlib import Path

import numpy as np
import pytest

from fusedbert.bench.engines.batches import DEFAULT_SHAPES, Shape, parse_shapes, random_batch, read_vocabulary, refuse_longer
from fusedbert.engine.errors import ArtifactError, OptionError

CHECKPOINT = Path(__file__).parents[3] / "models" / "sst2-mini"
SPECIAL = {0, 1, 2, 3, 4}  # [PAD] [UNK] [CLS] [SEP] [MASK], as the model card says


def test_the_vocabulary_is_all_tokens_but_the_special_ones():
    vocabulary = read_vocabulary(CHECKPOINT)
    pieces = (CHECKPOINT / "vocab.txt").read_text(encoding="utf-8").splitlines()
    assert (pieces[vocabulary.first], pieces[vocabulary.last]) == ("[CLS]", "[SEP]")
    assert set(vocabulary.ordinary.tolist()) == set(range(len(pieces))) - SPECIAL


def test_a_batch_begins_and_ends_as_a_text_does_with_ordinary_tokens_between():
    vocabulary = read_vocabulary(CHECKPOINT)
    batch = random_batch(Shape(batch=64, tokens=32), vocabulary, np.random.default_rng(1))
    assert batch.input_ids.shape == batch.attention_mask.shape == batch.token_type_ids.shape == (64, 32)
    assert {array.dtype for array in (batch.input_ids, batch.attention_mask, batch.token_type_ids)} == {np.dtype(np.int64)}
    assert (batch.input_ids[:, 0] == 2).all()
    assert (batch.input_ids[:, -1] == 3).all()
    middle = batch.input_ids[:, 1:-1]
    assert not np.isin(middle, list(SPECIAL)).any()
    assert middle.max() < 12000
    assert len(np.unique(middle)) > 1500  # 1,920 draws from 11,995: hardly any twice
    assert (batch.attention_mask == 1).all()
    assert not batch.token_type_ids.any()


def test_two_draws_differ_and_a_seed_repeats():
    vocabulary = read_vocabulary(CHECKPOINT)
    shape = Shape(batch=2, tokens=16)
    one, two = np.random.default_rng(7), np.random.default_rng(7)
    first = random_batch(shape, vocabulary, one)
    assert np.array_equal(first.input_ids, random_batch(shape, vocabulary, two).input_ids)
    assert not np.array_equal(first.input_ids, random_batch(shape, vocabulary, one).input_ids)


def test_padding_in_the_tokenizer_file_does_not_change_the_frame(tmp_path):
    document = json.loads((CHECKPOINT / "tokenizer.json").read_text(encoding="utf-8"))
    document["padding"] = {
        "strategy": {"Fixed": 128},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "[PAD]",
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
    assert (read_vocabulary(tmp_path).first, read_vocabulary(tmp_path).last) == (2, 3)


@pytest.mark.parametrize("content", [None, "", "{}", '{"version": "1.0"}'])
def test_a_broken_tokenizer_is_one_error_that_names_the_file(tmp_path, content):
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content, encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"tokenizer\.json"):
        read_vocabulary(tmp_path)


# Shapes


def test_the_default_is_the_five_shapes_in_order():
    found = [(shape.batch, shape.tokens) for shape in parse_shapes(DEFAULT_SHAPES)]
    assert found == [(1, 16), (1, 128), (8, 128), (16, 32), (1, 512)]


def test_shapes_may_have_spaces_capitals_and_repetitions():
    assert parse_shapes(" 2X8 ,2x8,1x3") == (Shape(batch=2, tokens=8), Shape(batch=1, tokens=3))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "''"),
        ("1x16,", "''"),
        ("16", "'16'"),
        ("1x", "'1x'"),
        ("axb", "'axb'"),
        ("1x16;8x128", "'1x16;8x128'"),
        ("-1x16", "'-1x16'"),
        ("1x1_6", "'1x1_6'"),
        ("1x²", "'1x²'"),
        ("9999999x16", "'9999999x16'"),
        ("0x16", "0x16"),
        ("1x2", "3 or more"),
    ],
)
def test_a_wrong_shape_is_named_in_one_line(text, says):
    with pytest.raises(OptionError) as caught:
        parse_shapes(text)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_shape_beyond_the_model_is_refused_by_name():
    refuse_longer(parse_shapes("1x16,4x128"), 128)
    with pytest.raises(OptionError, match="4x129 has 129 tokens, the model takes at most 128"):
        refuse_longer(parse_shapes("1x16,4x129"), 128)
