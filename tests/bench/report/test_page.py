"""The report's files are complete, well formed, and safe for any names in the document."""

import functools
import html.parser
import importlib.util
import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import documents
import pytest
from click.testing import CliRunner

from fusedbert.bench.cli import bench
from fusedbert.bench.report.page import write_report
from fusedbert.bench.report.svg import clean
from fusedbert.bench.report.text import number
from fusedbert.engine.errors import InputError, MissingDependencyError, StorageError

SVG = "{http://www.w3.org/2000/svg}"
KINDS = {name: functools.partial(getattr(documents, name), documents.FEW) for name in ("latency", "corpus", "load", "startup")}


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
        root = ET.fromstring(path.read_text(encoding="utf-8"))
        assert root.tag == f"{SVG}svg" and root.get("role") == "img"
        named = {each.get("id"): each for each in root.iter() if each.get("id")}
        assert all(named[ident].text for ident in root.get("aria-labelledby", "").split())
    page = written[1].read_text(encoding="utf-8")
    drawings = re.findall(r"<svg.*?</svg>", page, re.S)
    assert len(drawings) == len(written[2:])
    for drawing in drawings:
        ET.fromstring(drawing)
    idents = re.findall(r' id="([^"]+)"', page)
    assert len(idents) == len(set(idents))
    assert set(re.findall(r'(?:url\(|href=")#([^")]+)', page)) <= set(idents)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_document_gives_the_same_bytes(report, kind):
    first = {path.name: path.read_bytes() for path in report(KINDS[kind]()).iterdir()}
    assert {path.name: path.read_bytes() for path in report(KINDS[kind]()).iterdir()} == first


def test_figures_are_text_in_the_plots(report):
    document = KINDS["latency"]()
    texts = set(ET.fromstring((report(document) / "latency.svg").read_text(encoding="utf-8")).itertext())
    assert {each["name"] for each in document["contenders"][:-3]} <= texts
    assert {number(result["p50_ms"]) for each in document["contenders"] for result in each["results"]} <= texts


@pytest.mark.parametrize("kind", KINDS)
def test_results_are_the_document(report, kind):
    document = KINDS[kind]()
    assert json.loads((report(document) / "results.json").read_text(encoding="utf-8")) == document


class Reader(html.parser.HTMLParser):
    """A page as a browser reads it: elements with their attributes, the text, the cells of tables."""

    def __init__(self, path):
        super().__init__()
        self.elements, self.text, self.cells = [], [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)

    def handle_data(self, data):
        self.text.append(data)
        if self.elements and self.elements[-1][0] in ("td", "th", "span"):
            self.cells.append(data)


def test_every_plot_has_its_numbers_as_a_table(report):
    document = KINDS["latency"]()
    reader = Reader(report(document) / "index.html")
    assert sum(tag == "figure" for tag, _ in reader.elements) == sum(tag == "details" for tag, _ in reader.elements) == 5
    for contender in document["contenders"]:
        for result in contender["results"]:
            wanted = {number(result[name]) for name in ("p50_ms", "p90_ms", "p99_ms", "sequences_per_second")}
            assert wanted <= set(reader.cells)
    for ratio in document["ratios"]:
        assert {number(ratio["median"]), number(ratio["low"]), number(ratio["high"])} <= set(reader.cells)


def test_engines_that_were_not_measured_are_listed_with_the_reason(report):
    document = KINDS["latency"]()
    reader = Reader(report(document) / "index.html")
    for contender in document["contenders"][-3:]:
        assert {contender["name"], contender["status"]} <= set(reader.cells)
        assert any(contender["why"] in text for text in reader.text)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_fetched_and_nothing_is_styled_inline(report, kind):
    folder = report(documents.hostile(kind))
    for path in folder.iterdir():
        if path.suffix == ".json":
            continue
        text = path.read_text(encoding="utf-8").replace('xmlns="http://www.w3.org/2000/svg"', "")
        assert "://" not in text and "@import" not in text and "url(" not in text.replace("url(#", "")
        for tag, attributes in Reader(path).elements:
            assert tag not in ("script", "img", "iframe", "object", "embed", "image")
            assert not {"src", "style", "srcset", "xlink:href"} & set(attributes)
            assert not any(name.startswith("on") for name in attributes)
            link = attributes.get("href")
            assert link in (None, "data:,") or link.startswith("#") or (folder / link).is_file()


@pytest.mark.parametrize("kind", KINDS)
def test_hostile_names_are_only_text(report, kind):
    document = documents.hostile(kind)
    folder = report(document)
    for path in folder.glob("*.svg"):
        assert re.fullmatch(r"[a-z0-9-]+\.svg", path.name)
        ET.fromstring(path.read_text(encoding="utf-8"))
    reader = Reader(folder / "index.html")
    assert any(clean(documents.HOSTILE) in text for text in reader.text)
    everything = "".join(reader.text)
    assert not set("\u202e\x00\ud800") & set(everything)
    assert not {"nan", "inf", "None"} & set(re.findall(r"\w+", everything))
    stored = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert stored["contenders"][1]["name"] == documents.HOSTILE


def test_a_single_engine_has_no_ratios(report):
    folder = report(documents.latency(("fusedbert-int8",), others=False))
    assert not list(folder.glob("ratio*"))
    assert "Summary" not in (folder / "index.html").read_text(encoding="utf-8")
    assert (folder / "latency.svg").is_file()


@pytest.mark.parametrize("kind", KINDS)
def test_a_document_without_figures_still_has_a_page(report, kind):
    document = {**KINDS[kind](), "contenders": list(documents.not_measured()), "ratios": [], "summary": []}
    folder = report(document)
    assert sorted(path.name for path in folder.iterdir()) == ["index.html", "results.json"]
    assert "No engine has figures" in (folder / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({}, "has the schema None, expected 'fusedbert.bench/2'"),
        ({**documents.startup(), "schema": "fusedbert.bench/1"}, "has the schema 'fusedbert.bench/1'"),
        ({**documents.startup(), "kind": "another"}, "has the kind 'another'"),
    ],
)
def test_another_document_is_refused_in_one_line(tmp_path, document, says):
    with pytest.raises(InputError, match=re.escape(says)) as caught:
        write_report(document, tmp_path / "report")
    assert "\n" not in str(caught.value) and not (tmp_path / "report").exists()


def test_without_matplotlib_the_command_that_installs_it_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r'matplotlib is needed .*pip install "fusedbert\[bench\]"'):
        write_report(KINDS["startup"](), tmp_path)


def test_a_command_with_a_report_checks_for_matplotlib_before_it_measures(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    done = CliRunner().invoke(bench, ["latency", "--shapes", "1x16", "--report", str(tmp_path / "report")])
    assert isinstance(done.exception, MissingDependencyError) and done.stdout == ""


def test_the_users_matplotlib_settings_change_nothing(report, tmp_path):
    """A matplotlibrc of other settings in the working folder, no display, and a home that cannot be written."""
    (tmp_path / "matplotlibrc").write_text("font.size: 30\nbackend: TkAgg\nno.such.setting: 1\nsvg.fonttype: path\n")
    folder = report(KINDS["startup"]())
    before = (folder / "startup.svg").read_bytes()
    environment = {"PATH": os.environ["PATH"], "HOME": "/proc/none", "MPLCONFIGDIR": "/proc/none"}
    code = "import json; from pathlib import Path; from fusedbert.bench.report.page import write_report; "
    code += "write_report(json.loads(Path('report/results.json').read_text()), Path('again'))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("", "")
    assert (tmp_path / "again" / "startup.svg").read_bytes() == before


def test_a_file_is_written_whole_or_not_at_all(report, tmp_path, monkeypatch):
    folder = report(KINDS["latency"]())
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(StorageError, match=r"results\.json cannot be written: No space left"):
        report(KINDS["startup"]())
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_folder_that_cannot_be_created_is_named(tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(StorageError, match=r"taken.* cannot be written"):
        write_report(KINDS["startup"](), tmp_path / "taken")
