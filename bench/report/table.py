"""A table of plain text: names to the left, figures to the right, a line under the head."""

from __future__ import annotations

from collections.abc import Sequence


def format_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Align columns, the first to the left and all others to the right.

    Args:
        head: Titles of the columns.
        rows: Cells, as many in each row as there are titles.

    Returns:
        Lines without a newline at the end.

    Example:
        >>> print(format_table(["shape", "p50"], [["1x16", "0.5"], ["8x128", "14.2"]]))
        shape   p50
        -----  ----
        1x16    0.5
        8x128  14.2
    """
    widths = [max(len(cell) for cell in column) for column in zip(head, *rows, strict=True)]
    lines = [head, ["-" * width for width in widths], *rows]
    return "\n".join(_line(cells, widths) for cells in lines)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *rest = (
        cell.ljust(width) if column == 0 else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return "  ".join([first, *rest]).rstrip()


def milliseconds(value: float) -> str:
    """Write a time with three digits or so: ``0.412``, ``8.31``, ``61.2``, ``433``."""
    digits = 3 if value < 1 else 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{digits}f}"
