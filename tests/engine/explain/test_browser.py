"""The page in headless Chromium: every control, by pointer and by keyboard, without errors or requests.

Needs playwright (``make test-browser`` installs it) and the system's Chromium; skipped with the reason where one is
missing.
"""

import contextlib

import numpy as np
import pytest
from pages import watched

pytestmark = pytest.mark.browser

WIDTHS = (1280, 390)


@pytest.fixture
def visit(browser, tmp_path):
    """Return a context manager that opens a page, watched."""

    @contextlib.contextmanager
    def visiting(content, width=1280, scheme="light"):
        path = tmp_path / "page.html"
        path.write_text(content, encoding="utf-8")
        with watched(browser, path, width=width, scheme=scheme) as page:
            page.wait_for_selector("html[data-ready=yes]", timeout=20_000)
            page.wait_for_selector("#grid[data-done=yes]", timeout=20_000)
            yield page

    return visiting


def lines(page):
    return page.locator("#lines path").count()


def tokens(page, column):
    return page.locator(f"#{column} .token").all_text_contents()


def focused(page):
    return page.evaluate("document.activeElement.id || document.activeElement.className || document.activeElement.tagName")


@pytest.mark.parametrize("width", WIDTHS)
def test_every_page_fits_its_window(visit, shown, pair, hostile, of_length, width):
    for each in (shown, pair, hostile, of_length(128)):
        with visit(each.to_html(), width) as page:
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert page.locator("#queries .token").count() == len(each.tokens)


def test_a_layer_and_a_head_can_be_picked(visit, shown):
    with visit(shown.to_html()) as page:
        before = page.locator("#lines").inner_html()
        page.select_option("#layer", "2")
        page.select_option("#head", "9")
        assert "layer 2, head 9" in page.locator("#worked h3").inner_text()
        assert page.locator("#lines").inner_html() != before
        assert page.locator("#grid button.chosen").get_attribute("aria-label") == "Layer 2, head 9"


def test_hovering_a_token_shows_its_numbers(visit, shown):
    query, layer, head = shown.tokens.index("loved"), 1, 3
    with visit(shown.to_html()) as page:
        page.select_option("#layer", str(layer + 1))
        page.select_option("#head", str(head + 1))
        page.locator("#queries .token").nth(query).hover()
        expected = shown.weights[layer, head, query]
        assert lines(page) == int((expected >= 0.1).sum())
        assert "of loved as a query" in page.locator("#drawn").inner_text()
        page.get_by_role("button", name="Show all").click()
        page.locator("#queries .token").nth(query).hover()
        rows = [row.locator("td").all_inner_texts() for row in page.locator("#worked tr").all()[1:-1]]
        order = np.argsort(-expected)
        assert len(rows) == len(expected)
        scores = shown.scores(layer, head)[query]
        for key, (_, raw, scaled, power, weight) in zip(order, rows, strict=True):
            number = [float(text.replace("−", "-")) for text in (raw, scaled, power)]
            assert number[0] == pytest.approx(scores[key], abs=0.011)
            assert number[1] == pytest.approx(scores[key] / np.sqrt(32), abs=0.0062)
            assert number[2] == pytest.approx(np.exp((scores[key] - scores[order[0]]) / np.sqrt(32)), abs=0.0012)
            assert float(weight.strip("< %")) == pytest.approx(100 * expected[key], abs=0.6 if expected[key] > 0.099 else 0.11)
        page.locator("h1, h2").first.hover()
        assert "of this head" in page.locator("#drawn").inner_text()


def test_hovering_a_key_shows_who_attends_to_it(visit, shown):
    with visit(shown.to_html()) as page:
        page.locator("#keys .token").nth(3).hover()
        assert lines(page) == int((shown.weights[0, 0, :, 3] >= 0.1).sum())
        assert "as a key" in page.locator("#drawn").inner_text()


def test_a_click_pins_a_token_and_another_releases_it(visit, shown):
    with visit(shown.to_html()) as page:
        token = page.locator("#queries .token").nth(2)
        token.click()
        page.locator("#heads-title").hover()
        assert "of didn as a query" in page.locator("#drawn").inner_text()
        token.click()
        page.locator("#heads-title").hover()
        assert "of this head" in page.locator("#drawn").inner_text()


def test_the_threshold_hides_small_weights(visit, shown):
    with visit(shown.to_html()) as page:
        for value in (0, 0.25, 0.5):
            page.locator("#threshold").fill(str(value))
            assert lines(page) == int((shown.weights[0, 0] >= value).sum())
        assert page.locator("#least").inner_text() == "50 %"


def test_special_tokens_are_hidden(visit, pair):
    with visit(pair.to_html()) as page:
        page.locator("#hide").check()
        words = [token for token, segment in zip(pair.tokens, pair.segments, strict=True) if segment is not None]
        assert tokens(page, "queries") == tokens(page, "keys") == words
        page.locator("#hide").uncheck()
        assert tokens(page, "queries") == list(pair.tokens)


def test_sentences_are_filtered(visit, pair, shown):
    first, second = ([token for token, segment in zip(pair.tokens, pair.segments, strict=True) if segment == s] for s in (0, 1))
    with visit(pair.to_html()) as page:
        for value, queries, keys in (
            ("01", first, second),
            ("10", second, first),
            ("00", first, first),
            ("11", second, second),
        ):
            page.select_option("#filter", value)
            assert (tokens(page, "queries"), tokens(page, "keys")) == (queries, keys)
        page.locator("#threshold").fill("0")
        assert lines(page) == len(second) ** 2
    with visit(shown.to_html()) as page:
        assert not page.locator("#filter").is_visible()


def test_words_show_their_effect(visit, shown):
    (effect,) = [effect for effect in shown.effects if effect.word == "fantastic"]
    with visit(shown.to_html()) as page:
        page.locator("#text .word", has_text="fantastic").hover()
        points = f"{abs(100 * effect.change):.1f}"
        assert page.locator("#effect").inner_text() == f"Without “fantastic”, POSITIVE changes by −{points} points."
        page.keyboard.press("Tab")  # theme
        page.keyboard.press("Tab")  # the first word
        page.keyboard.press("ArrowRight")
        assert page.locator("#effect").inner_text().startswith("Without “didn't”")


def test_the_theme_follows_the_system_until_it_is_chosen(visit, shown):
    background = "getComputedStyle(document.body).backgroundColor"
    for scheme, other in (("dark", "light"), ("light", "dark")):
        with visit(shown.to_html(), scheme=scheme) as page:
            theme = page.locator("html")
            assert theme.get_attribute("data-theme") == scheme
            before = page.evaluate(background)
            page.locator("#theme").click()
            assert theme.get_attribute("data-theme") == other
            assert page.evaluate(background) != before
            page.emulate_media(color_scheme=other)
            page.emulate_media(color_scheme=scheme)
            assert theme.get_attribute("data-theme") == other


def test_the_keyboard_reaches_everything(visit, pair):
    with visit(pair.to_html()) as page:
        page.locator("#queries .token").first.wait_for()
        stops = []
        while not stops or focused(page) != "BODY":
            page.keyboard.press("Tab")
            stops.append(focused(page))
            assert len(stops) < 30
        wanted = [
            "theme",
            "word",
            "layer",
            "head",
            "threshold",
            "filter",
            "hide",
            "token special",
            "token special",
            "scroll",
            "more",
        ]
        assert [stop.replace(" active", "").replace(" query", "") for stop in stops][: len(wanted)] == wanted
        assert any("chosen" in stop or stop == "BUTTON" for stop in stops[len(wanted) :])


def test_arrow_keys_move_over_tokens_and_pin_them(visit, shown):
    with visit(shown.to_html()) as page:
        page.locator("#hide").focus()
        page.keyboard.press("Tab")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowDown")
        drawn = page.locator("#drawn")
        assert "of didn as a query" in drawn.inner_text()
        page.keyboard.press("ArrowRight")
        assert "of didn as a key" in drawn.inner_text()
        page.keyboard.press("Enter")
        assert page.locator("#keys .token.pinned").inner_text() == "didn"
        page.keyboard.press("End")
        assert "of [SEP] as a key" in drawn.inner_text()
        page.keyboard.press("Escape")
        assert page.locator(".token.pinned").count() == 0


def test_a_map_can_be_enlarged_and_opened(visit, shown):
    with visit(shown.to_html()) as page:
        page.locator("#grid button").nth(12 + 8).click()
        assert page.locator("#large-title").inner_text() == "Layer 2, head 9"
        box = page.locator("#map").bounding_box()
        n = len(shown.tokens)
        page.mouse.move(box["x"] + box["width"] * 3.5 / n, box["y"] + box["height"] * 2.5 / n)
        weight = 100 * shown.weights[1, 8, 2, 3]
        found = page.locator("#cell").inner_text()
        assert found.startswith("From didn to ': ")
        assert float(found.split(": ")[1].strip("< %")) == pytest.approx(weight, abs=0.6)
        page.locator("#map").focus()
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowRight")
        assert page.locator("#cell").inner_text().startswith("From ' to t: ")
        page.locator("#open").click()
        assert not page.locator("#large").is_visible()
        assert "layer 2, head 9" in page.locator("#worked h3").inner_text()
        page.locator("#grid button").first.focus()
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        assert page.locator("#large-title").inner_text() == "Layer 2, head 1"
        page.keyboard.press("Escape")
        assert not page.locator("#large").is_visible()
        page.locator("#grid button").last.click()
        page.locator("#close").click()
        assert not page.locator("#large").is_visible()


def test_hostile_tokens_are_shown_as_text(visit, hostile):
    with visit(hostile.to_html()) as page:
        found = tokens(page, "queries")
        for plain in (
            "<script>alert(1)</script>",
            "</script><img src=x onerror=alert(1)>",
            "مرحبا",
            "👨\u200d👩\u200d👧",
            "&amp;",
        ):
            assert plain in found
        assert {"⟨U+202E⟩evil", "⟨empty⟩", "◌\u0301", "{{data}}", "<!--"} <= set(found)
        assert all(token.strip() for token in found)
        assert page.locator("img").count() == 0
        assert page.locator("script").count() == 2
        for i in range(len(found)):
            page.locator("#queries .token").nth(i).hover()
        assert "<b>NO</b>" in page.locator("#verdict").inner_text()
        assert "\u202e" not in page.locator("#text").inner_text()


def test_512_tokens_stay_usable(visit, of_length):
    shown = of_length(512)
    with visit(shown.to_html()) as page:
        assert page.locator("#queries .token").count() == 512
        assert lines(page) == 1500 and "the 1500 heaviest drawn" in page.locator("#drawn").inner_text()
        assert "leaves out weights" in page.locator("#kept").inner_text()
        seconds = page.evaluate(
            "() => { const start = performance.now(); chooseHead(1, 3); return (performance.now() - start) / 1000; }"
        )
        assert seconds < 2
        page.locator("#queries .token").nth(300).hover()
        assert 0 < lines(page) < 512
        assert page.evaluate("document.documentElement.scrollHeight") < 6000


def test_the_page_runs_in_a_notebooks_frame(visit, shown, browser, tmp_path):
    path = tmp_path / "notebook.html"
    path.write_text(f"<!doctype html><meta charset=utf-8>{shown._repr_html_()}", encoding="utf-8")
    page = browser.new_page()
    wrong = []
    page.on("console", lambda message: wrong.append(message.text))
    page.goto(path.as_uri())
    frame = page.frame_locator("iframe")
    frame.locator("html[data-ready=yes]").wait_for(timeout=20_000)
    frame.locator("#theme").click()
    assert frame.locator("#queries .token").count() == len(shown.tokens)
    assert wrong == []
    page.close()
