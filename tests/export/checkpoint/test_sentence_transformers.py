"""Folders that sentence-transformers writes: read, or refused by the name of what is not understood."""

from __future__ import annotations

import json
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from fusedbert.engine.errors import CheckpointError
from fusedbert.export.checkpoint.sentence_transformers import Dense, LayerNorm, read_modules

# The classes' places in sentence-transformers 6.2, and before 5.4.
PLACES = {
    "Transformer": "sentence_transformers.base.modules.transformer.Transformer",
    "Pooling": "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
    "Dense": "sentence_transformers.base.modules.dense.Dense",
    "LayerNorm": "sentence_transformers.sentence_transformer.modules.layer_norm.LayerNorm",
    "Dropout": "sentence_transformers.sentence_transformer.modules.dropout.Dropout",
}
OLD_PLACES = {kind: f"sentence_transformers.models.{kind}" for kind in PLACES}
KINDS = ["Transformer", "Pooling", "Dense", "LayerNorm", "Dense"]
HIDDEN, INNER = 8, 6
IDENTITY, SIGMOID, TANH = (
    "torch.nn.modules.linear.Identity",
    "torch.nn.modules.activation.Sigmoid",
    "torch.nn.modules.activation.Tanh",
)
TEXTS = {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}


def put(path: Path, **entries: Any) -> None:
    """Write entries over those of a JSON file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    found = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(found | entries))


def listing(folder: Path, kinds: list[str], places: dict[str, str]) -> None:
    names = ["" if not i else f"{i}_{kind}" for i, kind in enumerate(kinds)]
    modules = [
        {"idx": i, "name": str(i), "path": name, "type": places[kind]}
        for i, (kind, name) in enumerate(zip(kinds, names, strict=True))
    ]
    (folder / "modules.json").write_text(json.dumps(modules))


def dense(folder: Path, inputs: int, outputs: int, *, bias: bool = True, **entries: Any) -> None:
    put(
        folder / "config.json",
        in_features=inputs,
        out_features=outputs,
        bias=bias,
        module_input_name="sentence_embedding",
        **entries,
    )
    tensors = {"linear.weight": np.ones((outputs, inputs), np.float32)} | (
        {"linear.bias": np.ones(outputs, np.float32)} if bias else {}
    )
    save_file(tensors, folder / "model.safetensors")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A reranker as sentence-transformers 6.2 writes it; the encoder's weights are not read here."""
    listing(tmp_path, KINDS, PLACES)
    put(tmp_path / "config.json", model_type="modernbert", hidden_size=HIDDEN, architectures=["ModernBertModel"])
    put(
        tmp_path / "config_sentence_transformers.json",
        **{"__version__": {"sentence_transformers": "6.2.0"}, "activation_fn": IDENTITY, "default_prompt_name": None},
        **{"model_type": "CrossEncoder", "prompts": {}},
    )
    put(
        tmp_path / "sentence_bert_config.json",
        **{"transformer_task": "feature-extraction", "modality_config": TEXTS, "module_output_name": "token_embeddings"},
    )
    put(tmp_path / "1_Pooling" / "config.json", embedding_dimension=HIDDEN, pooling_mode="cls", include_prompt=True)
    gelu = {"activation_function": "torch.nn.modules.activation.GELU", "module_output_name": "sentence_embedding"}
    dense(tmp_path / "2_Dense", HIDDEN, INNER, bias=False, **gelu)
    put(tmp_path / "3_LayerNorm" / "config.json", dimension=INNER)
    save_file(
        {f"norm.{name}": np.ones(INNER, np.float32) for name in ("weight", "bias")},
        tmp_path / "3_LayerNorm" / "model.safetensors",
    )
    dense(tmp_path / "4_Dense", INNER, 1, activation_function=IDENTITY, module_output_name="scores")
    return tmp_path


def test_a_reranker_is_an_encoder_a_pooling_and_a_head(folder: Path) -> None:
    assert read_modules(folder / "1_Pooling") is None
    modules = read_modules(folder)
    assert modules is not None
    assert (modules.transformer, modules.max_length, modules.lower_case) == (folder, None, False)
    assert (modules.pooling, modules.width, modules.activation) == ("cls", HIDDEN, "identity")
    first, norm, last = modules.head
    files = [folder / name / "model.safetensors" for name in ("2_Dense", "3_LayerNorm", "4_Dense")]
    assert isinstance(first, Dense) and isinstance(norm, LayerNorm) and isinstance(last, Dense)
    assert astuple(first) == ("2_Dense", files[0], HIDDEN, INNER, "linear.weight", None, "gelu")
    assert astuple(norm) == ("3_LayerNorm", files[1], INNER, "norm.weight", "norm.bias", 1e-5)
    assert astuple(last) == ("4_Dense", files[2], INNER, 1, "linear.weight", "linear.bias", "identity")


def test_older_places_of_the_classes_and_a_folder_for_the_encoder_are_read(folder: Path) -> None:
    listing(folder, KINDS, OLD_PLACES)
    modules = json.loads((folder / "modules.json").read_text())
    modules[0]["path"] = "0_Transformer"
    (folder / "modules.json").write_text(json.dumps(modules))
    for name in ("config.json", "sentence_bert_config.json"):
        put(folder / "0_Transformer" / name, **json.loads((folder / name).read_text()))
        (folder / name).unlink()
    put(folder / "0_Transformer" / "sentence_bert_config.json", max_seq_length=512, do_lower_case=True)
    found = read_modules(folder)
    assert found is not None
    assert (found.transformer, found.max_length, found.lower_case) == (folder / "0_Transformer", 512, True)


def test_a_dropout_in_the_head_does_nothing(folder: Path) -> None:
    listing(folder, [*KINDS[:4], "Dense"], PLACES)
    before = read_modules(folder)
    modules = json.loads((folder / "modules.json").read_text())
    modules.insert(4, {"idx": 9, "name": "9", "path": "9_Dropout", "type": PLACES["Dropout"]})
    (folder / "modules.json").write_text(json.dumps(modules))
    put(folder / "9_Dropout" / "config.json", dropout=0.2)
    assert read_modules(folder) == before


def test_a_model_whose_encoder_has_the_classifier_has_no_head(folder: Path) -> None:
    listing(folder, ["Transformer"], PLACES)
    logits = {"text": {"method": "forward", "method_output_name": "logits"}}
    put(
        folder / "sentence_bert_config.json",
        transformer_task="sequence-classification",
        modality_config=logits,
        module_output_name="scores",
    )
    put(folder / "config_sentence_transformers.json", activation_fn=None)
    for labels, activation in ((1, "sigmoid"), (3, "identity")):
        put(folder / "config.json", id2label={str(i): f"LABEL_{i}" for i in range(labels)})
        modules = read_modules(folder)
        assert modules is not None
        assert (modules.pooling, modules.head, modules.activation) == (None, (), activation)


def legacy(**modes: bool) -> dict[str, Any]:
    names = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")
    return {"word_embedding_dimension": HIDDEN} | {f"pooling_mode_{name}": modes.get(name, False) for name in names}


@pytest.mark.parametrize(
    ("config", "pooling"),
    [
        (legacy(cls_token=True), "cls"),
        (legacy(mean_tokens=True), "mean"),
        (legacy(), "mean"),  # as sentence-transformers reads it
        ({**legacy(max_tokens=True), "pooling_mode": "cls"}, "cls"),  # the newer entry wins
        ({"embedding_dimension": HIDDEN}, "mean"),
        ({"embedding_dimension": HIDDEN, "pooling_mode": ["mean"]}, "mean"),
    ],
)
def test_the_pooling_is_that_of_either_kind_of_entry(folder: Path, config: dict[str, Any], pooling: str) -> None:
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(config))
    modules = read_modules(folder)
    assert modules is not None and modules.pooling == pooling


@pytest.mark.parametrize(
    ("settings", "config", "activation"),
    [
        ({"activation_fn": SIGMOID}, {}, "sigmoid"),
        ({"activation_fn": "torch.nn.Identity"}, {"sentence_transformers": {"activation_fn": SIGMOID}}, "identity"),
        ({"activation_fn": None}, {"sentence_transformers": {"activation_fn": IDENTITY}}, "identity"),
        ({"activation_fn": None}, {"sbert_ce_default_activation_function": IDENTITY}, "identity"),
        ({"activation_fn": None}, {"sentence_transformers": {"version": "5.4"}}, "sigmoid"),  # of a single label
    ],
)
def test_the_activation_of_a_logit_is_the_first_that_is_named(
    folder: Path, settings: Any, config: Any, activation: str
) -> None:
    put(folder / "config_sentence_transformers.json", **settings)
    put(folder / "config.json", **config)
    modules = read_modules(folder)
    assert modules is not None and modules.activation == activation


def test_several_labels_have_no_activation_unless_one_is_named(folder: Path) -> None:
    dense(folder / "4_Dense", INNER, 3, activation_function=IDENTITY, module_output_name="scores")
    put(folder / "config_sentence_transformers.json", activation_fn=None)
    modules = read_modules(folder)
    assert modules is not None and modules.activation == "identity"


@pytest.mark.parametrize("name", ["GELU", "Tanh", "ReLU", "SiLU", None])
def test_activations_of_a_dense_layer_have_the_names_of_transformers(folder: Path, name: str | None) -> None:
    """A layer that names none has tanh, sentence-transformers' default."""
    import torch
    from transformers.activations import ACT2FN

    config = json.loads((folder / "2_Dense" / "config.json").read_text())
    config.pop("activation_function")
    (folder / "2_Dense" / "config.json").write_text(
        json.dumps(config | ({"activation_function": f"torch.nn.{name}"} if name else {}))
    )
    modules = read_modules(folder)
    assert modules is not None
    first, x = modules.head[0], torch.linspace(-4, 4, 41)
    assert isinstance(first, Dense)
    assert torch.equal(ACT2FN[first.activation](x), getattr(torch.nn, name or "Tanh")()(x))


# Refused by name


@pytest.mark.parametrize(
    "kind",
    ["Normalize", "CNN", "LSTM", "BoW", "WordWeights", "WordEmbeddings", "StaticEmbedding", "Router", "Asym", "LogitScore"],
)
def test_other_modules_are_refused_by_name(folder: Path, kind: str) -> None:
    listing(folder, [*KINDS[:3], kind, "Dense"], {**PLACES, kind: f"sentence_transformers.models.{kind}"})
    with pytest.raises(
        CheckpointError, match=rf"class 'sentence_transformers\.models\.{kind}', read here are Transformer, Pooling"
    ):
        read_modules(folder)


@pytest.mark.parametrize(
    "kind", ["modeling_own.Transformer", "custom_st.Dense", "Dense", "sentence_transformers_x.models.Dense"]
)
def test_code_of_the_checkpoint_is_not_run(folder: Path, kind: str) -> None:
    listing(folder, [*KINDS[:4], "Own"], {**PLACES, "Own": kind})
    with pytest.raises(CheckpointError, match="checkpoint's own code, which is not run"):
        read_modules(folder)


@pytest.mark.parametrize("place", ["../x", "/tmp", "a/../../x", "..\\x", "C:\\x", "a\x00b"])
def test_a_path_out_of_the_folder_is_refused(folder: Path, place: str) -> None:
    modules = json.loads((folder / "modules.json").read_text())
    modules[2]["path"] = place
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(CheckpointError, match=r"not a path inside the folder: do not use this checkpoint"):
        read_modules(folder)


def test_a_link_out_of_the_folder_is_refused(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "model.safetensors"
    (folder / "4_Dense" / "model.safetensors").rename(elsewhere)
    (folder / "4_Dense" / "model.safetensors").symlink_to(elsewhere)
    with pytest.raises(CheckpointError, match="is a link out of its folder"):
        read_modules(folder)


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        (["Transformer"], "expected one Pooling, in second place"),
        (["Transformer", "Pooling"], "has no Dense at the end"),
        (KINDS[:4], "has no Dense at the end"),
        (["Pooling", "Dense"], "expected one Transformer, at the start"),
        ([*KINDS, "Transformer"], "expected one Transformer, at the start"),
        ([*KINDS, "Pooling"], "expected one Pooling, in second place"),
        (["Transformer", "Dense"], "expected one Pooling, in second place"),
    ],
)
def test_modules_in_another_order_are_refused(folder: Path, kinds: list[str], message: str) -> None:
    listing(folder, kinds, PLACES)
    with pytest.raises(CheckpointError, match=message):
        read_modules(folder)


@pytest.mark.parametrize(
    ("name", "entries", "message"),
    [
        ("1_Pooling/config.json", {"pooling_mode": mode}, f"pooling_mode = {shown}, expected cls or mean")
        for mode, shown in [
            *((mode, f"'{mode}'") for mode in ("max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken", "own")),
            (["cls", "mean"], r"\['cls', 'mean'\]"),
            (None, "None"),
        ]
    ]
    + [
        ("1_Pooling/config.json", {"embedding_dimension": 9}, "takes vectors of 8, and the module before gives 9"),
        ("1_Pooling/config.json", {"embedding_dimension": "8"}, "embedding_dimension = '8', expected a size"),
        ("1_Pooling/config.json", {"own": 1}, "own = 1, expected no such entry"),
        (
            "2_Dense/config.json",
            {"activation_function": "torch.nn.modules.activation.Softplus"},
            r"Softplus', expected torch\.nn\.Id",
        ),
        ("2_Dense/config.json", {"activation_function": "own.GELU"}, "'own.GELU', expected"),
        ("2_Dense/config.json", {"activation_function": None}, "activation_function = None, expected"),
        ("2_Dense/config.json", {"use_residual": True}, "use_residual = True, expected false"),
        ("2_Dense/config.json", {"bias": "no"}, "bias = 'no', expected true or false"),
        ("2_Dense/config.json", {"module_input_name": "token_embeddings"}, "module_input_name = 'token_embeddings', expected"),
        ("2_Dense/config.json", {"module_output_name": "scores"}, "module_output_name = 'scores', expected sentence_embedding"),
        ("2_Dense/config.json", {"in_features": True}, "in_features = True, expected a size"),
        ("2_Dense/config.json", {"out_features": 5}, r"linear.weight as F32 \[6, 8\], expected \[5, 8\]"),
        ("2_Dense/config.json", {"bias": True}, r"lacks linear.bias \[6\]"),
        ("4_Dense/config.json", {"bias": False}, "has 'linear.bias', which its config.json does not mention"),
        ("4_Dense/config.json", {"module_output_name": None}, "'sentence_embedding', expected scores of the last module"),
        ("3_LayerNorm/config.json", {"dimension": 5}, r"norm.weight as F32 \[6\], expected \[5\]"),
        (
            "sentence_bert_config.json",
            {"transformer_task": "text-generation"},
            "transformer_task = 'text-generation', expected",
        ),
        ("sentence_bert_config.json", {"transformer_task": ["x"]}, r"transformer_task = \['x'\], expected"),
        ("sentence_bert_config.json", {"modality_config": {"message": {}}}, "modality_config = .*expected"),
        (
            "sentence_bert_config.json",
            {"module_output_name": "sentence_embedding"},
            "module_output_name = .*expected 'token_emb",
        ),
        ("sentence_bert_config.json", {"max_seq_length": 0}, "max_seq_length = 0, expected a number of tokens"),
        ("sentence_bert_config.json", {"do_lower_case": "yes"}, "do_lower_case = 'yes', expected true or false"),
        ("sentence_bert_config.json", {"tokenizer_args": {"x": 1}}, "tokenizer_args = .*expected no such entry"),
        ("sentence_bert_config.json", {"query_length": 32}, "query_length = 32, expected no such entry"),
        ("sentence_bert_config.json", {"transformer_task": "sequence-classification"}, "modality_config = .*expected .*logits"),
        (
            "config_sentence_transformers.json",
            {"model_type": "SentenceTransformer"},
            "which embeds texts.*expected a CrossEncoder",
        ),
        ("config_sentence_transformers.json", {"model_type": "SparseEncoder"}, "is a 'SparseEncoder' of sentence-transformers"),
        (
            "config_sentence_transformers.json",
            {"activation_fn": TANH},
            "activation_fn = 'torch.*Tanh', expected torch.nn.Identity",
        ),
        ("config_sentence_transformers.json", {"activation_fn": "own.Sigmoid"}, "activation_fn = 'own.Sigmoid', expected"),
        ("config_sentence_transformers.json", {"activation_fn": [1]}, r"activation_fn = \[1\], expected"),
        (
            "config_sentence_transformers.json",
            {"default_prompt_name": "query", "prompts": {"query": "search: "}},
            "default_prompt_name = 'query', a text that is put before each text",
        ),
    ],
)
def test_options_that_are_not_read_are_refused_by_name(folder: Path, name: str, entries: dict[str, Any], message: str) -> None:
    put(folder / name, **entries)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_modules(folder)
    assert "\n" not in str(caught.value)


def test_a_prompt_that_is_empty_changes_no_text(folder: Path) -> None:
    before = read_modules(folder)
    put(folder / "config_sentence_transformers.json", default_prompt_name="query", prompts={"query": "", "other": "search: "})
    assert read_modules(folder) == before


def test_a_folder_that_does_not_say_that_it_classifies_is_refused(folder: Path) -> None:
    (folder / "config_sentence_transformers.json").unlink()
    with pytest.raises(CheckpointError, match=r"'SentenceTransformer' of sentence-transformers .*embeds texts"):
        read_modules(folder)


DENSE = '{"name": "0", "path": "", "type": "sentence_transformers.models.Dense"}'
LISTS = {"empty": "", "object": "{}", "none": "[]", "number": "[1]", "deep": "[" * 100_000, "short": '[{"name": "0"}]'}
LISTS |= {
    "more": '[], "x": 1',
    "types": DENSE.replace('"0"', "0"),
    "mark": "\ufeff[]",
    "null": "null",
    "twice": f"[{DENSE}, {DENSE}]",
}


@pytest.mark.parametrize("content", LISTS.values(), ids=LISTS.keys())
def test_a_damaged_list_is_one_line(folder: Path, content: str) -> None:
    (folder / "modules.json").write_text(content, encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"modules\.json") as caught:
        read_modules(folder)
    assert "\n" not in str(caught.value)


def test_weights_as_a_pickle_are_not_opened(folder: Path) -> None:
    (folder / "2_Dense" / "model.safetensors").rename(folder / "2_Dense" / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"as a pickle \(pytorch_model\.bin\), which can run code.*save_pretrained"):
        read_modules(folder)
    (folder / "2_Dense" / "pytorch_model.bin").unlink()
    with pytest.raises(CheckpointError, match=r"2_Dense has no weights \(model\.safetensors\)"):
        read_modules(folder)


def test_tensors_of_another_type_are_refused(folder: Path) -> None:
    save_file({"linear.weight": np.ones((INNER, HIDDEN), np.int64)}, folder / "2_Dense" / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"has linear.weight as I64 \[6, 8\], expected"):
        read_modules(folder)
    (folder / "2_Dense" / "model.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(CheckpointError, match="cannot be read as safetensors"):
        read_modules(folder)
