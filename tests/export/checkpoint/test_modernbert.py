"""ModernBERT's configuration, as transformers reads it: layers, windows, RoPE, biases, pooling."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from wrong_values import changes

from fusedbert.engine import CheckpointError, FusedBertError
from fusedbert.export import export_checkpoint
from fusedbert.export.checkpoint.architecture import describe, read_config
from fusedbert.export.checkpoint.weights import Weights
from fusedbert.export.graph.cpu.fp32 import CpuFp32
from fusedbert.export.parity.gates import open_scratch

THETAS = {"full_attention": {"rope_type": "default", "rope_theta": 500.0}}
CONFIGS: list[dict[str, Any]] = [
    {},
    {"global_attn_every_n_layers": 1},
    {"global_attn_every_n_layers": 2, "num_hidden_layers": 5, "local_attention": 7},
    {"layer_types": ["sliding_attention", "full_attention"], "num_hidden_layers": 2},
    {"layer_types": ["sliding_attention"] * 3, "num_hidden_layers": 3, "global_attn_every_n_layers": 1},
    {"global_rope_theta": 70000, "local_rope_theta": 90.5},
    {"rope_parameters": THETAS, "global_rope_theta": 3.0, "local_rope_theta": 4.0},
    {"rope_parameters": None, "norm_eps": 0.25, "norm_bias": True, "classifier_pooling": "mean"},
    {"attention_bias": True, "mlp_bias": True, "classifier_bias": True, "hidden_activation": "silu"},
    {"position_embedding_type": "sans_pos", "layer_norm_eps": 0.5, "reference_compile": None, "is_decoder": True},
]


def config(**more: Any) -> dict[str, Any]:
    sizes = {"vocab_size": 70, "hidden_size": 48, "num_attention_heads": 4}
    return {"model_type": "modernbert", "pad_token_id": 0, **sizes, **more}


@pytest.mark.parametrize("options", CONFIGS, ids=str)
def test_a_config_means_what_transformers_reads(options: dict[str, Any]) -> None:
    from transformers import ModernBertConfig

    found, layout = describe(config(**options))
    theirs: Any = ModernBertConfig.from_dict(config(**options))
    windows = tuple(theirs.sliding_window if kind == "sliding_attention" else None for kind in theirs.layer_types)
    assert (found.layers, found.windows) == (theirs.num_hidden_layers, windows)
    assert found.thetas == tuple(theirs.rope_parameters[kind]["rope_theta"] for kind in theirs.layer_types)
    assert (found.norm_eps, found.pooling) == (theirs.norm_eps, theirs.classifier_pooling)
    for key, parts in layout.bias_options.items():
        assert all((part not in found.unbiased) == getattr(theirs, key) for part in parts)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"rope_scaling": {"rope_type": "linear", "factor": 2.0}}, "rope_scaling"),
        ({"rope_parameters": {"full_attention": {"rope_type": "yarn", "factor": 2.0}}}, "rope_type = 'yarn'"),
        ({"rope_parameters": {"full_attention": {"partial_rotary_factor": 0.5}}}, "partial_rotary_factor = 0.5"),
        ({"rope_parameters": {"rope_theta": 3.0}}, "rope_parameters"),
        ({"rope_parameters": {**THETAS, "sliding_attention": None}}, "rope_parameters.sliding_attention"),
        ({"layer_types": ["full_attention"]}, "layer_types"),
        ({"layer_types": ["chunked_attention"] * 22}, "layer_types"),
        ({"global_attn_every_n_layers": 0}, "global_attn_every_n_layers = 0"),
        ({"local_attention": 1}, "local_attention = 1"),
        ({"local_rope_theta": None}, "local_rope_theta = None"),
        ({"head_dim": 64}, "head_dim = 64"),
        ({"classifier_pooling": "max"}, "classifier_pooling = 'max'"),
        ({"norm_bias": "yes"}, "norm_bias = 'yes'"),
        ({"classifier_activation": "snake"}, "snake"),
    ],
    ids=str,
)
def test_what_is_not_built_is_refused_by_name(options: dict[str, Any], named: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        describe(config(**options))
    assert named in str(caught.value) and "\n" not in str(caught.value)


def test_every_wrong_value_is_one_error_or_harmless() -> None:
    whole = config(
        layer_types=["full_attention"], num_hidden_layers=1, rope_parameters=THETAS, local_attention=8, norm_eps=1e-5,
        hidden_activation="gelu", classifier_activation="gelu", classifier_pooling="cls", mlp_bias=False, intermediate_size=8,
    )  # fmt: skip
    for at, value, changed in changes(whole):
        if not at:  # a config has to be an object, or is refused where it is read
            continue
        try:
            describe(changed)
        except FusedBertError as error:
            assert isinstance(error, CheckpointError) and "\n" not in str(error), (at, value, error)


def test_both_kinds_of_config_give_the_same_graph(make_checkpoint, tmp_path: Path) -> None:
    """One as transformers 4 wrote it, and one as 5 does."""
    source = make_checkpoint("modernbert", local_attention=8, num_labels=3)
    path = source / "config.json"
    new = json.loads(path.read_text())
    assert "layer_types" in new and "rope_parameters" in new
    export_checkpoint(source, tmp_path / "new", target="fp32")
    thetas = {"global_rope_theta": 160000.0, "local_rope_theta": 10000.0, "global_attn_every_n_layers": 3}
    old = {key: value for key, value in new.items() if key not in ("layer_types", "rope_parameters")}
    path.write_text(json.dumps({**old, **thetas}))
    export_checkpoint(source, tmp_path / "old", target="fp32")
    read = [json.loads((tmp_path / name / "fusedbert.json").read_text())["golden"] for name in ("new", "old")]
    assert read[0] == read[1]


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "model."], ids=str)
def test_names_without_the_prefix_are_read_and_those_of_a_wrapper_refused(make_checkpoint, tmp_path: Path, prefix: str) -> None:
    from safetensors.numpy import load_file, save_file

    source = make_checkpoint("modernbert", seed=3)
    architecture, layout = describe(read_config(source))
    expected = open_scratch(architecture, Weights(source, architecture, layout), CpuFp32)
    tensors = load_file(source / "model.safetensors")
    renamed = {prefix + name if prefix else name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    save_file(renamed, source / "model.safetensors", metadata={"format": "pt"})
    if prefix:
        with pytest.raises(CheckpointError, match=rf"has '{prefix}' before its tensors' names"):
            Weights(source, architecture, layout)
        return
    found = open_scratch(architecture, Weights(source, architecture, layout), CpuFp32)
    arrays = {"input_ids": np.array([[2, 9, 9, 3]]), "attention_mask": np.ones((1, 4), np.int64)}
    np.testing.assert_array_equal(found.run(None, arrays)[0], expected.run(None, arrays)[0])
