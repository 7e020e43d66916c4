"""A ModernBERT with random weights: byte pairs fill its table, all but the size is as in the published models."""

import json

import pytest
from tokenizers import Tokenizer

from fusedbert.bench.engines.batches import read_vocabulary
from fusedbert.bench.engines.random.modernbert import MODERNBERT_BASE, MODERNBERT_LARGE, ModernShape, write_checkpoint
from fusedbert.bench.latency.task import whole_words

TINY = ModernShape(layers=4, heads=2, hidden=32, inner=48)
TEXTS = ["The movie was not good, an unwatchable mess.", "A café in Ulm; 电影 very good 🙂", "", "  two   spaces\n\tand tabs "]


@pytest.fixture(scope="module")
def written(checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("modernbert") / "tiny"
    write_checkpoint(folder, TINY, checkpoint / "vocab.txt")
    return folder


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


def test_the_command_knows_the_sizes(fusedbert, tmp_path):
    done = fusedbert("bench", "checkpoint", "modernbert", tmp_path / "x")
    assert done.returncode == 2 and "modernbert-base" in done.stderr and "modernbert-large" in done.stderr
