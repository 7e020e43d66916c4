"""``bench rank``: its texts, what is timed, the order that engines give, and the command from end to end."""

import json

import numpy as np
import pytest

from fusedbert.bench.engines.base import Job
from fusedbert.bench.engines.batches import Shape
from fusedbert.bench.engines.registry import RANKERS, make_engine, select
from fusedbert.bench.latency.rank.task import QUERY, draw, read_words, time_ranking
from fusedbert.bench.report.page import write_report
from fusedbert.bench.run.worker import State
from fusedbert.engine import Classifier
from fusedbert.engine.text.inputs import check_items
from fusedbert.engine.text.tokenizer import TextTokenizer

DOCUMENTS = ["A waste of time.", "I loved it.", "", "Not bad at all.", "It is a film about a lighthouse. " * 9]


@pytest.fixture
def job(checkpoint, artifact, tmp_path):
    return Job(checkpoint=checkpoint, artifact=artifact, work=tmp_path, device="cpu", threads=1, max_length=128)


def test_documents_have_the_wanted_number_of_tokens(artifact):
    words = read_words(artifact / "tokenizer.json")
    query, *documents = draw(words, Shape(batch=5, tokens=30), np.random.default_rng(0))
    tokenizer = TextTokenizer.load(artifact, 512)
    assert [len(row.ids) - 2 for row in tokenizer.encode(check_items([query, *documents]))] == [QUERY, *[30] * 5]
    assert len(words) > 1000 and len(set(documents)) == 5


class Recorder:
    """An engine that keeps the order of the documents, and remembers them."""

    def __init__(self):
        self.seen = []

    def rank(self, query, documents):
        self.seen.append((query, *documents))
        return list(range(len(documents)))


def visit(engine, artifact, number=0):
    request = {"batch": 3, "tokens": 5, "seed": [0, number, 0], "seconds": 0.001, "samples": 1}
    return time_ranking(State(engine=engine), {**request, "tokenizer": str(artifact / "tokenizer.json")})


def test_every_iteration_has_new_documents(artifact):
    engine = Recorder()
    found = visit(engine, artifact)
    assert found["seconds"] and found["warm_up"]["iterations"] and len(set(engine.seen)) == len(engine.seen) > 3


def test_an_engine_that_loses_a_document_fails(artifact):
    engine = Recorder()
    engine.rank = lambda query, documents: [0] * len(documents)
    with pytest.raises(ValueError, match="a ranking of 3 documents, expected each of 3 once"):
        visit(engine, artifact)


def test_engines_without_a_ranking_make_the_same_order(job, artifact):
    with Classifier.from_pretrained(artifact, precision="fp32", max_length=128) as clf:
        expected = [each["corpus_id"] for each in clf.rank("Was it good?", DOCUMENTS)]
    for name in ("fusedbert-fp32", "transformers-fp32"):
        engine = make_engine(name, job)
        engine.load()
        assert engine.rank("Was it good?", DOCUMENTS) == expected, name
        engine.close()


def test_cross_encoder_ranks_and_gives_logits(job, artifact):
    engine = make_engine("crossencoder-fp32", job)
    engine.prepare()
    engine.load()
    with Classifier.from_pretrained(artifact, precision="fp32", max_length=128) as clf:
        expected = [each["corpus_id"] for each in clf.rank("Was it good?", DOCUMENTS)]
        assert engine.rank("Was it good?", DOCUMENTS) == expected
        ours = make_engine("fusedbert-fp32", job)
        ours.load()
        from fusedbert.bench.engines.batches import TextBatches

        batches = TextBatches.read(artifact)
        batch = batches.pad(batches.encode(DOCUMENTS, max_length=64))
        np.testing.assert_allclose(engine.logits(batch), ours.logits(batch), atol=1e-4)
        ours.close()
    assert engine.describe()["backend"] == "torch"
    engine.close()


def test_its_engines_stand_in_all():
    assert set(RANKERS) <= {spec.name for spec in select(["all"], device="cpu")}


def test_the_command_from_end_to_end(fusedbert, artifact, tmp_path):
    options = ("--precision", "fp32", "--threads", "1", "--rounds", "2", "--seconds", "0.01", "--shapes", "4x16,2x8")
    done = fusedbert("bench", "rank", "-m", artifact, *options, "--json", check=True)
    document = json.loads(done.stdout)
    (engine,) = document["contenders"]
    assert (document["kind"], engine["status"], engine["check"]["label_agreement"]) == ("rank", "measured", 1.0)
    assert [entry["shape"] for entry in engine["results"]] == ["4x16", "2x8"]
    assert all(len(entry["rounds"]) == 2 and entry["p50_ms"] > 0 for entry in engine["results"])
    assert "tokenizing included" in document["settings"]["timed"]
    write_report(document, tmp_path / "report")
    assert "Ranking by" in (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    table = fusedbert("bench", "rank", "-m", artifact, *options, check=True).stdout
    assert "4x16" in table and "p50 ms" in table
    refused = fusedbert("bench", "rank", "-m", artifact, "--shapes", "2x600")
    assert (refused.returncode, refused.stdout) == (2, "") and "the model takes at most" in refused.stderr
