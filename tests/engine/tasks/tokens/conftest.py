"""transformers' token classification pipeline, and a tagger of the same tokenizer and the same logits."""

from __future__ import annotations

import copy
import dataclasses
import functools
import types
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from random_tokenizers import SENTENCES, gemma_pieces, modernbert_bytes, word_piece
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from fusedbert.engine.load import Options
from fusedbert.engine.tasks.token_classifier import TokenClassifier
from fusedbert.engine.text.tokenizer import Row, TextTokenizer

LABELS = ("O", "B-PER", "I-PER", "I-LOC", "MISC", "B-MISC", "X-LOC")
MAX_LENGTH = 12


def roberta_bytes(*, space: bool, trim: bool = True) -> Tokenizer:
    """Return byte-level BPE as of RoBERTa, which may add a space before the first word."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=space)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=380, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(SENTENCES * 10, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), trim, space)
    return tokenizer


def unigram_pieces(scheme: str = "always") -> Tokenizer:
    """Return Unigram as of XLM-RoBERTa and DeBERTa-v2."""
    names = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    letters = sorted(set("".join(SENTENCES)) - {" "})
    pieces = ["▁the", "▁movie", "▁was", "▁good", "▁bad", "▁film", "ing", "ly", "▁Paris", "▁is", "▁", *letters]
    scored = [(name, 0.0) for name in names] + [(piece, -1.0 - i / 10) for i, piece in enumerate(dict.fromkeys(pieces))]
    tokenizer = Tokenizer(models.Unigram(scored, unk_id=3))
    space = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), space])
    tokenizer.decoder = decoders.Metaspace(prepend_scheme=scheme)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    tokenizer.add_special_tokens(names)
    return tokenizer


def without_decoder() -> Tokenizer:
    tokenizer = word_piece()
    tokenizer.decoder = None
    return tokenizer


TOKENIZERS: dict[str, tuple[Callable[[], Tokenizer], dict[str, str]]] = {
    "word piece": (word_piece, {"unk_token": "[UNK]", "pad_token": "[PAD]"}),
    "word piece with capitals": (
        lambda: word_piece(lowercase=False, strip_accents=False),
        {"unk_token": "[UNK]", "pad_token": "[PAD]"},
    ),
    "word piece without names": (without_decoder, {"pad_token": "[PAD]"}),
    "bytes": (lambda: roberta_bytes(space=False), {"unk_token": "<unk>", "pad_token": "<pad>"}),
    "bytes after a space": (lambda: roberta_bytes(space=True), {"unk_token": "<unk>", "pad_token": "<pad>"}),
    "bytes with spaces": (lambda: roberta_bytes(space=True, trim=False), {"unk_token": "<unk>", "pad_token": "<pad>"}),
    "modernbert": (modernbert_bytes, {"unk_token": "[UNK]", "pad_token": "[PAD]"}),
    "gemma": (gemma_pieces, {"unk_token": "<unk>", "pad_token": "<pad>"}),
    "unigram": (unigram_pieces, {"unk_token": "<unk>", "pad_token": "<pad>"}),
    "unigram first": (lambda: unigram_pieces("first"), {"unk_token": "<unk>", "pad_token": "<pad>"}),
}


@functools.cache
def _tables(labels: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(labels)
    by_token, by_place = (rng.normal(size=(size, labels)).astype(np.float32) for size in (2000, 4096))
    return by_token, by_place


def logits_of(ids: np.ndarray, labels: int) -> np.ndarray:
    """Logits that depend on the token, its place and its row's first word, ``[..., tokens, labels]``, the same in any batch."""
    by_token, by_place = _tables(labels)
    return by_token[ids] + by_place[: ids.shape[-1]] + by_token[ids[..., 1:2]]


@dataclasses.dataclass
class Both:
    """The pipeline and the tagger."""

    pipeline: Any
    tagger: TokenClassifier


def pipeline_of(judge: Any, labels: Sequence[str]) -> Any:
    """Return the pipeline around a tokenizer of transformers and ``logits_of``."""
    import torch
    from transformers import BertConfig, BertForTokenClassification, TokenClassificationPipeline
    from transformers.modeling_outputs import TokenClassifierOutput

    class Mock(BertForTokenClassification):
        def forward(self, input_ids: Any, **_: Any) -> Any:  # type: ignore[override]
            return TokenClassifierOutput(logits=torch.from_numpy(logits_of(input_ids.numpy(), len(labels))))

    Mock.__name__ = BertForTokenClassification.__name__  # the pipeline reads it
    config = BertConfig(
        vocab_size=8, hidden_size=4, num_hidden_layers=1, num_attention_heads=1, intermediate_size=4,
        max_position_embeddings=8, id2label=dict(enumerate(labels)), label2id={name: i for i, name in enumerate(labels)},
    )  # fmt: skip
    return TokenClassificationPipeline(model=Mock(config), tokenizer=judge, device="cpu")


def tagger_of(tokenizer: TextTokenizer, labels: Sequence[str], **options: Any) -> TokenClassifier:
    """Return a tagger whose model is ``logits_of``."""

    def forward(texts: Any, rows: Sequence[Row]) -> tuple[list[np.ndarray], int]:
        return [logits_of(np.array(row.ids), len(labels)) for row in rows], 0

    model: Any = types.SimpleNamespace(
        source=types.SimpleNamespace(manifest=types.SimpleNamespace(task="token-classification", heads=())),
        tokenizer=tokenizer,
        labels=tuple(labels),
        options=Options.parse(**options),
        forward_tokens=forward,
        open=lambda: types.SimpleNamespace(chunk=3),
        count=lambda *_, **__: None,
    )
    return TokenClassifier(model)


Build = Callable[..., Both]


@pytest.fixture(scope="session")
def build() -> Build:
    """Return a function that makes both of a kind of tokenizer; ``left``: texts are cut on the left."""

    def make(kind: str, *, labels: Sequence[str] = LABELS, limit: int = MAX_LENGTH, left: bool = False, **options: Any) -> Both:
        from transformers import PreTrainedTokenizerFast

        raw, names = TOKENIZERS[kind][0](), TOKENIZERS[kind][1]
        side = "left" if left else "right"
        judge = PreTrainedTokenizerFast(
            tokenizer_object=copy.deepcopy(raw), model_max_length=limit, truncation_side=side, **names
        )
        ours = TextTokenizer.of(raw, {**names, "truncation_side": side}, {}, limit)
        return Both(pipeline_of(judge, labels), tagger_of(ours, labels, **options))

    return make
