"""Rows of pairs that share texts are those of whole pairs, whatever the tokenizer, its template and the cut."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from random_tokenizers import gemma_pieces, modernbert_bytes, random_text, word_piece
from tokenizers import Encoding, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

from fusedbert.engine import Classifier
from fusedbert.engine.errors import FusedBertError, InputError, TextTooLongError
from fusedbert.engine.text.inputs import Cut, Side, Text, Truncation, check_items
from fusedbert.engine.text.tokenizer import TextTokenizer


def unigram() -> Tokenizer:
    """A Unigram as of XLM-R, DeBERTa and ALBERT."""
    pieces = [
        "<s>",
        "<pad>",
        "</s>",
        "<unk>",
        "▁",
        "▁good",
        "▁film",
        "▁is",
        "a",
        "e",
        "x",
        "s",
        "ing",
        "movie",
        ".",
        "!",
        "很好",
    ]
    tokenizer = Tokenizer(models.Unigram([(piece, -float(i)) for i, piece in enumerate(pieces)], unk_id=3))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Replace(Regex(" {2,}"), " "), normalizers.NFKC()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.add_special_tokens(["<s>", "</s>", "<unk>", "<pad>"])
    return tokenizer


def template(tokenizer: Tokenizer, pair: str) -> Tokenizer:
    start, end = next(each for each in (("[CLS]", "[SEP]"), ("<s>", "</s>")) if tokenizer.token_to_id(each[0]) is not None)
    special: Any = [(token, tokenizer.token_to_id(token)) for token in (start, end)]
    pair = " ".join(
        {"C": start, "S": end}.get(part[0], part[0]) + part[1:] if part[0] in "CS" else part for part in pair.split()
    )
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{start} $A {end}", pair=pair, special_tokens=special)
    return tokenizer


def processed(tokenizer: Tokenizer, processor: Any) -> Tokenizer:
    tokenizer.post_processor = processor
    return tokenizer


def bert(tokenizer: Tokenizer) -> Tokenizer:
    ids: Any = [(token, tokenizer.token_to_id(token)) for token in ("[SEP]", "[CLS]")]
    return processed(tokenizer, processors.BertProcessing(*ids))


def roberta(tokenizer: Tokenizer) -> Tokenizer:
    ids: Any = [(token, tokenizer.token_to_id(token)) for token in ("[SEP]", "[CLS]")]
    space = processors.ByteLevel(trim_offsets=True)
    return processed(tokenizer, processors.Sequence([space, processors.RobertaProcessing(*ids, trim_offsets=True)]))


TOKENIZERS: dict[str, Callable[[], Tokenizer]] = {
    "bert": lambda: bert(word_piece()),
    "bert, cased": lambda: word_piece(lowercase=False),
    "roberta": lambda: roberta(modernbert_bytes()),
    "modernbert": modernbert_bytes,
    "gemma": gemma_pieces,
    "xlm-roberta": lambda: template(unigram(), "C $A S S $B S"),
    "deberta": lambda: template(unigram(), "C $A S $B:1 S:1"),
    "mpnet": lambda: template(word_piece(), "C $A S S $B S"),
    "xlnet": lambda: template(unigram(), "$A S $B:1 S:1 C:2"),
    "bare": lambda: processed(unigram(), None),
    "reversed": lambda: template(word_piece(), "C $B S $A:1 S:1"),
    "twice": lambda: template(word_piece(), "C $A S $B:1 S:1 $A S"),
}


WHOLE = ("reversed", "twice")  # of another layout, whose pairs are tokenized whole


def wrapped(raw: Tokenizer, **changes: Any) -> TextTokenizer:
    return dataclasses.replace(TextTokenizer.of(raw, {}, {}, 24), **changes)


def outcome(encode: Callable[..., Any], texts: list[Text], truncate: bool) -> Any:
    try:
        return encode(texts, truncate=truncate)
    except FusedBertError as error:
        return type(error), str(error)


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("seed", range(3))
def test_rows_are_those_of_whole_pairs(name: str, seed: int) -> None:
    r = random.Random(f"{name} {seed}")
    raw = TOKENIZERS[name]()
    raw.encode_special_tokens = r.random() < 0.3
    ours = wrapped(raw)
    pool = [random_text(r) for _ in range(6)] + ["", " ", "good [SEP] film <s> x", "很好 film " * 3, "is it good? " * 200]
    for _ in range(40):
        settings = {
            "max_length": r.choice([3, 4, 5, 9, 24, 60, 400]),
            "cut_left": r.random() < 0.5,
            "segments": r.random() < 0.5,
            "strategy": r.choice([*Truncation][:3]),
            "vocab_size": r.choice([None, None, raw.get_vocab_size() - 2, 10_000]),
        }
        changed = dataclasses.replace(ours, **settings, loaded=ours)
        if r.random() < 0.3:
            ours.pairs.keep(ours, r.choices(pool, k=3))
        firsts, seconds = r.choices(pool, k=r.choice([1, 2, 4])), r.choices(pool, k=r.choice([1, 5]))
        texts = check_items([(first, second) for first in firsts for second in seconds])
        truncate = r.random() < 0.8
        assert outcome(changed.encode, texts, truncate) == outcome(changed.encode_whole, texts, truncate)


def counting(raw: Tokenizer) -> tuple[TextTokenizer, list[Any]]:
    """Return a tokenizer, and the list of all that it is given to tokenize."""
    seen: list[Any] = []

    class Counting(TextTokenizer):
        def encode_fast(self, texts: Sequence[Any], *, special: bool = True) -> list[Encoding]:
            seen.extend(texts)
            return super().encode_fast(texts, special=special)

    ours = wrapped(raw, max_length=64)
    return Counting(**{field.name: getattr(ours, field.name) for field in dataclasses.fields(ours)}), seen


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_text_of_several_pairs_is_tokenized_once(name: str) -> None:
    ours, seen = counting(TOKENIZERS[name]())
    queries, documents = ["is it good?", "was it bad?"], ["a movie", "the film", "is it good?", "why"]
    pairs = check_items([(query, document) for query in queries for document in documents])
    ours.encode(pairs)
    assert sorted(text for text in seen if isinstance(text, str)) == sorted({*queries, *documents})
    assert ("is it good?", "a movie") in seen  # of which the layout is read
    again = len(seen)
    ours.encode(pairs)
    assert {type(text) for text in seen[again:]} == {tuple if name in WHOLE else str}


def test_kept_texts_are_not_tokenized_again() -> None:
    ours, seen = counting(word_piece())
    ours.pairs.keep(ours, ["is it good?", "x" * 5000])
    ours.pairs.keep(ours, ["is it good?"])
    assert seen == ["is it good?"]
    ours.encode(check_items([("is it good?", "a movie")]))
    del seen[:]
    assert ours.encode(check_items([("is it good?", "the film")])) == ours.encode_whole(
        check_items([("is it good?", "the film")])
    )
    assert seen == ["the film", ("is it good?", "the film")]
    ours.pairs.keep(ours, map(str, range(600)))  # as many as are kept, and more
    del seen[:]
    ours.encode(check_items([("is it good?", "the film"), ("599", "the film")]))
    assert seen == ["is it good?", "the film"]


def test_special_tokens_are_read_as_each_call_asks(artifact: Path) -> None:
    ours = TextTokenizer.load(artifact, 32)
    pairs = check_items([("good [SEP] film", document) for document in ("bad", "very [SEP]", "dull")])
    ours.pairs.keep(ours, [pairs[0].text])
    for split in (False, True, False):
        other = ours.for_call(Cut(split_special_tokens=split))
        assert other.encode(pairs) == other.encode_whole(pairs)
        assert (other.encode(pairs)[0].ids.count(3) == 2) is split
    left = ours.for_call(Cut(max_length=6, side=Side.LEFT, strategy=Truncation.ONLY_SECOND))
    assert left.pairs is ours.pairs
    assert [row.truncated for row in left.for_call(Cut(max_length=8, split_special_tokens=True)).encode(pairs)] == [True] * 3


def test_the_first_text_at_fault_is_named(artifact: Path, tokenizer: Tokenizer) -> None:
    ours = TextTokenizer.load(artifact, 8)
    pairs = check_items([("good", document) for document in ("bad", "very dull plot was bad", "dull " * 1000, "a b c d e f")])
    with pytest.raises(TextTooLongError, match="text 1 has 9 tokens, max_length is 8"):
        ours.encode(pairs, truncate=False)
    with pytest.raises(TextTooLongError, match="text 2 has more than 8 tokens"):
        ours.encode([pairs[0], *pairs[2:]], truncate=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("(a+)+$"), "isolated")  # exponential in the number of a
    tokenizer.save(str(artifact / "tokenizer.json"))
    pairs = check_items([("good", document) for document in ("bad", "a" * 40 + "b", "dull")])
    with pytest.raises(InputError, match=r"^text 1 cannot be tokenized"):
        TextTokenizer.load(artifact, 32).encode(pairs)


def test_a_classifier_counts_pairs_that_share_texts_as_others(artifact: Path) -> None:
    pairs = [("good movie", document) for document in ("bad", "very dull " * 30, "", "fine actor")]
    with Classifier.from_pretrained(artifact, threads=1) as clf:
        together = clf.decision_function(pairs)
        assert (clf.stats.texts, clf.stats.truncated) == (4, 1)
        alone = np.concatenate([clf.decision_function([pair]) for pair in pairs])
        np.testing.assert_allclose(together, alone, atol=1e-6)
