"""The report of a benchmark: its document, a page that stands alone, and its plots as SVG files."""

from fusedbert.bench.page.report import write_report

__all__ = ["write_report"]
