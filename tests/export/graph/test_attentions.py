"""The graph that shows its attention, compared with transformers' eager attention and with NumPy."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

from fusedbert.engine import Classifier
from fusedbert.engine.artifact import read_manifest
from fusedbert.engine.errors import ArtifactError, ExportError, OptionError
from fusedbert.export import export_checkpoint
from fusedbert.export.graph.cpu import fp32 as attentions
from fusedbert.export.parity import graphs

FILE = "onnx/model_attentions.onnx"
LENGTHS = (3, 11, 6, 8)  # as many texts as heads, so that a mask along the wrong axis would show


@pytest.fixture(scope="module", params=["bert", "roberta", "distilbert", "mpnet", "albert"])
def exported(request, make_checkpoint, tmp_path_factory):
    """A tiny checkpoint of a family, and its artifact."""
    checkpoint = make_checkpoint(request.param)
    folder = tmp_path_factory.mktemp("attentive") / "artifact"
    export_checkpoint(checkpoint, folder, target="fp32", attentions=True)
    return checkpoint, folder


def batch(folder):
    """A padded batch of random tokens, and the rows' lengths."""
    import json

    padding = json.loads((folder / "config.json").read_text())["pad_token_id"]
    rng = np.random.default_rng(5)
    ids = np.full((len(LENGTHS), max(LENGTHS)), padding, dtype=np.int64)
    mask = np.zeros_like(ids)
    for row, n in enumerate(LENGTHS):
        ids[row, :n], mask[row, :n] = rng.integers(5, 60, n), 1
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}


def run(folder, file, feeds):
    session = onnxruntime.InferenceSession(str(folder / file), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    wanted = {item.name: feeds[item.name] for item in session.get_inputs()}
    return dict(zip(names, map(np.asarray, session.run(names, wanted)), strict=True))


def test_weights_equal_those_of_transformers(exported):
    import torch
    from transformers import AutoModelForSequenceClassification

    checkpoint, folder = exported
    feeds = batch(folder)
    found = run(folder, FILE, feeds)
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint, attn_implementation="eager").eval()
    names = ["input_ids", "attention_mask"]
    with torch.no_grad():
        theirs = model(**{name: torch.from_numpy(feeds[name]) for name in names}, output_attentions=True)
    expected = torch.stack(theirs.attentions).numpy()  # [layers, batch, heads, query, key]
    assert found["attentions"].shape == expected.shape == (3, 4, 4, 11, 11)
    for row, n in enumerate(LENGTHS):
        assert np.abs(found["attentions"][:, row, :, :n] - expected[:, row, :, :n]).max() < 1e-5
    assert np.abs(found["logits"] - theirs.logits.numpy()).max() < 1e-4


def test_rows_sum_to_one_and_padding_gets_nothing(exported):
    _, folder = exported
    found = run(folder, FILE, batch(folder))["attentions"]
    assert np.abs(found.sum(axis=-1) - 1).max() < 1e-5
    for row, n in enumerate(LENGTHS):
        assert np.all(found[:, row, :, :, n:] == 0)
        assert np.all(found[:, row, :, :n, :n] > 0)


def test_logits_equal_those_of_the_serving_graph(exported):
    _, folder = exported
    feeds = batch(folder)
    assert np.abs(run(folder, FILE, feeds)["logits"] - run(folder, "onnx/model.onnx", feeds)["logits"]).max() < 1e-5


def test_queries_and_keys_give_the_weights(exported):
    checkpoint, folder = exported
    found = run(folder, FILE, batch(folder))
    q, k = (found[name].astype(np.float64).reshape(3, 4, 11, 4, 12).swapaxes(2, 3) for name in ("queries", "keys"))
    scores = q @ k.swapaxes(-1, -2) / np.sqrt(12)  # [layers, batch, heads, query, key]
    powers = np.exp(scores + bias_of_positions(checkpoint))
    for row, n in enumerate(LENGTHS):
        own = powers[:, row, :, :n, :n]
        assert np.abs(own / own.sum(axis=-1, keepdims=True) - found["attentions"][:, row, :, :n, :n]).max() < 1e-5


def bias_of_positions(checkpoint):
    """Numbers that transformers adds to MPNet's scores, ``[1, heads, query, key]``; 0 for others."""
    import torch
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(checkpoint)
    if model.config.model_type != "mpnet":
        return 0
    with torch.no_grad():
        return model.mpnet.encoder.compute_position_bias(torch.zeros(1, max(LENGTHS), 48)).double().numpy()


def test_the_manifest_distinguishes_the_graphs(exported):
    _, folder = exported
    manifest = read_manifest(folder)
    served = manifest.variant(target="cpu", precision="fp32")
    assert served is not None and served.file == "onnx/model.onnx"
    (shown,) = [variant for variant in manifest.variants if variant.file == FILE]
    assert shown.outputs == ("logits", "attentions", "queries", "keys")
    assert shown.fused_attention == shown.nodes["Attention"] == 3


def test_an_artifact_without_the_attention_graph_names_the_command(make_checkpoint, tmp_path):
    folder = tmp_path / "plain"
    export_checkpoint(make_checkpoint("bert"), folder, target="fp32")
    with (
        Classifier.from_pretrained(folder, cache_dir=tmp_path / "cache") as clf,
        pytest.raises(ArtifactError, match=rf"fusedbert export \S+ {folder} --attentions --force"),
    ):
        clf.attentions("a good movie")


def test_a_checkpoint_gets_the_attention_graph_at_the_first_call(make_checkpoint, tmp_path):
    cache = tmp_path / "cache"
    with Classifier.from_pretrained(make_checkpoint("bert"), precision="fp32", cache_dir=cache) as clf:
        before = {path.name for path in (cache / "artifacts").iterdir()}
        shown = clf.attentions("a good movie", "not bad")
        after = {path.name for path in (cache / "artifacts").iterdir()}
        assert len(before) == 1 and len(after) == 2 and before < after
        assert shown.weights.shape == (3, 4, 8, 8)
        assert shown.segments == (None, 0, 0, 0, None, 1, 1, None)
        assert shown.prediction["score"] == pytest.approx(clf(("a good movie", "not bad"))["score"], abs=1e-5)
    assert not (cache / "artifacts" / before.pop() / FILE).exists()


def test_wrong_weights_fail_the_export(make_checkpoint, tmp_path, monkeypatch):
    """Raw scores in place of probabilities, which the logits do not show."""
    monkeypatch.setattr(attentions, "AFTER_SOFTMAX", 0)
    with pytest.raises(ExportError, match="attention weight that is off by"):
        export_checkpoint(make_checkpoint("bert"), tmp_path / "out", target="fp32", attentions=True)
    assert not (tmp_path / "out").exists()


def test_weights_of_a_model_that_magnifies_rounding_may_be_off_by_as_much_as_float32s(make_checkpoint, tmp_path):
    """Scores of hundreds, whose last digits decide between two tokens."""
    source = make_checkpoint("deberta-v2", relative_attention=True, pos_att_type=["c2p", "p2c"], spread=1.6)
    assert [v.file for v in export_checkpoint(source, tmp_path / "out", target="fp32", attentions=True).variants][-1] == FILE


def test_weights_that_are_nan_fail_the_export(make_checkpoint, tmp_path, monkeypatch):
    """In the last text of a batch, behind others that are right."""
    run = graphs.run_batch

    def spoiled(*arguments):
        (weights,) = run(*arguments)
        weights[:, -1, 0, 0, 0] = np.nan
        return [weights]

    source = make_checkpoint("bert")
    monkeypatch.setattr(graphs, "run_batch", spoiled)
    with pytest.raises(ExportError, match="attention weight that is off by nan"):
        export_checkpoint(source, tmp_path / "out", target="fp32", attentions=True)


def test_attended_padding_fails_the_export(make_checkpoint, tmp_path, monkeypatch):
    """Padding that the block of weights hides, but that gets part of the rest."""
    from fusedbert.export.parity import graphs as attention_check

    measured = attention_check.run_batch

    def leak(session, outputs, arrays):
        found = measured(session, outputs, arrays)[0].copy()
        found[np.broadcast_to((arrays["attention_mask"] == 0)[None, :, None, None], found.shape)] = 1e-9
        return [found]

    monkeypatch.setattr(attention_check, "run_batch", leak)
    with pytest.raises(ExportError, match="padding an attention weight of 1e-09"):
        export_checkpoint(make_checkpoint("bert"), tmp_path / "out", target="fp32", attentions=True)


def test_the_other_route_does_not_show_attention(tmp_path):
    with pytest.raises(OptionError, match="via='direct'"):
        export_checkpoint("models/none", tmp_path / "out", via="optimum", attentions=True)
