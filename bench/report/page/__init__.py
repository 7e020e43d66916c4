"""The report of a benchmark: its document, a page that stands alone, and its plots as SVG files."""

from .report import write_report

__all__ = ["write_report"]
