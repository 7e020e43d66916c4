"""The user's own texts in an export: read as ``fusedbert score`` reads them, and measured by transformers' side."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from fusedbert.engine import Classifier
from fusedbert.engine.artifact import Head, read_manifest
from fusedbert.engine.errors import OptionError
from fusedbert.engine.text.inputs import check_items
from fusedbert.export import export_checkpoint
from fusedbert.export.cli import export
from fusedbert.export.evaluation.evaluate import check_labels, measure
from fusedbert.export.evaluation.texts import TextColumns, UserTexts, read_texts

WORDS = ("the movie was good", "boring", "we loved it", "it is bad, really bad", "a film", "so bland!", "i hated the movie")
PAIRS = [(f"{a} {i}", f"{b} and {a}") for i, (a, b) in enumerate(zip(WORDS * 4, reversed(WORDS * 4), strict=True))]
LABELS = ("no", "yes")
DATA = {
    "pairs.csv": "id,premise,hypothesis,gold\n" + "".join(f'{i},"{a}","{b}",yes\n' for i, (a, b) in enumerate(PAIRS)),
    "pairs.tsv": "premise\thypothesis\tgold\n" + "".join(f"{a}\t{b}\tyes\n" for a, b in PAIRS),
    "pairs.jsonl": "".join(json.dumps({"premise": a, "hypothesis": b, "gold": 1}) + "\n" for a, b in PAIRS),
}
COLUMNS = TextColumns(text="premise", pair="hypothesis", label="gold")


@pytest.fixture(scope="module")
def checkpoint(make_checkpoint: Callable[..., Path]) -> Path:
    return make_checkpoint("bert", num_hidden_layers=1, id2label=dict(enumerate(LABELS)))


@pytest.mark.parametrize("name", DATA)
def test_tables_give_the_same_pairs_and_labels(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(DATA[name], encoding="utf-8")
    found = read_texts(tmp_path / name, "evaluate", COLUMNS)
    assert found.name == name and [(each.text, each.pair) for each in found.texts] == PAIRS
    assert check_labels(found, LABELS, "single_label_classification") == [1] * len(PAIRS)
    assert found.texts == read_texts(PAIRS, "evaluate", TextColumns()).texts
    first = read_texts(tmp_path / name, "calibrate", COLUMNS, most=20)
    assert first.texts == found.texts[:20] and first.labels is None


def test_any_other_file_has_a_text_a_line(tmp_path: Path) -> None:
    for name in ("texts.txt", "texts", "texts.log"):
        (tmp_path / name).write_text("\n".join(["", " text,label ", *WORDS * 3, ""]), encoding="utf-8")
        texts = read_texts(tmp_path / name, "calibrate", TextColumns()).texts
        assert [each.text for each in texts] == ["text,label", *WORDS * 3] and not any(each.pair for each in texts)


@pytest.mark.parametrize(
    ("name", "content", "columns", "words"),
    [
        ("a.csv", DATA["pairs.csv"], {}, r"a\.csv.*none has a usual name for the text column.*--text-column"),
        ("a.csv", DATA["pairs.csv"], {"text": "text"}, r"no column 'text'; its columns are 'id', 'premise'"),
        ("a.csv", DATA["pairs.csv"], {"text": "premise", "pair": "other"}, "no column 'other'"),
        ("a.csv", DATA["pairs.csv"], {"text": "premise", "label": "other"}, "no column 'other'"),
        ("a.csv", "text\n" + "fine\n" * 3, {}, "3 texts, at least 16"),
        ("a.csv", "premise;hypothesis\n" + "a;b\n" * 20, {"text": "premise"}, "give --delimiter ';'.*export takes a comma"),
        ("a.jsonl", '{"text": "fine"}\n' * 20 + '{"text": null}\n', {}, r"a\.jsonl, row 21: 'text' is null"),
        ("a.jsonl", '{"text": "fine"}\n' * 20 + "[1]\n", {}, "row 21: no JSON object"),
        ("a.txt", "\udcff\n" * 20, {}, r"a\.txt cannot be read"),
    ],
)
def test_files_that_cannot_be_read_are_refused_in_one_line(
    tmp_path: Path, name: str, content: str, columns: dict[str, str], words: str
) -> None:
    (tmp_path / name).write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(OptionError, match=words) as caught:
        read_texts(tmp_path / name, "evaluate", TextColumns(**columns))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("given", [["fine", None] * 20, [("a", "b", "c")] * 20, ["fine"] * 3, 7, {"text": "fine"}])
def test_other_things_than_texts_are_refused(given: object) -> None:
    with pytest.raises(OptionError, match="calibrate"):
        read_texts(given, "calibrate", TextColumns())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("labels", "kind", "words"),
    [
        (("yes", "maybe"), "single_label_classification", r"t\.csv, row 2: the label is 'maybe', expected one of no, yes"),
        (("yes", "2"), "single_label_classification", "row 2: the label is '2'"),
        (("yes", "no"), "multi_label_classification", "for models with one label a text"),
        (("1", "0"), "regression", "for models with one label a text"),
    ],
)
def test_labels_that_are_not_the_models_are_refused(labels: tuple[str, ...], kind: str, words: str) -> None:
    texts = UserTexts(name="t.csv", texts=tuple(check_items(["a", "b"])), labels=labels)
    with pytest.raises(OptionError, match=words):
        check_labels(texts, LABELS, kind)


@pytest.mark.parametrize("columns", [{"text": 3}, {"text": "a", "pair": "a"}, {"pair": "b", "label": "b"}])
def test_columns_that_cannot_be_are_refused(columns: dict[str, object]) -> None:
    with pytest.raises(OptionError, match="column"):
        TextColumns(**columns)  # type: ignore[arg-type]


def test_a_name_wins_over_a_number() -> None:
    texts = UserTexts(name="t", texts=tuple(check_items(["a"] * 3)), labels=("1", "0", "2"))
    assert check_labels(texts, ("1", "0", "other"), "single_label_classification") == [0, 1, 2]


def test_the_figures_are_those_of_numpy() -> None:
    random = np.random.default_rng(0)
    exact = random.normal(size=(1000, 3)).astype(np.float32)
    rounded = (exact + random.normal(size=exact.shape) * 0.02).astype(np.float32)
    ids = random.integers(3, size=1000).tolist()
    head = Head(name="", problem_type="single_label_classification", labels=("a", "b", "c"))
    found = measure(rounded, exact, [head], "t.csv", ids)

    def softmax(x: np.ndarray) -> np.ndarray:
        return np.exp(x.astype(np.float64)) / np.exp(x.astype(np.float64)).sum(axis=1, keepdims=True)

    moved = np.abs(softmax(rounded) - softmax(exact))
    assert found.parity.label_agreement == np.mean(rounded.argmax(axis=1) == exact.argmax(axis=1)) < 1
    assert found.parity.mean_abs_probability == pytest.approx(moved.mean(), rel=0.01)
    assert found.parity.max_abs_probability == pytest.approx(moved.max(), rel=0.01)
    assert found.accuracy == np.mean(rounded.argmax(axis=1) == np.asarray(ids))


def test_an_export_measures_its_graphs_on_the_users_pairs(checkpoint: Path, tmp_path: Path) -> None:
    table, out = tmp_path / "pairs.csv", tmp_path / "out"
    table.write_text(DATA["pairs.csv"], encoding="utf-8")
    columns = ["--text-column", "premise", "--pair-column", "hypothesis", "--label-column", "gold"]
    arguments = [str(checkpoint), str(out), "--for", "cpu", "--calibrate", str(table), "--evaluate", str(table), *columns]
    done = CliRunner().invoke(export, arguments)
    assert done.exit_code == 0, done.output
    assert "evaluating onnx/model.onnx on 28 texts of pairs.csv" in done.output
    manifest = read_manifest(out)
    fp32 = manifest.variant(target="cpu", precision="fp32")
    assert fp32 is not None and fp32.evaluation is not None
    assert fp32.evaluation.parity.label_agreement == 1 and fp32.evaluation.parity.max_abs_logit == 0
    with Classifier.from_pretrained(out, device="cpu", precision="fp32") as clf:
        right = np.mean([each["label"] == "yes" for each in clf(PAIRS)])
    assert fp32.evaluation.accuracy == round(float(right), 4)
    assert {each.file for each in manifest.variants if each.evaluation} == {each.file for each in manifest.variants}
    assert "On 28 texts of `pairs.csv`" in (out / "README.md").read_text(encoding="utf-8")
    assert "on 28 texts of pairs.csv, against the fp32 graph" in done.output


def test_what_cannot_be_measured_is_refused_before_the_work(checkpoint: Path, tmp_path: Path) -> None:
    table = tmp_path / "pairs.csv"
    table.write_text(DATA["pairs.csv"].replace("yes\n", "maybe\n"), encoding="utf-8")
    steps: list[str] = []
    named = {"text_column": "premise", "pair_column": "hypothesis"}
    for options, words in (
        ({"evaluate": table, **named, "label_column": "gold"}, "row 1: the label is 'maybe'"),
        ({"evaluate": table, **named, "target": "cuda"}, "--for cuda makes none"),
        ({"evaluate": PAIRS, **named}, "columns are named"),
        ({"calibrate": table, **named, "label_column": "gold"}, "evaluate is not a table"),
    ):
        with pytest.raises(OptionError, match=words):
            export_checkpoint(checkpoint, tmp_path / "out", progress=steps.append, **options)  # type: ignore[arg-type]
    assert not steps and not (tmp_path / "out").exists()


def test_a_list_of_pairs_is_measured_without_labels(checkpoint: Path, tmp_path: Path) -> None:
    manifest = export_checkpoint(checkpoint, tmp_path / "out", target="fp32", evaluate=PAIRS)
    (variant,) = manifest.variants
    assert variant.evaluation is not None and variant.evaluation.accuracy is None
    assert variant.evaluation.parity.texts == len(PAIRS) and manifest == read_manifest(tmp_path / "out")
