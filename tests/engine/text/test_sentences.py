"""Windows of whole sentences: where they end, what they cover, and how their logits are combined."""

from __future__ import annotations

import itertools
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import FUSEDBERT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_tokenizers import gemma_pieces, modernbert_bytes, word_piece
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

from fusedbert.engine import Batcher, Classifier, OptionError, Window
from fusedbert.engine.text.inputs import check_items
from fusedbert.engine.text.sentences import find_sentences, pack
from fusedbert.engine.text.tokenizer import TextTokenizer
from fusedbert.engine.text.windows import tokenize_windows, trace

SENTENCE = Window(by="sentence")
EACH = Window(by="sentence", sentences=1)
ENDS, CJK, CLOSING, BREAKS = ".!?…؟۔।॥．", "。！？｡", "\"'”’»›)]}」』）］｝】〉》〕", "\n\r\v\f\x85\u2028\u2029"
PARTS = [
    *(
        "good",
        "bad movie",
        "the",
        "a",
        "3.14",
        "x.y",
        "电影",
        "很好",
        "e\u0301",
        "🙂",
        "\x00",
        "\u200b",
        "supercalifragilistic",
    ),
    *(
        ".",
        ". ",
        "! ",
        "?! ",
        "...",
        "… ",
        '." ',
        ".) ",
        ".»\n",
        "。",
        "！？",
        "。」",
        "\n",
        "\n\n",
        "\r\n",
        "  ",
        "\u2028",
        " ",
    ),
]
PIECES = st.lists(st.sampled_from(PARTS), max_size=60).map("".join)
LOOSE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def deberta() -> Tokenizer:
    """Return a small Unigram with DeBERTa's steps."""
    letters = sorted({*"abcdefghijklmnopqrstuvwxyz.!?…。！？，」\"')0123456789电影很好▁"})
    pieces = [("[PAD]", 0.0), ("[CLS]", 0.0), ("[SEP]", 0.0), ("[UNK]", 0.0), ("▁good", -2.0), ("▁the", -2.0), ("。很", -1.0)]
    made = Tokenizer(models.Unigram([*pieces, *((letter, -5.0) for letter in letters)], 3, False))
    spaces = normalizers.Replace(Regex(r"\s{2,}|[\n\r\t]"), " ")
    made.normalizer = normalizers.Sequence([spaces, normalizers.NFC(), normalizers.Strip(left=False, right=True)])
    made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace()])
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return made


MAKERS: list[Callable[[], Tokenizer]] = [word_piece, modernbert_bytes, gemma_pieces, deberta]
TOKENIZERS = [make() for make in MAKERS]


def cut(raw: Tokenizer, max_length: int) -> TextTokenizer:
    return TextTokenizer.of(raw, {}, {}, max_length)


def of_sentences(text: str) -> list[str]:
    return [text[start:end] for start, end in find_sentences(text)]


# The rule


def ends_by_hand(text: str) -> list[int]:
    """Find the ends of sentences character by character, as the rule says it."""
    ends, i = [], 0
    while i < len(text):
        start = i
        while i < len(text) and text[i] in ENDS + CJK:
            i += 1
        if run := text[start:i]:
            while i < len(text) and text[i] in CLOSING:
                i += 1
            if i == len(text) or text[i].isspace() or set(run) & set(CJK):
                ends.append(i)
            continue
        if text[i] in BREAKS:
            ends.append(i + 1)
        i += 1
    return ends


@given(text=PIECES | st.text(alphabet="a 1" + ENDS[:4] + CJK[:2] + CLOSING[:4] + BREAKS, max_size=30))
def test_sentences_are_those_of_the_rule(text: str) -> None:
    bounds = [0, *ends_by_hand(text), len(text)]
    parts = [text[start:end].strip() for start, end in itertools.pairwise(bounds)]
    assert of_sentences(text) == [part for part in parts if part]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Fine. Was it? Yes!", ["Fine.", "Was it?", "Yes!"]),
        ('He said "no." Then (so it seems.) he left.', ['He said "no."', "Then (so it seems.)", "he left."]),
        ("Pi is 3.14, see example.org.", ["Pi is 3.14, see example.org."]),
        ("很好。是的！「走吧。」他说", ["很好。", "是的！", "「走吧。」", "他说"]),
        ("a title\nand\r\n\r\nmore ...", ["a title", "and", "more ..."]),
        ("क्या? हाँ। ठीक", ["क्या?", "हाँ।", "ठीक"]),
        ("Dr. Who", ["Dr.", "Who"]),
        (" \n ", []),
    ],
)
def test_sentences_of_some_texts(text: str, expected: list[str]) -> None:
    assert of_sentences(text) == expected


@pytest.mark.parametrize("unit", [".", '."', ".)", "?!", "。", "\n", ". ", '"', "x.", ".。"])
def test_a_megabyte_of_any_sign_is_read_in_one_pass(unit: str) -> None:
    text = unit * (1_000_000 // len(unit)) + "x"
    assert "".join("".join(of_sentences(text)).split()) == "".join(text.split())


@given(counts=st.lists(st.integers(1, 30), max_size=30), width=st.integers(1, 12), stride=st.integers(0, 11))
@pytest.mark.parametrize("most", [None, 1, 3])
def test_windows_hold_as_many_sentences_as_fit(counts: list[int], width: int, stride: int, most: int | None) -> None:
    stride = min(stride, width - 1)
    windows = pack(counts, width, stride, most)
    ends = [0, *itertools.accumulate(counts)]
    assert windows[0][0] == 0 and windows[-1][1] == ends[-1]
    assert all(end - start <= width for start, end in windows)
    for (start, end), (after, _) in itertools.pairwise(windows):
        if end in ends:
            assert after == end
            following = ends[ends.index(end) + 1]
            begun = sum(start < each <= end for each in ends)  # sentences that end in the window
            assert following - start > width or begun == most
        else:  # within a sentence that is longer than a window
            assert end - after == stride and end - start == width
            sentence = next(i for i, each in enumerate(ends) if each > end)
            assert counts[sentence - 1] > width and start >= ends[sentence - 1]


# Windows of texts


@given(text=PIECES, which=st.integers(0, 3), max_length=st.integers(6, 40), sentences=st.sampled_from([None, 1, 2]))
@LOOSE
def test_windows_cover_the_text_and_fit(text: str, which: int, max_length: int, sentences: int | None) -> None:
    tokenizer = cut(TOKENIZERS[which], max_length)
    whole = tokenizer.raw.encode(text)
    window = Window(by="sentence", stride=0, sentences=sentences)
    rows, segment, spans = trace(tokenizer, check_items([text])[0], window)
    assert segment == 0 and len(rows) == len(spans)
    assert all(len(row.ids) <= max_length for row in rows)
    assert tokenize_windows(tokenizer, check_items([text]), window).rows == rows
    body = [i for i, owner in zip(whole.ids, whole.sequence_ids, strict=True) if owner is not None]
    assert [i for row in rows for i in row.ids[1:-1]] == body  # no token is lost, and none comes twice
    if len(rows) == 1:
        assert rows[0].ids == whole.ids
        return
    # several tokens may stand for the bytes of one character
    assert all(end <= start + (which in (1, 2)) for (_, end), (start, _) in itertools.pairwise(spans))
    assert_covered(text, spans)
    found = find_sentences(text)
    for start, end in spans:
        inside = [each for each in found if start <= each[0] and each[1] <= end]
        assert sentences is None or len(inside) <= sentences + sum(not body_of(tokenizer, text[a:b]) for a, b in inside)
        if all(end != each for _, each in found):  # only within a sentence that is longer than a window
            begins = [0, *(start for start, _ in found[1:]), len(text) + 1]
            first, after = next(each for each in itertools.pairwise(begins) if each[0] < end <= each[1])
            before = max((stop for _, stop in found if stop <= first), default=0)
            # Marks of white space before a word belong to the word.
            ours = range((before if which in (2, 3) else first) + 1, after + 1)
            tokens = [i for i in range(len(whole)) if whole.sequence_ids[i] == 0 and whole.offsets[i][1] in ours]
            assert len(tokens) > max_length - 2


def assert_covered(text: str, spans: list[tuple[int, int]]) -> None:
    covered = {i for start, end in spans for i in range(start, end)}
    assert all(character.isspace() or i in covered for i, character in enumerate(text))


def body_of(tokenizer: TextTokenizer, text: str) -> list[int]:
    return list(tokenizer.raw.encode(text, add_special_tokens=False).ids)


@given(text=PIECES, which=st.integers(0, 3), max_length=st.integers(6, 40))
@LOOSE
def test_a_text_that_fits_is_read_as_without_windows(text: str, which: int, max_length: int) -> None:
    tokenizer, texts = cut(TOKENIZERS[which], max_length), check_items([text])
    if len(tokenizer.raw.encode(text)) <= max_length:
        assert tokenize_windows(tokenizer, texts, SENTENCE).rows == tokenizer.encode(texts)


@given(text=PIECES.map(lambda text: text.replace("\x00", "").replace("\u200b", "").replace("\u2028", "\n")))
@LOOSE
def test_each_sentence_has_the_tokens_that_it_has_by_itself(text: str) -> None:
    tokenizer = cut(TOKENIZERS[0], 512)
    rows = tokenize_windows(tokenizer, check_items([text]), EACH).rows
    alone = tokenizer.encode(check_items(of_sentences(text) or [""]))
    assert [row.ids for row in rows] == [row.ids for row in alone]


def test_a_mark_before_a_word_goes_to_the_sentence_of_the_word() -> None:
    """The tokens of DeBERTa's "a. 很" have a mark of the space by itself."""
    tokenizer = cut(TOKENIZERS[3], 64)
    text = "good. 很 good. 3 the"
    assert "▁" in tokenizer.raw.encode(text).tokens
    rows = tokenize_windows(tokenizer, check_items([text]), EACH).rows
    assert [row.ids for row in rows] == [row.ids for row in tokenizer.encode(check_items(of_sentences(text)))]


@given(first=PIECES, second=PIECES, max_length=st.integers(10, 40), sentences=st.sampled_from([None, 1]))
@LOOSE
def test_of_a_pair_the_longer_text_is_cut_at_its_sentences(
    first: str, second: str, max_length: int, sentences: int | None
) -> None:
    tokenizer = cut(TOKENIZERS[0], max_length)
    window = Window(by="sentence", sentences=sentences)
    rows, segment, spans = trace(tokenizer, check_items([(first, second)])[0], window)
    counts = [len(body_of(tokenizer, text)) for text in (first, second)]
    assert all(len(row.ids) <= max_length and row.ids.count(3) == 2 for row in rows)
    assert all(row.truncated == (min(counts) > (max_length - 3) // 2) for row in rows) or len(rows) == 1
    if len(rows) > 1:
        assert segment == int(counts[1] > counts[0])
        assert_covered((first, second)[segment], spans)


# The classifier


TEXT = "The movie was fine. " * 6 + "This plot was awful! " + "Music was good, really good. " * 4


def test_windows_and_their_combination_are_those_of_the_sentences(artifact: Path) -> None:
    with Classifier.from_pretrained(artifact, threads=1, max_length=16, long_text=EACH) as clf:
        sentences = of_sentences(TEXT)
        alone = clf.decision_function(sentences)  # [sentences, labels], each a text by itself
        found = clf.windows(TEXT)
        assert [TEXT[each.start : each.end] for each in found] == sentences
        np.testing.assert_array_equal(np.array([each.logits for each in found], dtype=np.float32), alone)
        np.testing.assert_allclose(clf.decision_function([TEXT])[0], alone.mean(axis=0), atol=1e-6)
        assert clf.truncated == 0 and clf.stats.windows == 2 * len(sentences)
    with Classifier.from_pretrained(
        artifact, threads=1, max_length=16, long_text=Window(by="sentence", sentences=1, aggregate="max")
    ) as clf:
        np.testing.assert_array_equal(clf.decision_function([TEXT])[0], alone.max(axis=0))
    for label in (0, 1):
        name = ("NEGATIVE", "POSITIVE")[label]
        window = Window(by="sentence", sentences=1, aggregate="max", label=name)
        likeliest = alone[np.argmax(np.exp(alone[:, label]) / np.exp(alone).sum(axis=1))]
        with Classifier.from_pretrained(artifact, threads=1, max_length=16, long_text=window) as clf:
            np.testing.assert_array_equal(clf.decision_function([TEXT, "fine", TEXT])[[0, 2]], [likeliest, likeliest])
            score = max(each.scores[name] for each in clf.windows(TEXT))
            assert {each["label"]: each["score"] for each in clf(TEXT, top_k=None)}[name] == pytest.approx(score)
            with Batcher(clf) as batcher:
                assert batcher.submit(TEXT).result() == clf(TEXT)


def test_a_label_of_a_model_with_sigmoids_is_likeliest_by_its_own_logit(make_artifact: Callable[..., Path]) -> None:
    folder = make_artifact(labels=("joy", "anger", "fear"), problem_type="multi_label_classification")
    window = Window(by="sentence", sentences=1, aggregate="max", label="anger")
    with Classifier.from_pretrained(folder, threads=1, long_text=window) as clf:
        alone = clf.decision_function(of_sentences(TEXT))
        np.testing.assert_array_equal(clf.decision_function([TEXT])[0], alone[alone[:, 1].argmax()])


def test_windows_of_a_call_may_be_others_than_those_of_the_classifier(artifact: Path) -> None:
    with Classifier.from_pretrained(artifact, threads=1) as clf:
        assert len(clf.windows("Good. Bad. Fine.")) == 1
        found = clf.windows("Good. Bad. Fine.", window=EACH)
        assert [(each.start, each.end) for each in found] == [(0, 5), (6, 10), (11, 16)]
        with pytest.raises(OptionError, match="stride is 30: a window has 30 tokens"):
            clf.windows("Good. Bad.", window=Window(by="sentence", stride=30))


def test_short_texts_are_one_row_and_scores_are_the_same(artifact: Path) -> None:
    texts = ["good. bad. fine.", "the movie was good", "", "a\nb"]
    with Classifier.from_pretrained(artifact, threads=1) as plain:
        expected = plain.decision_function(texts)
    with Classifier.from_pretrained(artifact, threads=1, long_text=SENTENCE) as clf:
        np.testing.assert_array_equal(clf.decision_function(texts), expected)
        assert clf.stats.windowed == 0


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"by": "word"}, "tokens, sentence"),
        ({"by": "sentence", "sentences": 0}, "sentences is 0"),
        ({"by": "sentence", "sentences": 1.5}, "sentences is 1.5"),
        ({"sentences": 1}, "give by='sentence' with it"),
        ({"label": "BAD"}, "aggregate is 'mean': give aggregate='max' with it"),
        ({"label": 1, "aggregate": "max"}, "give the name of a label"),
    ],
)
def test_wrong_options_are_refused_with_the_way_out(options: dict[str, Any], named: str) -> None:
    with pytest.raises(OptionError, match=named):
        Window(**options)


def test_a_label_that_the_model_lacks_is_refused(artifact: Path) -> None:
    with pytest.raises(OptionError, match=r"label is 'INJECTION', which the model lacks: .*NEGATIVE.*POSITIVE"):
        Classifier.from_pretrained(artifact, long_text=Window(aggregate="max", label="INJECTION"))


# The commands


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*FUSEDBERT, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False)


def test_the_commands_take_the_options_of_sentences(artifact: Path, tmp_path: Path) -> None:
    window = Window(by="sentence", sentences=2, aggregate="max", label="NEGATIVE")
    with Classifier.from_pretrained(artifact, long_text=window) as clf:
        expected = clf(TEXT)[0]
    options = ["--long-text", "window", "--by", "sentence", "--sentences", "2", "--aggregate", "max", "--label", "NEGATIVE"]
    done = run("classify", "-m", artifact, "--format", "jsonl", *options, TEXT)
    entry = json.loads(done.stdout)
    assert done.stderr == "" and (entry["label"], entry["score"]) == (expected["label"], pytest.approx(expected["score"]))
    table, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    table.write_text(json.dumps({"text": TEXT}) + "\n")
    assert run("score", table, "-o", out, "-m", artifact, *options).returncode == 0
    (row,) = [json.loads(line) for line in out.read_text().splitlines()]
    assert (row["label"], row["score"]) == (expected["label"], pytest.approx(expected["score"], abs=1e-5))
    refused = run("classify", "-m", artifact, "--by", "sentence", TEXT)
    assert refused.returncode == 2 and "--by needs windows: give --long-text window too" in refused.stderr
    refused = run("classify", "-m", artifact, "--long-text", "window", "--sentences", "1", TEXT)
    assert refused.returncode == 2 and "give by='sentence' with it" in refused.stderr


def test_the_commands_take_a_length(artifact: Path, tmp_path: Path) -> None:
    with Classifier.from_pretrained(artifact, max_length=5) as clf:
        expected = clf.predict_proba([TEXT])[0].max()
    done = run("classify", "-m", artifact, "--format", "jsonl", "--max-length", "5", TEXT)
    assert json.loads(done.stdout)["score"] == pytest.approx(expected) and "more tokens than max_length, 5," in done.stderr
    table, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    table.write_text(json.dumps({"text": TEXT}) + "\n")
    assert run("score", table, "-o", out, "-m", artifact, "--max-length", "5").returncode == 0
    row = json.loads(out.read_text())
    assert row["truncated"] and row["score"] == pytest.approx(expected, abs=1e-5)
    refused = run("score", table, "-o", out, "-m", artifact, "--max-length", "100000", "--force")
    assert refused.returncode == 2 and "max_length is 100000" in refused.stderr and out.read_text() == json.dumps(row) + "\n"


def test_a_run_of_an_earlier_version_can_be_continued_and_other_windows_are_another_run(artifact: Path) -> None:
    from fusedbert.engine.scoring.options import ModelOptions
    from fusedbert.engine.scoring.pipeline import ModelInfo

    def identity(window: Window, **options: Any) -> dict[str, Any]:
        return dict(ModelInfo.load(ModelOptions(model=artifact, device="cpu", long_text=window, **options)).identity)

    before = {"long_text", "stride", "aggregate"}
    plain = identity(Window(stride=3))
    assert identity(Window(stride=3), max_length=9) == plain | {"max_length": 9}
    assert {name for name in plain if name in (*before, "by", "sentences", "label")} == before
    given = identity(Window(by="sentence", sentences=1, aggregate="max", label="NEGATIVE"))
    assert (given["by"], given["sentences"], given["label"]) == ("sentence", 1, "NEGATIVE")
