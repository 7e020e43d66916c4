"""The README's measurements are those of bench/results, and the tables say what the documents say."""

import json

import pytest
from click.testing import CliRunner

from fusedbert.bench.report.readme import main, rewrite, table
from fusedbert.bench.report.text import SCHEMA

HEAD = {
    "schema": SCHEMA,
    "command": ["fusedbert", "bench", "latency", "--against", "peer"],
    "started": "2026-03-01T10:00:00+00:00",
    "machine": {"cpu": "A CPU", "cores": 2},
    "model": {"name": "bert-base"},
    "settings": {"rounds": 9, "threads": 2},
}


def latency():
    contenders = [
        {"name": "ours", "title": "ours | int8", "status": "measured", "results": [{"shape": "1x16", "p50_ms": 4.2}]},
        {"name": "peer", "title": "peer int8", "status": "measured", "results": [{"shape": "1x16", "p50_ms": 6.1}]},
        {"name": "gone", "title": "gone", "status": "missing", "results": []},
    ]
    summary = [{"ours": "ours", "peer": "peer", "geometric_mean": 0.6885, "low": 0.6, "high": 0.7}]
    return {**HEAD, "kind": "latency", "contenders": contenders, "summary": summary}


@pytest.mark.parametrize("name", ["README.md", "docs/measurements.md"])
def test_the_tables_of_the_pages_follow_from_the_results(repository, name):
    page = (repository / name).read_text(encoding="utf-8")
    assert "<!-- bench:" in page
    assert rewrite(page, repository / "bench" / "results") == page, "run make readme"


def test_a_table_has_the_figures_and_the_command():
    lines = table(latency()).splitlines()
    assert lines[0] == "| p50, ms | 1x16 | ours / this engine |"
    assert lines[2:4] == ["| ours \\| int8 | 4.20 |  |", "| peer int8 | 6.10 | 0.69 |"]
    assert lines[-1] == "A CPU, 2 threads; bert-base; 9 rounds; 2026-03-01: `fusedbert bench latency --against peer`"
    assert not any("gone" in line for line in lines)


def test_the_other_kinds_have_tables_too():
    def of(kind, **contender):
        named = {"name": "ours", "title": "ours", "status": "measured", "results": [], **contender}
        return table({**HEAD, "kind": kind, "contenders": [named]})

    result = {"corpus": "dev.tsv", "texts_per_second": 300.4, "p50_ms": 4.2, "p99_ms": None, "accuracy": 0.9037}
    assert "| ours | dev.tsv | 300 | 4.20 |  | 90.4% |" in of("corpus", results=[result])
    assert "| ours batcher | 80 |" in of("load", capacity={"plain": 40.0, "batcher": 80.0})
    assert "| ours | 0.21 | 92 | 218 |" in of("startup", results=[{"total_s": 0.21, "peak_mb": 92.4, "installed_mb": 218}])


@pytest.fixture
def page(tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "base.json").write_text(json.dumps(latency()))
    file = tmp_path / "README.md"
    file.write_text("# A\n\n<!-- bench:base -->\n<!-- /bench:base -->\n\nEnd.\n")
    return file


def run(page, *arguments):
    return CliRunner().invoke(main, ["--page", str(page), "--results", str(page.parent / "results"), *arguments])


def test_the_tables_are_written_between_their_markers_and_a_second_time_changes_nothing(page):
    assert run(page, "--check").exit_code == 1
    assert run(page).exit_code == 0
    written = page.read_text()
    assert written.startswith("# A\n\n<!-- bench:base -->\n| p50, ms |")
    assert written.endswith("<!-- /bench:base -->\n\nEnd.\n")
    assert run(page, "--check").exit_code == 0
    run(page)
    assert page.read_text() == written


def test_a_figure_typed_by_hand_is_detected(page):
    run(page)
    page.write_text(page.read_text().replace("6.10", "9.99"))
    assert "run make readme" in run(page, "--check").output


def test_a_marker_without_a_result_or_with_another_schema_is_an_error(page):
    (page.parent / "results" / "base.json").write_text("{}")
    assert "schema" in run(page).output
    (page.parent / "results" / "base.json").unlink()
    assert run(page).exit_code == 1


def test_a_page_without_markers_needs_no_results(tmp_path):
    assert rewrite("# A page\n", tmp_path / "nowhere") == "# A page\n"
