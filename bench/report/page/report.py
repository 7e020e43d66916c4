"""Writing a report: the document itself, the page, and a file for each plot."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fusedbert.engine.cli.explain import write

from .document import storable
from .html import render
from .plots import figures


def write_report(document: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write ``results.json``, ``index.html`` and ``NAME.svg`` for each plot into a folder, which is made.

    Each file appears whole, by rename. Contenders that were not measured are listed with the reason and not drawn;
    figures that are missing or not finite are left out, and are ``null`` in ``results.json``.

    Args:
        document: What a benchmark gave: schema ``fusedbert.bench/2`` of any kind.
        folder: Where to write; files of the same names are replaced, others stay.

    Returns:
        The files, ``results.json`` first.

    Raises:
        StorageError: A file cannot be written; the message names it.

    Example:
        >>> paths = write_report(document, Path("report"))  # doctest: +SKIP
        >>> [path.name for path in paths]  # doctest: +SKIP
        ['results.json', 'index.html', 'latency.svg', 'ratio-fusedbert-int8.svg']
    """
    plain = storable(document)
    plots = figures(document)
    text = json.dumps(plain, indent=1, ensure_ascii=True, allow_nan=False) + "\n"
    files = {"results.json": text, "index.html": render(document, plots)}
    files |= {f"{plot.key}.svg": plot.standalone() + "\n" for plot in plots}
    written = []
    for name, content in files.items():
        write(folder / name, content.encode("utf-8"))
        written.append(folder / name)
    return written
