"""Every activation that is built: compared with transformers in float64, in a graph and in a whole model."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from fusedbert.engine.artifact import read_manifest
from fusedbert.engine.errors import CheckpointError
from fusedbert.export import export_checkpoint
from fusedbert.export.checkpoint.architecture import ACTIVATION_NAMES, KINDS, describe, read_config
from fusedbert.export.graph.builder import Graph
from fusedbert.export.graph.cpu.fp32 import CpuPlain
from fusedbert.export.graph.lowering import activate
from fusedbert.export.graph.operators import ACTIVATIONS as INT8
from fusedbert.export.parity.reference import ACTIVATIONS

GRID = np.concatenate([np.linspace(-60, 60, 4801), [0.0, -1e-7, 1e-7, -3000.0, 3000.0]])
# In transformers but not in our graphs: refused by name.
NOT_BUILT = {"hardswish", "laplace", "leaky_relu", "linear", "prelu", "relu2", "relu6", "sigmoid", "sqrtsoftplus", "xielu"}


@pytest.mark.parametrize("name", ACTIVATION_NAMES)
def test_the_reference_equals_transformers(name: str) -> None:
    import torch
    from transformers.activations import ACT2FN

    kind = ACTIVATION_NAMES[name]
    expected = ACT2FN[name](torch.from_numpy(GRID)).numpy()
    np.testing.assert_allclose(ACTIVATIONS[kind](GRID), expected, atol=2e-10, rtol=1e-12)


def test_every_activation_of_transformers_is_built_or_refused() -> None:
    from transformers.activations import ACT2FN

    assert set(ACT2FN) - set(ACTIVATION_NAMES) <= NOT_BUILT
    assert set(ACTIVATION_NAMES) <= set(ACT2FN)
    for name in (*NOT_BUILT, "Gelu", "", None, 5, ["gelu"], {"gelu": 1}):
        with pytest.raises(CheckpointError, match=r"the activation is .*built directly are gelu, "):
            describe({"model_type": "bert", "hidden_act": name})


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("opset", [17, 23])
@pytest.mark.parametrize("kind", KINDS)
def test_the_nodes_compute_the_activation(tmp_path: Path, kind: str, opset: int, dtype: str) -> None:
    if dtype == "float16" and kind in ("gelu", "gelu_new"):
        pytest.skip("com.microsoft:BiasGelu and FastGelu, in test_whole_models")
    g = Graph()
    x = g.input("x", dtype, ["n"])
    g.output("y", activate(g, x, kind, opset=opset, dtype=dtype), dtype, ["n"])
    g.write(tmp_path / "model.onnx", kind, opset=opset, metadata={}, ir_version=8)
    onnx.checker.check_model(str(tmp_path / "model.onnx"), full_check=True)
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    given = GRID.astype(dtype)
    found = np.asarray(session.run(None, {"x": given})[0])
    atol, rtol = (2e-6, 1e-6) if dtype == "float32" else (2e-3, 2e-3)
    np.testing.assert_allclose(found, ACTIVATIONS[kind](given.astype(np.float64)), atol=atol, rtol=rtol)


CASES: list[tuple[str, dict]] = [("bert", {"hidden_act": name}) for name in (*KINDS[3:], "gelu_fast")]
CASES += [
    ("distilbert", {"activation": "silu"}),
    ("electra", {"hidden_act": "mish"}),
    ("roberta", {"hidden_act": "quick_gelu"}),
]


@pytest.mark.parametrize(("family", "options"), CASES, ids=lambda value: str(value))
def test_whole_models_give_the_logits_of_transformers(
    make_checkpoint, assert_logits, tmp_path: Path, family: str, options: dict
) -> None:
    source = make_checkpoint(family, num_labels=3, **options)
    messages: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a random model's int8 or fp16 graph misses its gate
        export_checkpoint(source, tmp_path / "artifact", attentions=True, required=False, progress=messages.append)
    architecture, _ = describe(read_config(source))
    files = {variant.file for variant in read_manifest(tmp_path / "artifact").variants}
    assert {"onnx/model.onnx", "onnx/model_fp16.onnx", "onnx/model_attentions.onnx"} <= files
    why = [step for step in messages if step.startswith("onnx/model_int8.onnx is left out: its operators know the activations")]
    assert bool(why) == (architecture.activation not in INT8)
    for file in ("onnx/model.onnx", "onnx/model_attentions.onnx"):
        assert_logits(tmp_path / "artifact" / file, source)


@pytest.mark.parametrize("kind", ["gelu", "gelu_new", "gelu_10", "quick_gelu"])
def test_activations_are_built_for_the_older_operator_set(make_checkpoint, tmp_path: Path, kind: str) -> None:
    source = make_checkpoint("bert", hidden_act=kind, num_hidden_layers=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        manifest = export_checkpoint(source, tmp_path / "artifact", target="fp32", opset=CpuPlain.at(17).opset)
    (variant,) = manifest.variants
    assert (variant.opset, variant.parity.max_abs_logit < 1e-4) == (17, True)


def test_two_names_of_a_function_give_one_graph(make_checkpoint, tmp_path: Path) -> None:
    """Names of the same function give graphs of the same bytes, int8 included."""
    made = {}
    source = make_checkpoint("bert", num_hidden_layers=2)
    for name in ("gelu", "gelu_python", *(name for name, kind in ACTIVATION_NAMES.items() if kind == "gelu_new")):
        config = json.loads((source / "config.json").read_text())
        (source / "config.json").write_text(json.dumps({**config, "hidden_act": name}))
        export_checkpoint(source, tmp_path / name, target="cpu", required=False, name="one")
        made[name] = [(tmp_path / name / "onnx" / file).read_bytes() for file in ("model.onnx", "model_int8.onnx")]
    assert made["gelu_python"] == made["gelu"] != made["gelu_new"]
    for name in ("gelu_pytorch_tanh", "gelu_python_tanh", "gelu_accurate", "gelu_fast"):
        assert made[name] == made["gelu_new"]
