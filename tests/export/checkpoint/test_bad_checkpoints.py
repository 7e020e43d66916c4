"""Incomplete and wrong checkpoints: each is refused in one line, and nothing is left behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoint_edits import edit_config, edit_tensors
from click.testing import CliRunner

from fusedbert.engine.errors import CheckpointError, FusedBertError, ModelNotFoundError, OptionError, StorageError
from fusedbert.export import export_checkpoint
from fusedbert.export.cli import export


@pytest.fixture(scope="module")
def checkpoint(make_checkpoint) -> Path:
    return make_checkpoint("bert", num_hidden_layers=2)


def refuse(folder: Path, error: type[FusedBertError] = CheckpointError, **options: Any) -> str:
    output = folder.parent / "out" / "artifact"
    with pytest.raises(error) as caught:
        export_checkpoint(folder, output, **options)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 2000
    assert not output.exists()
    assert not output.parent.exists() or not list(output.parent.iterdir()), "a part of the artifact was left behind"
    return message


def test_every_fault_of_the_tensors_is_listed_at_once(copy: Path) -> None:
    def spoil(tensors: dict[str, np.ndarray]) -> None:
        del tensors["bert.encoder.layer.1.output.dense.bias"]
        del tensors["classifier.weight"]
        tensors["bert.pooler.dense.weight"] = np.zeros((3, 4), np.float32)
        tensors["bert.encoder.layer.0.adapter.weight"] = np.zeros(2, np.float32)

    edit_tensors(copy, spoil)
    message = refuse(copy)
    assert "missing bert.encoder.layer.1.output.dense.bias [48]" in message
    assert "missing classifier.weight [labels, 48]" in message
    assert "bert.pooler.dense.weight is [3, 4], expected [48, 48]" in message
    assert "unknown bert.encoder.layer.0.adapter.weight" in message


def test_fewer_layers_than_in_the_config_are_refused(copy: Path) -> None:
    edit_config(copy, num_hidden_layers=3)
    assert "config.json has num_hidden_layers = 3, and the tensors are those of 2" in refuse(copy)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_weight_that_is_nan_or_infinite_is_refused(copy: Path, value: float) -> None:
    def spoil(tensors: dict[str, np.ndarray]) -> None:
        tensors["bert.encoder.layer.0.intermediate.dense.weight"][0, 0] = value

    edit_tensors(copy, spoil)
    assert "layer.0.intermediate.dense.weight" in refuse(copy)


@pytest.mark.parametrize("size", [0, 5, 3000])
def test_truncated_weights_are_refused(copy: Path, size: int) -> None:
    path = copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    assert "cannot be read as safetensors" in refuse(copy)


def test_a_pickle_is_refused_with_the_command_that_converts_it(copy: Path) -> None:
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    message = refuse(copy)
    assert "pickle" in message and "save_pretrained" in message


def test_a_checkpoint_without_weights_is_refused(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    assert "no weights (*.safetensors)" in refuse(copy)


@pytest.mark.parametrize("name", ["../elsewhere.safetensors", "absent.safetensors", "/etc/passwd"])
def test_an_index_that_names_files_elsewhere_is_refused(copy: Path, name: str) -> None:
    (copy / "model.safetensors").rename(copy.parent / "elsewhere.safetensors")
    (copy / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    assert name in refuse(copy)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\x00"])
@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_malformed_json_is_refused(copy: Path, file: str, text: str) -> None:
    (copy / file).write_text(text)
    assert file in refuse(copy)


@pytest.mark.parametrize(
    "values",
    [
        {"model_type": "albert"},
        {"model_type": None},
        {"hidden_act": "laplace"},
        {"num_attention_heads": 5},
        {"num_attention_heads": 0},
        {"hidden_size": "48"},
        {"position_embedding_type": "relative_key"},
        {"is_decoder": True},
        {"problem_type": "ranking"},
        {"id2label": {"zero": "a"}},
        {"max_position_embeddings": 2},
    ],
    ids=lambda values: "-".join(f"{key}={value}" for key, value in values.items()),
)
def test_a_config_that_cannot_be_built_is_refused(copy: Path, values: dict) -> None:
    edit_config(copy, **values)
    message = refuse(copy)
    assert next(iter(values)) in message or str(next(iter(values.values()))) in message


def test_a_tokenizer_of_another_model_is_refused(copy: Path) -> None:
    path = copy / "tokenizer.json"
    document = json.loads(path.read_text())
    document["model"]["vocab"]["stranger"] = 5000
    path.write_text(json.dumps(document))
    assert "ids up to 5000" in refuse(copy)


@pytest.mark.parametrize("text", ["", "{}", "not json"])
def test_a_damaged_tokenizer_file_is_refused(copy: Path, text: str) -> None:
    (copy / "tokenizer.json").write_text(text)
    assert "tokenizer.json" in refuse(copy)


def test_a_missing_checkpoint_is_refused(tmp_path: Path) -> None:
    message = refuse(tmp_path / "nowhere", ModelNotFoundError)
    assert "does not exist" in message


def test_an_artifact_is_not_accepted_as_a_checkpoint(copy: Path, tmp_path: Path) -> None:
    export_checkpoint(copy, tmp_path / "first", target="cpu", required=False)
    with pytest.raises(CheckpointError, match="artifact already"):
        export_checkpoint(tmp_path / "first", tmp_path / "second")


def make_old_artifact(output: Path) -> None:
    output.mkdir()
    (output / "README.md").write_text("precious")
    (output / "old.txt").write_text("old")
    (output / "fusedbert.json").write_text('{"files": {"README.md": {}, "old.txt": {}}}')


def test_an_existing_output_is_kept_unless_forced(copy: Path, tmp_path: Path) -> None:
    output = tmp_path / "artifact"
    make_old_artifact(output)
    with pytest.raises(StorageError, match="--force"):
        export_checkpoint(copy, output, target="cpu", required=False)
    assert (output / "README.md").read_text() == "precious"
    (copy / "config.json").write_text("{")
    with pytest.raises(CheckpointError):
        export_checkpoint(copy, output, target="cpu", force=True, required=False)
    assert (output / "README.md").read_text() == "precious", "a failed export must not touch what stands"


def test_force_replaces_a_whole_artifact(copy: Path, tmp_path: Path) -> None:
    output = tmp_path / "artifact"
    make_old_artifact(output)
    export_checkpoint(copy, output, target="cpu", force=True, required=False)
    assert not (output / "old.txt").exists() and (output / "onnx/model.onnx").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["artifact", "checkpoint"]


@pytest.mark.parametrize("output", ["checkpoint", "."])
def test_the_checkpoint_is_never_overwritten(copy: Path, output: str) -> None:
    with pytest.raises(OptionError):
        export_checkpoint(copy, copy.parent / output, force=True)
    assert (copy / "model.safetensors").exists()


def test_an_output_below_a_file_is_refused(copy: Path) -> None:
    with pytest.raises(StorageError, match="written"):
        export_checkpoint(copy, copy / "config.json" / "artifact", target="cpu", required=False)


def test_the_command_reports_in_one_line_and_by_exit_status(copy: Path, tmp_path: Path) -> None:
    assert CliRunner().invoke(export, [str(copy), str(tmp_path / "a"), "--for", "tpu"]).exit_code == 2
    result = CliRunner().invoke(export, [str(copy), str(tmp_path / "a"), "--for", "cpu", "--json"])
    assert result.exit_code == 0
    assert json.loads(result.stdout)["labels"] == ["LABEL_0", "LABEL_1"]
