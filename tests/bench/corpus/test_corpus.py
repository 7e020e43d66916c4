import dataclasses
import io
import json
import sys
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from fusedbert.bench.corpus import measure as corpus_run
from fusedbert.bench.corpus.measure import CorpusBenchmark, Plan, Record, agreement, render
from fusedbert.bench.corpus.task import best_size
from fusedbert.bench.corpus.texts import Corpus, accuracy, built_in, gold, length_blocks, read_corpus
from fusedbert.bench.run import interleave
from fusedbert.bench.run.interleave import Progress, open_run, start
from fusedbert.bench.run.reference import check
from fusedbert.bench.run.setup import Lineup
from fusedbert.bench.run.stats import compare
from fusedbert.engine.errors import InputError, OptionError, StorageError

TEXTS = tuple(f"text number {n}" + " and more" * (n % 7) for n in range(40))


def file_of(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


# Reading


def test_a_tsv_of_the_research_kind_is_read(tmp_path):
    corpus = read_corpus(file_of(tmp_path, "dev.tsv", "sentence\tlabel\nit 's charming .\t1\nbleak\t0\n"))
    assert corpus.texts == ("it 's charming .", "bleak")
    assert corpus.labels == ("1", "0")
    assert (corpus.text_column, corpus.label_column, corpus.skipped) == ("sentence", "label", 0)


@pytest.mark.parametrize("line", ['"Alien" is great\t1', 'say "so"\t1', '"\t1'])
def test_quotes_in_a_tsv_are_characters_where_they_enclose_no_cell(tmp_path, line):
    corpus = read_corpus(file_of(tmp_path, "a.tsv", f"text\tlabel\n{line}\nplain\t0\n"))
    assert corpus.texts == (line.split("\t")[0], "plain")


def test_a_csv_keeps_what_is_quoted(tmp_path):
    corpus = read_corpus(file_of(tmp_path, "a.csv", 'id,text,label\n1,"a, ""b""\nc",POSITIVE\n'))
    assert (corpus.texts, corpus.labels) == (('a, "b"\nc',), ("POSITIVE",))


def test_a_jsonl_keeps_the_type_of_its_labels_and_skips_rows_without_a_text(tmp_path):
    rows = [{"text": "a", "label": 1}, {"text": None, "label": 0}, {"text": 7, "label": 0}, {"text": "b", "label": "x"}]
    corpus = read_corpus(file_of(tmp_path, "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows)))
    assert (corpus.texts, corpus.labels, corpus.skipped) == (("a", "b"), (1, "x"), 2)


def test_plain_text_is_one_text_a_line(tmp_path):
    corpus = read_corpus(file_of(tmp_path, "a.txt", b"\xef\xbb\xbfone\r\n\r\n two \n"))
    assert (corpus.texts, corpus.labels, corpus.skipped) == (("one", " two "), None, 1)


def test_the_text_column_is_guessed_in_this_order(tmp_path):
    assert read_corpus(file_of(tmp_path, "a.csv", "sentence,text\na,b\n")).texts == ("b",)
    assert read_corpus(file_of(tmp_path, "b.csv", "id,sentence\na,b\n")).texts == ("b",)
    assert read_corpus(file_of(tmp_path, "c.csv", "first,second\na,b\n")).texts == ("a",)
    assert read_corpus(file_of(tmp_path, "d.csv", "first,second\na,b\n"), text_column="second").texts == ("b",)
    named = read_corpus(file_of(tmp_path, "e.csv", "text,stars\na,5\n"), label_column="stars")
    assert named.labels == ("5",)


def test_the_limit_counts_texts(tmp_path):
    path = file_of(tmp_path, "a.csv", "text,label\n" + "".join(f"t{n},{n % 2}\n" for n in range(9000)))
    corpus = read_corpus(path, limit=5000)
    assert corpus.labels is not None
    assert (len(corpus.texts), len(corpus.labels), corpus.texts[-1]) == (5000, 5000, "t4999")


@pytest.mark.parametrize(
    ("name", "content", "options", "error", "words"),
    [
        ("a.csv", "text,label\n", {}, InputError, "no text in it"),
        ("a.csv", "a,b\n1,2\n", {"text_column": "c"}, InputError, "no column 'c'; its columns are 'a', 'b'"),
        ("a.csv", "a,b\n1,2\n", {"label_column": "c"}, InputError, "no column 'c'"),
        ("a.txt", "a\n", {"text_column": "c"}, InputError, "plain text and has no column 'c'"),
        ("a.txt", b"a\n\xff\n", {}, InputError, "not UTF-8 .byte 2."),
        ("a.md", "a\n", {}, OptionError, "name it .tsv"),
    ],
)
def test_an_unreadable_corpus_is_one_line(tmp_path, name, content, options, error, words):
    with pytest.raises(error, match=words) as caught:
        read_corpus(file_of(tmp_path, name, content), **options)
    assert "\n" not in str(caught.value)


def test_a_missing_corpus_is_refused(tmp_path):
    for name in ("a.txt", "a.csv"):
        with pytest.raises(StorageError, match="cannot be read"):
            read_corpus(tmp_path / name)


# Labels


def test_labels_are_matched_by_name_in_any_case_or_by_number():
    def numbers(labels, names):
        found = gold(labels, names)
        assert found is not None
        return found.tolist()

    assert numbers(["negative", " Positive ", "1", 0, 1.0, True], ["NEGATIVE", "POSITIVE"]) == [0, 1, 1, 0, 1, 1]
    assert numbers(["1", "two", 2, 3.5, "x", None], ["one", "two", "1"]) == [2, 1, 2, -1, -1, -1]
    assert numbers(["spam", "other", "2", 0], ["other", "spam", "Other"]) == [1, -1, 2, 0]  # two labels are called other


def test_labels_of_another_task_are_ignored():
    assert gold(["5", "4", "1"], ["NEGATIVE", "POSITIVE"]) is None
    assert gold(None, ["a", "b"]) is None


def test_accuracy_is_over_the_labelled_texts():
    logits = np.array([[0, 1], [1, 0], [0, 1], [0, 1]], np.float32)
    assert accuracy(logits, np.array([1, 1, -1, 1])) == pytest.approx(2 / 3)
    assert accuracy(logits, np.full(4, -1)) is None
    assert accuracy(None, np.array([1])) is None


def test_agreement_of_labels_and_logits():
    ours, other = np.array([[0, 1], [1, 0]], np.float32), np.array([[0, 1.5], [0, 1]], np.float32)
    assert agreement(other, ours, multi_label=False) == {"label_agreement": 0.5, "max_abs_logit": 1.0}
    both = agreement(np.array([[1, -1]], np.float32), np.array([[1, 1]], np.float32), multi_label=True)
    assert both["label_agreement"] == 0.0
    assert agreement(None, ours, multi_label=False)["label_agreement"] is None


# Batch sizes


def test_the_search_finds_the_best_batch_size_and_ends_when_throughput_falls():
    rates = {1: 10.0, 2: 15.0, 4: 20.0, 8: 19.0, 16: 12.0, 32: 99.0}
    best, tried = best_size(list(rates), rates.__getitem__)
    assert (best, list(tried)) == (4, [1, 2, 4, 8, 16])
    assert best_size([1, 2, 4], lambda size: float(size))[0] == 4
    assert best_size([8], lambda size: 1.0) == (8, {8: 1.0})


def test_one_slow_size_does_not_end_the_search():
    rates = {1: 10.0, 2: 5.0, 4: 20.0, 8: 30.0}
    assert best_size(list(rates), rates.__getitem__)[0] == 8


def test_the_sample_is_made_of_neighbours_in_length():
    random = np.random.default_rng(1)
    texts = ["x" * int(n) for n in random.integers(1, 2000, 1000)]
    order = sorted(range(1000), key=lambda index: len(texts[index]))
    blocks = length_blocks(texts, 64, 4)
    assert [len(block) for block in blocks] == [64] * 4
    for block in blocks:
        places = [order.index(index) for index in block]
        assert max(places) - min(places) == 63
    assert np.mean([len(texts[i]) for i in blocks[0]]) < 200 < 1200 < np.mean([len(texts[i]) for i in blocks[-1]])


def test_a_small_corpus_is_its_own_sample():
    assert sorted(index for block in length_blocks(["a", "bb", "ccc"], 64, 4) for index in block) == [0, 1, 2]
    assert length_blocks(["ccc", "a", "bb"], 1, 4) == [[1], [2], [0]]


def test_batch_sizes_follow_the_engine_and_the_option(spec):
    plan = Plan(corpus=Corpus(name="c", texts=TEXTS), tokens=400, max_length=64, rounds=1, device="cpu")
    assert len(plan.sizes(spec("right", engine="fusedbert"))) == 1
    assert plan.sizes(spec("transformers-pipeline")) == (8,)
    assert plan.sizes(spec("right")) == corpus_run.SIZES["cpu"]
    assert dataclasses.replace(plan, batch_size=24).sizes(spec("right")) == (24,)


# Engines, in real worker processes

CORPUS_FAKES = '''
import time
import numpy as np
import fake_engines

class Texts(fake_engines.Fake):
    """Logits that depend on every character of a text."""

    def texts(self, texts, *, batch_size, max_length):
        assert max_length == 64
        return np.array([answer(text) for text in texts], dtype=np.float32)

def answer(text):
    value = float(sum(text.encode()))
    return [np.sin(value), 3 * np.cos(value)]

class Turned(Texts):
    """Right with token ids; with texts it gives the answers in another order."""

    def texts(self, texts, **options):
        return super().texts(texts, **options)[::-1]

class Dies(Texts):
    """Dies when it is given the whole corpus for the second time."""

    whole = 0

    def texts(self, texts, **options):
        self.whole += len(texts) == 40
        if self.whole > 12:
            import os
            os._exit(9)
        return super().texts(texts, **options)

def make(name, job):
    return {"right": Texts, "other": Texts, "turned": Turned, "dies": Dies}[name](name, job)
'''


@pytest.fixture
def measured(settings, checks, spec, monkeypatch, tmp_path):
    """Run fakes on a corpus; returns processes by name and the benchmark."""
    (tmp_path / "corpus_fakes.py").write_text(CORPUS_FAKES)
    names = ("right", "other", "turned", "dies")
    settings = dataclasses.replace(
        settings,
        python_path=(*settings.python_path, tmp_path),
        factories=dict.fromkeys(names, "corpus_fakes:make"),
    )
    monkeypatch.setattr(interleave, "python_of", lambda _name: Path(sys.executable))

    def answers(_run, plan, _texts):
        sums = np.array([float(sum(text.encode())) for text in plan.corpus.texts])
        return np.stack([np.sin(sums), 3 * np.cos(sums)], axis=1).astype(np.float32)

    monkeypatch.setattr(corpus_run, "reference_logits", answers)

    def go(*wanted, rounds=2, **changes):
        right = np.arange(len(TEXTS)) % 2
        corpus = Corpus(name="c.tsv", texts=TEXTS)
        plan = Plan(corpus=corpus, tokens=400, max_length=64, rounds=rounds, device="cpu", labels=right, **changes)
        benchmark = CorpusBenchmark(Mock(Lineup), plan, {})
        with open_run([spec(name) for name in wanted], settings, Progress(io.StringIO())) as run:
            start(run)
            check(run, checks)
            benchmark.measure(run)
        return {process.name: process for process in run.processes}, benchmark

    return go


def paired(benchmark):
    """Arrange the rounds of all engines by number."""
    records = benchmark.records.items()
    results = {name: [benchmark.result(record)] if record.seconds else [] for name, record in records}
    return benchmark.rounds_by_engine([{"name": name, "results": found} for name, found in results.items()])


def test_each_engine_is_measured_in_every_round_and_answers_in_order(measured):
    processes, benchmark = measured("right", "other", seconds=0.0)
    assert [str(process.status) for process in processes.values()] == ["measured", "measured"]
    expected = (benchmark.reference.argmax(axis=1) == benchmark.plan.labels).mean()
    for process in processes.values():
        (entry,) = benchmark.entry(process)["results"]
        assert entry["round_numbers"] == [0, 1]
        assert entry["texts_per_second"] == pytest.approx(np.median(entry["rounds"]))
        assert entry["tokens_per_second"] == pytest.approx(10 * entry["texts_per_second"])
        assert (entry["label_agreement"], entry["max_abs_logit"]) == (1.0, pytest.approx(0.0, abs=1e-6))
        assert entry["accuracy"] == pytest.approx(expected)
        assert str(entry["batch_size"]) in entry["tried"]
        assert entry["samples"] == 2 * corpus_run.SINGLES
        assert 0 < entry["p50_ms"] <= entry["p90_ms"] <= entry["p99_ms"]
    assert [list(rounds["c.tsv"]) for rounds in paired(benchmark).values()] == [[0, 1], [0, 1]]


def test_an_engine_that_reorders_texts_is_wrong_and_not_timed(measured):
    processes, benchmark = measured("turned", "right")
    assert (str(processes["turned"].status), str(processes["right"].status)) == ("wrong", "measured")
    assert processes["turned"].why.startswith("on the corpus, ")
    assert benchmark.entry(processes["turned"]) == {"results": []}


def test_an_engine_that_dies_keeps_its_earlier_rounds(measured):
    processes, benchmark = measured("dies", "right", rounds=30, seconds=0.0)
    assert (str(processes["dies"].status), str(processes["right"].status)) == ("failed", "measured")
    assert "status 9" in processes["dies"].why
    assert 0 <= len(benchmark.records["dies"].seconds) < 30 == len(benchmark.records["right"].seconds)


def test_a_slow_engine_is_left_out_of_later_rounds(measured, monkeypatch):
    monkeypatch.setattr(corpus_run, "PATIENT", -1.0)
    _, benchmark = measured("right", rounds=3, seconds=0.0)
    assert benchmark.records["right"].seconds == {}
    monkeypatch.setattr(corpus_run, "PATIENT", 0.0)
    _, benchmark = measured("right", rounds=3, seconds=0.0)
    assert list(benchmark.records["right"].seconds) == [0]
    assert list(paired(benchmark)["right"]["c.tsv"]) == [0]


def test_ratios_pair_rounds_by_their_number():
    plan = Plan(corpus=Corpus(name="c", texts=TEXTS), tokens=400, max_length=64, rounds=3, device="cpu")
    benchmark = CorpusBenchmark(Mock(Lineup), plan, {})
    benchmark.records["ours"] = Record(seconds={0: 1.0, 1: 2.0, 2: 4.0}, others=dict.fromkeys(range(3)))
    benchmark.records["peer"] = Record(seconds={0: 2.0, 2: 8.0}, others=dict.fromkeys(range(3)))
    ratios, summary = compare(paired(benchmark), ["ours"], item="corpus")
    assert [(each["corpus"], each["median"], each["pairs"]) for each in ratios] == [("c", pytest.approx(0.5), 2)]
    assert summary[0]["worst"] == {"corpus": "c", "median": pytest.approx(0.5)}


# The command


@pytest.fixture(scope="module")
def document(fusedbert, artifact, tmp_path_factory):
    path = tmp_path_factory.mktemp("corpus") / "few.tsv"
    path.write_text("sentence\tlabel\n" + "A joy from beginning to end.\t1\nA complete waste of money.\t0\n" * 8 + "\t1\n")
    command = ("bench", "corpus", path, "-m", artifact, "--precision", "fp32", "--rounds", "2", "--threads", "1")
    done = fusedbert(*command, "--json", "--max-length", "16", check=True)
    return json.loads(done.stdout)


def test_the_document_of_the_embedded_default(document):
    assert (document["schema"], document["kind"]) == ("fusedbert.bench/2", "corpus")
    about = document["corpus"]
    assert (about["name"], about["texts"], about["label_column"]) == ("few.tsv", 17, "label")
    assert about["tokens"] == 8 * (9 + 8) + 2  # pieces with [CLS] and [SEP]; the last text is empty
    (engine,) = document["contenders"]
    assert (engine["name"], engine["status"]) == ("fusedbert-fp32", "measured")
    (entry,) = engine["results"]
    assert entry["label_agreement"] == 1.0
    assert entry["accuracy"] >= 16 / 17
    assert entry["batch_size"] is None
    assert len(entry["rounds"]) == 2


def test_the_table_and_the_document_agree(document):
    text = render(document)
    (entry,) = document["contenders"][0]["results"]
    assert "few.tsv: 17 texts" in text
    assert f"{entry['accuracy']:.2%}" in text
    assert "fusedbert-fp32" in text


def test_cautions_name_labels_that_are_not_the_models(document):
    changed = json.loads(json.dumps(document))
    changed["contenders"][0]["results"][0]["accuracy"] = None
    changed["corpus"]["skipped"] = 3
    said = " ".join(object.__new__(CorpusBenchmark).cautions(changed))
    assert "the values of 'label' are not the model's labels" in said
    assert "3 rows" in said


def test_a_wrong_call_is_refused_before_any_export(fusedbert, tmp_path):
    done = fusedbert("bench", "corpus", file_of(tmp_path, "a.csv", "text\na\n"), "--against", "nobody")
    assert done.returncode == 2
    assert "unknown engine 'nobody'" in done.stderr
    assert fusedbert("bench", "corpus", tmp_path / "none.csv").returncode == 2


def test_the_built_in_corpus_has_texts():
    assert len(built_in().texts) > 50
    assert all(text.strip() for text in built_in().texts)
