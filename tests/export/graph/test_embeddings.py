"""The embeddings of the graphs in int8 and bfloat16 against transformers, for every family, as kernels and as functions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from fusedbert.engine import kernels as cpu_kernels
from fusedbert.engine.kernels import Kernels
from fusedbert.export import export_checkpoint
from fusedbert.export.graph.operators import DOMAIN

KINDS = {
    "bert": {},
    "bert with one segment": {"type_vocab_size": 1},
    "distilbert": {},
    "roberta": {},
    "electra": {"embedding_size": 64, "hidden_size": 64},
    "electra with a projection": {"embedding_size": 32, "hidden_size": 64},
}
LENGTHS = (7, 12, 1, 12)


def session(path: Path, level: str, precision: str) -> onnxruntime.InferenceSession:
    """Open a graph whose only output is what its embeddings give the first layer, in float32."""
    model = onnx.load(path)
    (node,) = [node for node in model.graph.node if node.domain == DOMAIN and "Embed" in node.op_type]
    del model.graph.output[:]
    model.graph.output.append(onnx.helper.make_tensor_value_info(node.output[0], onnx.TensorProto.FLOAT, None))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    cpu_kernels.register(options, {cpu_kernels.SWITCH: level}, Kernels(precision))
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def batch(padding: int, names: set[str]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    ids = rng.integers(5, 40, (len(LENGTHS), max(LENGTHS)))
    mask = (np.arange(ids.shape[1]) < np.array(LENGTHS)[:, None]).astype(np.int64)
    arrays = {
        "input_ids": np.where(mask, ids, padding),
        "attention_mask": mask,
        "token_type_ids": rng.integers(0, 2, ids.shape) * mask,
    }
    return {name: array for name, array in arrays.items() if name in names}


@pytest.mark.parametrize("kind", KINDS)
def test_embeddings_are_those_of_transformers(make_checkpoint: Any, tmp_path: Path, kind: str) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification

    source = make_checkpoint(kind.partition(" ")[0], seed=2, **KINDS[kind])
    export_checkpoint(source, tmp_path / "artifact", target="cpu", required=False)
    files = {precision: tmp_path / f"artifact/onnx/model_{precision}.onnx" for precision in ("int8", "bf16")}
    for file in files.values():
        types = [node.op_type for node in onnx.load(file).graph.node]
        assert types.count("Lengths") == 1 and "ArgMax" not in types
        assert ("Embed" in types or "Bf16Embed" in types) is ("projection" not in kind)
    if "projection" in kind:
        return
    model = AutoModelForSequenceClassification.from_pretrained(source, dtype=torch.float32).eval()
    for precision, level in (("bf16", "onnxruntime"), ("bf16", "auto"), ("int8", "onnxruntime"), ("int8", "auto")):
        graph = session(files[precision], level, precision)
        names = {each.name for each in graph.get_inputs()}
        feeds = batch(model.config.pad_token_id, names)
        with torch.no_grad():
            given = {name: torch.from_numpy(array) for name, array in feeds.items()}
            expected = model(**given, output_hidden_states=True).hidden_states[0].numpy()
        (found,) = (np.asarray(each) for each in graph.run(None, feeds))
        if precision == "int8":  # shifted and smoothed for each channel: a line, whose ends are the least and the largest
            flat, x = found.reshape(-1, found.shape[-1]), expected.reshape(-1, found.shape[-1])
            spread = np.std(flat, axis=0) / np.std(x, axis=0)
            found = (flat - flat.mean(axis=0)) / spread + x.mean(axis=0)
            np.testing.assert_allclose(found, x, atol=0.05)
        else:
            np.testing.assert_allclose(found, expected, atol=4e-3)  # tables are float16
        wrong = feeds["input_ids"].copy()
        wrong[-1, -1] = model.config.vocab_size
        with pytest.raises(Exception, match=str(model.config.vocab_size)):
            graph.run(None, {**feeds, "input_ids": wrong})
