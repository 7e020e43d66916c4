"""Tensors by name: those that transformers ignores are reported, a wrapper's prefix is named, lists are short."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from checkpoint_edits import Tensors, edit_config, edit_tensors

from fusedbert.engine.errors import CheckpointError
from fusedbert.engine.text.tokenizer import pad
from fusedbert.export import export_checkpoint
from fusedbert.export.checkpoint import ExportWarning, IgnoredWarning
from fusedbert.export.checkpoint.architecture import describe, read_config
from fusedbert.export.checkpoint.weights import Weights
from fusedbert.export.parity.gates import open_session
from fusedbert.export.parity.texts import check_set
from fusedbert.export.tokenizer import Tokenization


@pytest.fixture(scope="module")
def checkpoint(make_checkpoint) -> Path:
    return make_checkpoint("bert", num_hidden_layers=2, num_labels=3)


def read(folder: Path) -> Weights:
    return Weights(folder, *describe(read_config(folder)))


def refused(folder: Path) -> str:
    begun = time.monotonic()
    with pytest.raises(CheckpointError) as caught:
        read(folder)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 1500 and time.monotonic() - begun < 5
    return message


def as_transformers(folder: Path, output: Path, judge: Callable[..., np.ndarray]) -> None:
    """Export, and compare the graph with transformers' reading of the folder."""
    export_checkpoint(folder, output, target="fp32", force=True)
    architecture, _ = describe(read_config(folder))
    checks = check_set(architecture, Tokenization(folder, architecture))
    arrays = pad(checks.texts[:6], architecture.padding_id)
    found = open_session(output / "onnx/model.onnx").run(["logits"], arrays)[0]
    np.testing.assert_allclose(found, judge(folder, arrays), atol=1e-4, rtol=0)


def extra(**tensors: np.ndarray) -> Callable[[Tensors], None]:
    return lambda held: held.update({name.replace("__", "."): tensor for name, tensor in tensors.items()})


EXTRAS = {
    "a loss": extra(loss_fct__weight=np.ones(3, np.float32), class_weights=np.ones(3, np.float32)),
    "integers and flags": extra(loss__classes=np.arange(3), flag=np.array([True]), steps=np.array(7, np.int32)),
    "another head": extra(regressor__weight=np.ones((1, 48), np.float32), qa_outputs__bias=np.ones(2, np.float32)),
    "inside the encoder": extra(
        bert__encoder__layer__0__adapter__weight=np.ones(2, np.float32),
        bert__embeddings__extra_embeddings__weight=np.ones((4, 48), np.float32),
        bert__encoder__LayerNorm__weight=np.ones(48, np.float32),
    ),
}


@pytest.mark.parametrize("kind", EXTRAS)
def test_tensors_that_transformers_ignores_are_ignored_and_reported(copy: Path, tmp_path: Path, judge, kind: str) -> None:
    before = set(read(copy).tensors)
    edit_tensors(copy, EXTRAS[kind])
    with pytest.warns(IgnoredWarning) as caught:
        as_transformers(copy, tmp_path / "artifact", judge)
    (message,) = [str(each.message) for each in caught if issubclass(each.category, ExportWarning)]
    with warnings.catch_warnings(action="ignore"):
        added = sorted(set(read(copy).tensors) - before)
    assert all(name in message for name in added) and f"holds {len(added)} tensors" in message and "\n" not in message


def test_layers_beyond_the_count_are_ignored_and_reported(copy: Path, tmp_path: Path, judge) -> None:
    edit_tensors(copy, extra(a_loss__weight=np.ones(3, np.float32)))
    edit_config(copy, num_hidden_layers=1)
    with pytest.warns(IgnoredWarning, match=r"holds 17 tensors .*: bert\.encoder\.layer\.1\.\S+, .* and 12 more$"):
        as_transformers(copy, tmp_path / "artifact", judge)


def test_buffers_and_heads_of_pre_training_give_no_warning(copy: Path) -> None:
    edit_tensors(
        copy,
        extra(
            bert__embeddings__position_ids=np.arange(40)[None],
            bert__embeddings__token_type_ids=np.zeros((1, 40), np.int64),
            cls__predictions__bias=np.ones(9, np.float32),
        ),
    )
    with warnings.catch_warnings(action="error"):
        assert read(copy).labels == 3


def test_an_unused_pooler_is_reported_as_transformers_does(make_checkpoint) -> None:
    for family, names in (("distilbert", ["distilbert.pooler.dense.weight"]), ("roberta", [])):
        source = make_checkpoint(family)
        edit_tensors(
            source, lambda held, family=family: held.update({f"{family}.pooler.dense.weight": np.ones((48, 48), np.float32)})
        )
        with warnings.catch_warnings(record=True, action="always") as caught:
            read(source)
        # transformers does not report RoBERTa's, which its base model has
        assert [str(each.message).rpartition(": ")[2] for each in caught] == names


def test_a_used_tensor_must_hold_floats(copy: Path) -> None:
    edit_tensors(copy, extra(bert__encoder__layer__0__output__dense__bias=np.arange(48)))
    assert "bert.encoder.layer.0.output.dense.bias is I64, expected one of F64, F32, F16, BF16" in refused(copy)


def test_a_tensor_under_two_names_is_refused(copy: Path) -> None:
    """transformers 5 takes the older of the two names, 4.57 the newer one."""
    edit_tensors(copy, extra(bert__embeddings__LayerNorm__gamma=np.ones(48, np.float32)))
    assert "LayerNorm.weight and bert.embeddings.LayerNorm.gamma are two names of one tensor" in refused(copy)


PREFIXES = ["module.", "_orig_mod.", "model.", "module._orig_mod.", "model.model.", "_orig_mod.module.model."]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_prefix_is_named_with_the_command_that_takes_it_off(copy: Path, tmp_path: Path, judge, prefix: str) -> None:
    edit_tensors(copy, lambda held: {prefix + name: tensor for name, tensor in held.items()})
    message = refused(copy)
    assert message.startswith(f"{copy} has {prefix!r} before its tensors' names") and "missing" not in message
    _run(message)
    as_transformers(copy, tmp_path / "artifact", judge)


def test_a_prefix_is_recognized_next_to_a_loss_and_before_bare_names(copy: Path, tmp_path: Path, judge) -> None:
    """Lightning keeps the loss next to the model, and a wrapper may hold names without the family's prefix."""
    edit_tensors(
        copy,
        lambda held: {
            **{f"model.{name.removeprefix('bert.')}": tensor for name, tensor in held.items()},
            "criterion.weight": np.ones(3, np.float32),
        },
    )
    _run(refused(copy))
    with pytest.warns(IgnoredWarning, match=r"holds a tensor .*: criterion\.weight$"):
        as_transformers(copy, tmp_path / "artifact", judge)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_prefix_in_half_precision_shards_is_recognized(make_checkpoint, tmp_path: Path, judge, dtype: str) -> None:
    from safetensors.torch import load_file, save_file

    source = make_checkpoint("roberta", dtype=dtype, num_hidden_layers=2)
    tensors = load_file(source / "model.safetensors")
    names = sorted(tensors)
    for number, part in ((1, names[:20]), (2, names[20:])):
        held = {f"module.{name}": tensors[name] for name in part}
        save_file(held, source / f"model-0000{number}-of-00002.safetensors", metadata={"format": "pt"})
    (source / "model.safetensors").unlink()
    weight_map = {f"module.{name}": f"model-0000{1 if name in names[:20] else 2}-of-00002.safetensors" for name in names}
    (source / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    _run(refused(source))
    written = load_file(source / "model.safetensors")
    assert {name: (tensor.dtype, tensor.equal(tensors[name])) for name, tensor in written.items()} == {
        name: (tensor.dtype, True) for name, tensor in tensors.items()
    }
    export_checkpoint(source, tmp_path / "artifact", target="fp32")


def _run(message: str) -> None:
    """Run the command of a message, as a shell would."""
    command = shlex.split(message[message.index("python -c ") :])
    subprocess.run([sys.executable, *command[1:]], check=True, timeout=60)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"num_hidden_layers": 10**9}, "config.json has num_hidden_layers = 1000000000, and the tensors are those of 2"),
        ({"num_hidden_layers": 10**30}, "num_hidden_layers = 1000000000000000000000000000000, expected a positive integer"),
        ({"hidden_size": 4 * 10**8}, r"is \[71, 48\], expected \[71, 400000000\]"),
        ({"max_position_embeddings": 2 * 10**9}, r"position_embeddings\.weight is \[40, 48\], expected \[2000000000, 48\]"),
        ({"intermediate_size": 10**9}, r"expected \[1000000000\]"),
        ({"num_attention_heads": 10**9}, "not a multiple of 1000000000 attention heads"),
    ],
    ids=str,
)
def test_absurd_sizes_are_refused_at_once(copy: Path, values: dict, said: str) -> None:
    edit_config(copy, **values)
    assert re.search(said, refused(copy))


def test_a_tensor_name_with_an_absurd_number_is_refused(copy: Path) -> None:
    edit_tensors(copy, extra(bert__encoder__layer__999999999__output__dense__bias=np.ones(48, np.float32)))
    edit_config(copy, num_hidden_layers=10**9)
    assert "num_hidden_layers = 1000000000, and the tensors are those of 2" in refused(copy)


def test_five_names_are_listed_and_the_rest_counted(copy: Path) -> None:
    edit_tensors(copy, lambda held: {name.replace("attention.self", "attention.mine"): tensor for name, tensor in held.items()})
    message = refused(copy)
    assert message.count("missing ") == 5 and "; and 7 more; unknown bert.encoder.layer.0.attention.mine" in message
    assert message.count("attention.mine") == 5 and " and 7 more; was it fine-tuned" in message


def test_a_name_of_several_lines_does_not_break_the_warning(copy: Path) -> None:
    edit_tensors(copy, lambda held: held.update({"a\nb": np.ones(1, np.float32)}))
    with pytest.warns(IgnoredWarning, match=r"'a\\nb'$"):
        read(copy)


@pytest.mark.parametrize(
    "text", ["[" * 5000 + "]" * 5000, "[]", "{}", '{"weight_map": 5}', '{"weight_map": {"a": 5}}', "{", "\x00"]
)
def test_a_malformed_index_is_refused(copy: Path, text: str) -> None:
    (copy / "model.safetensors").unlink()
    (copy / "model.safetensors.index.json").write_text(text)
    assert re.search(r"index\.json (cannot be read as|names shards that are not in the folder)", refused(copy))


@pytest.mark.parametrize(
    ("shape", "said"), [((0, 48), r"classifier\.weight is \[0, 48\]"), ((48,), r"classifier\.weight is \[48\]")]
)
def test_a_classifier_without_rows_is_refused(copy: Path, shape: tuple[int, ...], said: str) -> None:
    edit_tensors(copy, lambda tensors: {**tensors, "classifier.weight": np.ones(shape, np.float32)})
    message = refused(copy)
    assert re.search(said + r", expected \[labels, 48\]", message) and "[0]" not in message


def test_weights_under_another_name_are_named(copy: Path) -> None:
    (copy / "model.safetensors").rename(copy / "pytorch_model.safetensors")
    assert re.search(r"holds pytorch_model\.safetensors, and transformers reads model\.safetensors.*rename", refused(copy))
