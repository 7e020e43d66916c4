"""The embedded checkpoint with the graph that shows its attention, exported once, and its results for a few texts."""

import dataclasses
import json
import re
from pathlib import Path

import pytest

from fusedbert.engine import Classifier
from fusedbert.engine.explain import WordEffect

REVIEW = (
    "The second act drags, the jokes are older than the cast, and the music never stops telling you what to feel. "
    "We waited for forty minutes; then the waiter brought the wrong dish, apologised, and charged us for both. "
)
HOSTILE = (
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(1)>",
    "\"double\" 'single'",
    "مرحبا",
    "שלום",
    "👨\u200d👩\u200d👧",
    "\u0301",
    "\u202eevil",
    "\u200b",
    "",
    "\x00",
    "\u2028",
    "&amp;",
    "{{data}}",
    "<!--",
)


@pytest.fixture(scope="session")
def attentive(fusedbert, checkpoint, tmp_path_factory):
    """The artifact."""
    folder = tmp_path_factory.mktemp("attentive") / "sst2-mini"
    fusedbert("export", checkpoint, folder, "--for", "fp32", "--attentions", check=True)
    return folder


@pytest.fixture(scope="session")
def clf(attentive):
    with Classifier.from_pretrained(attentive, device="cpu", precision="fp32") as classifier:
        yield classifier


@pytest.fixture(scope="session")
def shown(clf):
    """A sentence with two opinions."""
    return clf.attentions("I didn't really loved this movie. It was fantastic!")


@pytest.fixture(scope="session")
def pair(clf):
    return clf.attentions("Is it good?", "It is the worst film.")


@pytest.fixture(scope="session")
def of_length(clf):
    """Return a function that explains a review of that many tokens, 512 at most, without effects."""

    def show(tokens):
        words = (REVIEW * 20).split()
        full = clf.attentions(" ".join(words), occlusion=False)
        end = full.offsets[tokens - 2][1] if tokens < 512 else None
        return clf.attentions(" ".join(words)[:end], occlusion=False)

    return show


@pytest.fixture(scope="session")
def hostile(clf):
    """The numbers of a real text, with tokens and words that could break a page."""
    real = clf.attentions(" ".join("abcdefghijklmno"), occlusion=False)
    tokens = ("[CLS]", *HOSTILE, "[SEP]")
    assert len(real.tokens) == len(tokens)
    effects, end = [], 0
    for word in HOSTILE:
        effects.append(WordEffect(word=word, start=end, end=end + len(word), segment=0, change=0.01 * len(effects) - 0.05))
        end += len(word) + 1
    probabilities = {"<b>NO</b>": 0.25, "YES": 0.75}
    return dataclasses.replace(
        real,
        text=" ".join(HOSTILE),
        tokens=tokens,
        readable=tokens,
        effects=tuple(effects),
        probabilities=probabilities,
        prediction={"label": "YES", "score": 0.75},
    )


@pytest.fixture(scope="session")
def data_of():
    """Return a function that reads the data out of a page."""

    def read(page):
        data = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
        assert data is not None
        return json.loads(data[1])

    return read


@pytest.fixture(scope="session")
def artifact(embedded: Path) -> Path:
    """The embedded checkpoint's artifact, in place of the tiny one of the engine's other tests."""
    return embedded
