"""A DeBERTa with random weights: its pieces fill the table, its sizes are those of the published models."""

import pytest

from fusedbert.bench.engines.random.deberta import (
    DEBERTA_V3_BASE,
    DEBERTA_V3_LARGE,
    DEBERTA_V3_SMALL,
    DebertaShape,
    write_checkpoint,
)

TINY = DebertaShape(layers=2, heads=2, hidden=32)
TEXTS = ["The movie was not good, an unwatchable mess.", "very good 2 much", "a"]


@pytest.fixture(scope="module")
def written(checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("deberta") / "tiny"
    write_checkpoint(folder, TINY, checkpoint / "vocab.txt")
    return folder


def test_texts_survive_the_tokenizer(written, transformers):
    tokenizer = transformers.AutoTokenizer.from_pretrained(written, local_files_only=True)
    rows = tokenizer(TEXTS)["input_ids"]
    assert [tokenizer.decode(row, skip_special_tokens=True) for row in rows] == TEXTS
    assert {(row[0], row[-1]) for row in rows} == {(1, 2)} and len(tokenizer) == 128001
    assert (tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.mask_token_id) == (0, 3, 128000)


def test_the_sizes_are_those_of_the_published_models():
    assert (DEBERTA_V3_SMALL.layers, DEBERTA_V3_SMALL.hidden) == (6, 768)
    assert (DEBERTA_V3_BASE.layers, DEBERTA_V3_BASE.heads, DEBERTA_V3_BASE.hidden) == (12, 12, 768)
    assert (DEBERTA_V3_LARGE.layers, DEBERTA_V3_LARGE.heads, DEBERTA_V3_LARGE.hidden) == (24, 16, 1024)
