"""``fusedbert tag`` as a user runs it: tables, jsonl, one document, stdin, windows, errors in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fusedbert.engine import TokenClassifier, Window

TEXTS = ["the movie was very good", "bad \x1b[2J👍🏽\tmovie !", ""]


def assert_close(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    assert found == [{**entity, "score": pytest.approx(entity["score"], abs=1e-6)} for entity in expected]


def test_tag_prints_the_entities_of_the_tagger(fusedbert: Any, tokens_artifact: Path) -> None:
    with TokenClassifier.from_pretrained(tokens_artifact) as tagger:
        for strategy in ("none", "simple", "max"):
            expected = tagger(TEXTS, aggregation_strategy=strategy)
            options = ("-m", tokens_artifact, "--strategy", strategy)
            lines = fusedbert("tag", *TEXTS, *options, "--format", "jsonl", check=True).stdout.splitlines()
            document = json.loads(fusedbert("tag", *TEXTS, *options, "--json", check=True).stdout)
            for entries in ([json.loads(line) for line in lines], document):
                assert [entry["text"] for entry in entries] == TEXTS
                for entry, entities in zip(entries, expected, strict=True):
                    assert_close(entry["entities"], entities)


def test_a_table_shows_the_characters_of_each_entity(fusedbert: Any, tokens_artifact: Path) -> None:
    with TokenClassifier.from_pretrained(tokens_artifact) as tagger:
        expected = tagger(TEXTS, aggregation_strategy="simple")
    assert all(expected[:2])
    done = fusedbert("tag", *TEXTS, "-m", tokens_artifact, check=True)
    assert "\x1b" not in done.stdout and done.stderr == ""
    lines = iter(done.stdout.splitlines())
    for text, entities in zip(TEXTS, expected, strict=True):
        assert next(lines).startswith(text[:3])
        for entity in entities:
            name, score, start, end, *_ = next(lines).split()
            assert (name, int(start), int(end)) == (entity["entity_group"], entity["start"], entity["end"])
            assert float(score) == pytest.approx(entity["score"], abs=1e-4)
    assert next(lines, None) is None


def test_lines_of_stdin_are_texts(fusedbert: Any, tokens_artifact: Path) -> None:
    given = fusedbert("tag", "good movie", "bad", "-m", tokens_artifact, "--format", "jsonl", check=True).stdout
    piped = fusedbert("tag", "-m", tokens_artifact, "--format", "jsonl", input="good movie\nbad\n", check=True).stdout
    assert piped == given


def test_long_texts_are_cut_or_read_in_windows(fusedbert: Any, tokens_artifact: Path) -> None:
    long = "the movie was very good . " * 20
    with TokenClassifier.from_pretrained(tokens_artifact, long_text=Window(stride=4)) as tagger:
        expected = tagger(long, aggregation_strategy="simple")
    options = ("-m", tokens_artifact, "--format", "jsonl")
    assert_close(json.loads(fusedbert("tag", long, *options, "--stride", 4, check=True).stdout)["entities"], expected)
    cut = fusedbert("tag", long, *options, check=True)
    assert "was cut" in cut.stderr and json.loads(cut.stdout)["entities"][-1]["end"] < 250
    refused = fusedbert("tag", long, *options, "--long-text", "error")
    assert refused.returncode == 1 and "max_length is 40" in refused.stderr
    contradiction = fusedbert("tag", long, *options, "--long-text", "error", "--stride", 3)
    assert contradiction.returncode == 2 and "--stride needs windows" in contradiction.stderr


def test_labels_can_be_left_out(fusedbert: Any, tokens_artifact: Path) -> None:
    with TokenClassifier.from_pretrained(tokens_artifact, aggregation_strategy="simple") as tagger:
        expected = [tagger(TEXTS, ignore_labels=labels) for labels in (["NAME"], ["NAME", "O"])]
    assert any(expected[0]) and not any(expected[1])
    options = ("-m", tokens_artifact, "--json", "--ignore", "NAME")
    for more, results in zip(((), ("--ignore", "O")), expected, strict=True):
        found = json.loads(fusedbert("tag", *TEXTS, *options, *more, check=True).stdout)
        for entry, entities in zip(found, results, strict=True):
            assert_close(entry["entities"], entities)


def test_each_command_names_the_other_one(fusedbert: Any, tokens_artifact: Path, artifact: Path) -> None:
    wrong = fusedbert("classify", "good", "-m", tokens_artifact)
    assert wrong.returncode == 2 and "fusedbert tag" in wrong.stderr
    wrong = fusedbert("tag", "good", "-m", artifact)
    assert wrong.returncode == 2 and "fusedbert classify" in wrong.stderr
    assert fusedbert("tag", "good").returncode == 2
