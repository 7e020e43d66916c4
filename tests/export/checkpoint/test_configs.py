"""Configs, complete and not: our description compared with the modules that transformers makes of them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusedbert.engine.errors import CheckpointError
from fusedbert.engine.text.tokenizer import pad
from fusedbert.export.checkpoint.architecture import Architecture, describe, read_config, read_labels
from fusedbert.export.checkpoint.layouts import LAYOUTS
from fusedbert.export.checkpoint.tensors import expected_tensors
from fusedbert.export.checkpoint.weights import Weights
from fusedbert.export.parity.reference import ACTIVATIONS, forward
from fusedbert.export.parity.texts import check_set
from fusedbert.export.tokenizer import Tokenization

FAMILIES = tuple(family for layout in LAYOUTS for family in layout.families)
GRID = np.linspace(-12, 12, 201)
SMALL = {"num_hidden_layers": 2, "hidden_size": 24, "num_attention_heads": 4}
V3 = {
    "relative_attention": True,
    "position_biased_input": False,
    "pos_att_type": "c2p|p2c",
    "share_att_key": True,
    "norm_rel_ebd": "layer_norm",
    "position_buckets": 32,
    "max_position_embeddings": 64,
}
PADDING: dict[str, dict[str, Any]] = {family: {"pad_token_id": 0} if family == "modernbert" else {} for family in FAMILIES}
CASES: list[tuple[str, dict[str, Any]]] = [
    *((family, {}) for family in FAMILIES),
    *((family, {"layer_norm_eps": 0.3, "vocab_size": 99, "type_vocab_size": 3, **PADDING[family]}) for family in FAMILIES),
    *((family, {**SMALL, "hidden_act": "relu", "activation": "gelu_new"}) for family in FAMILIES),
    *((family, {"pad_token_id": 7, "max_position_embeddings": 41, "intermediate_size": 12}) for family in FAMILIES),
    *((family, {"pad_token_id": None}) for family in ("bert", "distilbert", "electra")),
    ("deberta-v2", {**SMALL, **V3}),
    ("deberta-v2", {**SMALL, **V3, "share_att_key": False, "type_vocab_size": 2, "position_biased_input": True}),
    ("deberta-v2", {**SMALL, **V3, "share_att_key": False, "pos_att_type": ["c2p"], "norm_rel_ebd": "none"}),
    ("deberta-v2", {**SMALL, **V3, "position_buckets": -1, "embedding_size": 20, "max_relative_positions": 40}),
    ("mpnet", {**SMALL, "relative_attention_num_buckets": 40}),
    ("albert", {**SMALL, "num_hidden_groups": 2, "embedding_size": 24}),
    ("bert", {"layer_norm_eps": 0.0}),
    ("bert", {"layer_norm_eps": 1e-5}),
    ("electra", {"embedding_size": 256}),
    ("electra", {"embedding_size": 17, "hidden_size": 32}),
    ("distilbert", {"dim": 48, "n_heads": 2, "n_layers": 1}),
    (
        "distilbert",
        {"dim": 48, "hidden_size": 24, "n_heads": 2, "num_attention_heads": 3, "n_layers": 1, "num_hidden_layers": 2},
    ),
    ("distilbert", {"hidden_dim": 30, "intermediate_size": 12, "layer_norm_eps": "no number", "sinusoidal_pos_embds": True}),
]


@pytest.mark.parametrize(("family", "config"), CASES, ids=lambda value: value if isinstance(value, str) else json.dumps(value))
def test_the_description_matches_the_modules_of_transformers(tmp_path: Path, family: str, config: dict[str, Any]) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    document = {"model_type": family, **config}
    (tmp_path / "config.json").write_text(json.dumps(document))
    architecture, layout = describe(read_config(tmp_path))
    with torch.device("meta"):  # only shapes
        model = AutoModelForSequenceClassification.from_config(AutoConfig.from_pretrained(tmp_path))
    modules = dict(model.named_modules())
    expected = {
        (layout.prefix if name.startswith("^") else "") + name.removeprefix("^"): tuple(
            2 if size == -1 else size for size in shape
        )
        for name, shape in expected_tensors(architecture, layout, architecture.layers).values()
    }
    state = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    known = [*layout.ignored, r"\.position_ids$"]
    assert expected == {name: shape for name, shape in state.items() if not any(re.search(known_, name) for known_ in known)}
    norms = [module.eps for module in modules.values() if isinstance(module, torch.nn.LayerNorm)]
    others = 1 + ("head_norm" in layout.head) + ("relative_norm" in layout.relative)
    assert norms == [architecture.norm_eps] * (2 * distinct_layers(architecture) + others)
    _same_activation(modules, architecture)
    _same_heads_and_positions(model, architecture, follow=layout.positions_follow_padding)


def distinct_layers(architecture: Architecture) -> int:
    """ALBERT's groups of layers share their modules."""
    return architecture.groups or architecture.layers


def _same_activation(modules: dict[str, Any], architecture: Architecture) -> None:
    import torch

    named = {True: ("act",), False: ("intermediate_act_fn", "activation")}  # the attribute's name in ModernBERT, and elsewhere
    found = [
        (type(module).__name__, getattr(module, name))
        for module in modules.values()
        for name in named[type(module).__name__.startswith("ModernBert")]
        if callable(getattr(module, name, None))
    ]
    heads = [each for each in found if each[0].endswith(("Pooler", "Head"))]  # hard-coded in RoBERTa and DistilBERT
    assert len(heads) == (architecture.family in ("bert", "electra", "modernbert"))
    assert len(found) == distinct_layers(architecture) + len(heads)
    for name, function in found:
        kind = architecture.head[0].activation if name.endswith(("Pooler", "Head")) else architecture.activation
        np.testing.assert_allclose(ACTIVATIONS[str(kind)](GRID), function(torch.from_numpy(GRID)).numpy(), atol=1e-9, rtol=0)


def _same_heads_and_positions(model: Any, architecture: Architecture, *, follow: bool) -> None:
    import torch

    kinds = ("SelfAttention", "ModernBertAttention", "AlbertAttention")
    parts = [module for module in model.modules() if type(module).__name__.endswith(kinds)]
    heads = {getattr(getattr(part, "config", part), "num_attention_heads", None) or part.n_heads for part in parts}
    assert (len(parts), heads) == (distinct_layers(architecture), {architecture.heads})
    embeddings = model.base_model.embeddings
    counted = getattr(embeddings, "create_position_ids_from_input_ids", None)
    if architecture.family == "mpnet":
        from transformers.models.mpnet.modeling_mpnet import create_position_ids_from_input_ids as counted
    assert (counted is not None) == follow
    assert (architecture.position_offset > 0) == follow
    if follow:
        padding = embeddings.padding_idx
        assert counted is not None
        positions = counted(torch.tensor([[9, 9, padding, 9]]), padding).tolist()[0]
        offset = architecture.position_offset
        assert positions == [offset, offset + 1, architecture.padding_id, offset + 2]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_defaults_are_those_of_the_config_classes(family: str) -> None:
    from transformers import AutoConfig

    layout = next(layout for layout in LAYOUTS if family in layout.families)
    theirs = AutoConfig.for_model(family)
    for name, value in layout.defaults.items():
        own = layout.config_names.get(name, name)
        if hasattr(theirs, own):
            assert (name, getattr(theirs, own)) == (name, value)
        else:
            absent = {"distilbert": ("type_vocab_size", "layer_norm_eps"), "mpnet": ("type_vocab_size",)}
            assert name in absent[family], name


@pytest.mark.parametrize(
    "config",
    [
        *(
            {name: value}
            for name in ("vocab_size", "hidden_size", "num_hidden_layers")
            for value in (None, "8", 0, -1, 2.0, True)
        ),
        {"type_vocab_size": None},
        {"max_position_embeddings": 10**30},
        {"intermediate_size": []},
        *({"layer_norm_eps": value} for value in (None, "x", "1e-5", float("inf"), float("nan"), -1e-5, True, [], 1e39)),
        *({"pad_token_id": value} for value in ("0", True, 1.0, 30522, 10**40)),
        *({"model_type": "roberta", "pad_token_id": value} for value in (None, -1, 50265)),
        {"model_type": "electra", "embedding_size": None},
        *({"model_type": "distilbert", "hidden_size": value} for value in (None, "x")),
        {"model_type": "distilbert", "dim": None, "hidden_size": 48},
        {"hidden_act": None},
        {"hidden_size": 100, "num_attention_heads": 11},
    ],
    ids=str,
)
def test_an_invalid_value_is_refused_by_name(config: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError) as caught:
        describe({"model_type": "bert", **config})
    message = str(caught.value)
    name, value = list(config.items())[-1] if "dim" not in config else ("dim", None)
    assert name.removeprefix("num_").replace("_", " ") in message.replace("_", " ") or "activation" in message
    assert "\n" not in message and len(message) < 400 and (len(repr(value)) > 80 or repr(value) in message)


def test_distilbert_takes_no_epsilon_from_its_config(make_checkpoint) -> None:
    """Compared with transformers in float64: our reference reads the same config, so no gate would see a difference."""
    import torch
    from transformers import AutoModelForSequenceClassification

    source = make_checkpoint("distilbert")
    path = source / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "layer_norm_eps": 0.3}))
    architecture, layout = describe(read_config(source))
    texts = check_set(architecture, Tokenization(source, architecture)).texts[:4]
    found = forward(architecture, Weights(source, architecture, layout), texts)
    model = AutoModelForSequenceClassification.from_pretrained(source, attn_implementation="eager").double().eval()
    for row, text in enumerate(texts):
        arrays = pad([text], architecture.padding_id)
        with torch.no_grad():
            expected = model(
                **{name: torch.from_numpy(arrays[name]) for name in ("input_ids", "attention_mask")}
            ).logits.numpy()[0]
        np.testing.assert_allclose(found[row], expected, atol=1e-10, rtol=0)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ({"0": "a", "1": "b", "2": "c"}, "names a label 2 in id2label, and the classifier has 2 rows"),
        ({"0": "a", "7": "b"}, "names a label 7"),
        ({"-1": "a", "0": "b"}, "the id -1, expected ids from 0 up"),
        ({"0": "a\nb", "1": "c"}, r"'a\\nb' for 0, expected a name of one line"),
        ({"0": "a", "1": "c\x1b[2J"}, "for 1, expected a name of one line"),
        ({"0": "a", "1": "c\u2028"}, "for 1, expected a name of one line"),
        ({"0": "\ud800", "1": "b"}, r"'\\ud800' for 0, expected a name of one line"),
        ({"0": None, "1": "b"}, "None for 0, expected a name"),
        ({"0": ["a"], "1": "b"}, "expected a name"),
        (["a", "b"], "expected numbers and names"),
        ({"zero": "a"}, "expected numbers and names"),
        ({str(i): "x" * 1000 for i in range(10**4)}, "names a label 2"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_wrong_labels_are_refused(names: Any, said: str) -> None:
    with pytest.raises(CheckpointError, match=said) as caught:
        read_labels({"id2label": names}, 2)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 400
    message.encode()  # it can be printed


def test_two_labels_may_share_a_name() -> None:
    assert read_labels({"id2label": {"0": "other", "1": "spam", "2": "other"}}, 3) == ("other", "spam", "other")


@pytest.mark.parametrize("text", ['{"a": ' * 5000 + "1" + "}" * 5000, "[" * 5000 + "]" * 5000])
def test_json_nested_too_deep_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"config\.json (cannot be read as JSON|holds list)") as caught:
        describe(read_config(tmp_path))
    assert "\n" not in str(caught.value)
