"""DeBERTa-v3 (He et al. 2023) of any size with random weights, to measure with; options as in microsoft/deberta-v3-base."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

ROWS = 128100  # of the table of embeddings
PIECES = 128000  # of the vocabulary; [MASK] follows
SPECIAL = ("[PAD]", "[CLS]", "[SEP]", "[UNK]")
POSITIONS, BUCKETS = 512, 256


@dataclasses.dataclass(frozen=True, kw_only=True)
class DebertaShape:
    """The numbers that a DeBERTa's speed depends on."""

    layers: int
    heads: int
    hidden: int


DEBERTA_V3_SMALL = DebertaShape(layers=6, heads=12, hidden=768)
DEBERTA_V3_BASE = DebertaShape(layers=12, heads=12, hidden=768)
DEBERTA_V3_LARGE = DebertaShape(layers=24, heads=16, hidden=1024)


def write_checkpoint(folder: Path, shape: DebertaShape, vocabulary: Path) -> None:
    """Write a random DeBERTa-v3 with two labels into a folder as transformers would save it.

    The tokenizer's pieces are the words of ``vocabulary``, a ``vocab.txt`` of WordPiece, and then runs of letters.
    """
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    words = [word for word in vocabulary.read_text(encoding="utf-8").splitlines() if word.isascii()]
    make_tokenizer(words).save(str(folder / "tokenizer.json"))
    special = {f"{token[1:-1].lower()}_token": token for token in (*SPECIAL, "[MASK]")}
    kind = {"tokenizer_class": "DebertaV2Tokenizer", "do_lower_case": False, "split_by_punct": False}
    about = {**kind, "vocab_type": "spm", "model_max_length": 10**30, **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(about, indent=2), encoding="utf-8")
    (folder / "config.json").write_text(json.dumps(_config(shape), indent=2), encoding="utf-8")
    save_file(_tensors(shape), folder / "model.safetensors", metadata={"format": "pt"})


def make_tokenizer(words: list[str]) -> Tokenizer:
    """Make a Unigram (Kudo 2018) with as many pieces as DeBERTa-v3's; frequent words come first, and are the likeliest."""
    names = dict.fromkeys(itertools.islice(itertools.chain(SPECIAL, _pieces(words)), PIECES))
    scores = [0.0 if name in SPECIAL else round(-8 - 1e-4 * i - 4 * (len(name) == 1), 4) for i, name in enumerate(names)]
    tokenizer = Tokenizer(models.Unigram(list(zip(names, scores, strict=True)), unk_id=3, byte_fallback=False))
    tokenizer.normalizer = normalizers.Sequence(  # as in transformers' class
        [normalizers.Replace(Regex(r"\s{2,}|[\n\r\t]"), " "), normalizers.NFC(), normalizers.Strip(left=False, right=True)]
    )
    spaces = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([spaces])
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in (*SPECIAL, "[MASK]")])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 1), ("[SEP]", 2)],
    )
    return tokenizer


def _pieces(words: list[str]) -> Iterator[str]:
    """Yield pieces, ``▁`` being the space before a word, each once."""
    whole = [word for word in words if word.isalnum()]
    spelled = (
        *(f"▁{word}" for word in whole),
        *(f"▁{word.capitalize()}" for word in whole),
        *(word.removeprefix("##") for word in words if word.startswith("##")),
        "▁",
        *map(chr, range(33, 127)),
    )
    letters = "abcdefghijklmnopqrstuvwxyz"
    runs = ("".join(run) for size in (2, 3, 4) for run in itertools.product(letters, repeat=size))
    yield from dict.fromkeys(itertools.chain(spelled, runs))


def _config(shape: DebertaShape) -> dict[str, Any]:
    return {
        "architectures": ["DebertaV2ForSequenceClassification"],
        "model_type": "deberta-v2",
        "dtype": "float32",
        "vocab_size": ROWS,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "hidden_size": shape.hidden,
        "intermediate_size": 4 * shape.hidden,
        "max_position_embeddings": POSITIONS,
        "max_relative_positions": -1,
        "position_buckets": BUCKETS,
        "relative_attention": True,
        "position_biased_input": False,
        "pos_att_type": ["p2c", "c2p"],
        "share_att_key": True,
        "norm_rel_ebd": "layer_norm",
        "type_vocab_size": 0,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-07,
        "pooler_hidden_act": "gelu",
        "pooler_hidden_size": shape.hidden,
        "pooler_dropout": 0,
        "pad_token_id": 0,
        **dict.fromkeys(("attention_probs_dropout_prob", "hidden_dropout_prob"), 0.1),
        "id2label": {"0": "LABEL_0", "1": "LABEL_1"},
        "label2id": {"LABEL_0": 0, "LABEL_1": 1},
        "problem_type": "single_label_classification",
    }


def _tensors(shape: DebertaShape) -> dict[str, NDArray[np.float32]]:
    """Draw the weights of transformers' ``DebertaV2ForSequenceClassification``."""
    hidden, inner = shape.hidden, 4 * shape.hidden
    weights = {"deberta.embeddings.word_embeddings": (ROWS, hidden), "deberta.encoder.rel_embeddings": (2 * BUCKETS, hidden)}
    dense = {"pooler.dense": (hidden, hidden), "classifier": (2, hidden)}
    norms = ["deberta.embeddings.LayerNorm", "deberta.encoder.LayerNorm"]
    for i in range(shape.layers):
        at = f"deberta.encoder.layer.{i}."
        parts = ("self.query_proj", "self.key_proj", "self.value_proj", "output.dense")
        dense |= {f"{at}attention.{part}": (hidden, hidden) for part in parts}
        dense |= {f"{at}intermediate.dense": (inner, hidden), f"{at}output.dense": (hidden, inner)}
        norms += [f"{at}attention.output.LayerNorm", f"{at}output.LayerNorm"]
    rng = np.random.default_rng(0)
    sizes = {f"{name}.weight": size for name, size in (weights | dense).items()}
    # Queries and keys are wide enough for positions to matter, so that the check of an engine sees a wrong one.
    tensors = {
        name: (0.05 if "query" in name or "key" in name else 0.02) * rng.standard_normal(size, dtype=np.float32)
        for name, size in sizes.items()
    }
    tensors |= {f"{name}.bias": np.zeros(size[0], dtype=np.float32) for name, size in dense.items()}
    tensors["classifier.bias"] = np.array([-0.5, 0.5], dtype=np.float32)  # else rounding would decide between the labels
    for name in norms:
        tensors |= {f"{name}.weight": np.ones(hidden, dtype=np.float32), f"{name}.bias": np.zeros(hidden, dtype=np.float32)}
    return tensors
