"""Token classifiers end to end against transformers' pipeline: families with their own tokenizers, and a trained model."""

from __future__ import annotations

import contextlib
import json
import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from random_tokenizers import modernbert_bytes
from tokenizers import Tokenizer

from fusedbert.engine import TokenClassifier
from fusedbert.export import export_checkpoint, exporter

from .conftest import roberta_bytes, unigram_pieces

LABELS = ("O", "B-PER", "I-PER", "B-LOC")
STRATEGIES = ("none", "simple", "first", "average", "max")
LIMIT = 24
TEXTS = [
    "The movie was GOOD, not bad!",
    "",
    " ",
    "Paris is a fine café ; 电影  很好 👍🏽 e\u0301 naïve\u00a0straße\r\nx",
    "i hate this awful  film . why ? Paris 电影 " * 9,
]
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
ROBERTA = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "type_vocab_size": 1, "max_position_embeddings": 64}
DEBERTA = {"relative_attention": True, "position_biased_input": False, "pos_att_type": ["p2c", "c2p"], "type_vocab_size": 0}
NAMES = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "sep_token": "</s>"}
NAMES |= {"pad_token": "<pad>", "cls_token": "<s>", "mask_token": "<mask>"}
BRACKETS = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "mask_token": "[MASK]"}
ANY = "PreTrainedTokenizerFast"
FAMILIES: dict[str, tuple[str, Callable[[], Tokenizer], dict[str, Any], dict[str, Any]]] = {
    "roberta": ("roberta", lambda: roberta_bytes(space=False), {"tokenizer_class": "RobertaTokenizer", **NAMES}, ROBERTA),
    "roberta after a space": (
        "roberta",
        lambda: roberta_bytes(space=True),
        {"tokenizer_class": "RobertaTokenizer", "add_prefix_space": True, **NAMES},
        ROBERTA,
    ),
    "modernbert": ("modernbert", modernbert_bytes, {"tokenizer_class": ANY, **BRACKETS}, {"local_attention": 8}),
    "xlm-roberta": ("xlm-roberta", unigram_pieces, {"tokenizer_class": "XLMRobertaTokenizer", **NAMES}, ROBERTA),
    "albert": ("albert", unigram_pieces, {"tokenizer_class": ANY, **NAMES}, {"embedding_size": 16, "pad_token_id": 1}),
    "deberta": ("deberta-v2", unigram_pieces, {"tokenizer_class": ANY, **NAMES}, {**DEBERTA, "pad_token_id": 1}),
}


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Ignore warnings about words by spaces and cut texts, and export without a second process."""
    monkeypatch.setattr(exporter, "against_transformers", lambda _: contextlib.nullcontext(lambda tokens: []))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def pipeline_of(folder: Path, limit: int) -> Any:
    from transformers import AutoModelForTokenClassification, AutoTokenizer, TokenClassificationPipeline

    model = AutoModelForTokenClassification.from_pretrained(folder, attn_implementation="eager").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, model_max_length=limit)
    return TokenClassificationPipeline(model=model, tokenizer=tokenizer, device="cpu")


def model_of(family: str, raw: Tokenizer, folder: Path, switches: dict[str, Any], **config: Any) -> Any:
    """Return a random token classifier; its tokenizer is written to the folder."""
    import torch
    from transformers import AutoConfig, AutoModelForTokenClassification

    torch.manual_seed(0)
    labels = {"id2label": dict(enumerate(LABELS)), "label2id": {name: i for i, name in enumerate(LABELS)}}
    settings = {**SIZES, "vocab_size": raw.get_vocab_size(), "max_position_embeddings": 60, **config}
    folder.mkdir()
    raw.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": LIMIT, **switches}))
    return AutoModelForTokenClassification.from_config(AutoConfig.for_model(family, **settings, **labels))


def without_scores(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in entity.items() if name != "score"} for entity in found]


def assert_same(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    """Compare labels, words and characters exactly, scores within float32's rounding."""
    assert without_scores(found) == without_scores(expected)
    assert [entity["score"] for entity in found] == pytest.approx([float(each["score"]) for each in expected], abs=1e-4)


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_family_with_its_own_tokenizer_gives_the_entities_of_the_pipeline(kind: str, tmp_path: Path) -> None:
    import torch

    family, make, switches, config = FAMILIES[kind]
    raw = make()
    if family == "modernbert":
        ids = {f"{name}_token_id": raw.token_to_id(f"[{name.upper()}]") for name in ("cls", "sep", "pad")}
        config = {**config, **ids, "bos_token_id": ids["cls_token_id"], "eos_token_id": ids["sep_token_id"]}
    model = model_of(family, raw, tmp_path / "source", switches, **config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * (0.3 if parameter.ndim == 1 else 0.1))
    model.save_pretrained(tmp_path / "source")
    export_checkpoint(tmp_path / "source", tmp_path / "artifact", target="fp32")
    pipeline = pipeline_of(tmp_path / "source", LIMIT)
    with TokenClassifier.from_pretrained(tmp_path / "artifact", precision="fp32") as tagger:
        assert tagger.max_length == LIMIT
        for strategy in STRATEGIES:
            options: dict[str, Any] = {"aggregation_strategy": strategy, "ignore_labels": []}
            expected = [pipeline(text, **options) for text in TEXTS]
            assert [bool(entities) for entities in expected[::3]] == [True, True]
            for text, batched, wanted in zip(TEXTS, tagger(TEXTS, **options), expected, strict=True):
                assert_same(batched, wanted)
                assert_same(tagger(text, **options), wanted)
            if strategy != "none":
                for stride in (0, 5):
                    assert_same(tagger(TEXTS[-1], **options, stride=stride), pipeline(TEXTS[-1], **options, stride=stride))


FIRST, LAST, PLACES = ("anna", "john", "maria", "peter"), ("smith", "miller", "jones"), ("paris", "london", "rome", "oslo")
OTHERS = ("the", "a", "was", "in", "saw", "with", "and", "met", "near", "went", "to", ",", ".", "again", "not")


def sentence(r: random.Random) -> tuple[list[str], list[int]]:
    """Return the words of a made-up sentence, and the label of each."""
    words: list[tuple[str, int]] = []
    for _ in range(r.randint(3, 10)):
        draw = r.random()
        if draw < 0.2:
            words += [(r.choice(FIRST), 1), *([(r.choice(LAST), 2)] if r.random() < 0.7 else [])]
        else:
            words.append((r.choice(PLACES), 3) if draw < 0.35 else (r.choice(OTHERS), 0))
    return [word for word, _ in words], [label for _, label in words]


def train(model: Any, raw: Tokenizer, steps: int = 150) -> float:
    """Train a token classifier on made-up sentences; return the last loss."""
    import torch

    r, optimizer, loss = random.Random(0), torch.optim.AdamW(model.parameters(), lr=3e-3), None
    for _ in range(steps):
        batch = [sentence(r) for _ in range(16)]
        encodings = raw.encode_batch([words for words, _ in batch], is_pretokenized=True)
        longest = max(map(len, encodings))
        ids, mask, labels = (torch.full((len(batch), longest), value) for value in (0, 0, -100))
        for i, (encoding, (_, wanted)) in enumerate(zip(encodings, batch, strict=True)):
            ids[i, : len(encoding)], mask[i, : len(encoding)] = torch.tensor(encoding.ids), 1
            labels[i, : len(encoding)] = torch.tensor([-100 if word is None else wanted[word] for word in encoding.word_ids])
        loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss is not None
    return float(loss)


def test_a_trained_model_finds_the_spans_of_the_pipeline(tmp_path: Path) -> None:
    from tokenizers import models, normalizers, pre_tokenizers, processors

    words = [*BRACKETS.values(), *FIRST, *LAST, *PLACES, *OTHERS, "##s", "##e", "é", "!"]
    vocab = {word: i for i, word in enumerate(sorted(words, key="[PAD]".__ne__))}
    raw = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    raw.normalizer, raw.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    raw.post_processor = processors.BertProcessing(("[SEP]", vocab["[SEP]"]), ("[CLS]", vocab["[CLS]"]))
    raw.add_special_tokens(list(BRACKETS.values()))
    model = model_of("bert", raw, tmp_path / "source", {"tokenizer_class": ANY, **BRACKETS}, hidden_size=64)
    assert train(model, raw) < 0.05
    model.eval().save_pretrained(tmp_path / "source")
    export_checkpoint(tmp_path / "source", tmp_path / "artifact", target="cpu", required=True)
    pipeline, r = pipeline_of(tmp_path / "source", LIMIT), random.Random(1)
    made = [sentence(r) for _ in range(40)]
    texts = [" ".join(words) for words, _ in made]
    texts += ["", "Anna  Smith went to PARIS!", "é Maria Joneses 👍🏽 met\u00a0Peter, near Oslo", " ".join(texts)]
    for precision in ("fp32", "int8"):
        with TokenClassifier.from_pretrained(tmp_path / "artifact", precision=precision) as tagger:
            for strategy in STRATEGIES:
                options: dict[str, Any] = {"aggregation_strategy": strategy}
                expected = [pipeline(text, **options) for text in texts]
                for one, wanted in zip(tagger(texts, **options), expected, strict=True):
                    assert without_scores(one) == without_scores(wanted)
                    if precision == "fp32":
                        assert_same(one, wanted)
                if strategy != "none":
                    options["stride"] = 6
                    wanted = pipeline(texts[-1], **options)
                    assert without_scores(tagger(texts[-1], **options)) == without_scores(wanted) and len(wanted) > 50
            found = tagger.predict([words for words, _ in made])
            pairs = [(a, LABELS[b]) for one, (_, two) in zip(found, made, strict=True) for a, b in zip(one, two, strict=True)]
            assert sum(a == b for a, b in pairs) > 0.95 * len(pairs)
