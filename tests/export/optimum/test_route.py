"""``--via optimum``: any family that optimum exports becomes the same artifact, compared with transformers' own model."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest
from checkpoint_edits import edit_config, edit_tensors
from commands import FUSEDBERT
from onnx import TensorProto, helper

from fusedbert.engine import Classifier
from fusedbert.engine.artifact import limits, read_manifest, sha256_of
from fusedbert.engine.artifact.verify import FileCheck
from fusedbert.engine.errors import CheckpointError, ExportError, OptionError
from fusedbert.export import export_checkpoint
from fusedbert.export.checkpoint import IgnoredWarning, LeftOutWarning

WHY = "optimum-onnx is not installed; make test-optimum has an environment for it"
pytest.importorskip("optimum.onnxruntime", reason=WHY)

# Family to the layers, of three, whose attention ONNX Runtime's optimizer fuses.
FUSED = {"bert": 3, "roberta": 3, "albert": 2, "deberta-v2": 0, "mpnet": 0}
LONGEST = {"bert": 40, "roberta": 38, "albert": 40, "deberta-v2": 40, "mpnet": 38}
every_family = pytest.mark.parametrize("family", FUSED)


@every_family
def test_the_engine_gives_the_logits_of_transformers(family: str, exported, judge, texts: list[str]) -> None:
    case = exported(family, "optimum")
    assert case.manifest.max_length == LONGEST[family]
    expected = judge(case.checkpoint, texts, LONGEST[family])
    for batch in (1, len(texts)):
        with Classifier.from_pretrained(case.artifact, device="cpu", precision="fp32") as classifier:
            found = [classifier.decision_function(texts[i : i + batch]) for i in range(0, len(texts), batch)]
        np.testing.assert_allclose(np.concatenate(found), expected, atol=1e-4, rtol=0)


@every_family
def test_the_manifest_says_what_was_made_and_measured(family: str, exported) -> None:
    case = exported(family, "optimum")
    manifest = read_manifest(case.artifact)
    assert manifest == case.manifest
    with FileCheck(case.artifact, manifest, None) as check:
        check.finish()
    assert manifest.architecture == family
    assert manifest.labels == ("LABEL_0", "LABEL_1", "LABEL_2")
    assert manifest.source.sha256 == {"model.safetensors": sha256_of(case.checkpoint / "model.safetensors")}
    assert {"optimum", "optimum-onnx", "transformers", "torch"} <= set(manifest.created_with)
    assert [(v.file, v.target, v.precision) for v in manifest.variants] == [
        ("onnx/model.onnx", "cpu", "fp32"),
        ("onnx/model_fp16.onnx", "cuda", "fp16"),
    ]
    for variant in manifest.variants:
        assert variant.parity.reference == "transformers float64"
        assert variant.fused_attention == FUSED[family]
        model = onnx.load(case.artifact / variant.file)
        assert sum(variant.nodes.values()) == len(model.graph.node)
        assert {item.key for item in model.metadata_props} == {"created_with", "revision", "source"}
        kept = {tensor.data_type for tensor in model.graph.initializer if np.prod(tensor.dims) > 100}
        wanted = TensorProto.FLOAT16 if variant.precision == "fp16" else TensorProto.FLOAT
        assert kept - {TensorProto.INT64} == {wanted}
        assert [item.type.tensor_type.elem_type for item in model.graph.output] == [TensorProto.FLOAT]
    assert manifest.variants[0].parity.max_abs_logit <= 1e-4
    assert manifest.variants[1].parity.max_abs_logit > manifest.variants[0].parity.max_abs_logit


@every_family
def test_attention_that_is_not_fused_is_reported(family: str, exported) -> None:
    fusion = [text for text in exported(family, "optimum").warnings if text.startswith("FusionWarning")]
    assert len(fusion) == (0 if FUSED[family] == 3 else 2)
    if fusion:
        assert ("2 of 3 layers" if FUSED[family] else "no attention") in fusion[0]


@every_family
def test_the_golden_texts_replay(family: str, exported) -> None:
    case = exported(family, "optimum")
    with Classifier.from_pretrained(case.artifact, device="cpu", precision="fp32") as classifier:
        found = classifier.decision_function([golden.text for golden in case.manifest.golden])
    np.testing.assert_allclose(found, [golden.logits for golden in case.manifest.golden], atol=1e-4, rtol=0)


def test_the_model_card_says_what_the_graph_needs(exported) -> None:
    direct, optimum = (exported("bert", via).artifact / "README.md" for via in ("direct", "optimum"))
    assert "is standard ONNX" in direct.read_text()
    assert "has ONNX Runtime's own operators (com.microsoft)" in optimum.read_text()
    assert "transformers float64" in optimum.read_text()


@every_family
def test_the_manifest_says_which_onnxruntime_the_graphs_require(family: str, exported) -> None:
    case = exported(family, "optimum")
    assert case.manifest.requires == {
        "onnx/model.onnx": {"opset": 18, "onnxruntime": "1.14"},  # 1.13 refuses opset 18, 1.14.0 gives these logits
        "onnx/model_fp16.onnx": {"opset": 18, "onnxruntime": "1.31"},
    }
    assert "from ONNX Runtime 1.14 on" in (case.artifact / "README.md").read_text(encoding="utf-8")


def test_shared_weights_stay_shared(exported) -> None:
    case = exported("albert", "optimum")
    checkpoint, graph = (case.checkpoint / "model.safetensors").stat().st_size, case.manifest.files["onnx/model.onnx"]["bytes"]
    assert graph < 1.9 * checkpoint  # with a copy for each layer 2.5 times; nodes and names count in such a small graph


def test_two_exports_give_the_same_bytes(exported, tmp_path: Path) -> None:
    case = exported("albert", "optimum")
    export_checkpoint(case.checkpoint, tmp_path / "again", via="optimum")
    for name in [*case.manifest.files, "fusedbert.json"]:
        assert (tmp_path / "again" / name).read_bytes() == (case.artifact / name).read_bytes(), name


@pytest.mark.parametrize(("problem_type", "labels"), [("regression", 1), ("multi_label_classification", 4), (None, 1)], ids=str)
def test_every_head_gives_the_logits_of_transformers(
    problem_type: str | None, labels: int, make_checkpoint, judge, texts: list[str], tmp_path: Path
) -> None:
    folder = make_checkpoint("albert", num_labels=labels, problem_type=problem_type, num_hidden_layers=1)
    manifest = export_checkpoint(folder, tmp_path / "a", via="optimum", target="cpu")
    assert (manifest.problem_type, len(manifest.labels)) == (problem_type or "single_label_classification", labels)
    with Classifier.from_pretrained(tmp_path / "a", device="cpu") as classifier:
        np.testing.assert_allclose(classifier.decision_function(texts), judge(folder, texts, 40), atol=1e-4, rtol=0)


def test_an_fp16_graph_that_fails_its_gate(exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = exported("mpnet", "optimum").checkpoint
    monkeypatch.setitem(limits.MEAN_PROBABILITY, "fp16", 1e-9)
    with pytest.warns(LeftOutWarning, match=r"onnx/model_fp16\.onnx is left out"):
        manifest = export_checkpoint(checkpoint, tmp_path / "all", via="optimum")
    assert [variant.file for variant in manifest.variants] == ["onnx/model.onnx"]
    assert not (tmp_path / "all/onnx/model_fp16.onnx").exists()
    with pytest.raises(ExportError, match=r"onnx/model_fp16\.onnx keeps"):
        export_checkpoint(checkpoint, tmp_path / "cuda", via="optimum", target="cuda")
    assert not (tmp_path / "cuda").exists()


def test_scores_that_depend_on_padding_fail_the_gate(make_checkpoint, tmp_path: Path) -> None:
    # ConvBERT's convolutions look at the neighbours of a token, padding included: transformers' own scores move.
    with pytest.raises(ExportError, match=r"onnx/model\.onnx differs from the reference"):
        export_checkpoint(make_checkpoint("convbert"), tmp_path / "artifact", via="optimum")
    assert list(tmp_path.iterdir()) == []


def test_weights_beyond_the_protobuf_limit_go_into_a_separate_file(
    exported, judge, texts: list[str], tmp_path: Path, monkeypatch
) -> None:
    from fusedbert.export.optimum import fusion

    case = exported("roberta", "optimum")
    monkeypatch.setattr(fusion, "PROTOBUF_LIMIT", 10_000)
    manifest = export_checkpoint(case.checkpoint, tmp_path / "a", via="optimum", target="cpu")
    assert manifest.files["onnx/model.onnx_data"]["bytes"] > 100_000 > manifest.files["onnx/model.onnx"]["bytes"]
    with Classifier.from_pretrained(tmp_path / "a", device="cpu") as classifier:
        np.testing.assert_allclose(classifier.decision_function(texts), judge(case.checkpoint, texts, 38), atol=1e-4, rtol=0)


def test_equal_weights_are_shared_inside_branches_too() -> None:
    from fusedbert.export.optimum.fusion import share_equal_weights

    def branch(name: str, weight: str) -> onnx.GraphProto:
        out = helper.make_tensor_value_info(name, TensorProto.FLOAT, [2])
        return helper.make_graph([helper.make_node("Neg", [weight], [name])], name, [], [out])

    node = helper.make_node("If", ["c"], ["y"], then_branch=branch("t", "a"), else_branch=branch("e", "b"))
    weights = [helper.make_tensor(name, TensorProto.FLOAT, [2], values) for name, values in (("a", [1, 2]), ("b", [1, 2]))]
    condition = helper.make_tensor_value_info("c", TensorProto.BOOL, [])
    graph = helper.make_graph([node], "g", [condition], [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])], weights)
    share_equal_weights(graph)
    assert len(graph.initializer) == 1
    read = {inner.g.node[0].input[0] for inner in graph.node[0].attribute}
    assert read == {graph.initializer[0].name}


def test_a_sentencepiece_vocabulary_is_converted(make_checkpoint, judge, texts: list[str], tmp_path: Path) -> None:
    sentencepiece = pytest.importorskip("sentencepiece")
    folder = make_checkpoint("albert")
    (folder / "tokenizer.json").unlink()
    settings = {"tokenizer_class": "AlbertTokenizer", "do_lower_case": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["the movie was really good", "a bland film , boring and bad !", "we loved it"] * 20),
        model_prefix=str(tmp_path / "spiece"),
        vocab_size=60,
        pad_id=0,
        unk_id=1,
        bos_id=-1,
        eos_id=-1,
        pad_piece="<pad>",
        user_defined_symbols=["[CLS]", "[SEP]", "[MASK]"],
        hard_vocab_limit=False,
        minloglevel=2,
    )
    shutil.copyfile(tmp_path / "spiece.model", folder / "spiece.model")
    export_checkpoint(folder, tmp_path / "a", via="optimum", target="cpu")
    with Classifier.from_pretrained(tmp_path / "a", device="cpu") as classifier:
        np.testing.assert_allclose(classifier.decision_function(texts), judge(folder, texts, 40), atol=1e-4, rtol=0)


def refuse(folder: Path) -> str:
    output = folder.parent / "out" / "artifact"
    with pytest.raises(CheckpointError) as caught:
        export_checkpoint(folder, output, via="optimum", target="cpu")
    assert not output.exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def copy(exported, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported("albert", "optimum").checkpoint, tmp_path / "checkpoint"))


def test_every_fault_of_the_tensors_is_listed_at_once(copy: Path) -> None:
    def spoil(tensors: dict[str, np.ndarray]) -> None:
        del tensors["classifier.weight"]  # transformers would fill it with random numbers
        tensors["albert.pooler.weight"] = np.zeros((3, 4), np.float32)
        tensors["albert.encoder.adapter.weight"] = np.zeros(2, np.float32)
        tensors["classifier.bias"][0] = np.nan

    edit_tensors(copy, spoil)
    message = refuse(copy)
    assert "missing classifier.weight" in message
    assert "albert.pooler.weight is not of shape [48, 48]" in message
    assert "unknown albert.encoder.adapter.weight" in message
    assert "classifier.bias holds NaN or infinity" in message


def test_tensors_that_transformers_ignores_are_ignored_and_reported(copy: Path, tmp_path: Path) -> None:
    def add(tensors: dict[str, np.ndarray]) -> None:
        tensors["loss_fct.weight"] = np.ones(3, np.float32)
        tensors["class_weights"] = np.arange(3)
        tensors["albert.encoder.adapter.weight"] = np.zeros(2, np.float32)

    before = export_checkpoint(copy, tmp_path / "before", via="optimum", target="fp32").golden
    edit_tensors(copy, add)
    with pytest.warns(IgnoredWarning, match=r"3 tensors .*: albert\.encoder\.adapter\.weight, class_weights, loss_fct\.weight"):
        manifest = export_checkpoint(copy, tmp_path / "artifact", via="optimum", target="fp32")
    assert manifest.golden == before


def test_a_prefix_is_named_first(copy: Path) -> None:
    def wrap(tensors: dict[str, np.ndarray]) -> None:
        for name in list(tensors):
            tensors[f"module._orig_mod.{name}"] = tensors.pop(name)

    edit_tensors(copy, wrap)
    message = refuse(copy)
    assert "has 'module._orig_mod.' before its tensors' names" in message and "missing" not in message


def test_a_pickle_is_refused(copy: Path) -> None:
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    assert "pickle" in refuse(copy)


def test_a_family_that_optimum_does_not_export_is_refused(copy: Path) -> None:
    edit_config(copy, model_type="funnel")
    message = refuse(copy)
    assert "'funnel'" in message and "albert, " in message and "deberta-v2, " in message


def test_code_in_the_checkpoint_is_never_run(copy: Path, exported) -> None:
    names = {"AutoConfig": "evil.EvilConfig", "AutoModelForSequenceClassification": "evil.EvilModel"}
    edit_config(copy, auto_map=names)
    (copy / "evil.py").write_text(f"import pathlib\npathlib.Path({str(copy.parent / 'ran')!r}).touch()\n")
    manifest = export_checkpoint(copy, copy.parent / "artifact", via="optimum", target="cpu")
    assert not (copy.parent / "ran").exists()
    assert manifest.golden == exported("albert", "optimum").manifest.golden


def test_export_via_optimum_works_on_the_command_line(exported, tmp_path: Path) -> None:
    words = ["export", exported("mpnet", "optimum").checkpoint, tmp_path / "a", "--via", "optimum", "--for", "cpu", "--json"]
    done = subprocess.run([*FUSEDBERT, *map(str, words)], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["architecture"] == "mpnet"
    lines = done.stderr.splitlines()
    assert "warning: onnx/model.onnx: ONNX Runtime's optimizer fused no attention (mpnet)" in lines
    assert all(line.startswith(("[", "warning: onnx/")) for line in lines), done.stderr


def test_a_token_classifier_is_refused(copy: Path, tmp_path: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"architectures": ["RemBertForTokenClassification"]}))
    with pytest.raises(OptionError, match="via='optimum' is for classifiers of texts, and this export is of tokens"):
        export_checkpoint(copy, tmp_path / "artifact", via="optimum")
