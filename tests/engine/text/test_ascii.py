"""Texts in ASCII are split before the library sees them: the tokens are those of the whole tokenizer, whatever its settings."""

from __future__ import annotations

import html
import itertools
import string
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_tokenizers import gemma_pieces, modernbert_bytes
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors

from fusedbert.bench.corpus.texts import built_in
from fusedbert.engine.text.inputs import check_items
from fusedbert.engine.text.tokenizer import AsciiWords, TextTokenizer

LETTERS = [*string.ascii_letters, *string.digits, *string.punctuation]
VOCABULARY = {
    token: i
    for i, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *LETTERS, *(f"##{each}" for each in LETTERS), "good"])
}
TEXTS = st.lists(
    st.one_of(
        st.sampled_from(
            ["good", "GOOD", "[SEP]", "[sep]", "New York", "new\tyork", "cafe", "Caf\u00e9", "\u7535", "x" * 101, "\x7f"]
        ),
        st.text(alphabet=st.characters(max_codepoint=0x7F), max_size=8),
        st.text(max_size=4),
        st.sampled_from([" ", "\t", "\n", "\r\n", "\x0b", "\x00", "."]),
    ),
    max_size=8,
).map("".join)
SETTINGS = [
    {"lowercase": lower, "clean_text": clean, "strip_accents": strip, "handle_chinese_chars": True}
    for lower, clean, strip in itertools.product((True, False), (True, False), (None, True, False))
]


def make(**options: Any) -> Tokenizer:
    """Return a BERT's tokenizer, with added tokens that are normalized and that are not."""
    raw = Tokenizer(models.WordPiece(VOCABULARY, unk_token="[UNK]", max_input_chars_per_word=100))
    raw.normalizer, raw.pre_tokenizer = normalizers.BertNormalizer(**options), pre_tokenizers.BertPreTokenizer()
    raw.add_special_tokens([AddedToken(name, normalized=False) for name in ("[PAD]", "[UNK]", "[CLS]", "[SEP]")])
    raw.add_tokens(
        [
            AddedToken("New York", normalized=True),
            AddedToken("Caf\u00e9", normalized=True),
            AddedToken("a\nb", normalized=False),
        ]
    )
    specials = [("[CLS]", 2), ("[SEP]", 3)]
    raw.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=specials
    )
    return raw


def plain(encoding: Any) -> tuple[Any, ...]:
    return encoding.ids, encoding.type_ids, encoding.sequence_ids, encoding.word_ids, encoding.attention_mask


@pytest.mark.parametrize("options", SETTINGS, ids=str)
@given(
    texts=st.lists(st.one_of(TEXTS, st.tuples(TEXTS, TEXTS)), min_size=1, max_size=4),
    special=st.booleans(),
    split=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_tokens_are_those_of_the_whole_tokenizer(options: dict[str, Any], texts: list[Any], special: bool, split: bool) -> None:
    raw = make(**options)
    raw.encode_special_tokens = split
    ours = TextTokenizer.of(raw, {"split_special_tokens": split}, {}, 64)
    found = ours.encode_fast(texts, special=special)
    assert list(map(plain, found)) == list(map(plain, raw.encode_batch_fast(texts, add_special_tokens=special)))


def test_every_pair_of_ascii_characters_is_split_alike() -> None:
    raw = make(lowercase=True)
    ours = TextTokenizer.of(raw, {}, {}, 64)
    texts = [f"a{first}{second}b" for first in map(chr, range(128)) for second in map(chr, range(128))]
    assert [each.ids for each in ours.encode_fast(texts)] == [each.ids for each in raw.encode_batch(texts)]


def test_ascii_takes_the_short_way_and_only_that() -> None:
    words = AsciiWords.of(make(lowercase=True))
    assert words is not None
    assert words.split("It isn't\r\ngood.") == "it isn ' t  good . "
    assert words.split(("A b", "c-D")) == ("a b", "c - d")
    for text in ("Caf\u00e9", "in Cafe", "new york", "NEW\tYORK", "a [SEP]", "a\x00", ("ok", "\u7535")):
        assert words.split(text) is None


def test_a_subclass_of_str_is_read_as_a_str() -> None:
    class Markup(str):
        """Like MarkupSafe's, which Jinja2 returns: replace() escapes its arguments."""

        def replace(self, old: str, new: str, count: Any = -1) -> Markup:
            return Markup(super().replace(old, html.escape(new), count))

    raw = make(lowercase=False)
    text = Markup("Tom & Jerry's")
    assert TextTokenizer.of(raw, {}, {}, 64).encode(check_items([text]))[0].ids == raw.encode(str(text)).ids
    words = AsciiWords.of(raw)
    assert words is not None and words.split(np.str_("a, b")) == "a ,  b"


def test_other_tokenizers_are_left_to_the_library() -> None:
    many = make(lowercase=True)
    many.add_tokens([f"token{i}" for i in range(80)])
    regular = make(lowercase=True)
    regular.normalizer = normalizers.Sequence([normalizers.BertNormalizer(lowercase=True)])
    spaces = make(lowercase=True)
    spaces.pre_tokenizer = pre_tokenizers.Whitespace()
    for raw in (many, regular, spaces, gemma_pieces(), modernbert_bytes()):
        assert AsciiWords.of(raw) is None
        assert TextTokenizer.of(raw, {}, {}, 64).encode_fast(["good film"])[0].ids == raw.encode("good film").ids


def test_rows_of_the_embedded_model_are_the_librarys(embedded: Path) -> None:
    ours = TextTokenizer.load(embedded, 128)
    texts = [text.upper() if i % 5 == 0 else text for i, text in enumerate(built_in().texts)]
    assert [row.ids for row in ours.encode(check_items(texts))] == [each.ids for each in ours.raw.encode_batch(texts)]
