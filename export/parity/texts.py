"""Check texts of every export, and their batches. They are not used for calibration, so that a graph is not fitted to them."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from pathlib import Path

from fusedbert.engine.text.tokenizer import Row

from ..checkpoint.architecture import Shape
from ..tokenizer import Tokenization


def read_pairs(file: Path) -> tuple[tuple[str, str], ...]:
    """Read pairs, one a line with a tab between."""
    pairs = (line.split("\t") for line in file.read_bytes().decode("utf-8").splitlines())
    return tuple((text, text_pair) for text, text_pair in pairs)


CHECK_TEXTS: tuple[str, ...] = (
    "",
    "a",
    "Great.",
    "Terrible!",
    "I really loved this movie. It was fantastic!",
    "I didn't really loved this movie. It was fantastic!",
    "The spaghetti was bland.",
    "The trains run every ten minutes until midnight.",
    "Would I see it again? Not if you paid me.",
    "Not bad at all, and the ending made me cry.",
    "The battery lasts two days, the screen is bright, and it cost half of what I expected to pay.",
    "The second act drags, the jokes are older than the cast, and the music never stops telling you what to feel.",
    "We waited for forty minutes; then the waiter brought the wrong dish, apologised, and charged us for both.",
    "Half of the plot makes no sense. The other half is so charming that nobody in the theatre seemed to mind.",
    "Version 2.1 fixes the crash on start-up, but exporting to CSV still drops the last row (see ticket #4711).",
    "¡Qué película tan bonita! Très émouvant, naïve and coöperative, 100 % worth the €12.50.",
    "这部电影很好看。 とても楽しかった。 Очень скучно.",
    "🙂🙃 lol!!! so-so... <br /> #fail @nobody https://example.org/?q=1&r=2",
    "Antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "Tab\there, newline\nthere, NUL\x00, soft\u00adhyphen, zero\u200bwidth, a cafe\u0301 with a combining accent.",
    "She said it was a waste of time. He said it was the best evening of the year. They were both talking about the same "
    "concert, and having been there myself I can only say that the first half belongs to her and the second to him: it "
    "opens out of tune and out of time, and it ends with a whole hall on its feet, singing, unwilling to go home.",
)
CHECK_PAIRS: tuple[tuple[str, str], ...] = (
    ("A man is playing a guitar on the stage.", "Somebody makes music."),
    ("The shop is closed on Sundays.", "You can buy bread there every day of the week, early in the morning."),
)
"""Pairs, for models that compare two texts; for any other model they are two segments of one text."""

LONGEST = 1024  # tokens of a check text: at 8,192 the reference of a model of base size takes minutes

GOLDEN = ("I really loved this movie. It was fantastic!", "The spaghetti was bland.", "a", CHECK_TEXTS[-1])
"""Texts for the manifest, with the reference's logits, which the engine replays."""

SUBJECTS = ("the phone", "this novel", "the hotel room", "her new film", "the update", "our guide", "the soup")
VERDICTS = (
    "is a joy from beginning to end.",
    "was a complete waste of money.",
    "is a little masterpiece.",
    "works far better than the old one.",
    "disappointed everybody.",
    "made my day!",
    "is not worth a second look.",
    "is overpriced and ugly.",
    "is simply wonderful.",
    "arrived late and broken.",
    "deserves every prize.",
    "was the worst part of the evening.",
)
ROUNDING_TEXTS = tuple(f"{subject} {verdict}" for subject in SUBJECTS for verdict in VERDICTS)
"""More texts for graphs in fp16 and int8: a share of kept labels needs a hundred texts to mean something.

Each has an opinion: on a text without one, any rounding decides between labels of equal weight.
"""

ROUNDING_PAIRS = tuple(
    (f"What do people say about {asked}?", f"{subject} {VERDICTS[(i + j) % len(VERDICTS)]}")
    for i, asked in enumerate(SUBJECTS)
    for j, subject in enumerate(SUBJECTS)
)
"""Pairs for regressions and rerankers: a question about each subject, with a text on it and on each of the others."""

COMPARED_PAIRS = read_pairs(Path(__file__).with_name("check_pairs.txt"))
"""Questions with passages, reports of the same event, premises with hypotheses: pairs on which a trained model is sure."""

MORE_PAIRS = (*((text_pair, text) for text, text_pair in COMPARED_PAIRS), *ROUNDING_PAIRS)
"""Pairs that bring a classifier of pairs to a hundred texts: those above in the other order, and questions."""


@dataclasses.dataclass(frozen=True)
class CheckSet:
    """Tokenized check texts; a batch has the rows of ``texts`` that are padded together."""

    texts: tuple[Row, ...]
    batches: tuple[tuple[int, ...], ...]
    by_token: bool = False  # each token has logits, not each text

    @functools.cached_property
    def starts(self) -> list[int]:
        """The row of each text's first logits, and the number of rows."""
        return [0, *itertools.accumulate(len(text.ids) if self.by_token else 1 for text in self.texts)]

    def extended(self, more: Sequence[Row]) -> CheckSet:
        """Return a set with ``more`` texts after these, the shortest first, in batches of 16."""
        texts = (*self.texts, *sorted(more, key=lambda text: len(text.ids)))
        batches = (tuple(range(i, min(i + 16, len(texts)))) for i in range(len(self.texts), len(texts), 16))
        return dataclasses.replace(self, texts=texts, batches=(*self.batches, *batches))


def check_set(
    a: Shape, tokens: Tokenization, *, rounded: bool = False, by_order: bool = False, pairs: bool | None = None
) -> CheckSet:
    """Tokenize the check texts and lay out their batches; ``rounded`` adds texts for fewer bits, ``by_order`` questions.

    The added texts are ``pairs``, single ones, or for None both. Texts run by themselves, padded together, at one token, at the
    edges of a window, and at ``max_length`` or ``LONGEST``; also in a batch as large as the number of heads, in which a mask
    along the wrong axis would have the right shape.
    """
    texts = tokens.encode_all([*CHECK_TEXTS, *CHECK_PAIRS])
    short = sorted(range(len(texts)), key=lambda row: len(texts[row].ids))
    longest = min(tokens.max_length, LONGEST)
    windows = {window for window in a.windows if window is not None}
    edges = [n for window in windows for n in (window + 1, window + 2, 2 * window + 2)]  # a token sees all, or not
    lengths = [n for n in sorted({1, 2, 3, 17, *edges}) if n < longest] + [longest]
    made = range(len(texts), len(texts) + len(lengths))
    texts += [tokens.repeat(CHECK_TEXTS[-1], n) for n in lengths]
    as_many_as_heads = tuple(short[: len(short) * 3 // 4][i % (len(short) * 3 // 4)] for i in range(a.heads))
    single = [(row,) for row in (*made, short[1], short[-1])]
    batches = [tuple(short[i::3]) for i in range(3)] + [as_many_as_heads, (made[-1], made[0]), tuple(made[:-1]), *single]
    checks = CheckSet(tuple(texts), tuple(batches), a.by_token)
    if rounded:
        single_texts = () if pairs else ROUNDING_TEXTS
        asked = ROUNDING_PAIRS if by_order else ()
        compared = () if pairs is False else COMPARED_PAIRS
        checks = checks.extended(tokens.encode_all([*single_texts, *asked, *compared]))
    return checks
