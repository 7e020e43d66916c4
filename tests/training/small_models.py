"""The models that are trained, at a small size: 6 layers of 256 with 4 heads, and a tokenizer trained on the same sentences.

ModernBERT: local layers with a window of 32 tokens, a global one every third, rotary positions, GeGLU, byte-level BPE.
DeBERTa as v3: both terms of positions with the projections of queries and keys, 16 distances by themselves and 15 far buckets
on either side, Unigram. ALBERT: one layer's weights for all, embeddings half as wide, Unigram.
"""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Callable, Sequence
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from training_texts import as_typed
from transformers import (
    AlbertConfig,
    AlbertForSequenceClassification,
    AlbertTokenizer,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    DebertaV2Tokenizer,
    ModernBertConfig,
    ModernBertForSequenceClassification,
    PreTrainedTokenizerFast,
)

LABELS = ("NEGATIVE", "POSITIVE")
SPECIAL = {f"{name}_token": f"[{name.upper()}]" for name in ("unk", "cls", "sep", "pad", "mask")}
VOCABULARY = 4096
POSITIONS = 1024  # of ModernBERT
FAR = 256  # the distance of DeBERTa's last bucket, which the longest texts of the training reach


def train_bpe(texts: Sequence[str], seed: int) -> Any:
    """Train a byte-level BPE on the texts, split and as typed, with ModernBERT's special tokens at the end of the table."""
    bpe = Tokenizer(models.BPE())
    bpe.normalizer = normalizers.NFC()
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    size = VOCABULARY - len(SPECIAL)
    trainer = trainers.BpeTrainer(vocab_size=size, min_frequency=2, initial_alphabet=alphabet, show_progress=False)
    bpe.train_from_iterator(_both_ways(texts, seed), trainer)
    bpe.add_special_tokens(list(SPECIAL.values()))
    ends = [(name, bpe.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    bpe.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=ends
    )
    names = ["input_ids", "attention_mask"]
    return PreTrainedTokenizerFast(tokenizer_object=bpe, model_input_names=names, model_max_length=POSITIONS, **SPECIAL)


def train_debertas(texts: Sequence[str], seed: int) -> Any:
    """Train DeBERTa-v3's tokenizer, special tokens where it has them."""
    special = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
    pieces = train_unigram(texts, seed, special)
    return DebertaV2Tokenizer(vocab=pieces, unk_id=special.index("[UNK]"), model_max_length=2 * FAR)


def train_alberts(texts: Sequence[str], seed: int) -> Any:
    """Train ALBERT's tokenizer."""
    pieces = train_unigram(texts, seed, ["<pad>", "<unk>", "[CLS]", "[SEP]"])
    return AlbertTokenizer(vocab=pieces, model_max_length=2 * FAR)


def train_unigram(texts: Sequence[str], seed: int, special: list[str]) -> list[tuple[str, float]]:
    """Train a Unigram (Kudo 2018) on the texts, split and as typed, and return its pieces; [MASK] is still to come."""
    unigram = Tokenizer(models.Unigram())
    unigram.normalizer = normalizers.NFC()
    unigram.pre_tokenizer = pre_tokenizers.Metaspace()
    alphabet = [chr(code) for code in range(33, 127)]
    unknown = next(token for token in special if "unk" in token.lower())
    trainer = trainers.UnigramTrainer(
        vocab_size=VOCABULARY - 1, special_tokens=special, initial_alphabet=alphabet, unk_token=unknown, show_progress=False
    )
    unigram.train_from_iterator(_both_ways(texts, seed), trainer)
    return [(piece, score) for piece, score in json.loads(unigram.to_str())["model"]["vocab"]]


def _both_ways(texts: Sequence[str], seed: int) -> list[str]:
    rng = random.Random(seed)
    return [*texts, *(as_typed(text, rng) for text in texts)]


def make_modernbert(tokenizer: Any) -> Any:
    """Make a ModernBERT with random weights: a window of 32 tokens, a global layer every third."""
    ends = {"cls_token_id": tokenizer.cls_token_id, "sep_token_id": tokenizer.sep_token_id}
    return ModernBertForSequenceClassification(
        ModernBertConfig(
            **_common(tokenizer),
            **ends,
            bos_token_id=tokenizer.cls_token_id,
            eos_token_id=tokenizer.sep_token_id,
            intermediate_size=384,
            local_attention=32,
            max_position_embeddings=POSITIONS,
            embedding_dropout=0.1,
            mlp_dropout=0.1,
            classifier_dropout=0.1,
            **{"attn_implementation": "sdpa", "global_attn_every_n_layers": 3},
        )
    )


def make_deberta(tokenizer: Any) -> Any:
    """Make a DeBERTa-v3 with random weights."""
    return DebertaV2ForSequenceClassification(
        DebertaV2Config(
            **_common(tokenizer),
            intermediate_size=1024,
            max_position_embeddings=FAR,
            relative_attention=True,
            max_relative_positions=-1,
            pos_att_type=["p2c", "c2p"],
            position_biased_input=False,
            type_vocab_size=0,
            **{"position_buckets": 32, "share_att_key": True, "norm_rel_ebd": "layer_norm"},
        )
    )


def make_albert(tokenizer: Any) -> Any:
    """Make an ALBERT with random weights; its embeddings get more weight than transformers gives them, to learn at all."""
    return AlbertForSequenceClassification(
        AlbertConfig(
            **_common(tokenizer),
            embedding_size=128,
            intermediate_size=1024,
            max_position_embeddings=2 * FAR,
            classifier_dropout_prob=0.1,
            initializer_range=0.04,
        )
    )


def _common(tokenizer: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": 256,
        "num_hidden_layers": 6,
        "num_attention_heads": 4,
        "pad_token_id": tokenizer.pad_token_id,
        "id2label": dict(enumerate(LABELS)),
        "label2id": {label: index for index, label in enumerate(LABELS)},
        "problem_type": "single_label_classification",
    }


@dataclasses.dataclass(frozen=True)
class Family:
    """Makers of a family's tokenizer, from texts and a seed, and of its model, from the tokenizer."""

    train_tokenizer: Callable[[Sequence[str], int], Any]
    make_model: Callable[[Any], Any]
    rate: float  # of learning, at most; with norms after the sums, as in DeBERTa, 1e-3 is too much


FAMILIES = {
    "modernbert": Family(train_bpe, make_modernbert, rate=1e-3),
    "deberta": Family(train_debertas, make_deberta, rate=4e-4),
    "albert": Family(train_alberts, make_albert, rate=2e-4),
}
