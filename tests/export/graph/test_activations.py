"""Every activation that is built: what transformers computes under that name, in float64, in a graph, in a whole model."""

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
from fusedbert.export.graph.cpu_fp32 import CpuPlain
from fusedbert.export.graph.lowering import activate
from fusedbert.export.graph.operators import ACTIVATIONS as INT8
from fusedbert.export.parity.gates import batch_arrays, open_session
from fusedbert.export.parity.reference import ACTIVATIONS
from fusedbert.export.parity.texts import check_set
from fusedbert.export.tokenizer import Tokenization

GRID = np.concatenate([np.linspace(-60, 60, 4801), [0.0, -1e-7, 1e-7, -3000.0, 3000.0]])
# What transformers has and a graph here does not: refused by name.
NOT_BUILT = {"hardswish", "laplace", "leaky_relu", "linear", "prelu", "relu2", "relu6", "sigmoid", "sqrtsoftplus", "xielu"}


@pytest.mark.parametrize("name", ACTIVATION_NAMES)
def test_the_reference_is_transformers(name: str) -> None:
    import torch
    from transformers.activations import ACT2FN

    kind = ACTIVATION_NAMES[name]
    expected = ACT2FN[name](torch.from_numpy(GRID)).numpy()
    np.testing.assert_allclose(ACTIVATIONS[kind](GRID), expected, atol=2e-10, rtol=1e-12)


def test_names_that_transformers_has_are_built_or_refused() -> None:
    from transformers.activations import ACT2FN

    assert set(ACT2FN) - set(ACTIVATION_NAMES) <= NOT_BUILT
    assert set(ACTIVATION_NAMES) <= set(ACT2FN)
    for name in (*NOT_BUILT, "Gelu", "", None, 5, ["gelu"], {"gelu": 1}):
        with pytest.raises(CheckpointError, match=r"the activation is .*built directly are gelu, "):
            describe({"model_type": "bert", "hidden_act": name})


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("opset", [17, 23])
@pytest.mark.parametrize("kind", KINDS)
def test_the_nodes_compute_it(tmp_path: Path, kind: str, opset: int, dtype: str) -> None:
    if dtype == "float16" and kind in ("gelu", "gelu_new"):
        pytest.skip("com.microsoft:BiasGelu and FastGelu, in test_whole_models")
    g = Graph()
    x = g.input("x", dtype, ["n"])
    g.output("y", activate(g, x, kind, opset=opset, dtype=dtype), dtype, ["n"])
    g.write(tmp_path / "model.onnx", kind, opset=opset, metadata={}, ir_version=8)
    onnx.checker.check_model(str(tmp_path / "model.onnx"), full_check=True)
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    given = GRID.astype(dtype)
    found = session.run(None, {"x": given})[0]
    limits = {"atol": 2e-6, "rtol": 1e-6} if dtype == "float32" else {"atol": 2e-3, "rtol": 2e-3}
    np.testing.assert_allclose(found, ACTIVATIONS[kind](given.astype(np.float64)), **limits)


CASES: list[tuple[str, dict]] = [("bert", {"hidden_act": name}) for name in (*KINDS[3:], "gelu_fast")]
CASES += [
    ("distilbert", {"activation": "silu"}),
    ("electra", {"hidden_act": "mish"}),
    ("roberta", {"hidden_act": "quick_gelu"}),
]


@pytest.mark.parametrize(("family", "options"), CASES, ids=lambda value: str(value))
def test_whole_models(make_checkpoint, judge, tmp_path: Path, family: str, options: dict) -> None:
    source = make_checkpoint(family, num_labels=3, **options)
    told: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a random model's int8 or fp16 graph misses its gate
        export_checkpoint(source, tmp_path / "artifact", attentions=True, required=False, progress=told.append)
    architecture, _ = describe(read_config(source))
    files = {variant.file for variant in read_manifest(tmp_path / "artifact").variants}
    assert {"onnx/model.onnx", "onnx/model_fp16.onnx", "onnx/model_attentions.onnx"} <= files
    why = [step for step in told if step.startswith("onnx/model_int8.onnx is left out: its operators know the activations")]
    assert bool(why) == (architecture.activation not in INT8)
    checks = check_set(architecture, Tokenization(source, architecture))
    for file in ("onnx/model.onnx", "onnx/model_attentions.onnx"):
        session = open_session(tmp_path / "artifact" / file)
        names = {item.name for item in session.get_inputs()}
        for batch in checks.batches:
            arrays = batch_arrays([checks.texts[row] for row in batch], architecture.padding_id)
            ours = session.run(["logits"], {name: array for name, array in arrays.items() if name in names})[0]
            np.testing.assert_allclose(ours, judge(source, arrays), atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", ["gelu", "gelu_new", "gelu_10", "quick_gelu"])
def test_the_older_operator_set(make_checkpoint, tmp_path: Path, kind: str) -> None:
    source = make_checkpoint("bert", hidden_act=kind, num_hidden_layers=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        manifest = export_checkpoint(source, tmp_path / "artifact", target="fp32", opset=CpuPlain.at(17).opset)
    (variant,) = manifest.variants
    assert (variant.opset, variant.parity.max_abs_logit < 1e-4) == (17, True)


def test_one_function_is_one_graph(make_checkpoint, tmp_path: Path) -> None:
    """Of names that stand for one function the graphs are the same bytes, int8 included."""
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
