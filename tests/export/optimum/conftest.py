"""Tiny random checkpoints of families that the direct route does not build, and of two that it does, each exported once."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

WORDS = [
    *("the", "a", "movie", "film", "was", "is", "not", "good", "great", "bad", "bland", "boring", "really"),
    *("loved", "hated", "it", "i", "we", "and", "but", "so", "!", ".", ",", "?", "'"),
]
PIECES = [*WORDS, "##s", "##ed", "##ing", *"bcdefghjklmnopqrstuvwxyz", *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz")]
TEXTS = [
    "I really loved this movie.",
    "bland",
    "",
    "it was not good , but it was not bad . " * 12,
    "Größe 你好 ?!",
    "we hated it",
    "the film is so boring and so great !",
]

USUAL = {
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 80,
    "vocab_size": 90,
    "max_position_embeddings": 40,
}
RELATIVE = {
    "relative_attention": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
    "position_buckets": 8,
    "share_att_key": True,
    "norm_rel_ebd": "layer_norm",
    "type_vocab_size": 0,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "bert": USUAL,
    "roberta": {**USUAL, "type_vocab_size": 1, "pad_token_id": 1},
    "distilbert": {"dim": 48, "n_layers": 3, "n_heads": 4, "hidden_dim": 80, "vocab_size": 90, "max_position_embeddings": 40},
    "albert": {**USUAL, "embedding_size": 16},
    "deberta-v2": {**USUAL, **RELATIVE},
    "mpnet": {**USUAL, "pad_token_id": 1},
    "convbert": {**USUAL, "embedding_size": 48},
}

Maker = Callable[..., Path]


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """Texts from one token to more than any of the models takes, with known and unknown words."""
    return TEXTS


def write_tokenizer(folder: Path, family: str) -> None:
    """Write a tokenizer of the family's kind: pieces of words, or ALBERT's and DeBERTa's unigrams of whole texts."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    special = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    first = list(special.values())
    if family in ("roberta", "mpnet"):
        special = {"pad": "<pad>", "unk": "<unk>", "cls": "<s>", "sep": "</s>", "mask": "<mask>"}
        first = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    pieces = [*first, *PIECES]
    if family in ("albert", "deberta-v2"):
        pieces = [*first, *(f"▁{word}" for word in WORDS), "▁", *"abcdefghijklmnopqrstuvwxyz"]
        scores = [(piece, 0.0 if i < 5 else -1.0 - i / 10) for i, piece in enumerate(pieces)]
        tokenizer = Tokenizer(models.Unigram(scores, unk_id=1))
        tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    else:
        tokenizer = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token=special["unk"]))
        tokenizer.normalizer = normalizers.BertNormalizer()
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    cls, sep = special["cls"], special["sep"]
    second = 0 if family in ("roberta", "mpnet") else 1  # those have one segment for both texts
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{cls} $A {sep}",
        pair=f"{cls} $A {sep} $B:{second} {sep}:{second}",
        special_tokens=[(cls, pieces.index(cls)), (sep, pieces.index(sep))],
    )
    tokenizer.add_special_tokens(list(special.values()))
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 10**30}
    config |= {f"{name}_token": token for name, token in special.items()}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


@pytest.fixture(scope="session")
def make_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Maker:
    """Return a function that writes a tiny random checkpoint: family, then config values, then its folder."""

    def make(family: str, **config: Any) -> Path:
        import torch
        from transformers import AutoConfig, AutoModelForSequenceClassification

        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_config(
            AutoConfig.for_model(family, **{**FAMILIES[family], "num_labels": 3, **config})
        )
        with torch.no_grad():
            for parameter in model.parameters():  # biases and norms too: zeros and ones would hide a swapped tensor
                parameter.add_(torch.randn_like(parameter) * (0.3 if parameter.ndim == 1 else 0.1))
        folder = tmp_path_factory.mktemp(family.replace("-", "_"))
        model.save_pretrained(folder)
        write_tokenizer(folder, family)
        return folder

    return make


class Exported:
    """A checkpoint, its artifact, and the warnings that its export gave."""

    def __init__(self, checkpoint: Path, artifact: Path, **options: Any) -> None:
        from fusedbert.export import export_checkpoint

        self.checkpoint, self.artifact = checkpoint, artifact
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            self.manifest = export_checkpoint(checkpoint, artifact, **options)
        self.warnings = [f"{item.category.__name__}: {item.message}" for item in caught]


@pytest.fixture(scope="session")
def exported(make_checkpoint: Maker, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Exported]:
    """Return a function that exports a family by a route, once; the artifact is not to be written to."""
    done: dict[tuple[str, str], Exported] = {}

    def of(family: str, via: str) -> Exported:
        if (family, via) not in done:
            folder = tmp_path_factory.mktemp(f"{family}-{via}") / "artifact"
            done[family, via] = Exported(make_checkpoint(family), folder, via=via)
        return done[family, via]

    return of


@pytest.fixture(scope="session")
def judge() -> Callable[[Path, list[str], int], np.ndarray]:
    """Return a function that gives transformers' own logits for texts, tokenized and padded by transformers."""

    def logits(folder: Path, texts: list[str], max_length: int) -> np.ndarray:
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
        tokenizer = AutoTokenizer.from_pretrained(folder)
        batch = tokenizer(texts, padding=True, truncation=True, max_length=max_length, return_tensors="pt")
        if not getattr(model.config, "type_vocab_size", 0):
            batch.pop("token_type_ids", None)
        with torch.no_grad():
            return model(**batch).logits.numpy()

    return logits
