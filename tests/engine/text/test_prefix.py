"""The tokens of a very long text do not change when only a part of it is tokenized, whatever the tokenizer and the text."""

from __future__ import annotations

import json
import random
from collections.abc import Callable

import pytest
from random_tokenizers import gemma_pieces, modernbert_bytes, word_piece
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from fusedbert.engine.text.encode import LONG
from fusedbert.engine.text.inputs import Text
from fusedbert.engine.text.prefix import Shortener, plain_place

SPACES = [" ", "\t", "\n", "\r\n", "\u00a0", "\u3000", "\u2028", "  "]
REMOVED = ["\u200b", "\u200d", "\x01", "\ufeff", "\u00ad", "\x00", "\ufffd"]
MARKS = ["\u0301", "\u0308", "\u0323", "\u20dd", "\ufe0f", "\u093e", "\u0e33", "\u11a8", "\u1161", "\u3099"]
LETTERS = [
    *("a", "e", "x", "good", "film", "Straße", "É", "电", "影", "很", "ひ", "カ", "한", "ﷺ", "ﬁ", "½", "①", "㈠", "İ"),
    *("Σ", "я", "ع", "ก", "क", "7", "123", "\u1100", "\u037a"),
]
SIGNS = [
    *(".", "!", "-", "'", "'s", "'re", "''", "...", "。", "「", "_", "#", "/", "+", "<", "[", "]", ">", "@", "🙂"),
    *("👨\u200d👩\u200d👧", "👍🏽", "🇩🇪", "€", "\u2260", "\u037e", "`", "``"),
]
ADDED = [
    "[CLS]",
    "<s>",
    "<mask>",
    "covid",
    "very good",
    "@name",
    "##odd",
    "aa",
    "ab@",
    "<|im_start|>",
    "\u200bz",
    "a a",
    "  ",
    "   ",
]
KINDS = [SPACES, REMOVED, MARKS, LETTERS, LETTERS, SIGNS, ADDED]


def random_text(r: random.Random, length: int) -> str:
    """Return runs of one character, of words, of giant words, of white space, of anything, with added tokens among them."""
    parts: list[str] = []
    while sum(map(len, parts)) < length:
        kind = r.randrange(5)
        if kind == 0:
            parts += [r.choice(r.choice(KINDS)) for _ in range(r.choice([3, 10, 50]))]
        elif kind == 1:
            parts += [*(r.choice(LETTERS) for _ in range(r.choice([1, 5, 20]))), r.choice(SPACES + SIGNS)]
        elif kind == 2:
            pool = [r.choice(r.choice(KINDS)) for _ in range(r.choice([1, 1, 2, 3]))]
            parts += [r.choice(pool) for _ in range(r.choice([10, 100, 1000]))]
        elif kind == 3:
            pool = r.choice([SPACES, REMOVED, MARKS, SPACES + REMOVED])
            parts += [r.choice(pool) for _ in range(r.choice([5, 70, 300]))]
        else:
            parts += [r.choice("abcdefgh01") for _ in range(r.choice([3, 99, 101, 450, 3000]))]
    return "".join(parts)


def words_by_piece(r: random.Random) -> Tokenizer:
    tokenizer = word_piece(
        lowercase=r.random() < 0.6, strip_accents=r.choice([None, True, False]), handle_chinese_chars=r.random() < 0.7
    )
    split = [pre_tokenizers.BertPreTokenizer(), pre_tokenizers.Whitespace(), pre_tokenizers.WhitespaceSplit()]
    split.append(pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()]))
    split.append(pre_tokenizers.Sequence([pre_tokenizers.BertPreTokenizer(), pre_tokenizers.Digits()]))
    tokenizer.pre_tokenizer = r.choice(split)
    if r.random() < 0.3:
        steps = [normalizers.NFC(), normalizers.NFD(), normalizers.NFKC(), normalizers.Lowercase(), normalizers.StripAccents()]
        tokenizer.normalizer = normalizers.Sequence(r.sample(steps, 2))
    tokenizer.model.max_input_chars_per_word = r.choice([5, 100, 100])  # type: ignore[attr-defined]
    return tokenizer


def bytes_in_pairs(r: random.Random) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    last = pre_tokenizers.ByteLevel(add_prefix_space=r.random() < 0.5)
    first = r.choice([[], [pre_tokenizers.WhitespaceSplit()], [pre_tokenizers.Digits(individual_digits=True)]])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*first, last])
    if r.random() < 0.3:
        tokenizer.normalizer = r.choice([normalizers.NFC(), normalizers.NFKC(), normalizers.Replace("``", '"')])
    texts = [random_text(r, 600)[:600] for _ in range(5)]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    size = r.choice([258, 270, 600])
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False))
    return tokenizer


def pieces_and_bytes(r: random.Random) -> Tokenizer:
    """Return BPE as of Gemma, which writes unknown characters as bytes; a text is a single word, or its words are cut."""
    texts = [random_text(r, 600)[:600].replace(" ", "▁") for _ in range(5)]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.pre_tokenizer = r.choice(
        [pre_tokenizers.Metaspace(prepend_scheme="never"), pre_tokenizers.Split(" ", "isolated")]
    )
    special = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256))][: r.choice([257, 257, 257, 200])]
    size = r.choice([300, 400, 900])
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=size, special_tokens=special, show_progress=False))
    tokenizer.normalizer = r.choice([normalizers.Replace(" ", "▁"), normalizers.Replace(" ", "▁"), normalizers.NFC()])
    behavior = r.choice(["merged_with_previous", "merged_with_next", "isolated", "contiguous", "removed"])
    tokenizer.pre_tokenizer = pre_tokenizers.Split(r.choice(["▁", " ", " "]), behavior)
    return tokenizer


def unigrams(r: random.Random) -> Tokenizer:
    strings = [*LETTERS, *SIGNS, "▁good", "▁a", "▁", "aaa", "aa", "....", "..", "电影", "abc", "01", "ing"]
    scores = {string: -r.choice([1, 2, 3, 5 * r.random()]) for string in strings if r.random() < 0.7}
    tokenizer = Tokenizer(models.Unigram([("<unk>", 0.0), *scores.items()], unk_id=0))
    spaces = normalizers.Replace(Regex(" {2,}"), "▁")
    marks = [normalizers.Replace("``", '"'), normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase()]
    tokenizer.normalizer = r.choice([normalizers.NFKC(), spaces, normalizers.Sequence(marks), normalizers.Strip()])
    scheme = r.choice(["always", "never", "first"])
    space = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=r.random() < 0.7)
    tokenizer.pre_tokenizer = r.choice([space, pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), space])])
    return tokenizer


def debertas(r: random.Random) -> Tokenizer:
    """Return a Unigram with DeBERTa's steps, as transformers 5 makes them, and at times bytes that are not in use."""
    tokenizer = unigrams(r)
    if r.random() < 0.3:
        pieces = [*json.loads(tokenizer.to_str())["model"]["vocab"], *((f"<0x{byte:02X}>", 0.0) for byte in range(256))]
        tokenizer.model = models.Unigram([(piece, score) for piece, score in pieces], 0, r.random() < 0.3)
    lower = [normalizers.Lowercase()] if r.random() < 0.3 else []
    spaces = normalizers.Replace(Regex(r"\s{2,}|[\n\r\t]"), " ")
    tokenizer.normalizer = normalizers.Sequence([*lower, spaces, normalizers.NFC(), normalizers.Strip(left=False, right=True)])
    cut = [pre_tokenizers.Punctuation("isolated")] if r.random() < 0.3 else []
    space = pre_tokenizers.Metaspace(prepend_scheme=r.choice(["always", "first"]))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*cut, space])
    return tokenizer


def letters_in_ties(r: random.Random) -> Tokenizer:
    """Return a Unigram whose tokens of a run depend on where it ends."""
    strings = {"".join(r.choice("abb中") for _ in range(r.choice([1, 2, 3, 4, 7]))) for _ in range(r.choice([2, 4, 8]))}
    scores = [(string, -float(r.choice([1, 2, 3]))) for string in sorted({*strings, "a", "b"})]
    tokenizer = Tokenizer(models.Unigram([("<unk>", 0.0), *scores], unk_id=0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    return tokenizer


MAKERS = [words_by_piece, words_by_piece, bytes_in_pairs, unigrams, debertas, pieces_and_bytes]


def random_tokenizer(r: random.Random) -> Tokenizer:
    tokenizer = r.choice(MAKERS)(r)
    for content in r.sample(ADDED, r.choice([0, 0, 1, 3])):
        switches = {name: r.random() < 0.3 for name in ("lstrip", "rstrip", "single_word", "normalized")}
        add = tokenizer.add_special_tokens if r.random() < 0.5 else tokenizer.add_tokens
        add([AddedToken(content, **switches)])
    return tokenizer


def ids(tokenizer: Tokenizer, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False).ids)


@pytest.mark.parametrize("seed", range(40))
def test_sure_tokens_of_a_part_are_those_of_the_whole(seed: int) -> None:
    r = random.Random(seed)
    tokenizer = random_tokenizer(r)
    shortener = Shortener(tokenizer)
    for _ in range(4):
        text = random_text(r, 300)[: r.choice([300, 900, 3000])]
        if r.random() < 0.5:
            text = (text[: r.choice([5, 40])] + r.choice(r.choice(KINDS))) * 30
        left = r.random() < 0.3
        if not (shortener.left_safe if left else shortener.right_safe):
            continue
        whole = ids(tokenizer, text)
        for _ in range(4):
            cut = plain_place(text, r.randrange(1, len(text)))
            if cut is not None:
                part = text[cut:] if left else text[:cut]
                sure, found = shortener.sure(tokenizer, part, left=left), ids(tokenizer, part)
                assert found[len(found) - sure :] == whole[len(whole) - sure :] if left else found[:sure] == whole[:sure]


@pytest.mark.parametrize("seed", range(20))
def test_sure_tokens_of_a_text_without_cuts_are_those_of_the_whole(seed: int) -> None:
    r = random.Random(seed)
    tokenizer, counted = pieces_and_bytes(r), 0
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.Replace(" ", "▁"), pre_tokenizers.Split(" ", "isolated")
    shortener = Shortener(tokenizer)
    for _ in range(6):
        text = random_text(r, 900)
        text = text if r.random() < 0.5 else (text[: r.choice([3, 5, 40])] * 300)[:900]
        part = text[: r.randrange(200, len(text))]
        sure = shortener.sure(tokenizer, part, left=False)
        assert ids(tokenizer, part)[:sure] == ids(tokenizer, text)[:sure]
        counted += sure
    assert counted or tokenizer.token_to_id("<0xFF>") is None


def test_a_token_at_the_start_of_a_word_that_spans_the_place_is_not_sure() -> None:
    tokenizer = Tokenizer(
        models.Unigram([("<unk>", 0.0), *((letter, -9.0) for letter in "abcdefgh"), ("abcdefgh", -1.0)], unk_id=0)
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    text = "abcdefgh" * 40
    for length in range(130, 160):
        sure = Shortener(tokenizer).sure(tokenizer, text[:length], left=False)
        assert ids(tokenizer, text[:length])[:sure] == ids(tokenizer, text)[:sure]


@pytest.mark.parametrize("seed", range(20))
def test_sure_tokens_within_a_word_are_those_of_the_whole_word(seed: int) -> None:
    r = random.Random(seed)
    tokenizer = letters_in_ties(r)
    shortener = Shortener(tokenizer)
    for _ in range(6):
        unit = "".join(r.choice("ab") for _ in range(r.choice([1, 1, 2, 3, 5, 200])))
        text = (unit * 900)[:700] + "".join(r.choice("abc中") for _ in range(r.choice([1, 50])))
        part = text[: r.randrange(160, len(text))]
        sure = shortener.sure(tokenizer, part, left=False)
        assert ids(tokenizer, part)[:sure] == ids(tokenizer, text)[:sure]


def shorten(tokenizer: Tokenizer, text: str, length: int, *, left: bool = False, offsets: bool = False) -> tuple[str, bool]:
    short, cut = Shortener(tokenizer).shorten(tokenizer, Text(text=text, index=0), length, left=left, offsets=offsets)
    return short.text, cut


@pytest.mark.parametrize("seed", range(40))
def test_a_shorter_text_has_the_tokens_that_are_kept(seed: int) -> None:
    r = random.Random(seed)
    tokenizer = random_tokenizer(r)
    for _ in range(2):
        text, left, offsets, length = random_text(r, 33 * LONG), r.random() < 0.4, r.random() < 0.2, r.choice([8, 16, 32])
        short, cut = shorten(tokenizer, text, length, left=left, offsets=offsets)
        whole, part = (tokenizer.encode(each, add_special_tokens=False) for each in (text, short))
        if not cut:
            assert part.ids == whole.ids
        elif left:
            assert part.ids[-length:] == whole.ids[-length:] and min(len(part.ids), len(whole.ids)) > length
        else:
            assert part.ids[:length] == whole.ids[:length] and min(len(part.ids), len(whole.ids)) > length
        if offsets:
            assert part.offsets[:length] == whole.offsets[:length]


def test_spaces_of_which_the_normalizer_makes_a_token_are_kept() -> None:
    tokenizer = Tokenizer(models.Unigram([("<unk>", 0.0), ("x", -1.0), ("▁", -1.0)], unk_id=0))
    tokenizer.normalizer = normalizers.Replace(Regex(" {2,}"), "▁")  # as of XLM-R
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    text = "x" + "\n  \n" * 20 + "\n" * 2_000 + "x"
    short, cut = shorten(tokenizer, text, 32)
    assert not cut and ids(tokenizer, short) == ids(tokenizer, text)
    assert len(ids(tokenizer, text)) == 24


def byte_level() -> Tokenizer:
    return bytes_in_pairs(random.Random(2))


LONG_TEXTS = {
    "letters": "a" * 100_000,
    "letters and a word": "a" * 100_000 + " good",
    "punctuation": "." * 100_000,
    "Chinese": "电影很好" * 25_000,
    "base64": "aGVsbG8+d29/bGQ" * 7_000,
    "new lines": "\n" * 100_000 + "good",
    "control characters": "\x01 \u200b" * 30_000 + "good",
    "accents": "e\u0301" * 50_000,
    "emoji": "👨\u200d👩\u200d👧" * 20_000,
    "English": "good film, " * 9_000,
}


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("name", LONG_TEXTS)
def test_work_on_a_text_without_spaces_is_bounded(name: str, left: bool) -> None:
    tokenizer, text = word_piece(), LONG_TEXTS[name]
    short, cut = shorten(tokenizer, text, 32, left=left)
    assert len(short) < 5_000
    whole, part = ids(tokenizer, text), ids(tokenizer, short)
    assert (part[-32:], whole[-32:]) == (whole[-32:], part[-32:]) if left else part[:32] == whole[:32]
    assert cut == (len(whole) > 32)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        *((byte_level, name) for name in ("letters", "punctuation", "Chinese", "base64", "new lines", "emoji", "English")),
        # not of "......", whose tokens a Unigram may choose by the run's end, nor of unknown characters, which are one token
        *((lambda: unigrams(random.Random(5)), name) for name in ("Chinese", "base64", "English")),
        *((lambda: debertas(random.Random(5)), name) for name in ("Chinese", "base64", "English")),
        # not of new lines, which a [MASK] behind them would take
        *((modernbert_bytes, name) for name in ("letters", "punctuation", "Chinese", "base64", "emoji", "English")),
        *((gemma_pieces, name) for name in ("letters", "punctuation", "Chinese", "base64", "new lines", "emoji", "English")),
    ],
)
def test_work_on_a_long_word_is_bounded_for_other_models(make: Callable[[], Tokenizer], name: str) -> None:
    tokenizer, text = make(), LONG_TEXTS[name]
    short, cut = shorten(tokenizer, text, 32)
    assert cut and len(short) < 40_000
    assert ids(tokenizer, short)[:32] == ids(tokenizer, text)[:32]


def test_white_space_before_a_token_that_takes_it_is_not_sure() -> None:
    tokenizer = byte_level()
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True)])  # as of RoBERTa
    text = "good " + "\n" * 3_000 + "<mask>"
    short, cut = shorten(tokenizer, text, 16)
    assert (short, cut) == (text, False)
    assert Shortener(tokenizer).sure(tokenizer, text[:2_000], left=False) <= len(ids(tokenizer, "good"))


def test_two_long_texts_of_a_pair_are_cut_where_each_gets_half() -> None:
    tokenizer = word_piece()
    pair = Text(text=LONG_TEXTS["Chinese"], pair=LONG_TEXTS["punctuation"], index=0)
    for length, halves in ((33, True), (32, False)):  # less three separators: one gets an odd token
        short, cut = Shortener(tokenizer).shorten(tokenizer, pair, length, left=False)
        assert cut is halves and (short is pair) is not halves
        assert cut is (len(short.text) < 5_000) is (len(short.pair or "") < 5_000)
    short, cut = Shortener(tokenizer).shorten(tokenizer, pair, 32, left=False, longest_first=False)
    assert cut and len(short.text) + len(short.pair or "") < 5_000


def test_tokens_are_counted_piece_by_piece() -> None:
    counted = 0
    for seed in range(60):
        r = random.Random(seed)
        tokenizer = words_by_piece(r)
        tokenizer.add_special_tokens(r.sample(["[CLS]", "<s>", "covid", "@name"], 2))
        pool = [r.choice(r.choice(KINDS)) for _ in range(40)] + LETTERS + SPACES
        text = "".join(r.choice(pool) for _ in range(8_000))
        found = Shortener(tokenizer).count(tokenizer, text, size=2048)
        assert found is None or found == len(ids(tokenizer, text))
        counted += found is not None
    assert counted > 30


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize(("more", "unit"), [(0, "电"), (1, "电"), (-1, "电"), (0, "good "), (1, "film. "), (-1, "é!")])
def test_of_two_very_long_texts_the_longer_one_gets_the_odd_token(more: int, unit: str, left: bool) -> None:
    tokenizer = word_piece()
    shortener = Shortener(tokenizer)
    first, second = "x." + unit * 150_000, unit * 150_010
    counts = [len(ids(tokenizer, each)) for each in (first, second)]
    first += "." * (counts[1] - counts[0] + more)
    assert shortener.count(tokenizer, first) == len(ids(tokenizer, first)) == counts[1] + more
    short, cut = shortener.shorten(tokenizer, Text(text=first, pair=second, index=0), 32, left=left)
    tokens = [len(ids(tokenizer, each)) for each in (short.text, short.pair or "")]
    assert cut and min(tokens) > 32 and max(tokens) < 5_000
    assert (tokens[0] > tokens[1]) is (more > 0)  # the second of two equal ones


def test_texts_stay_whole_where_a_step_of_the_tokenizer_looks_far() -> None:
    tokenizer = word_piece()
    assert Shortener(tokenizer).right_safe and Shortener(tokenizer).left_safe
    tokenizer.add_tokens(["abab"])  # of ababab the first is found, which depends on where it begins
    assert Shortener(tokenizer).right_safe and not Shortener(tokenizer).left_safe
    tokenizer.normalizer = normalizers.Replace(Regex("good.*film"), "x")
    assert not Shortener(tokenizer).right_safe
    assert shorten(tokenizer, "电" * 5_000, 32) == ("电" * 5_000, False)
    tokenizer = byte_level()
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(".*"), "isolated")
    assert not Shortener(tokenizer).right_safe
