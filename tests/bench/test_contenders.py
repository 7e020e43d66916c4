import numpy as np
import onnxruntime
import pytest

from fusedbert.bench.batches import random_batch, read_vocabulary
from fusedbert.bench.contenders.fusedbert import FusedBert
from fusedbert.bench.shapes import Shape
from fusedbert.engine.errors import FusedBertError
from fusedbert.engine.options import Options


def test_the_logits_that_are_timed_are_those_of_the_graph(artifact):
    batch = random_batch(Shape(batch=3, tokens=12), read_vocabulary(artifact), np.random.default_rng(0))
    contender = FusedBert(artifact, Options.parse(device="cpu", precision="fp32", threads=1))
    contender.load()
    found = contender.logits(batch)
    session = onnxruntime.InferenceSession(str(artifact / "onnx" / "model.onnx"), providers=["CPUExecutionProvider"])
    feeds = {node.name: getattr(batch, node.name) for node in session.get_inputs()}
    assert found.shape == (3, 2)
    assert np.abs(found - session.run(["logits"], feeds)[0]).max() <= 1e-5
    assert contender.describe()["threads"] == 1
    contender.close()
    with pytest.raises(FusedBertError, match="load"):
        contender.logits(batch)
