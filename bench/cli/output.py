"""The end of every benchmark: the document goes to stdout as a table or as JSON, and into the report's folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import click

from .options import Shared

INTERRUPTED, FAILED = 130, 1


def deliver(
    document: Mapping[str, Any], shared: Shared, render: Callable[[Mapping[str, Any]], str], *, interrupted: bool = False
) -> None:
    """Print a document, write its report where one is wanted, and leave with the status that fits.

    Args:
        document: What was measured.
        shared: The user's options.
        render: Writes the document as text.
        interrupted: Whether Ctrl-C ended the run; what there is so far is written all the same.

    Raises:
        StorageError: The report's folder cannot be written.
        click.exceptions.Exit: With status 130 where interrupted, 1 where none of ours was measured.
    """
    if shared.as_json:
        click.echo(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False))
    else:
        click.echo(render(document))
    if shared.report is not None:
        from ..report.page import write_report

        for path in write_report(document, shared.report):
            if path.suffix == ".html":
                click.echo(f"fusedbert: report in {path}", err=True)
    if interrupted:
        click.echo("fusedbert: interrupted, these are the results so far", err=True)
        raise click.exceptions.Exit(INTERRUPTED)
    ours = [each for each in document["contenders"] if each["engine"] == "fusedbert"]
    if ours and not any(each["status"] == "measured" for each in ours):
        raise click.exceptions.Exit(FAILED)
