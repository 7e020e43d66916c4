"""Several heads on one encoder: each computes what it does by itself; checkpoints that do not share an encoder are refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoint_edits import edit_config, edit_tensors

from fusedbert.engine import Classifier, MultiHeadClassifier
from fusedbert.engine.artifact import Head, read_manifest, write_manifest
from fusedbert.engine.artifact.limits import passes
from fusedbert.engine.errors import ArtifactError, CheckpointError, ExportError, OptionError
from fusedbert.export import export_checkpoint
from fusedbert.export.parity.gates import check_limits
from fusedbert.export.parity.heads import compare_heads

TEXTS = ["the movie was good", "bad", "", "it is not so boring , and i loved it " * 6, "we hated it !"]


def head_of(encoder: Path, own: Path) -> Path:
    """Give the checkpoint ``own`` the encoder of another one."""

    def take(tensors):
        others: dict[str, np.ndarray] = {}
        edit_tensors(encoder, lambda found: others.update(found))
        names = ("classifier", "pooler", "pre_classifier", "head.")
        return {name: own if any(part in name for part in names) else others[name] for name, own in tensors.items()}

    edit_tensors(own, take)
    return own


@pytest.fixture(scope="module", params=["bert", "roberta", "distilbert", "modernbert", "deberta-v2"])
def two(request, make_checkpoint) -> tuple[Path, Path]:
    """Two checkpoints with the same encoder."""
    sizes = {"dim": 64, "n_heads": 2} if request.param == "distilbert" else {"hidden_size": 64, "num_attention_heads": 2}
    encoder = make_checkpoint(request.param, num_labels=2, **sizes)
    return encoder, head_of(encoder, make_checkpoint(request.param, num_labels=4, seed=7, **sizes))


def test_each_head_has_the_bits_of_its_artifact(two, tmp_path: Path) -> None:
    first, second = two
    manifest = export_checkpoint(None, tmp_path / "both", heads={"mood": first, "topic": second}, required=False)
    kept = {each.precision for each in manifest.variants if each.target == "cpu"}
    for name, source in zip(("mood", "topic"), two, strict=True):
        alone = export_checkpoint(source, tmp_path / name, target="cpu", required=False)
        for precision in kept & {each.precision for each in alone.variants}:
            with (
                MultiHeadClassifier.from_pretrained(tmp_path / "both", device="cpu", precision=precision) as several,
                Classifier.from_pretrained(tmp_path / name, device="cpu", precision=precision) as one,
            ):
                expected = one.decision_function(TEXTS)
                np.testing.assert_array_equal(several.decision_function(TEXTS)[name], expected)
                np.testing.assert_array_equal(several.heads[name].decision_function(TEXTS), expected)


@pytest.fixture
def pair(make_checkpoint: Callable[..., Path], tmp_path: Path) -> tuple[Path, Path]:
    """Two checkpoints with the same encoder, which a test may change."""
    encoder = shutil.copytree(make_checkpoint(), tmp_path / "mood")
    return encoder, head_of(encoder, shutil.copytree(make_checkpoint(num_labels=4, seed=7), tmp_path / "topic"))


def export(first: Path | None, output: Path, **options):
    return export_checkpoint(first, output, target="fp32", **options)


def test_the_manifest_names_the_heads_in_the_order_of_their_logits(pair, tmp_path: Path) -> None:
    first, second = pair
    edit_config(second, problem_type="multi_label_classification")
    manifest = export(first, tmp_path / "both", heads={"topic": second}, threshold=np.float32(0.25))
    assert manifest == read_manifest(tmp_path / "both")
    assert [(head.name, len(head.labels), head.problem_type) for head in manifest.heads] == [
        ("mood", 2, "single_label_classification"),
        ("topic", 4, "multi_label_classification"),
    ]
    assert [head.thresholds for head in manifest.heads] == [None, (0.25,) * 4]
    assert [head.source.id for head in manifest.heads if head.source] == ["mood", "topic"]
    assert (len(manifest.labels), manifest.format, len(manifest.golden[0].logits)) == (6, 2, 6)
    names = json.loads((tmp_path / "both/config.json").read_text())["id2label"].values()
    assert list(names) == [f"{head.name}/{label}" for head in manifest.heads for label in head.labels]
    card = (tmp_path / "both/README.md").read_text()
    assert "Head topic (multi_label_classification), labels: 0 LABEL_0" in card and "MultiHeadClassifier" in card


def test_an_encoder_that_was_trained_on_is_refused_with_its_tensors(pair, tmp_path: Path) -> None:
    first, second = pair

    def change(tensors):
        bias = tensors["bert.encoder.layer.2.output.dense.bias"]
        bias[3] = np.nextafter(bias[3], 1)
        tensors["bert.embeddings.LayerNorm.weight"][0] += 1.0
        return tensors

    edit_tensors(second, change)
    names = r"bert\.embeddings\.LayerNorm\.weight, bert\.encoder\.layer\.2\.output\.dense\.bias"
    with pytest.raises(CheckpointError, match=rf"2 tensors differ \({names}\)"):
        export(first, tmp_path / "both", heads={"topic": second})
    assert not (tmp_path / "both").exists()


def test_another_architecture_is_refused_with_what_differs(pair, make_checkpoint, tmp_path: Path) -> None:
    other = make_checkpoint(num_hidden_layers=2, num_attention_heads=2)
    with pytest.raises(CheckpointError, match="it has layers 2, not 3, heads 2, not 4"):
        export(pair[0], tmp_path / "both", heads={"topic": other})


def test_another_tokenizer_is_refused(pair, tmp_path: Path) -> None:
    first, second = pair
    edit_json = json.loads((second / "tokenizer_config.json").read_text())
    (second / "tokenizer_config.json").write_text(json.dumps(edit_json | {"model_max_length": 20, "truncation_side": "left"}))
    with pytest.raises(CheckpointError, match="another tokenizer than head mood, in the longest text, truncation_side"):
        export(first, tmp_path / "both", heads={"topic": second})


def test_tokens_and_texts_do_not_go_together(pair, make_checkpoint, tmp_path: Path) -> None:
    tokens = make_checkpoint(tokens=True)
    with pytest.raises(CheckpointError, match=r"head topic \(.*\) classifies tokens, and head mood \(.*\) classifies texts: "):
        export(pair[0], tmp_path / "both", heads={"topic": tokens})
    with pytest.raises(CheckpointError, match="classifies tokens, and several heads are for classifiers of texts"):
        export(None, tmp_path / "both", heads={"a": tokens, "b": tokens})


@pytest.mark.parametrize(
    ("heads", "message"),
    [
        ({"to pic": 1}, "'to pic' is not a name of a head, expected letters, digits"),
        ({"mood": 1}, "two heads have the name mood"),
        ({"": 1}, "'' is not a name of a head"),
    ],
)
def test_bad_names_are_refused(pair, heads, message: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=message):
        export(pair[0], tmp_path / "both", heads={name: pair[i] for name, i in heads.items()})


def test_one_head_without_a_source_is_refused(pair, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"^1 head and no source: give a checkpoint, or at least two heads NAME=CHECKPOINT"):
        export(None, tmp_path / "both", heads={"mood": pair[0]})


def test_options_of_one_head_are_refused(pair, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="attentions is for a single classifier, and this export is of several heads"):
        export(pair[0], tmp_path / "both", heads={"topic": pair[1]}, attentions=True)
    edit_config(pair[1], problem_type="multi_label_classification")
    threshold: Any
    for threshold in ({"LABEL_0": 0.3}, np.True_):
        with pytest.raises(OptionError, match="there are several heads: give one number for all"):
            export(pair[0], tmp_path / "both", heads={"topic": pair[1]}, threshold=threshold)


def test_users_texts_measure_every_head(pair, tmp_path: Path) -> None:
    own = tmp_path / "own.txt"
    own.write_text("the movie was good\nit is bad\n" * 8)
    manifest = export(pair[0], tmp_path / "both", heads={"topic": pair[1]}, evaluate=own)
    evaluation = manifest.variants[0].evaluation
    assert evaluation is not None and list(evaluation.parity.heads or ()) == ["mood", "topic"]


def test_a_gate_counts_for_each_head_and_names_it() -> None:
    heads = [
        Head(name="mood", problem_type="single_label_classification", labels=("no", "yes")),
        Head(name="value", problem_type="regression", labels=("value",)),
    ]
    reference = np.random.default_rng(0).normal(size=(50, 3)) * 3
    assert passes(compare_heads(list(enumerate(reference)), reference, heads), "int8")
    for columns, name in (([0, 1], "mood"), ([2], "value")):
        wrong = reference.copy()
        wrong[:, columns] = -wrong[:, columns]
        parity = compare_heads(list(enumerate(wrong)), reference, heads)
        assert not passes(parity, "int8")
        with pytest.raises(ExportError, match=f"graph, head {name}, keeps"):
            check_limits(parity, "int8", "graph")
        with pytest.raises(ExportError, match=f"graph, head {name}, differs from the reference"):
            check_limits(parity, "fp32", "graph")


def test_a_manifest_whose_heads_do_not_fit_is_refused(pair, tmp_path: Path) -> None:
    folder = tmp_path / "both"
    manifest = export(pair[0], folder, heads={"topic": pair[1]})
    document = json.loads((folder / "fusedbert.json").read_text())
    for change, message in (
        ({"heads": document["heads"][:1]}, "heads has the names"),
        ({"labels": ["a"] * 6}, "labels are not those of all heads"),
        ({"heads": [document["heads"][0] | {"name": "a/b"}, document["heads"][1]]}, r"heads\[0\]\.name is 'a/b'"),
    ):
        (folder / "fusedbert.json").write_text(json.dumps(document | change))
        with pytest.raises(ArtifactError, match=message):
            read_manifest(folder)
    write_manifest(folder, manifest)
    assert read_manifest(folder) == manifest


def test_the_command_takes_heads_with_and_without_a_source(pair, fusedbert, tmp_path: Path) -> None:
    first, second = pair
    fusedbert("export", first, tmp_path / "one", "--head", f"topic={second}", "--for", "fp32", check=True)
    done = fusedbert(
        "export", "--head", f"mood={first}", "--head", f"topic={second}", tmp_path / "two", "--for", "fp32", check=True
    )
    assert "labels: mood: LABEL_0, LABEL_1; topic: LABEL_0" in done.stdout
    assert (tmp_path / "one/fusedbert.json").read_bytes() == (tmp_path / "two/fusedbert.json").read_bytes()
    assert "give NAME=CHECKPOINT" in fusedbert("export", first, tmp_path / "x", "--head", "topic").stderr
    assert "Missing argument 'OUTPUT'" in fusedbert("export", first).stderr
