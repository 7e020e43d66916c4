"""Every family, head and option of the direct route, compared with transformers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fusedbert.engine.text.tokenizer import pad
from fusedbert.export import export_checkpoint
from fusedbert.export.checkpoint.architecture import describe, read_config
from fusedbert.export.checkpoint.weights import Weights
from fusedbert.export.parity.reference import forward
from fusedbert.export.parity.texts import check_set
from fusedbert.export.tokenizer import Tokenization

FAMILIES = (
    "bert",
    "roberta",
    "xlm-roberta",
    "camembert",
    "distilbert",
    "electra",
    "modernbert",
    "deberta-v2",
    "mpnet",
    "albert",
)
CASES = [
    *((family, {}) for family in FAMILIES),
    ("bert", {"num_labels": 1}),
    ("bert", {"num_labels": 5, "problem_type": "multi_label_classification"}),
    ("roberta", {"num_labels": 3}),
    ("distilbert", {"num_labels": 4}),
    ("electra", {"embedding_size": 48}),
    ("bert", {"hidden_act": "gelu_new"}),
    ("bert", {"hidden_act": "relu"}),
    ("bert", {"hidden_act": "gelu_pytorch_tanh"}),
    ("distilbert", {"activation": "relu"}),
    ("bert", {"num_hidden_layers": 2, "num_attention_heads": 3, "hidden_size": 21, "intermediate_size": 17}),
    ("bert", {"num_hidden_layers": 6, "num_attention_heads": 16, "hidden_size": 32}),
    ("bert", {"type_vocab_size": 1}),
    ("bert", {"dtype": "float16"}),
    ("roberta", {"dtype": "bfloat16"}),
    ("deberta-v2", {"share_att_key": False, "position_biased_input": True, "type_vocab_size": 2}),
    ("deberta-v2", {"pos_att_type": "c2p", "share_att_key": False, "norm_rel_ebd": "none", "type_vocab_size": 1}),
    ("deberta-v2", {"pos_att_type": ["p2c"], "share_att_key": False, "position_buckets": -1, "pooler_hidden_act": "tanh"}),
    ("deberta-v2", {"embedding_size": 20, "position_buckets": 6, "max_relative_positions": 12}),
    ("deberta-v2", {"relative_attention": False, "position_biased_input": True, "embedding_size": 20}),
    ("mpnet", {"num_labels": 3, "relative_attention_num_buckets": 34}),
    ("albert", {"num_hidden_groups": 2, "num_hidden_layers": 5, "hidden_act": "gelu"}),
    ("albert", {"embedding_size": 48}),
    ("modernbert", {"classifier_pooling": "mean"}),
    ("modernbert", {"attention_bias": True, "mlp_bias": True, "norm_bias": True, "classifier_bias": True, "num_labels": 3}),
    ("modernbert", {"hidden_activation": "silu", "classifier_activation": "relu", "num_hidden_layers": 5, "num_labels": 1}),
    ("modernbert", {"max_position_embeddings": 1100, "classifier_pooling": "mean", "norm_bias": True, "local_attention": 9}),
    ("modernbert", {"hidden_size": 24, "num_attention_heads": 6, "local_attention": 2, "num_hidden_layers": 6}),
]


@pytest.mark.parametrize(
    ("family", "options"), CASES, ids=lambda value: value if isinstance(value, str) else "-".join(map(str, value))
)
def test_logits_equal_transformers(make_checkpoint, assert_logits, tmp_path: Path, family: str, options: dict) -> None:
    source = make_checkpoint(family, **options)
    export_checkpoint(source, tmp_path / "artifact", target="cpu", required=False)
    assert_logits(tmp_path / "artifact/onnx/model.onnx", source)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_reference_equals_transformers_in_float64(make_checkpoint, family: str) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification

    source = make_checkpoint(family)
    architecture, layout = describe(read_config(source))
    checks = check_set(architecture, Tokenization(source, architecture))
    found = forward(architecture, Weights(source, architecture, layout), checks.texts)
    model = AutoModelForSequenceClassification.from_pretrained(source, attn_implementation="eager").double().eval()
    for row, text in enumerate(checks.texts):
        arrays = pad([text], architecture.padding_id)
        names = ["input_ids", "attention_mask", *(["token_type_ids"] if architecture.token_types else [])]
        with torch.no_grad():
            expected = model(**{name: torch.from_numpy(arrays[name]) for name in names}).logits.numpy()[0]
        # transformers turns queries and keys by RoPE in float32, whatever the model's type is
        np.testing.assert_allclose(found[row], expected, atol=1e-6 if architecture.thetas else 1e-10, rtol=0)


def test_old_tensor_names_and_a_missing_prefix_are_understood(make_checkpoint, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    source = make_checkpoint("bert")
    expected = export_checkpoint(source, tmp_path / "new", target="cpu", required=False).golden
    tensors = load_file(source / "model.safetensors")
    old = {
        name.removeprefix("bert.").replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): t
        for name, t in tensors.items()
    }
    old["embeddings.position_ids"] = np.arange(40)[None]
    save_file(old, source / "model.safetensors")
    assert export_checkpoint(source, tmp_path / "old", target="cpu", required=False).golden == expected


def test_a_sharded_checkpoint_is_read(make_checkpoint, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    source = make_checkpoint("bert", seed=3)
    expected = export_checkpoint(source, tmp_path / "whole", target="cpu", required=False)
    tensors = load_file(source / "model.safetensors")
    names = sorted(tensors)
    parts = {"model-00001-of-00002.safetensors": names[:20], "model-00002-of-00002.safetensors": names[20:]}
    for file, held in parts.items():
        save_file({name: tensors[name] for name in held}, source / file)
    (source / "model.safetensors").unlink()
    weight_map = {name: file for file, held in parts.items() for name in held}
    (source / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    found = export_checkpoint(source, tmp_path / "shards", target="cpu", required=False)
    assert found.golden == expected.golden
    assert set(found.source.sha256) == set(parts)
