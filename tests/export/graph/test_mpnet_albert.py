"""MPNet's and ALBERT's graphs: lengths up to 512 tokens, padding, exactness, gates; layers whose weights are stored once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from fusedbert.engine import Classifier
from fusedbert.engine.artifact import read_manifest
from fusedbert.export import export_checkpoint
from fusedbert.export.checkpoint.architecture import describe, read_config
from fusedbert.export.graph.builder import Graph
from fusedbert.export.graph.int8.weights import Observed, fit_smoothed, fit_split, quantize_weight
from fusedbert.export.parity.gates import open_session

LAYERS = 4
SHAPE: dict[str, Any] = {
    **{"hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 72, "num_hidden_layers": LAYERS, "num_labels": 3},
    **{"max_position_embeddings": 514, "seed": 5},
}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "mpnet": ("mpnet", {}),
    "mpnet, relu": ("mpnet", {"hidden_act": "relu", "intermediate_size": 96, "num_labels": 1}),
    "albert": ("albert", {}),
    "albert, two groups, wide tables": ("albert", {"num_hidden_groups": 2, "embedding_size": 64, "hidden_act": "gelu"}),
    "albert, one segment": ("albert", {"type_vocab_size": 1, "intermediate_size": 96}),
}
LENGTHS = (1, 2, 3, 15, 16, 17, 31, 33, 64, 127, 129, 200, 511, 512)  # MPNet's far positions begin at 128
FILES = tuple(f"onnx/model{kind}.onnx" for kind in ("", "_int8", "_bf16", "_fp16", "_fp16_packed"))


def batch(lengths: tuple[int, ...], padding: int) -> dict[str, np.ndarray]:
    """Random token ids of texts of these lengths, in two segments, padded on the right."""
    random = np.random.default_rng(0)
    real = np.arange(max(lengths)) < np.array(lengths)[:, None]
    ids = np.where(real, random.integers(5, 70, real.shape), padding)
    types = (real & (np.arange(max(lengths)) >= max(lengths) // 2)).astype(np.int64)
    return {"input_ids": ids, "attention_mask": real.astype(np.int64), "token_type_ids": types}


@pytest.fixture(scope="module", params=CASES)
def exported(request, make_checkpoint, tmp_path_factory) -> tuple[Path, Path]:
    """A tiny checkpoint, and its artifact."""
    family, options = CASES[request.param]
    source, folder = make_checkpoint(family, **{**SHAPE, **options}), tmp_path_factory.mktemp("artifact") / "artifact"
    export_checkpoint(source, folder, target="all", required=False)
    return source, folder


def run(graph: Any, arrays: dict[str, np.ndarray]) -> np.ndarray:
    names = {item.name for item in graph.get_inputs()}
    return np.asarray(graph.run(["logits"], {name: array for name, array in arrays.items() if name in names})[0])


def test_texts_of_1_to_512_tokens_equal_transformers(exported, judge) -> None:
    source, folder = exported
    graph, (a, _) = open_session(folder / "onnx/model.onnx"), describe(read_config(source))
    for lengths in (*((length,) for length in LENGTHS), LENGTHS, (40, 1, 7)):
        arrays = batch(lengths, a.padding_id)
        if not a.has_segments:
            arrays["token_type_ids"][:] = 0
        np.testing.assert_allclose(run(graph, arrays), judge(source, arrays), atol=1e-4, rtol=0)


def test_every_graph_is_within_its_gate(exported) -> None:
    variants = {variant.file: variant for variant in read_manifest(exported[1]).variants}
    assert set(variants) == set(FILES)
    assert all(variant.fused_attention == LAYERS for variant in variants.values())


@pytest.mark.parametrize("precision", ["int8", "bf16"])
def test_with_kernels_batch_mates_and_padding_move_no_bit(exported, precision: str) -> None:
    clf = Classifier.from_pretrained(exported[1], precision=precision, device="cpu")
    if "kernels for products and" not in clf.runtime.why:
        pytest.skip("this processor has no kernels for it")
    texts = ["the movie was great " * n for n in (1, 3, 9, 60, 200)] + ["a", "it was bad , so we hated it !"]
    together = clf.decision_function(texts)
    for row, text in enumerate(texts):
        np.testing.assert_array_equal(clf.decision_function([text])[0], together[row])
    np.testing.assert_array_equal(clf.decision_function(texts[::-1])[::-1], together)


@pytest.mark.parametrize("file", FILES[:3])
def test_batch_mates_and_padding_move_little_without_kernels(exported, file: str) -> None:
    source, folder = exported
    graph, lengths = open_session(folder / file), (200, 17, 90, 1)
    together = batch(lengths, describe(read_config(source))[0].padding_id)
    found = run(graph, together)
    for row, length in enumerate(lengths):
        single = {name: array[row : row + 1, :length] for name, array in together.items()}
        np.testing.assert_allclose(run(graph, single)[0], found[row], atol=2e-4)


@pytest.mark.parametrize("groups", [1, 2])
def test_layers_of_a_group_store_their_weights_once(make_checkpoint, tmp_path: Path, groups: int) -> None:
    """A model of 8 layers has the weights of one with as many layers as groups, and few that a precision has besides."""
    sizes = []
    for layers in (groups, 8):
        source = make_checkpoint("albert", **{**SHAPE, "num_hidden_layers": layers, "num_hidden_groups": groups})
        export_checkpoint(source, tmp_path / str(layers), target="all", required=False)
        sizes.append([large(tmp_path / str(layers) / file) for file in FILES])
    fp32, int8, bf16, fp16, packed = (many - few for few, many in zip(*sizes, strict=True))
    assert fp32 == bf16 == packed == 0
    assert int8 <= 2 * 2 * SHAPE["hidden_size"] * 96  # feed-forwards in bf16, which the first layers may have, in whole panels
    assert fp16 <= 2 * 3 * SHAPE["hidden_size"] ** 2  # queries, keys and values of the last layer are apart


def large(path: Path) -> int:
    """Bytes of the weights with two axes or more, but for the tables."""
    weights = [tensor for tensor in onnx.load(path).graph.initializer if not tensor.name.startswith("embeddings/")]
    return sum(len(tensor.raw_data) for tensor in weights if len(tensor.dims) > 1)


def test_a_graph_stores_equal_weights_once_if_it_is_asked_to() -> None:
    ones, twos = np.ones((2, 3), np.float32), np.full((2, 3), 2, np.float32)
    g = Graph(shared=True)
    assert g.weight("a", ones) == g.weight("b", ones.copy()) == g.weight("c", ones.T.copy().T)
    others = [g.weight("d", array) for array in (twos, ones.T, ones.astype(np.float16), ones[:1], ones.view(np.int32))]
    assert len({"a", *others}) == 6
    assert g.weight("e", np.array(1.0)) == g.weight("f", np.array(1.0))
    plain = Graph()
    assert plain.weight("a", ones) != plain.weight("b", ones)


def test_layers_of_one_weight_share_what_changes_it_and_keep_their_own_ranges() -> None:
    """Inputs that differ by a factor of 20 between the layers: each is rounded nearly as well as by itself."""
    random = np.random.default_rng(3)
    weight = random.normal(size=(32, 24)).astype(np.float32)
    channels = np.exp(random.normal(size=32)).astype(np.float32)
    moved = [random.normal(size=(300, 32)) * channels + shift for shift in (1, -2)]
    inputs = [(size * rows).astype(np.float32) for size, rows in zip((1, 20), moved, strict=True)]
    seen = [Observed(low=rows.min(axis=0), high=rows.max(axis=0), rows=rows) for rows in inputs]
    together = fit_smoothed(seen, weight)
    np.testing.assert_array_equal(together[0].smooth, together[1].smooth)
    for rows, observed, p in zip(inputs, seen, together, strict=True):
        (alone,) = fit_smoothed([observed], weight)
        error, own = (rounding_error(rows, weight, each) for each in (p, alone))
        assert error < 1.2 * own


def rounding_error(rows: np.ndarray, weight: np.ndarray, p: Any) -> float:
    w8, by_column = quantize_weight(weight * p.smooth[:, None])
    q = np.clip(np.rint((rows - p.shift) / p.smooth / p.scale) + p.zero_point, 0, 255) - p.zero_point
    return float(np.abs(q * p.scale @ (w8 * by_column) + p.shift @ weight - rows @ weight).mean())


def test_layers_of_one_weight_split_the_same_neurons_each_with_its_own_ceiling() -> None:
    random = np.random.default_rng(4)
    highs = [size * np.exp(random.normal(size=64)).astype(np.float32) for size in (3, 40)]
    low = np.full(64, -0.17, np.float32)
    splits = fit_split([Observed(low=low, high=high, rows=np.zeros((1, 64), np.float32)) for high in highs], least=0.0)
    np.testing.assert_array_equal(splits[0].neurons, splits[1].neurons)
    assert 0 < len(splits[0].neurons) <= 16
    for high, split in zip(highs, splits, strict=True):
        ceiling = split.scale * (255 - split.zero_point)
        copies = np.bincount(split.neurons, minlength=64)
        assert np.all(ceiling * (copies + 1) >= high * 1.0999)  # no neuron is cut off
        assert ceiling < 0.7 * high.max()
