"""Checkpoints with random weights: transformers reads all of them, and equal calls write equal files."""

import numpy as np
import pytest

from fusedbert.bench.engines.batches import Shape, random_batch, read_vocabulary
from fusedbert.bench.engines.random import deberta, modernbert
from fusedbert.export.checkpoint.architecture import describe, read_config
from fusedbert.export.tokenizer import Tokenization

KINDS = {
    "ModernBert": (modernbert, modernbert.ModernShape(layers=4, heads=2, hidden=32, inner=48)),
    "DebertaV2": (deberta, deberta.DebertaShape(layers=2, heads=2, hidden=32)),
}


@pytest.fixture(params=KINDS)
def written(request, checkpoint, tmp_path):
    kind, shape = KINDS[request.param]
    kind.write_checkpoint(tmp_path / request.param, shape, checkpoint / "vocab.txt")
    return tmp_path / request.param


def test_transformers_finds_every_tensor_and_no_other(written, transformers):
    import torch

    automatic = transformers.AutoModelForSequenceClassification
    module, report = automatic.from_pretrained(written, output_loading_info=True, local_files_only=True)
    assert type(module).__name__ == f"{written.name}ForSequenceClassification"
    assert not any(report[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    batch = random_batch(Shape(batch=3, tokens=200), read_vocabulary(written), np.random.default_rng(0))
    with torch.inference_mode():
        arrays = batch.arrays(("input_ids", "attention_mask"))
        logits = module.eval()(**{name: torch.from_numpy(array) for name, array in arrays.items()}).logits
    assert logits.shape == (3, 2) and torch.isfinite(logits).all()


def test_its_tokenizer_is_that_of_its_class(written):
    assert Tokenization(written, describe(read_config(written))[0]).notes == ()


def test_equal_calls_write_equal_files(written, checkpoint, tmp_path):
    kind, shape = KINDS[written.name]
    kind.write_checkpoint(tmp_path / "again", shape, checkpoint / "vocab.txt")
    files = sorted(path.name for path in written.iterdir())
    assert files == ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    assert all((tmp_path / "again" / name).read_bytes() == (written / name).read_bytes() for name in files)
