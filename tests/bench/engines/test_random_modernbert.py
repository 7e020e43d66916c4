"""A ModernBERT with random weights: transformers reads all of it, byte pairs fill its table, equal calls write equal files."""

import json

import numpy as np
import pytest
from tokenizers import Tokenizer

from fusedbert.bench.engines.batches import Shape, random_batch, read_vocabulary
from fusedbert.bench.engines.random_modernbert import MODERNBERT_BASE, MODERNBERT_LARGE, ModernShape, write_checkpoint
from fusedbert.bench.latency.task import whole_words

TINY = ModernShape(layers=4, heads=2, hidden=32, inner=48)
TEXTS = ["The movie was not good, an unwatchable mess.", "A café in Ulm; 电影 very good 🙂", "", "  two   spaces\n\tand tabs "]


@pytest.fixture(scope="module")
def written(checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("modernbert") / "tiny"
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
    assert type(module).__name__ == "ModernBertForSequenceClassification"
    assert not any(report[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    batch = random_batch(Shape(batch=3, tokens=200), read_vocabulary(written), np.random.default_rng(0))
    with torch.inference_mode():
        arrays = batch.arrays(("input_ids", "attention_mask"))
        logits = module.eval()(**{name: torch.from_numpy(array) for name, array in arrays.items()}).logits
    assert logits.shape == (3, 2) and torch.isfinite(logits).all()


def test_all_but_the_size_is_as_in_the_published_models(written, transformers):
    size = {"num_hidden_layers": 4, "num_attention_heads": 2, "hidden_size": 32, "intermediate_size": 48}
    found = transformers.AutoConfig.from_pretrained(written, local_files_only=True).to_dict()
    expected = transformers.ModernBertConfig(**size).to_dict()  # its defaults are those of ModernBERT-base
    named = expected.keys() - {
        "architectures",
        "dtype",
        "problem_type",
        "transformers_version",
        "id2label",
        "label2id",
        "_name_or_path",
    }
    assert {key: found[key] for key in named} == {key: expected[key] for key in named}
    assert found["layer_types"] == ["full_attention", "sliding_attention", "sliding_attention", "full_attention"]


def test_the_sizes_are_those_of_the_published_models(transformers):
    base = transformers.ModernBertConfig()
    assert ModernShape(layers=22, heads=12, hidden=768, inner=1152) == MODERNBERT_BASE
    assert (base.num_hidden_layers, base.num_attention_heads, base.hidden_size, base.intermediate_size) == (22, 12, 768, 1152)
    assert ModernShape(layers=28, heads=16, hidden=1024, inner=2624) == MODERNBERT_LARGE


def test_texts_survive_the_tokenizer_and_stay_within_the_table(written, transformers):
    tokenizer = transformers.AutoTokenizer.from_pretrained(written, local_files_only=True)
    rows = tokenizer(TEXTS)["input_ids"]
    assert [tokenizer.decode(row, skip_special_tokens=True) for row in rows] == TEXTS
    assert {(row[0], row[-1]) for row in rows} == {(50281, 50282)}
    assert tokenizer.pad_token_id == 50283 and tokenizer.mask_token_id == 50284
    assert tokenizer.model_max_length == 8192 and "token_type_ids" not in tokenizer.model_input_names


def test_random_texts_come_from_the_whole_table(written):
    vocabulary = read_vocabulary(written)
    assert (vocabulary.first, vocabulary.last) == (50281, 50282)
    assert vocabulary.ordinary.tolist() == list(range(50280))
    pieces = json.loads((written / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    words = whole_words(pieces)
    assert len(words) > 5000
    text = "".join(words[::50])
    assert len(Tokenizer.from_file(str(written / "tokenizer.json")).encode(text).ids) == len(words[::50]) + 2


def test_equal_calls_write_equal_files(written, checkpoint, tmp_path):
    write_checkpoint(tmp_path / "again", TINY, checkpoint / "vocab.txt")
    files = sorted(path.name for path in written.iterdir())
    assert files == ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    assert all((tmp_path / "again" / name).read_bytes() == (written / name).read_bytes() for name in files)


def test_the_command_knows_the_sizes(fusedbert, tmp_path):
    done = fusedbert("bench", "checkpoint", "modernbert", tmp_path / "x")
    assert done.returncode == 2 and "modernbert-base" in done.stderr and "modernbert-large" in done.stderr
