"""Token classifiers: the graphs of every family, their gates by token, and what they have not."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from checkpoint_edits import edit_config
from safetensors.numpy import load_file, save_file

from fusedbert.engine.artifact import NEWEST, TOKENS, read_manifest
from fusedbert.engine.errors import ArtifactError, CheckpointError, ExportError, OptionError
from fusedbert.export import export_checkpoint
from fusedbert.export.checkpoint.architecture import describe, read_config
from fusedbert.export.cli import evaluation_table
from fusedbert.export.parity import gates
from fusedbert.export.parity.gates import open_session, run_batch
from fusedbert.export.parity.texts import check_set
from fusedbert.export.tokenizer import Tokenization

FILES = tuple(f"onnx/model{kind}.onnx" for kind in ("", "_int8", "_bf16", "_fp16", "_fp16_packed"))
FAMILIES = ("bert", "roberta", "camembert", "distilbert", "electra", "deberta-v2", "mpnet", "albert", "modernbert")
SIZES = {"hidden_size": 64, "num_attention_heads": 2}  # which every graph takes
NAMES = {0: "O", 1: "B-PER", 2: "I-PER", 3: "B-LOC", 4: "I-LOC"}


@pytest.fixture(scope="module", params=FAMILIES)
def exported(request, make_checkpoint, tmp_path_factory) -> tuple[Path, Path]:
    """A tiny checkpoint, and its artifact."""
    sizes = {"dim": 64, "n_heads": 2} if request.param == "distilbert" else SIZES
    source = make_checkpoint(request.param, tokens=True, id2label=NAMES, **sizes)
    folder = tmp_path_factory.mktemp("tokens") / "artifact"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a random model's rounded graphs may be left out
        export_checkpoint(source, folder)
    return source, folder


def test_each_token_has_the_logits_of_transformers(exported, assert_logits) -> None:
    source, folder = exported
    assert_logits(folder / "onnx/model.onnx", source)


def test_the_gates_count_tokens(exported) -> None:
    source, folder = exported
    manifest = read_manifest(folder)
    a, _ = describe(read_config(source))
    tokens = Tokenization(source, a)
    assert (manifest.task, manifest.format, manifest.labels) == (TOKENS, NEWEST, tuple(NAMES.values()))
    exact = manifest.variant(target="cpu", precision="fp32")
    checked = check_set(a, tokens, rounded=True, pairs=False).texts
    assert exact is not None and exact.parity.texts == sum(len(text.ids) for text in checked)
    for golden in manifest.golden:
        (row,) = tokens.encode_all([golden.text])
        assert len(golden.logits) == len(row.ids) * len(NAMES)
    made = {variant.file for variant in manifest.variants}
    assert set(FILES) - {"onnx/model_int8.onnx"} <= made <= set(FILES)  # int8 may not pass on random weights


def test_a_pooler_of_an_old_checkpoint_is_ignored_without_a_word(make_checkpoint, tmp_path: Path) -> None:
    source = make_checkpoint(tokens=True)
    tensors = load_file(source / "model.safetensors")
    tensors |= {"bert.pooler.dense.weight": np.zeros((48, 48), np.float32), "bert.pooler.dense.bias": np.zeros(48, np.float32)}
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        export_checkpoint(source, tmp_path / "artifact", target="fp32")


def test_a_wrong_logit_of_one_token_fails_the_check(make_checkpoint, tmp_path: Path, monkeypatch) -> None:
    source = make_checkpoint(tokens=True)

    def wrong(session, outputs, arrays):
        (logits,) = run_batch(session, outputs, arrays)
        logits[0, arrays["attention_mask"][0].sum() - 1, 1] += 1e-2  # of the first text's last token
        return [logits]

    monkeypatch.setattr(gates, "run_batch", wrong)
    with pytest.raises(ExportError, match=r"differs from the reference by 0\.01 in a logit"):
        export_checkpoint(source, tmp_path / "artifact", target="fp32")
    assert list(tmp_path.iterdir()) == []


def test_graphs_of_older_operator_sets_are_the_same(make_checkpoint, assert_logits, tmp_path: Path) -> None:
    source = make_checkpoint("modernbert", tokens=True)
    export_checkpoint(source, tmp_path / "artifact", target="fp32", opset=17)
    assert_logits(tmp_path / "artifact/onnx/model.onnx", source)


@pytest.mark.parametrize("options", [{"label_column": "entities"}, {"attentions": True}])
def test_options_of_text_classifiers_are_refused(make_checkpoint, tmp_path: Path, options) -> None:
    own = tmp_path / "own.csv"
    own.write_text("text,entities\n" + "the movie,O\n" * 16)
    with pytest.raises(OptionError, match="is for classifiers of texts, and this export is of tokens"):
        export_checkpoint(make_checkpoint(tokens=True), tmp_path / "artifact", target="fp32", evaluate=own, **options)


def test_a_classifier_of_texts_under_the_name_of_one_of_tokens_is_refused(make_checkpoint, tmp_path: Path) -> None:
    source = make_checkpoint("roberta")
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {"architectures": ["RobertaForTokenClassification"]}))
    with pytest.raises(CheckpointError, match=r"missing classifier\.weight \[labels, 48\].* fine-tuned for token class"):
        export_checkpoint(source, tmp_path / "artifact", target="fp32")


@pytest.mark.parametrize(
    "config", [{"model_type": "gpt2"}, {"hidden_act": "softplus"}, {"pruned_heads": {"0": [1]}}, {"is_decoder": True}]
)
def test_a_model_that_is_not_built_is_not_sent_to_a_route_that_refuses_it(make_checkpoint, tmp_path: Path, config) -> None:
    for tokens, way in ((False, "--via optimum$"), (True, "built.*: a token classifier has no other route$")):
        source = make_checkpoint(tokens=tokens)
        edit_config(source, **config)
        with pytest.raises(CheckpointError, match=way):
            export_checkpoint(source, tmp_path / "artifact", target="fp32")


def test_users_own_texts_are_measured_by_token(make_checkpoint, tmp_path: Path) -> None:
    own = tmp_path / "own.txt"
    own.write_text("the movie was good\nit is bad\n" * 8)
    manifest = export_checkpoint(
        make_checkpoint(tokens=True), tmp_path / "artifact", target="cpu", evaluate=own, required=False
    )
    evaluation = manifest.variants[0].evaluation
    assert evaluation is not None and evaluation.parity.texts == 8 * (6 + 5)
    card, lines = (tmp_path / "artifact/README.md").read_text(), evaluation_table(manifest)
    assert "On 88 tokens of `own.txt`, against" in card and lines[0] == "on 88 tokens of own.txt, against the fp32 graph:"
    count = manifest.variants[0].parity.texts
    assert f"over {count} tokens of texts of up to 40. `fusedbert.json`" in card.replace("\n", " ")
    assert " texts of one token" not in card.replace("\n", " ")


def test_a_damaged_manifest_is_refused(make_checkpoint, tmp_path: Path) -> None:
    export_checkpoint(make_checkpoint(tokens=True), tmp_path / "artifact", target="fp32")
    path = tmp_path / "artifact/fusedbert.json"
    document = json.loads(path.read_text())
    document["golden"][0]["logits"].append(0.5)
    path.write_text(json.dumps(document))
    with pytest.raises(ArtifactError, match=r"golden\[0\]\.logits has \d+ numbers, expected 2 for each token"):
        read_manifest(tmp_path / "artifact")


def test_the_graph_says_that_tokens_have_logits(exported) -> None:
    _, folder = exported
    (output,) = open_session(folder / "onnx/model.onnx").get_outputs()
    assert (output.name, output.shape) == ("logits", ["batch", "sequence", len(NAMES)])
