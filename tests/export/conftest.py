"""Tiny random checkpoints of every family, made and judged by transformers."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusedbert.export import exporter

WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "the",
    "a",
    "movie",
    "film",
    "was",
    "is",
    "not",
    "good",
    "great",
    "bad",
    "bland",
    "boring",
    "really",
    "loved",
    "hated",
    "it",
    "i",
    "we",
    "and",
    "but",
    "so",
    "##s",
    "##ed",
    "##ing",
    "##ly",
    ".",
    ",",
    "!",
    "?",
    "'",
    "0",
    "1",
    "2",
    "3",
    "4",
    "5",
    "6",
    "7",
    "8",
    "9",
    "b",
    "c",
    "d",
    "e",
    "f",
    "g",
    "h",
    "j",
    "k",
    "l",
    "m",
    "n",
    "o",
    "p",
    "q",
    "r",
    "s",
    "t",
    "u",
    "v",
    "w",
    "x",
    "y",
    "z",
    "##a",
    "##b",
]

SHAPE = {"vocab_size": len(WORDS), "max_position_embeddings": 40}
USUAL = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 80, **SHAPE}
FAMILIES: dict[str, dict[str, Any]] = {
    "bert": USUAL,
    "roberta": {**USUAL, "type_vocab_size": 1, "pad_token_id": 1},
    "xlm-roberta": {**USUAL, "type_vocab_size": 1, "pad_token_id": 1},
    "camembert": {**USUAL, "type_vocab_size": 1, "pad_token_id": 1},
    "distilbert": {"dim": 48, "n_layers": 3, "n_heads": 4, "hidden_dim": 80, **SHAPE},
    "electra": {**USUAL, "embedding_size": 32},
}

Maker = Callable[..., Path]


def write_tokenizer(folder: Path, family: str = "bert") -> None:
    """Write a WordPiece tokenizer over ``WORDS``; RoBERTa's kinds keep padding at 1."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    words = list(WORDS)
    if "rob" in family or family == "camembert":
        words[0], words[1] = words[1], words[0]
    vocab = {word: i for i, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", vocab["[SEP]"]), ("[CLS]", vocab["[CLS]"]))
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 10**30, **names}
    if family in ("bert", "electra"):  # transformers 5 passes no segments of this class otherwise, 4 does
        config["model_input_names"] = ["input_ids", "token_type_ids", "attention_mask"]
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


@pytest.fixture(scope="session")
def tokenizers_at_random() -> Any:
    """The module beside this one that makes random tokenizers; pytest's import mode leaves its folder off the path."""
    spec = importlib.util.spec_from_file_location("random_tokenizers", Path(__file__).with_name("random_tokenizers.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def word_piece(tokenizers_at_random: Any) -> Callable[..., Any]:
    """Return a function that makes BERT's usual tokenizer, with switches of its normalizer."""
    return tokenizers_at_random.word_piece


@pytest.fixture(autouse=True)
def alone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Export without a second process that imports transformers each time; test_tokenizers.py has that."""
    if "tokenizers" not in request.module.__name__:
        monkeypatch.setattr(exporter, "against_transformers", lambda _: contextlib.nullcontext(lambda tokens: []))


@pytest.fixture(scope="session")
def make_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Maker:
    """Return a function that writes a tiny random checkpoint: family, then config values, then its folder."""

    def make(family: str = "bert", *, dtype: str = "float32", spread: float = 0.3, seed: int = 0, **config: Any) -> Path:
        import torch
        from transformers import AutoConfig, AutoModelForSequenceClassification

        torch.manual_seed(seed)
        settings = AutoConfig.for_model(family, **{**FAMILIES[family], **config})
        model = AutoModelForSequenceClassification.from_config(settings).eval()
        with torch.no_grad():
            for parameter in model.parameters():  # biases and norms too: zeros and ones would hide a swapped tensor
                parameter.add_(torch.randn_like(parameter) * spread * (1.0 if parameter.ndim == 1 else 0.3))
        folder = tmp_path_factory.mktemp(family.replace("-", "_"))
        model.to(getattr(torch, dtype)).save_pretrained(folder)
        write_tokenizer(folder, family)
        return folder

    return make


@pytest.fixture(scope="session")
def judge() -> Callable[..., np.ndarray]:
    """Return a function that gives transformers' logits for a padded batch, float32 arithmetic."""

    @functools.lru_cache(maxsize=1)
    def load(folder: Path) -> Any:
        import torch
        from transformers import AutoModelForSequenceClassification

        return AutoModelForSequenceClassification.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager"
        ).eval()

    def logits(folder: Path, arrays: dict[str, np.ndarray]) -> np.ndarray:
        import torch

        model = load(folder)
        names = ["input_ids", "attention_mask"]
        if getattr(model.config, "type_vocab_size", 0) > 0:
            names.append("token_type_ids")
        with torch.no_grad():
            return model(**{name: torch.from_numpy(arrays[name]) for name in names}).logits.numpy()

    return logits
