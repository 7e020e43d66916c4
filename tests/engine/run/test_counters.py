"""Counts compared with the known texts, from many threads; the text for Prometheus; the call after each batch."""

from __future__ import annotations

import dataclasses
import json
import logging
import random
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fusedbert.engine import Batch, Classifier, Stats, Window, observe, prometheus

WORDS = ["good", "bad", "movie", "plot", "was", "very", "not", "the", "dull"]


@pytest.fixture
def clf(artifact: Path) -> Classifier:
    return Classifier.from_pretrained(artifact, threads=1)


def test_a_new_classifier_has_counted_nothing(clf: Classifier) -> None:
    assert clf.stats == Stats() and clf.stats.padding == 0.0


def test_a_batch_is_counted(clf: Classifier) -> None:
    clf(["good", "good movie the plot was very dull", ("good", "bad")])
    stats = clf.stats
    lengths = [3, 9, 5]
    assert (stats.texts, stats.rows, stats.batches) == (3, 3, 1)
    assert stats.tokens == sum(lengths) and stats.padded == 3 * max(lengths)
    assert stats.padding == pytest.approx(1 - sum(lengths) / (3 * max(lengths)))
    assert all(getattr(stats.seconds, stage) > 0 for stage in ("tokenize", "prepare", "run"))
    with pytest.raises(dataclasses.FrozenInstanceError):
        stats.texts = 0  # type: ignore[misc]
    assert json.loads(json.dumps(stats.to_dict()))["padding"] == stats.padding


def test_a_snapshot_stays_as_it_is(clf: Classifier) -> None:
    before = clf.stats
    clf("good")
    assert before.texts == 0 and clf.stats.texts == 1


def test_every_call_is_counted(clf: Classifier) -> None:
    clf("good")
    clf.predict(["good"] * 2)
    clf.predict_proba(["good"] * 3)
    clf.decision_function(["good"] * 4)
    list(clf.stream(["good"] * 5))
    clf.windows("good")
    clf([])
    assert clf.stats.texts == clf.stats.rows == 16 and clf.stats.tokens == 3 * 16


def test_truncations_and_windows_are_counted(artifact: Path) -> None:
    long = " ".join(WORDS * 10)
    clf = Classifier.from_pretrained(artifact, long_text=Window(stride=6))
    clf(["good", long])
    clf([long], truncation=True)
    stats = clf.stats
    assert (stats.texts, stats.truncated, stats.windowed, stats.windows) == (3, 1, 1, 4)  # 90 words, 30 to a window, 24 on
    assert stats.rows == 1 + 4 + 1 and clf.truncated == 1


def test_threads_lose_no_count(clf: Classifier) -> None:
    generator = random.Random(0)
    batches = [
        [" ".join(generator.choices(WORDS, k=generator.randrange(1, 20))) for _ in range(generator.randrange(1, 9))]
        for _ in range(300)
    ]
    seen: list[Batch] = []
    observe(clf, seen.append)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(clf.predict, batches))
    stats = clf.stats
    assert stats.texts == stats.rows == sum(map(len, batches))
    assert stats.tokens == sum(len(text.split()) + 2 for batch in batches for text in batch)
    assert stats.batches == len(seen) and stats.padded == sum(batch.padded for batch in seen) >= stats.tokens
    assert stats.seconds.run == pytest.approx(sum(batch.run_seconds for batch in seen))


def test_an_observer_gets_batches_until_it_is_closed(clf: Classifier) -> None:
    first: list[Batch] = []
    second: list[Batch] = []
    forget = observe(clf, first.append)
    observe(clf, second.append)
    clf(["good", "bad movie"])
    forget()
    forget()
    clf("good")
    assert [(batch.rows, batch.tokens, batch.padded) for batch in first] == [(2, 7, 8)]
    assert len(second) == 2


def test_an_observer_that_fails_harms_no_prediction(clf: Classifier, caplog: pytest.LogCaptureFixture) -> None:
    def broken(batch: Batch) -> None:
        raise RuntimeError("no connection")

    observe(clf, broken)
    with caplog.at_level(logging.WARNING, logger="fusedbert"):
        assert clf("good") == clf("good")
    assert len(caplog.records) == 1 and "observer" in caplog.text and "no connection" in caplog.text


LINE = re.compile(r'^([a-z_]+)(\{[a-z]+="(?:[^"\\\n]|\\["\\n])*"(?:,[a-z]+="(?:[^"\\\n]|\\["\\n])*")*\})? ([0-9.]+)$')


def test_prometheus_text_has_every_counter(clf: Classifier, artifact: Path) -> None:
    clf(["good", "bad movie"])
    document = prometheus(clf)
    assert document.endswith("\n") and "fusedbert_texts_total 2\n" in document
    other = Classifier.from_pretrained(artifact)
    document = prometheus({'a "b"\\': clf, "other": other}, prefix="nlp")
    kinds: dict[str, str] = {}
    samples: dict[str, list[str]] = {}
    for line in document.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            assert name not in kinds  # each metric once, all its samples behind it
            kinds[name] = kind
        elif not line.startswith("# HELP "):
            match = LINE.match(line)
            assert match, line
            assert list(kinds)[-1] == match[1]
            samples.setdefault(match[1], []).append(line)
    assert set(kinds) == set(samples) and all(name.startswith("nlp_") for name in kinds)
    assert samples["nlp_texts_total"] == ['nlp_texts_total{model="a \\"b\\"\\\\"} 2', 'nlp_texts_total{model="other"} 0']
    assert len(samples["nlp_stage_seconds_total"]) == 6
    assert 'device="cpu"' in samples["nlp_info"][0] and kinds["nlp_info"] == "gauge"


def test_the_parser_of_prometheus_reads_the_text(clf: Classifier) -> None:
    clf(["good", "bad movie"])
    families = {family.name: family for family in text_string_to_metric_families(prometheus(clf))}
    assert families["fusedbert_texts"].samples[0].value == 2
