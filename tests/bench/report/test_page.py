"""The report's files: whole, well formed, complete, and safe whatever the document holds."""

import html.parser
import importlib.util
import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from fusedbert.bench.report.page import write_report
from fusedbert.bench.report.page.scale import figure
from fusedbert.bench.report.page.svg import clean
from fusedbert.engine.errors import StorageError


def load(name):
    """Import a module that stands beside this one."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


documents = load("documents")
plotted = load("plotted")
KINDS = {"latency": documents.latency, "corpus": documents.corpus, "load": documents.load, "startup": documents.startup}


@pytest.fixture
def report(tmp_path):
    """Write a document's report; return the folder."""

    def make(document):
        write_report(document, tmp_path / "report")
        return tmp_path / "report"

    return make


@pytest.mark.parametrize("kind", KINDS)
def test_the_files_are_named_and_well_formed(report, tmp_path, kind):
    written = write_report(KINDS[kind](), tmp_path / "report")
    assert [path.name for path in written[:2]] == ["results.json", "index.html"]
    assert len(written) > 2 and all(path.suffix == ".svg" for path in written[2:])
    assert sorted(written) == sorted((tmp_path / "report").iterdir())
    for path in written[2:]:
        root = plotted.parse(path)
        assert root.tag == f"{plotted.SVG}svg" and root.get("role") == "img"
        named = {each.get("id"): each for each in root.iter() if each.get("id")}
        assert all(named[ident].text for ident in root.get("aria-labelledby").split())
    page = written[1].read_text(encoding="utf-8")
    drawings = re.findall(r"<svg.*?</svg>", page, re.S)
    assert len(drawings) == 2 * len(written[2:])  # one for wide windows, one for narrow
    for drawing in drawings:
        ET.fromstring(drawing)
    idents = re.findall(r' id="([^"]+)"', page)
    assert len(idents) == len(set(idents))


@pytest.mark.parametrize("kind", KINDS)
def test_results_are_the_document(report, kind):
    document = KINDS[kind]()
    assert json.loads((report(document) / "results.json").read_text(encoding="utf-8")) == document


class Reader(html.parser.HTMLParser):
    """What a browser would make of the page: its elements with their attributes, its text, its tables' cells."""

    def __init__(self, path):
        super().__init__()
        self.elements, self.text, self.cells = [], [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)

    def handle_data(self, data):
        self.text.append(data)
        if self.elements and self.elements[-1][0] in ("td", "th", "span"):
            self.cells.append(data)


def test_every_plot_has_its_numbers_as_a_table(report):
    document = documents.latency()
    reader = Reader(report(document) / "index.html")
    assert sum(tag == "figure" for tag, _ in reader.elements) == sum(tag == "details" for tag, _ in reader.elements) == 6
    for contender in document["contenders"]:
        for result in contender["results"]:
            wanted = {figure(result[name]) for name in ("p50_ms", "p90_ms", "p99_ms", "sequences_per_second")}
            assert wanted <= set(reader.cells)
    for ratio in document["ratios"]:
        assert {figure(ratio["median"]), figure(ratio["low"]), figure(ratio["high"])} <= set(reader.cells)


def test_what_was_not_measured_is_listed_with_its_reason(report):
    document = documents.latency()
    reader = Reader(report(document) / "index.html")
    for contender in document["contenders"][-3:]:
        assert {contender["name"], contender["status"]} <= set(reader.cells)
        assert any(contender["why"] in text for text in reader.text)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_fetched(report, kind):
    folder = report(documents.broken(kind))
    for path in folder.iterdir():
        if path.suffix == ".json":
            continue
        text = path.read_text(encoding="utf-8").replace('xmlns="http://www.w3.org/2000/svg"', "")
        assert "://" not in text and "@import" not in text and "url(" not in text
        for tag, attributes in Reader(path).elements:
            assert tag not in ("script", "img", "iframe", "object", "embed", "use", "image")
            assert not {"src", "style", "srcset", "xlink:href"} & set(attributes)
            assert not any(name.startswith("on") for name in attributes)
            link = attributes.get("href")
            assert link in (None, "data:,") or (folder / link).is_file()


@pytest.mark.parametrize("kind", KINDS)
def test_hostile_names_and_holes_are_only_text(report, kind):
    document = documents.broken(kind)
    folder = report(document)
    for path in folder.glob("*.svg"):
        assert path.parent == folder and re.fullmatch(r"[a-z0-9-]+\.svg", path.name)
        plotted.parse(path)
    reader = Reader(folder / "index.html")
    assert any(clean(documents.HOSTILE) in text for text in reader.text)
    everything = "".join(reader.text)
    assert not set("\u202e\x00\ud800") & set(everything)
    assert "nan" not in re.findall(r"\w+", everything) and "inf" not in re.findall(r"\w+", everything)
    coordinates = " ".join(" ".join(map(str, attributes.values())) for tag, attributes in reader.elements if tag == "path")
    assert "nan" not in coordinates and "inf" not in coordinates

    def refuse(name):
        raise AssertionError(name)

    stored = json.loads((folder / "results.json").read_text(encoding="utf-8"), parse_constant=refuse)
    assert stored["contenders"][1]["name"] == documents.HOSTILE


def test_one_contender_alone_has_no_ratios(report):
    folder = report(documents.latency(("fusedbert-int8",), others=False))
    assert not list(folder.glob("ratio*"))
    assert "What was found" not in (folder / "index.html").read_text(encoding="utf-8")
    assert (folder / "latency.svg").is_file()


@pytest.mark.parametrize("kind", [*KINDS, "another"])
def test_an_empty_document_still_has_a_page(report, kind):
    folder = report({"kind": kind, "contenders": list(documents.not_measured())})
    assert sorted(path.name for path in folder.iterdir()) == ["index.html", "results.json"]
    assert "No contender has figures" in (folder / "index.html").read_text(encoding="utf-8")
    assert report({})


def test_a_file_is_written_whole_or_not_at_all(report, tmp_path, monkeypatch):
    folder = report(documents.latency())
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(StorageError, match=r"results\.json cannot be written: No space left"):
        report(documents.lengths())
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(StorageError, match=r"taken.* cannot be written"):
        write_report(documents.startup(), tmp_path / "taken")
