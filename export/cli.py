"""``fusedbert export``: a checkpoint in, an artifact out, each step told as it begins."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import click

from fusedbert.engine.artifact import MANIFEST, Manifest

from .exporter import ROUTES, export_checkpoint
from .targets import TARGETS
from .variants import ExportWarning


@click.command()
@click.argument("source")
@click.argument("output", type=click.Path(path_type=Path))
@click.option("--for", "target", type=click.Choice(TARGETS), default="all", show_default=True, help="Which graphs to make.")
@click.option(
    "--via",
    type=click.Choice(ROUTES),
    default="direct",
    show_default=True,
    help="direct: our own graphs, for BERT's family. optimum: whatever optimum exports.",
)
@click.option("--attentions", is_flag=True, help="Also make the graph that shows its attention weights (see explain).")
@click.option("--opset", type=int, help="Operator set of the fp32 graph, 17 to 23, for older runtimes; 23 where left out.")
@click.option(
    "--calibrate",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Texts, one a line, to fit the int8 graph to; there are built-in ones.",
)
@click.option(
    "--allow-tokenizer-difference",
    is_flag=True,
    help="Export even where transformers, which is installed, makes other tokens of a text.",
)
@click.option("--revision", help="Branch, tag or commit of a hub id.")
@click.option("--force", is_flag=True, help="Replace OUTPUT where it exists.")
@click.option("--json", "as_json", is_flag=True, help="Print the manifest as JSON.")
def export(
    source: str,
    output: Path,
    target: str,
    via: str,
    attentions: bool,
    opset: int | None,
    calibrate: Path | None,
    allow_tokenizer_difference: bool,
    revision: str | None,
    force: bool,
    as_json: bool,
) -> None:
    """Convert SOURCE, a checkpoint folder or hub id, to the artifact OUTPUT."""
    begun = time.monotonic()

    def tell(step: str) -> None:
        click.echo(f"[{time.monotonic() - begun:5.1f} s] {step}", err=True)

    with shown_warnings():
        manifest = export_checkpoint(
            source,
            output,
            target=target,
            via=via,
            attentions=attentions,
            opset=opset,
            calibrate=calibrate,
            revision=revision,
            force=force,
            progress=tell,
            allow_tokenizer_difference=allow_tokenizer_difference,
        )
    tell(f"done: {output}")
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(manifest), ensure_ascii=False))
    else:
        click.echo(table(manifest))


@contextlib.contextmanager
def shown_warnings() -> Iterator[None]:
    """Print each of the exporter's own warnings as one line on stderr."""
    with warnings.catch_warnings():
        usual = warnings.showwarning

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if issubclass(category, ExportWarning):
                click.echo(f"warning: {message}", err=True)
            else:
                usual(message, category, filename, lineno, file, line)

        warnings.simplefilter("always", ExportWarning)
        warnings.showwarning = show
        yield


def table(manifest: Manifest) -> str:
    """Return the graphs of an artifact as a table: size, nodes, fused attention, parity."""
    ordered = any(variant.parity.rank_correlation is not None for variant in manifest.variants)  # there are no labels to keep
    kept = "rank correlation" if ordered else "labels kept"
    head = ("graph", "for", "precision", "MB", "nodes", "fused", "max |dlogit|", kept)
    rows = [
        (
            variant.file,
            variant.target,
            variant.precision,
            f"{sum(f['bytes'] for name, f in manifest.files.items() if name.startswith(variant.file)) / 1e6:.1f}",
            str(sum(variant.nodes.values())),
            str(variant.fused_attention),
            f"{variant.parity.max_abs_logit:.1e}",
            f"{100 * variant.parity.label_agreement:.1f} %" if not ordered else f"{variant.parity.rank_correlation or 0.0:.4f}",
        )
        for variant in manifest.variants
    ]
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in (head, *rows)]
    return "\n".join([*lines, f"manifest: {MANIFEST}, labels: {', '.join(manifest.labels)}"])
