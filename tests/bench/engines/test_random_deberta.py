"""A DeBERTa with random weights: transformers reads all of it, its pieces fill the table, equal calls write equal files."""

import numpy as np
import pytest

from fusedbert.bench.engines.batches import Shape, random_batch, read_vocabulary
from fusedbert.bench.engines.random_deberta import (
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


@pytest.fixture(scope="module")
def transformers():
    pytest.importorskip("torch")
    return pytest.importorskip("transformers")


def test_transformers_finds_every_tensor_and_no_other(written, transformers):
    import torch

    automatic = transformers.AutoModelForSequenceClassification
    module, report = automatic.from_pretrained(written, output_loading_info=True, local_files_only=True)
    assert type(module).__name__ == "DebertaV2ForSequenceClassification"
    assert not any(report[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    batch = random_batch(Shape(batch=3, tokens=200), read_vocabulary(written), np.random.default_rng(0))
    with torch.inference_mode():
        arrays = batch.arrays(("input_ids", "attention_mask"))
        logits = module.eval()(**{name: torch.from_numpy(array) for name, array in arrays.items()}).logits
    assert logits.shape == (3, 2) and torch.isfinite(logits).all()


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


def test_equal_calls_write_equal_files(written, checkpoint, tmp_path):
    write_checkpoint(tmp_path / "again", TINY, checkpoint / "vocab.txt")
    files = sorted(path.name for path in written.iterdir())
    assert files == ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    assert all((tmp_path / "again" / name).read_bytes() == (written / name).read_bytes() for name in files)
