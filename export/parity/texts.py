"""The texts that every export is checked on: short and long, plain and odd, of both opinions, single and in pairs.

They are written for this purpose, and none of them is used for calibration, so that what is measured on them is what
a graph does on texts it was not tuned for.
"""

from __future__ import annotations

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
"""Single texts."""

CHECK_PAIRS: tuple[tuple[str, str], ...] = (
    ("A man is playing a guitar on the stage.", "Somebody makes music."),
    ("The shop is closed on Sundays.", "You can buy bread there every day of the week, early in the morning."),
)
"""Pairs, for models that compare two texts; to any other model they are two segments of one text."""

GOLDEN = ("I really loved this movie. It was fantastic!", "The spaghetti was bland.", "a", CHECK_TEXTS[-1])
"""Texts that go into the manifest with the reference's logits, for the engine to replay."""

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
"""More texts for the graphs that round (fp16, int8): a share of kept labels needs a hundred texts to mean something.

Each has an opinion: on a text that has none, any rounding decides between labels of equal weight.
"""

ROUNDING_PAIRS = tuple(
    (f"What do people say about {asked}?", f"{subject} {VERDICTS[(i + j) % len(VERDICTS)]}")
    for i, asked in enumerate(SUBJECTS)
    for j, subject in enumerate(SUBJECTS)
)
"""Still more for regressions and rerankers: a question about each subject, with a text on it and on each of the others."""
