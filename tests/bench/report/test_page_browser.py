"""The report in headless Chromium: drawn in both colour schemes and at every width, without a script, an error or a request.

Needs playwright (``make test-browser`` installs it) and the system's Chromium; skipped with the reason where one is
missing.
"""

import base64
import functools

import documents
import pytest
from pages import watched

from fusedbert.bench.report.page import write_report

pytestmark = pytest.mark.browser

DOCUMENTS = {
    "latency": documents.latency,
    "lengths": documents.lengths,
    "without peers": lambda: documents.latency(("fusedbert-int8",), others=False),
    "corpus": documents.corpus,
    "load": documents.load,
    "startup": documents.startup,
    "hostile": lambda: documents.hostile("latency"),
    "hostile corpus": lambda: documents.hostile("corpus"),
}
# Every plot with the boxes of what is in it; markers are `use` elements, bars are paths.
DRAWN = """() => [...document.querySelectorAll("svg.plot")].map(svg => {
  const box = element => { const b = element.getBoundingClientRect(); return [b.left, b.top, b.right, b.bottom]; };
  const texts = [...svg.querySelectorAll("text")];
  return {
    name: svg.querySelector("title").textContent, box: box(svg), window: box(svg.parentElement),
    scrolls: getComputedStyle(svg.parentElement).overflowX === "auto",
    marks: [...svg.querySelectorAll("use")].map(box), bars: svg.querySelectorAll("path[clip-path]:not([fill=none])").length,
    texts: texts.map(box), names: texts.map(text => text.textContent),
    size: Math.min(...texts.map(text => text.getBoundingClientRect().height)), ink: getComputedStyle(texts[0]).fill,
  };
})"""


@pytest.fixture
def visit(browser):
    """Return a context manager that opens a file, watched."""
    return functools.partial(watched, browser)


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """The report of every document."""
    folder = tmp_path_factory.mktemp("reports")
    for name, make in DOCUMENTS.items():
        write_report(make(), folder / name)
    return folder


def overlap(one, other):
    """Return how far two boxes overlap, in the direction with the smaller overlap."""
    return min(min(one[2], other[2]) - max(one[0], other[0]), min(one[3], other[3]) - max(one[1], other[1]))


@pytest.mark.parametrize("width", [1280, 880, 390])
@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_plot_is_drawn_inside_its_window(visit, reports, name, width):
    folder = reports / name
    with visit(folder / "index.html", width) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        plots = page.evaluate(DRAWN)
        assert len(plots) == len(list(folder.glob("*.svg")))
        for plot in plots:
            left, top, right, bottom = plot["box"]
            assert right - left > 700 and bottom - top > 60, plot["name"]
            assert plot["window"][0] >= 0 and plot["window"][2] <= width and plot["scrolls"]
            assert plot["marks"] or plot["bars"], plot["name"]
            for box in plot["marks"] + plot["texts"]:
                assert left - 1 <= box[0] and box[2] <= right + 1 and top - 1 <= box[1] and box[3] <= bottom + 1, plot["name"]
            assert plot["size"] > 10.5, plot["name"]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_no_text_lies_on_another(visit, reports, name):
    with visit(reports / name / "index.html") as page:
        for plot in page.evaluate(DRAWN):
            texts = list(zip(plot["texts"], plot["names"], strict=True))
            for index, (one, first) in enumerate(texts):
                for other, second in texts[index + 1 :]:
                    assert overlap(one, other) < 2.5, (plot["name"], first, second)


@pytest.mark.parametrize("name", ["latency", "load"])
def test_the_page_follows_the_readers_colour_scheme(visit, reports, name):
    seen = {}
    for scheme in ("light", "dark"):
        with visit(reports / name / "index.html", scheme=scheme) as page:
            paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
            card = page.evaluate("getComputedStyle(document.querySelector('.drawing')).backgroundColor")
            mark = page.evaluate("getComputedStyle(document.querySelector('svg use[stroke=currentColor]')).stroke")
            seen[scheme] = (paper, card, page.evaluate(DRAWN)[0]["ink"], mark)
    assert all(light != dark for light, dark in zip(seen["light"], seen["dark"], strict=True))

    def brightness(colour):
        return sum(map(int, colour.strip("rgb()").split(",")[:3]))

    assert brightness(seen["light"][0]) > 700 > 300 > brightness(seen["light"][2])
    assert brightness(seen["dark"][0]) < 100 < 500 < brightness(seen["dark"][2])


def test_the_page_needs_no_script(browser, reports):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((reports / "latency" / "index.html").as_uri())
    assert page.locator("svg.plot").first.is_visible()
    assert page.locator("script").count() == 0
    details = page.locator("details").first
    assert not details.locator("table").is_visible()
    details.locator("summary").click()
    assert details.locator("table").is_visible()
    context.close()


def test_hostile_names_are_shown_as_text(visit, reports):
    with visit(reports / "hostile" / "index.html") as page:
        assert page.locator("script, img").count() == 0
        assert '<script>alert("x")</script>&⟨U+202E⟩⟨U+0000⟩' in page.locator("main").inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_files_are_complete_pictures(browser, reports, scheme):
    paths = [path for name in ("latency", "load", "hostile") for path in sorted((reports / name).glob("*.svg"))]
    pictures = (base64.b64encode(path.read_bytes()).decode("ascii") for path in paths)
    page = browser.new_page(color_scheme=scheme)
    page.set_content("".join(f'<img src="data:image/svg+xml;base64,{picture}">' for picture in pictures), wait_until="load")
    margins = page.evaluate(
        """() => [...document.images].map(image => {
          const canvas = document.createElement("canvas");
          canvas.width = image.naturalWidth;
          canvas.height = image.naturalHeight;
          const pen = canvas.getContext("2d", { willReadFrequently: true });
          pen.drawImage(image, 0, 0);
          return [image.naturalWidth, ...pen.getImageData(2, 2, 1, 1).data];
        })"""
    )
    assert len(margins) == len(paths)
    for width, *colour, opacity in margins:
        assert (width, opacity) == (920, 255)
        assert sum(colour) > 700 if scheme == "light" else sum(colour) < 150
    page.close()
