"""DeBERTa's and MPNet's graphs: relative positions of each kind, near and far, padding, exactness, long texts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from fusedbert.engine import Classifier, ExportError, OptionError
from fusedbert.engine.artifact import read_manifest
from fusedbert.engine.run.batches import Bucket, pack
from fusedbert.engine.text.tokenizer import Row
from fusedbert.export import export_checkpoint
from fusedbert.export.checkpoint.architecture import describe, read_config
from fusedbert.export.checkpoint.relative import BIAS, REACH, Relative, read_bias, read_relative
from fusedbert.export.checkpoint.weights import Weights
from fusedbert.export.parity.gates import open_scratch, open_session, run_batch
from fusedbert.export.parity.graphs import PackedStandIn

SHAPE = {"hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 72, "num_hidden_layers": 3, "num_labels": 3}
LENGTHS = (1, 2, 15, 16, 17, 33, 40, 128)  # far buckets begin at a distance of 5
OPTIONS = {
    "v3": {},
    "unshared": {"share_att_key": False, "norm_rel_ebd": "none"},
    "c2p": {"pos_att_type": ["c2p"], "share_att_key": False},
    "p2c": {"pos_att_type": "p2c", "position_buckets": -1},
    "biased": {"position_biased_input": True, "type_vocab_size": 2},
    "none": {"pos_att_type": []},
}
V3 = {"max_position_embeddings": 128, "position_buckets": 8}


def batch(lengths: tuple[int, ...], padding_id: int) -> dict[str, np.ndarray]:
    """Random token ids of texts of these lengths, padded on the right."""
    random = np.random.default_rng(0)
    real = np.arange(max(lengths)) < np.array(lengths)[:, None]
    ids = np.where(real, random.integers(5, 60, real.shape), padding_id)
    return {"input_ids": ids, "attention_mask": real.astype(np.int64)}


@pytest.fixture(scope="module", params=[*OPTIONS, "mpnet"])
def checkpoint(make_checkpoint, request) -> Path:
    family, options = ("mpnet", {}) if request.param == "mpnet" else ("deberta-v2", V3 | OPTIONS[request.param])
    positions = {"max_position_embeddings": 130} if family == "mpnet" else {}
    return make_checkpoint(family, **SHAPE, **options, **positions, seed=3)


@pytest.fixture(scope="module")
def artifact(checkpoint: Path, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("artifact") / "artifact"
    export_checkpoint(checkpoint, folder, target="all", required=False, attentions=True)
    return folder


def test_near_and_far_tokens_equal_transformers(checkpoint: Path, artifact: Path, judge) -> None:
    """One by one, and padded together."""
    graph, padding = open_session(artifact / "onnx/model.onnx"), describe(read_config(checkpoint))[0].padding_id
    for lengths in (LENGTHS, (100, 1, 40), *((length,) for length in LENGTHS)):
        arrays = batch(lengths, padding)
        arrays |= (
            {"token_type_ids": arrays["attention_mask"] * (np.arange(max(lengths)) > 2)} if len(graph.get_inputs()) > 2 else {}
        )
        np.testing.assert_allclose(graph.run(["logits"], arrays)[0], judge(checkpoint, arrays), atol=1e-4, rtol=0)


def test_the_graphs_are_within_their_gates(checkpoint: Path, artifact: Path) -> None:
    variants = {variant.file: variant for variant in read_manifest(artifact).variants}
    files = ("model", "model_int8", "model_fp16", "model_fp16_packed", "model_bf16", "model_attentions")
    assert {f"onnx/{name}.onnx" for name in files} <= set(variants)
    if describe(read_config(checkpoint))[0].relative is None:
        return
    assert variants["onnx/model_bf16.onnx"].nodes["fusedbert:Bf16DisentangledAttention"] == SHAPE["num_hidden_layers"]
    packed = variants["onnx/model_fp16_packed.onnx"].nodes  # the last layer has one query, and pads its keys
    assert packed["com.microsoft:PackedMultiHeadAttention"] == SHAPE["num_hidden_layers"] - 1
    assert packed["com.microsoft:MultiHeadAttention"] == 1


@pytest.mark.parametrize("family", ["mpnet", "deberta-v2"])
def test_packed_texts_are_padded_beyond_the_longest_of_the_model(family: str, make_checkpoint, judge, tmp_path: Path) -> None:
    """On CUDA the places of a text are rounded up, and so are texts and rows."""
    config = (
        {"max_position_embeddings": 102}
        if family == "mpnet"
        else V3 | {"max_position_embeddings": 100, "position_biased_input": True}
    )
    source = make_checkpoint(family, **SHAPE, **config)
    a, layout = describe(read_config(source))
    graph, arrays = open_scratch(a, Weights(source, a, layout), PackedStandIn, tmp_path), batch((100, 1, 40), a.padding_id)
    rows = [
        Row(ids=ids[:n].tolist(), types=[0] * n, truncated=False)
        for ids, n in zip(arrays["input_ids"], arrays["attention_mask"].sum(1), strict=True)
    ]
    packed = pack(rows, Bucket(texts=4, longest=128, tokens=160), a.padding_id)
    (logits,) = run_batch(graph, ["logits"], packed.arrays)
    np.testing.assert_allclose(logits[:3], judge(source, arrays), atol=0.02)


@pytest.mark.parametrize("precision", ["int8", "bf16"])
def test_with_kernels_batch_mates_and_padding_move_no_bit(artifact: Path, precision: str) -> None:
    if not any(variant.precision == precision for variant in read_manifest(artifact).variants):
        pytest.skip("the gates left it out, as random weights may")
    clf = Classifier.from_pretrained(artifact, precision=precision, device="cpu")
    if "disentangled attention" not in clf.runtime.why:
        pytest.skip("this processor has no kernel for it")
    texts = ["the movie was great " * n for n in (1, 3, 9, 20)] + ["a"]
    together = clf.decision_function(texts)
    for row, text in enumerate(texts):
        np.testing.assert_array_equal(clf.decision_function([text])[0], together[row])
    np.testing.assert_array_equal(clf.decision_function(texts[::-1])[::-1], together)


def test_longer_texts_are_taken_if_asked_for(make_checkpoint, tmp_path: Path) -> None:
    """No table of positions ends; what a model was trained with is the default."""
    import torch
    from transformers import AutoModelForSequenceClassification

    source = make_checkpoint("deberta-v2", **SHAPE, **V3)
    export_checkpoint(source, tmp_path / "a", target="cpu", required=False)
    manifest, text = read_manifest(tmp_path / "a"), "good bad " * 500
    assert (manifest.max_length, manifest.longest) == (128, REACH)
    with pytest.raises(OptionError, match=f"the model takes up to {REACH} tokens"):
        Classifier.from_pretrained(tmp_path / "a", device="cpu", max_length=REACH + 1)
    model = AutoModelForSequenceClassification.from_pretrained(source).eval()
    for precision, atol in (("fp32", 1e-4), ("bf16", 0.1)):
        clf = Classifier.from_pretrained(tmp_path / "a", device="cpu", precision=precision, max_length=1024)
        ids = clf.model.tokenizer.raw.encode(text).ids
        assert len(ids) == 1002
        with torch.no_grad():
            expected = model(input_ids=torch.tensor([ids])).logits.numpy()
        np.testing.assert_allclose(clf.decision_function([text]), expected, atol=atol)


@pytest.mark.parametrize("options", ["v3", "c2p", "p2c", "mpnet"])
def test_long_texts_go_head_by_head(options: str, make_checkpoint, judge, tmp_path: Path) -> None:
    """DeBERTa's of 1,025 tokens and more, padding included."""
    if options == "mpnet":
        source = make_checkpoint("mpnet", **SHAPE, max_position_embeddings=1030)
    else:
        source = make_checkpoint("deberta-v2", **SHAPE, **V3 | OPTIONS[options])
    export_checkpoint(source, tmp_path / "a", target="fp32")
    graph = open_session(tmp_path / "a/onnx/model.onnx")
    weights = onnx.load(tmp_path / "a/onnx/model.onnx").graph.initializer
    tables = [each.raw_data for each in weights if len(each.dims) == 3]
    assert len(set(tables)) == len(tables)  # both ways of attention use the same tables
    for lengths in ((1025, 700), (1024, 1)):
        arrays = batch(lengths, describe(read_config(source))[0].padding_id)
        np.testing.assert_allclose(graph.run(["logits"], arrays)[0], judge(source, arrays), atol=1e-4, rtol=0)


def test_biased_positions_end_where_their_table_ends(make_checkpoint, tmp_path: Path) -> None:
    source = make_checkpoint("deberta-v2", **SHAPE, **V3, position_biased_input=True)
    export_checkpoint(source, tmp_path / "a", target="fp32")
    assert read_manifest(tmp_path / "a").longest is None


@pytest.mark.parametrize("buckets", [4, 7, 32, 33, 128, 152, 224, 256])
@pytest.mark.parametrize("furthest", [20, 128, 512, 513, 1024, 2048, 4096])
def test_buckets_are_those_of_transformers(buckets: int, furthest: int) -> None:
    import torch
    from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

    if furthest - 1 <= buckets // 2:
        return
    distance = np.arange(-8191, 8192)
    expected = make_log_bucket_position(torch.tensor(distance), buckets, furthest).long().numpy() + buckets
    found = Relative(terms=("c2p",), rows=2 * buckets, buckets=buckets, furthest=furthest).row(distance)
    off = int((found != np.clip(expected, 0, 2 * buckets - 1)).sum())
    assert off <= 2 * ((buckets, furthest) == (224, 2048))  # torch's logarithm is a unit off there, at one distance and back


def test_mpnets_buckets_are_those_of_transformers() -> None:
    import torch
    from transformers.models.mpnet.modeling_mpnet import MPNetEncoder

    distance = np.arange(-600, 601)
    expected = MPNetEncoder.relative_position_bucket(torch.tensor(-distance)).numpy()
    np.testing.assert_array_equal(read_bias({}).row(distance), expected)


@pytest.mark.parametrize("relative", [read_bias({}), Relative(terms=("c2p", "p2c"), rows=512, buckets=256, furthest=512)])
def test_columns_rise_one_by_one(relative: Relative) -> None:
    """The kernel counts on it."""
    rows, index = relative.columns()
    np.testing.assert_array_equal(rows[index], relative.row(np.arange(1 - REACH, REACH)))
    assert set(np.diff(index)) == {0, 1} and len(set(rows)) == len(rows) <= relative.rows
    assert len(rows) == (31 if BIAS in relative.terms else 512)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"conv_kernel_size": 3}, "conv_kernel_size = 3"),
        ({"pos_att_type": "c2p|p2p"}, r"pos_att_type = \['c2p', 'p2p'\]"),
        ({"pos_att_type": 3}, "pos_att_type = 3"),
        ({"norm_rel_ebd": "batch_norm"}, "norm_rel_ebd = 'batch_norm'"),
        ({"share_att_key": 1}, "share_att_key = 1"),
        ({"relative_attention": "yes"}, "relative_attention = 'yes'"),
        ({"position_buckets": 2}, "position_buckets = 2"),
        ({"position_buckets": 2.0}, "position_buckets = 2.0"),
        (
            {"position_buckets": 256, "max_relative_positions": 100},
            "built directly are 4 or more, and fewer than twice the positions less 2",
        ),
        ({"attention_head_size": 32}, "attention_head_size = 32"),
        ({"pooler_hidden_size": 12}, "pooler_hidden_size = 12"),
        ({"position_biased_input": None}, "position_biased_input = None"),
        ({"type_vocab_size": -1}, "type_vocab_size = -1"),
        ({"model_type": "mpnet", "relative_attention_num_buckets": 8}, "relative_attention_num_buckets = 8"),
        ({"model_type": "albert", "inner_group_num": 2}, "inner_group_num = 2"),
        ({"model_type": "albert", "num_hidden_groups": 13}, "num_hidden_groups = 13"),
    ],
)
def test_what_is_not_built_is_refused_by_name(config: dict, says: str) -> None:
    from fusedbert.engine.errors import CheckpointError

    with pytest.raises(CheckpointError, match=says) as caught:
        describe({"model_type": "deberta-v2", "relative_attention": True, **config})
    assert "\n" not in str(caught.value)


def test_a_text_ends_where_distances_end() -> None:
    """Sizes of positions that have no table, or for which the graphs have no distances."""
    for relative in (True, False):
        config = {"position_biased_input": False, "max_position_embeddings": 2**31 - 1, "relative_attention": relative}
        assert describe({"model_type": "deberta-v2", "pos_att_type": "c2p", **config})[0].max_tokens == REACH
    config = {"position_biased_input": True, "max_position_embeddings": 9000, "relative_attention": True}
    assert describe({"model_type": "deberta-v2", "pos_att_type": "c2p", **config})[0].max_tokens == REACH
    assert describe({"model_type": "mpnet", "max_position_embeddings": 9002})[0].max_tokens == REACH
    assert describe({"model_type": "deberta-v2", "attention_head_size": 64})[0].head_size == 64  # as it would be anyway


@pytest.mark.parametrize(("limit", "expected"), [(10**30, 128), (512, 512), (64, 64), (100_000, 128)])
def test_a_length_that_the_tokenizer_names_is_the_default(limit: int, expected: int, make_checkpoint, tmp_path: Path) -> None:
    """As in transformers, whatever max_position_embeddings says where no table ends."""
    source = make_checkpoint("deberta-v2", **SHAPE, **V3)
    file = source / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"model_max_length": limit}))
    assert export_checkpoint(source, tmp_path / "a", target="fp32").max_length == expected


def test_a_table_beyond_float16_is_refused_by_name(make_checkpoint, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    source = make_checkpoint("mpnet", **SHAPE)
    tensors = load_file(source / "model.safetensors")
    tensors["mpnet.encoder.relative_attention_bias.weight"][3, 0] = 1e6
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ExportError, match="position_bias reaches 1e\\+06, float16 ends at 65504: use --for cpu"):
        export_checkpoint(source, tmp_path / "a", target="cuda", required=True)


def test_counts_are_those_of_both_terms_even_without_relative_positions() -> None:
    """As in transformers: scores are divided by sqrt(3 d) all the same. Empty names do not count."""
    assert read_relative({"pos_att_type": "c2p|", "relative_attention": True}, 512)[1] == 2
    assert read_relative({"pos_att_type": ["", "p2c"], "relative_attention": True}, 512)[1] == 2
    assert read_relative({"pos_att_type": "c2p|p2c"}, 512) == (None, 3)
