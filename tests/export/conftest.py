"""Tiny random checkpoints of every family, made and judged by transformers."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusedbert.engine.text.tokenizer import pad
from fusedbert.export import exporter
from fusedbert.export.checkpoint.architecture import describe, read_config
from fusedbert.export.parity.gates import open_session
from fusedbert.export.parity.texts import check_set
from fusedbert.export.tokenizer import Tokenization

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
    "deberta-v2": {
        **USUAL,
        "type_vocab_size": 0,
        "relative_attention": True,
        "position_biased_input": False,
        "pos_att_type": ["p2c", "c2p"],
        "share_att_key": True,
        "norm_rel_ebd": "layer_norm",
        "position_buckets": 8,
    },
    "mpnet": {**USUAL, "pad_token_id": 1},
    "albert": {**USUAL, "embedding_size": 24},
    "modernbert": {
        **{name: value for name, value in USUAL.items() if name != "max_position_embeddings"},
        "max_position_embeddings": 60,
        "local_attention": 16,
        "pad_token_id": 0,
        "bos_token_id": 2,
        "cls_token_id": 2,
        "eos_token_id": 3,
        "sep_token_id": 3,
        "num_hidden_layers": 4,
    },
}

Maker = Callable[..., Path]


def write_tokenizer(folder: Path, family: str = "bert") -> None:
    """Write a WordPiece tokenizer over ``WORDS``; the RoBERTa families have padding at id 1."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    words = list(WORDS)
    if "rob" in family or family in ("camembert", "mpnet"):
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
    if family in ("bert", "electra", "albert"):  # transformers 5 passes no segments of this class otherwise, 4 does
        config["model_input_names"] = ["input_ids", "token_type_ids", "attention_mask"]
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


@pytest.fixture(autouse=True)
def alone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Export without a second process that imports transformers each time; test_tokenizers.py has that."""
    if "tokenizers" not in request.module.__name__:
        monkeypatch.setattr(exporter, "against_transformers", lambda _: contextlib.nullcontext(lambda tokens: []))


@pytest.fixture(scope="session")
def make_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Maker:
    """Return a function that writes a tiny random checkpoint: family, then config values, then its folder."""

    def make(
        family: str = "bert",
        *,
        dtype: str = "float32",
        spread: float = 0.3,
        seed: int = 0,
        tokens: bool = False,  # make a token classifier
        **config: Any,
    ) -> Path:
        import torch
        from transformers import AutoConfig, AutoModelForSequenceClassification, AutoModelForTokenClassification

        torch.manual_seed(seed)
        settings = AutoConfig.for_model(family, **{**FAMILIES[family], **config})
        kind = AutoModelForTokenClassification if tokens else AutoModelForSequenceClassification
        model = kind.from_config(settings).eval()
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
        import transformers

        (kind,) = read_config(folder)["architectures"]
        return getattr(transformers, kind).from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()

    def logits(folder: Path, arrays: dict[str, np.ndarray]) -> np.ndarray:
        import torch

        model = load(folder)
        names = ["input_ids", "attention_mask"]
        if getattr(model.config, "type_vocab_size", 0) > 0:
            names.append("token_type_ids")
        with torch.no_grad():
            return model(**{name: torch.from_numpy(arrays[name]) for name in names}).logits.numpy()

    return logits


@pytest.fixture(scope="session")
def assert_logits(judge: Callable[..., np.ndarray]) -> Callable[[Path, Path], None]:
    """Return a function that compares a graph with transformers, on the check texts: graph, then checkpoint."""

    def compare(graph: Path, checkpoint: Path) -> None:
        architecture, _ = describe(read_config(checkpoint))
        checks = check_set(architecture, Tokenization(checkpoint, architecture))
        session = open_session(graph)
        names = {item.name for item in session.get_inputs()}
        for batch in checks.batches:
            arrays = pad([checks.texts[row] for row in batch], architecture.padding_id)
            found = session.run(["logits"], {name: array for name, array in arrays.items() if name in names})[0]
            expected = judge(checkpoint, arrays)
            if found.ndim == 3:  # of tokens, where padding has any
                found, expected = (each[arrays["attention_mask"] == 1] for each in (found, expected))
            np.testing.assert_allclose(found, expected, atol=1e-4, rtol=0)

    return compare
