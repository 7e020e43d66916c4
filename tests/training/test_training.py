"""The training of small models: their texts, and a trial of a few steps that leaves a folder transformers can read."""

import json
import random
import subprocess
import sys

import pytest
from tokenizers import Tokenizer
from training_texts import Sentence, as_typed, draw_views, plain, read_sentences

SENTENCES = [
    Sentence(text=text, label=label)
    for text, label in [
        ("it 's a charming and often affecting journey .", 1),
        ("unflinchingly bleak and desperate", 0),
        ("this film did n't work , and it is far too long .", 0),
        ("a funny `` comedy '' ( of errors ) with a warm heart !", 1),
    ]
]


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    lines = [f"{each.text}\t{each.label}\n" for each in SENTENCES]
    (folder / "train.tsv").write_text("sentence\tlabel\n" + "".join(lines * 3))
    (folder / "dev.tsv").write_text("sentence\tlabel\n" + lines[1] + "the journey is long .\t0\n")
    return folder


@pytest.mark.parametrize("seed", range(20))
def test_no_view_is_held_out_or_has_a_label_that_is_not_its_own(seed):
    held_out = {plain("Charming and often"), plain("bleak"), plain("This film didn't work, and it is far too long.")}
    views = draw_views(SENTENCES * 5, held_out, random.Random(seed))
    whole = {plain(each.text): each.label for each in SENTENCES}
    assert not held_out & {plain(view.text) for view in views}
    assert all(whole[plain(view.text)] == view.label for view in views if view.label is not None)
    assert sum(view.label is not None for view in views) == 15  # three of four sentences, five times
    assert max(len(view.text.split()) for view in views) > 16  # joined
    assert views == draw_views(SENTENCES * 5, held_out, random.Random(seed))


def test_a_sentence_is_rewritten_as_people_type_it():
    found = {as_typed(each.text, random.Random(seed)) for each in SENTENCES for seed in range(40)}
    assert {"This film didn't work, and it is far too long.", 'A funny "comedy" (of errors) with a warm heart!'} <= found
    assert {"it's a charming and often affecting journey.", "UNFLINCHINGLY BLEAK AND DESPERATE"} <= found
    assert {plain(text) for text in found} == {plain(each.text) for each in SENTENCES}


def test_a_table_is_read_with_its_quotes(tables):
    assert read_sentences(tables / "train.tsv") == SENTENCES * 3


def trained(family, repository, tables, artifact, folder):
    """Train for three steps; return transformers' model and tokenizer, once the accuracy that was printed is found again."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    command = [sys.executable, repository / "tests" / "training" / "train_small.py", tables / "train.tsv", folder]
    options = ["--teacher", artifact, "--steps", "3", "--threads", "1", "--held-out", tables / "dev.tsv", "--family", family]
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert "9 sentences, 3 left out because they are held out" in done.stdout
    about = json.loads((folder / "training.json").read_text())
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder, local_files_only=True).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    assert len(tokenizer) == model.config.vocab_size
    with torch.inference_mode():
        rows = [tokenizer(each.text, return_tensors="pt") for each in read_sentences(tables / "dev.tsv")]
        answers = [int(model(**row).logits.argmax()) for row in rows]
    assert about["accuracy"] == {"dev.tsv": answers.count(0) / 2}
    return model, tokenizer


def test_a_few_steps_leave_a_modernbert_that_transformers_reads(repository, tables, artifact, tmp_path):
    model, tokenizer = trained("modernbert", repository, tables, artifact, tmp_path)
    assert type(model).__name__ == "ModernBertForSequenceClassification"
    assert model.config.layer_types.count("full_attention") == 2 and model.config.local_attention == 32
    assert tokenizer.decode(tokenizer("A café, 电影!")["input_ids"]) == "[CLS]A café, 电影![SEP]"


def test_a_few_steps_leave_a_deberta_that_transformers_reads(repository, tables, artifact, tmp_path):
    model, tokenizer = trained("deberta", repository, tables, artifact, tmp_path)
    assert type(model).__name__ == "DebertaV2ForSequenceClassification"
    assert model.deberta.encoder.rel_embeddings.weight.shape == (64, 256)
    assert type(tokenizer).__name__ == "DebertaV2Tokenizer"
    assert tokenizer.convert_ids_to_tokens(range(4)) == ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
    ids = tokenizer("a  charming journey, 电影!")["input_ids"]
    assert tokenizer.decode(ids) == "[CLS] a charming journey, [UNK]![SEP]"
    stored = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))  # what transformers makes of it is what is in the file
    assert stored.encode("a  charming journey, 电影!").ids == ids


def test_a_few_steps_leave_an_albert_that_transformers_reads(repository, tables, artifact, tmp_path):
    model, tokenizer = trained("albert", repository, tables, artifact, tmp_path)
    assert type(model).__name__ == "AlbertForSequenceClassification" and type(tokenizer).__name__ == "AlbertTokenizer"
    assert model.albert.encoder.embedding_hidden_mapping_in.weight.shape == (256, 128)
    assert len(model.albert.encoder.albert_layer_groups) == 1 and model.config.num_hidden_layers == 6
    assert tokenizer.convert_ids_to_tokens(range(4)) == ["<pad>", "<unk>", "[CLS]", "[SEP]"]
