"""Configs of a checkpoint with wrong or absurd values: one CheckpointError, or a checkpoint that is read, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from wrong_values import changes

from fusedbert.engine import CheckpointError, FusedBertError, InputError, ModelNotFoundError, OptionError, StorageError
from fusedbert.export import export_checkpoint
from fusedbert.export.checkpoint.architecture import describe, read_config, refuse_absurd_sizes
from fusedbert.export.checkpoint.weights import Weights
from fusedbert.export.parity.baseline import read_outputs
from fusedbert.export.tokenizer import Tokenization

SETTINGS = {
    "model_input_names": ["input_ids"],
    "added_tokens_decoder": {"0": {"content": "[PAD]", "special": True}},
    "extra_special_tokens": ["a"],
    "additional_special_tokens": ["b"],
    "pad_token": "[PAD]",
    "unk_token": {"content": "[UNK]", "__type": "AddedToken"},
    "model_max_length": 64,
    "do_lower_case": True,
    "strip_accents": None,
    "truncation_side": "right",
    "fast_tokenizer_files": ["tokenizer.json"],
    "auto_map": {},
}


def read(folder: Path) -> None:
    """Read a checkpoint as an export does before its first computation."""
    config = read_config(folder)
    architecture, layout = describe(config)
    read_outputs(config, Weights(folder, architecture, layout).labels)
    tokens = Tokenization(folder, architecture)
    tokens.encode("a text")
    tokens.encode("a text", "and another")


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("config.json", {"num_labels": 2, "problem_type": "single_label_classification", "pruned_heads": {}}),
        ("tokenizer_config.json", SETTINGS),
    ],
)
def test_every_wrong_value_is_refused_or_harmless(copy: Path, name: str, more: dict[str, Any]) -> None:
    path = copy / name
    content = {**json.loads(path.read_text()), **more}
    for at, value, changed in changes(content):
        path.write_text(json.dumps(changed))
        try:
            read(copy)
        except FusedBertError as error:
            assert isinstance(error, (CheckpointError, InputError)) and "\n" not in str(error), (at, value, error)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_infinite_numbers_matter_only_where_they_are_used(copy: Path, name: str) -> None:
    path = copy / name
    content = json.loads(path.read_text())
    for value in (float("inf"), float("-inf"), float("nan")):  # transformers writes and reads them
        path.write_text(json.dumps({**content, "temperature": value, "model_max_length": value}))
        read(copy)
    (copy / "config.json").write_text(json.dumps({**content, "layer_norm_eps": float("inf")}))
    with pytest.raises(CheckpointError):
        read(copy)


@pytest.mark.parametrize("value", [0, -1, 10**9, 10**12, "2", True, 2.0, [2]])
def test_an_absurd_number_of_labels_is_refused_at_once(copy: Path, value: Any) -> None:
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "num_labels": value}))
    with pytest.raises(CheckpointError, match=r"config\.json has num_labels = .*, expected 1 to 1000000"):
        export_checkpoint(copy, copy.parent / "artifact", target="fp32")
    assert not (copy.parent / "artifact").exists()


@pytest.mark.parametrize("name", ["vocab_size", "num_hidden_layers", "hidden_size", "dim", "max_position_embeddings"])
def test_sizes_beyond_all_tensors_are_refused(name: str) -> None:
    tensors = {"word": (30_000, 768), "position": (512, 768), **{f"layer.{i}": (768,) for i in range(30)}}
    ordinary = {"vocab_size": 30_000, "num_hidden_layers": 12, "hidden_size": 768, "max_position_embeddings": 100_000}
    refuse_absurd_sizes({**ordinary, "torch_dtype": "float32", "intermediate_size": None}, tensors)
    with pytest.raises(CheckpointError, match=f"config.json has {name} = 1000000000, and no tensor is as large"):
        refuse_absurd_sizes({**ordinary, name: 10**9}, tensors)


@pytest.mark.parametrize("value", ["", "a\0b", "\ud800", b"x", None, "~nobody-of-this-name/x"])
def test_a_value_without_a_path_is_one_error(copy: Path, value: Any) -> None:
    with pytest.raises(ModelNotFoundError, match=r"the checkpoint is .*: name the folder"):
        export_checkpoint(value, copy.parent / "artifact")
    with pytest.raises(OptionError, match=r"output is .*: give the path"):
        export_checkpoint(copy, value)


def test_a_name_of_5000_characters_is_one_error(copy: Path) -> None:
    for source, output in (("a" * 5000, copy.parent / "x"), (copy, copy.parent / ("a" * 5000))):
        with pytest.raises(StorageError, match="File name too long") as caught:
            export_checkpoint(source, output)
        assert "\n" not in str(caught.value)


class PanicException(BaseException):
    """As pyo3 raises it: no Exception."""


def test_a_tokenizer_that_panics_is_one_error(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def panic(*_: object) -> None:
        raise PanicException("called Option::unwrap() on a None value")

    monkeypatch.setattr("fusedbert.export.tokenizer.normal_form", panic)
    with pytest.raises(CheckpointError, match=r"tokenizer\.json cannot be read as a tokenizer .*panicked"):
        read(copy)
