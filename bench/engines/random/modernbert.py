"""ModernBERT of any size with random weights, to measure with.

The configuration is that of answerdotai/ModernBERT-base and -large (Warner et al. 2024) but for the pooling, which is ``mean``
there and here transformers' default, ``cls``.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

ROWS = 50368  # of the table of embeddings
SPECIAL = ("[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]")
FIRST_SPECIAL = 50280  # their first id; below it are byte pairs, above them rows that no text reaches
POSITIONS = 8192


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModernShape:
    """The numbers that a ModernBERT's speed depends on."""

    layers: int
    heads: int
    hidden: int
    inner: int  # width of the feed-forward after its gate


MODERNBERT_BASE = ModernShape(layers=22, heads=12, hidden=768, inner=1152)
MODERNBERT_LARGE = ModernShape(layers=28, heads=16, hidden=1024, inner=2624)


def write_checkpoint(folder: Path, shape: ModernShape, vocabulary: Path) -> None:
    """Write a random ModernBERT with two labels into a folder as transformers would save it.

    The tokenizer's byte pairs are made of the words of ``vocabulary``, a ``vocab.txt`` of WordPiece.
    """
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    words = [word for word in vocabulary.read_text(encoding="utf-8").splitlines() if word.isascii()]
    make_tokenizer(words).save(str(folder / "tokenizer.json"))
    special = {f"{token[1:-1].lower()}_token": token for token in SPECIAL}
    inputs = {"model_input_names": ["input_ids", "attention_mask"], "model_max_length": POSITIONS}
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": True, **inputs, **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(about, indent=2), encoding="utf-8")
    (folder / "config.json").write_text(json.dumps(_config(shape), indent=2), encoding="utf-8")
    save_file(_tensors(shape), folder / "model.safetensors", metadata={"format": "pt"})


def make_tokenizer(words: list[str]) -> Tokenizer:
    """Make a byte-level BPE whose pairs spell the words from left to right, with as many tokens as ModernBERT's, at its ids."""
    vocabulary = {byte: index for index, byte in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    merges = []
    for pair in _pairs(words):
        if len(vocabulary) == FIRST_SPECIAL:
            break
        if "".join(pair) not in vocabulary:
            merges.append(pair)
            vocabulary["".join(pair)] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")],
    )
    return tokenizer


def _pairs(words: list[str]) -> Iterator[tuple[str, str]]:
    """Yield the pairs that spell words, ``Ġ`` being the space before one, and then pairs of letters."""
    whole = [word for word in words if word.isalpha()]
    parts = [word.removeprefix("##") for word in words if word.removeprefix("##").isalpha()]
    # The first pairs are merged first, so those after a space come before those inside a word.
    for spelled in (*("Ġ" + word for word in whole), *("Ġ" + word.capitalize() for word in whole), *parts):
        yield from ((spelled[:i], spelled[i]) for i in range(1, len(spelled)))
    letters = "abcdefghijklmnopqrstuvwxyz"
    for size in (1, 2, 3):
        yield from (("".join(some), letter) for some in itertools.product(letters, repeat=size) for letter in letters)


def _config(shape: ModernShape) -> dict[str, Any]:
    ids = {f"{name}_token_id": FIRST_SPECIAL + SPECIAL.index(token) for name, token in _IDS.items()}
    return {
        "architectures": ["ModernBertForSequenceClassification"],
        "model_type": "modernbert",
        "dtype": "float32",
        "vocab_size": ROWS,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.inner,
        "max_position_embeddings": POSITIONS,
        "global_attn_every_n_layers": 3,
        "local_attention": 128,
        "global_rope_theta": 160000.0,
        "local_rope_theta": 10000.0,
        "hidden_activation": "gelu",
        "classifier_activation": "gelu",
        "classifier_pooling": "cls",
        "norm_eps": 1e-05,
        **dict.fromkeys(("attention_bias", "classifier_bias", "mlp_bias", "norm_bias"), False),
        **dict.fromkeys(("attention_dropout", "classifier_dropout", "embedding_dropout", "mlp_dropout"), 0.0),
        "id2label": {"0": "LABEL_0", "1": "LABEL_1"},
        "label2id": {"LABEL_0": 0, "LABEL_1": 1},
        "problem_type": "single_label_classification",
        **ids,
    }


_IDS = {"bos": "[CLS]", "cls": "[CLS]", "eos": "[SEP]", "sep": "[SEP]", "pad": "[PAD]"}


def _tensors(shape: ModernShape) -> dict[str, NDArray[np.float32]]:
    """Draw the weights of transformers' ``ModernBertForSequenceClassification``."""
    hidden, inner = shape.hidden, shape.inner
    sizes = {"model.embeddings.tok_embeddings": (ROWS, hidden), "head.dense": (hidden, hidden), "classifier": (2, hidden)}
    norms = ["model.embeddings.norm", "model.final_norm", "head.norm"]
    for i in range(shape.layers):
        at = f"model.layers.{i}."
        sizes |= {f"{at}attn.Wqkv": (3 * hidden, hidden), f"{at}attn.Wo": (hidden, hidden)}
        sizes |= {f"{at}mlp.Wi": (2 * inner, hidden), f"{at}mlp.Wo": (hidden, inner)}
        norms += [f"{at}mlp_norm", *([f"{at}attn_norm"] if i else [])]  # the embeddings' norm is that of layer 0
    # With this spread, transformers' own, int8 moves a logit by a tenth of what texts differ in, and leaving out the window by
    # as much as they differ, so that the check of an engine sees it (22 layers of 768, texts of 300 tokens).
    rng = np.random.default_rng(0)
    tensors = {f"{name}.weight": 0.02 * rng.standard_normal(size, dtype=np.float32) for name, size in sizes.items()}
    tensors |= {f"{name}.weight": np.ones(hidden, dtype=np.float32) for name in norms}
    # Two random logits are so close that rounding would decide between the labels: this keeps them apart.
    tensors["classifier.bias"] = np.array([-0.5, 0.5], dtype=np.float32)
    return tensors
