"""The page as a file: its content and size, and that no text can become markup. No browser here."""

import base64
import dataclasses
import hashlib
import html.parser
import re
import zlib

import numpy as np
import pytest

from fusedbert.engine import OptionError


class Outline(html.parser.HTMLParser):
    """Elements of a page, with their attributes, and its inline scripts and styles."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.inline = [], {"script": [], "style": []}
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        if self.cdata_elem in self.inline:
            self.inline[self.cdata_elem].append(data)


def unpacked(data):
    """Decode the weights as the page's script does: per row of a head a dict from key to weight."""
    n, packed = len(data["tokens"]), data["weights"]
    raw = zlib.decompress(base64.b64decode(packed["data"]))
    rows, keep = data["layers"] * data["heads"] * n, packed["keep"]
    parts = np.frombuffer(raw[4 * rows :], dtype=np.uint8).reshape(-1, 2, rows * keep)
    values = (parts[:, 0] + 256 * parts[:, 1].astype(int)).reshape(-1, rows, keep)
    keys = np.cumsum(values[0], axis=1) if keep < n else np.tile(np.arange(n), (rows, 1))
    assert len(values) == (2 if keep < n else 1)
    return np.frombuffer(raw[: 4 * rows], dtype="<f4"), keys, np.exp(-values[-1] / packed["steps"])


def close(found, expected, share):
    """Return whether weights agree to a share of their size; those below 1e-25 only have to be as small."""
    large = expected > 1e-25
    return np.abs(found[large] / expected[large] - 1).max() < share and bool((found[~large] < 2e-25).all())


def test_a_short_text_keeps_every_weight(shown, data_of):
    data = data_of(shown.to_html())
    c, _, weights = unpacked(data)
    expected = shown.weights.reshape(-1, len(shown.tokens))
    assert close(weights, expected, 1e-3)
    scores = (np.log(weights) + c[:, None]) * np.sqrt(data["size"])  # q.k
    assert np.abs(scores.reshape(shown.weights.shape)[1, 2] - shown.scores(1, 2)).max() < 0.01
    assert "holds all 8,100 weights" in data["kept"]


def test_weights_that_do_not_follow_from_queries_and_keys_are_shown_as_they_are(shown, data_of):
    """As DeBERTa's, whose scores have positions; the page must not give q.k as the reason."""
    other = dataclasses.replace(shown, queries=np.zeros_like(shown.queries))
    data = data_of(other.to_html())
    _, _, weights = unpacked(data)
    assert data["relative"] and not data_of(shown.to_html())["relative"]
    assert close(weights, shown.weights.reshape(-1, len(shown.tokens)), 1e-3)


def test_128_tokens_fit_into_two_megabytes_whole(of_length, data_of):
    page = of_length(128).to_html()
    data = data_of(page)
    assert len(data["tokens"]) == data["weights"]["keep"] == 128
    assert 500_000 < len(page.encode()) < 2_000_000


def test_512_tokens_fit_and_the_page_says_what_is_left_out(of_length, data_of):
    shown = of_length(512)
    page = shown.to_html()
    assert len(page.encode()) <= 6_000_000
    data = data_of(page)
    _, keys, weights = unpacked(data)
    keep = data["weights"]["keep"]
    full = shown.weights.reshape(-1, 512)
    largest = np.sort(full, axis=1)[:, -keep:]
    assert 60 < keep < 512
    assert close(weights, np.take_along_axis(full, keys, axis=1), 5e-3)
    assert close(np.sort(weights, axis=1), largest, 5e-3)
    assert f"each token's 512 it keeps the {keep} largest" in data["kept"]
    assert f"hold {largest.sum() / len(full):.0%} of all weight" in data["kept"]
    assert "cut at the model's longest" in data["kept"]


def test_a_budget_bounds_the_size_or_is_refused(of_length):
    shown = of_length(128)
    assert len(shown.to_html(max_bytes=300_000).encode()) <= 300_000
    with pytest.raises(OptionError, match="too few: raise it, or shorten the text"):
        shown.to_html(max_bytes=50_000)
    with pytest.raises(OptionError, match="give a number of bytes"):
        shown.to_html(max_bytes="2M")


def test_hostile_tokens_stay_text(hostile, shown, data_of):
    page = hostile.to_html()
    plain, found = Outline(shown.to_html()), Outline(page)
    assert found.elements == [
        (tag, attrs) if tag != "meta" else (tag, found_attrs)
        for (tag, attrs), (_, found_attrs) in zip(plain.elements, found.elements, strict=True)
    ]
    data = data_of(page)
    assert data["tokens"] == list(hostile.tokens)
    assert "".join(piece for piece, _ in data["texts"][0]) == hostile.text
    assert data["labels"] == [["<b>NO</b>", 0.25], ["YES", 0.75]]
    assert page.count("<script") == page.count("</script>") == 2


def test_the_page_loads_nothing_and_runs_only_its_script(shown):
    page = shown.to_html()
    outline = Outline(page)
    addresses = [value for _, attrs in outline.elements for name, value in attrs.items() if name in ("src", "href")]
    assert addresses == ["data:,"]
    assert not re.search(r"url\(|@import|\bfetch\(|XMLHttpRequest|WebSocket|innerHTML|document\.write|\beval\(", page)
    (policy,) = [attrs["content"] for _, attrs in outline.elements if attrs.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none';")
    for kind, content in (("script", outline.inline["script"][-1]), ("style", outline.inline["style"][0])):
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy


def test_the_page_says_what_attention_is_not(shown):
    text = " ".join(shown.to_html().split())
    assert "not a measure of how much a word mattered" in text
    assert "Jain and Wallace 2019" in text and "Wiegreffe and Pinter 2019" in text


def test_a_notebook_shows_the_page_in_a_sandboxed_frame(shown):
    ((tag, attrs),) = Outline(shown._repr_html_()).elements
    assert (tag, attrs["sandbox"]) == ("iframe", "allow-scripts")
    assert attrs["srcdoc"] == shown.to_html()


def test_a_regression_shows_values(shown, data_of):
    import dataclasses

    value = dataclasses.replace(
        shown, problem_type="regression", probabilities={"LABEL_0": 3.2}, prediction={"label": "LABEL_0", "score": 3.2}
    )
    assert data_of(value.to_html())["regression"] is True


def test_without_effects_the_text_is_not_shaded(of_length, data_of):
    shown = of_length(20)
    assert data_of(shown.to_html())["texts"] == [[[shown.text, None]]]
