"""Folders that are not checkpoints: the classifier and the export name them in the same words."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fusedbert.engine import ArtifactError, CheckpointError, Classifier, FusedBertError, ModelNotFoundError
from fusedbert.engine.load import Options
from fusedbert.engine.load import resolve as resolve_module
from fusedbert.engine.load.resolve import resolve_model
from fusedbert.engine.load.unsupported import explain, listed
from fusedbert.export import export_checkpoint

POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'4d7a2146' * 8}\nsize 12345\n"
ADAPTER = json.dumps({"peft_type": "LORA", "base_model_name_or_path": "org/base"})
BERT = json.dumps({"model_type": "bert", "architectures": ["BertModel"]})
CLASSIFIER = json.dumps({"model_type": "bert", "architectures": ["BertForSequenceClassification"]})
TAGGER = json.dumps({"model_type": "bert", "architectures": ["BertForTokenClassification"]})
OF_TOKENS = json.dumps({"peft_type": "LORA", "task_type": "TOKEN_CLS"})
TRAINED = ("optimizer.pt", "scheduler.pt", "training_args.bin", "rng_state.pth", "rng_state_1.pth", "trainer_state.json")


def make(tmp_path: Path, files: dict[str, str]) -> Path:
    folder = tmp_path / "model"
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return folder


def empty(*names: str) -> dict[str, str]:
    return dict.fromkeys(names, "{}")


KINDS: list[tuple[dict[str, str], str]] = [
    (
        {"adapter_config.json": ADAPTER, "adapter_model.safetensors": "x", "tokenizer.json": "{}"},
        r"is an adapter \(LORA\), not a model, and its base model is org/base: .*merge_and_unload.*save_pretrained",
    ),
    ({"adapter_config.json": ADAPTER, "adapter_model.bin": "x", "config.json": BERT}, r"is an adapter \(LORA\)"),
    ({"adapter_model.safetensors": "x", "config.json": BERT}, "is an adapter, not a model, and its base model is not named"),
    (
        {"adapter_config.json": ADAPTER, "model.safetensors": "x", "config.json": BERT},
        "holds an adapter .*next to a model's weights",
    ),
    (
        {**empty("model_head.pkl", "model.safetensors", "modules.json"), "config.json": BERT},
        r"is a SetFit model: .*model_head\.pkl",
    ),
    ({**empty("config_setfit.json", "model.safetensors"), "config.json": BERT}, "is a SetFit model"),
    (
        {**empty("modules.json", "1_Pooling/config.json", "model.safetensors"), "config.json": BERT},
        r"embeds texts \(modules\.json\), and has no classifier",
    ),
    ({**empty("modules.json", "1_Pooling/config.json", "0_Transformer/model.safetensors")}, "embeds texts"),
    ({"config.json": CLASSIFIER, "tf_model.h5": ""}, r"weights of TensorFlow \(tf_model\.h5\).*below 5.*from_tf=True"),
    (
        {"config.json": CLASSIFIER, "flax_model.msgpack": ""},
        r"weights of Flax \(flax_model\.msgpack\).*below 5.*from_flax=True",
    ),
    (
        empty("bert_config.json", "bert_model.ckpt.index", "bert_model.ckpt.data-00000-of-00001"),
        r"TensorFlow \(bert_model\.ckpt\.index",
    ),
    (empty("saved_model.pb", "keras_metadata.pb"), r"weights of TensorFlow \(saved_model\.pb\).*from_tf=True"),
    (empty("config.json", "model.keras"), r"weights of TensorFlow \(model\.keras\)"),
    (empty("config.json", "model-q8_0.gguf"), r"a GGUF file \(model-q8_0\.gguf\), made for llama\.cpp"),
    (
        empty("config.json", *TRAINED),
        r"no weights \(\*\.safetensors\), only what a training saves .*optimizer\.pt.* and 1 more\)",
    ),
    (
        {"config.json": CLASSIFIER, "pytorch_model.bin": "", **empty(*TRAINED)},
        r"a pickle \(pytorch_model\.bin\).*safe_serialization=True",
    ),
    (empty("config.json", "best.pth"), r"a pickle \(best\.pth\).*safe_serialization=True"),
    (
        empty(
            "checkpoint-500/model.safetensors",
            "checkpoint-1500/model.safetensors",
            "checkpoint-2000/optimizer.pt",
            "training_args.bin",
        ),
        r"has no weights .* itself, its folder checkpoint-1500 has: give .*/checkpoint-1500$",
    ),
    (
        {"config.json": CLASSIFIER, "model.safetensors": POINTER},
        r"a Git LFS pointer in place of model\.safetensors: .*git lfs pull",
    ),
    (
        {"config.json": CLASSIFIER, "model.safetensors": POINTER, "tokenizer.json": POINTER, "vocab.txt": POINTER},
        r"Git LFS pointers in place of model\.safetensors, tokenizer\.json, vocab\.txt: .*git lfs pull",
    ),
    ({"config.json": POINTER, "model.safetensors": "x" * 2000}, r"a Git LFS pointer in place of config\.json"),
    ({"config.json": CLASSIFIER, "pytorch_model.bin": ""}, "import AutoModelForSequenceClassification as M"),
    ({"config.json": TAGGER, "pytorch_model.bin": ""}, "a pickle .*import AutoModelForTokenClassification as M"),
    ({"config.json": TAGGER, "tf_model.h5": ""}, "TensorFlow .*import AutoModelForTokenClassification as M.*from_tf=True"),
    ({"config.json": TAGGER, "flax_model.msgpack": ""}, "Flax .*import AutoModelForTokenClassification as M.*from_flax"),
    (
        {"adapter_config.json": ADAPTER, "adapter_model.safetensors": "x", "config.json": TAGGER},
        r"AutoPeftModelForTokenClassification\.from_pretrained",
    ),
    ({"adapter_config.json": OF_TOKENS, "adapter_model.bin": "x"}, r"AutoPeftModelForTokenClassification\.from_pretrained"),
    ({"adapter_config.json": ADAPTER, "adapter_model.bin": "x"}, r"AutoPeftModelForSequenceClassification\.from_pretrained"),
]


@pytest.mark.parametrize(("files", "said"), KINDS, ids=lambda value: "+".join(value) if isinstance(value, dict) else "")
def test_every_unsupported_folder_is_named_in_the_same_words(tmp_path: Path, files: dict[str, str], said: str) -> None:
    folder = make(tmp_path, files)
    messages = []
    for call in (lambda: Classifier.from_pretrained(folder), lambda: export_checkpoint(folder, tmp_path / "out")):
        with pytest.raises(CheckpointError, match=said) as caught:
            call()
        messages.append(str(caught.value))
    assert messages[0] == messages[1] == explain(folder) and "\n" not in messages[0]
    assert messages[0].startswith(str(folder)) and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "files",
    [
        {"config.json": CLASSIFIER, "model.safetensors": "x"},
        # It has a head; the tensors decide.
        {"config.json": CLASSIFIER, **empty("model.safetensors", "modules.json", "1_Pooling/config.json")},
        {"config.json": TAGGER, **empty("model.safetensors", "modules.json", "1_Pooling/config.json", "config_setfit.json")},
        empty("config.json", "model.safetensors", "modules.json", "1_Pooling/config.json"),
        {"config.json": CLASSIFIER, "model.safetensors": "x", "tf_model.h5": "", "pytorch_model.bin": "", **empty(*TRAINED)},
        {"config.json": CLASSIFIER, "model.safetensors": "x", "checkpoint-10/model.safetensors": "x"},
        {"config.json": "[" * 5000, "modules.json": "[" * 5000, "model.safetensors": "x"},
        {"notes.txt": "version 1"},
        {"config.json": CLASSIFIER},
    ],
    ids="+".join,
)
def test_a_possible_checkpoint_is_left_to_the_export(tmp_path: Path, files: dict[str, str]) -> None:
    assert explain(make(tmp_path, files)) is None


def test_a_pickled_token_classifier_keeps_its_head_when_converted_as_it_says(tmp_path: Path) -> None:
    import torch
    from safetensors.numpy import load_file
    from transformers import BertConfig, BertForTokenClassification

    sizes: dict[str, Any] = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    config = BertConfig(**sizes, vocab_size=9)
    config.num_labels = 5
    model, folder = BertForTokenClassification(config), tmp_path / "model"
    model.save_pretrained(folder)
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    sentence = explain(folder)
    assert sentence is not None
    exec(sentence.partition('python -c "')[2].rstrip('"'), {})
    found = load_file(folder / "model.safetensors")
    assert found["classifier.weight"].shape == (5, 8)
    assert found.keys() == model.state_dict().keys()
    assert (found["classifier.weight"] == model.classifier.weight.detach().numpy()).all()
    assert json.loads((folder / "config.json").read_text())["architectures"] == ["BertForTokenClassification"]


def test_a_missing_folder_is_not_explained(tmp_path: Path) -> None:
    assert explain(tmp_path / "missing") is None


def test_a_git_lfs_pointer_next_to_another_tools_graph_is_named(artifact: Path) -> None:
    (artifact / "fusedbert.json").unlink()
    (artifact / "config.json").write_text("{}")
    (artifact / "tokenizer.json").write_text(POINTER)
    with pytest.raises(CheckpointError, match=r"a Git LFS pointer in place of tokenizer\.json: .*git lfs pull"):
        Classifier.from_pretrained(artifact)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (
            {"adapter_config.json": ADAPTER, "adapter_model.safetensors": "x", "config.json": BERT},
            r"^org/model is an adapter \(LORA\)",
        ),
        ({**empty("config_setfit.json", "model.safetensors"), "config.json": BERT}, "^org/model is a SetFit model"),
    ],
)
def test_an_unsupported_hub_model_is_refused_by_its_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], said: str
) -> None:
    import huggingface_hub

    folder = make(tmp_path, files)
    asked: list[Any] = []
    answer: Callable[..., str] = lambda name, **options: asked.append(name) or str(folder)  # noqa: E731
    monkeypatch.setattr(huggingface_hub, "snapshot_download", answer)
    monkeypatch.setattr(resolve_module, "load_exporter", lambda: pytest.fail("went on to export it"))
    with pytest.raises(FusedBertError, match=said):
        resolve_model("org/model", Options())
    assert asked


def test_a_parent_folder_names_its_newest_checkpoint_with_weights(tmp_path: Path, checkpoint: Path) -> None:
    shutil.copytree(checkpoint, tmp_path / "run" / "checkpoint-7")
    with pytest.raises(CheckpointError) as caught:
        Classifier.from_pretrained(tmp_path / "run")
    way_out = str(caught.value).rpartition("give ")[2]
    assert Path(way_out) == tmp_path / "run" / "checkpoint-7"
    with pytest.raises(ModelNotFoundError, match=r"has no weights \(\*\.safetensors\)"):
        Classifier.from_pretrained(make(tmp_path, {"config.json": "{}"}))


def test_long_lists_of_names_are_cut() -> None:
    assert listed(["a"]) == "a" and listed([]) == ""
    assert listed([str(i) for i in range(5)]) == "0, 1, 2, 3, 4"
    assert listed([str(i) for i in range(7)]) == "0, 1, 2, 3, 4 and 2 more"
    assert listed(["a\nb", "\ud800"]) == r"'a\nb', '\ud800'"


@pytest.mark.parametrize("text", ['{"a": ' * 5000 + "1" + "}" * 5000, "[" * 5000 + "]" * 5000])
def test_a_manifest_nested_too_deep_is_refused(artifact: Path, text: str) -> None:
    (artifact / "fusedbert.json").write_text(text)
    with pytest.raises(ArtifactError, match=r"fusedbert\.json") as caught:
        Classifier.from_pretrained(artifact)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(sys.platform == "win32", reason="pipes with names")
@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "tokenizer.json", "model.safetensors.index.json"])
def test_a_pipe_in_place_of_a_file_is_refused_without_waiting(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "a.safetensors").touch()
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    with pytest.raises(FusedBertError):
        Classifier.from_pretrained(folder)
