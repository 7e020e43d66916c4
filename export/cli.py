"""The command ``fusedbert export``."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from fusedbert.engine.artifact import MANIFEST, Evaluation, Manifest
from fusedbert.engine.errors import OptionError, shown
from fusedbert.engine.text.thresholds import threshold_option

from .checkpoint import ExportWarning
from .checkpoint.heads import check_names
from .exporter import ROUTES, export_checkpoint
from .metadata import counted, evaluated, measurements
from .variants import TARGETS


@click.command()
@click.argument("source")
@click.argument("output", type=click.Path(path_type=Path), required=False)
@click.option(
    "--head",
    "heads",
    multiple=True,
    metavar="NAME=CHECKPOINT",
    help="Another checkpoint on the same encoder, whose head runs in the same pass; may be repeated, and take SOURCE's place.",
)
@click.option("--for", "target", type=click.Choice(TARGETS), default="all", show_default=True, help="Which graphs to make.")
@click.option(
    "--via",
    type=click.Choice(ROUTES),
    default="direct",
    show_default=True,
    help="direct: fusedbert's graphs, for the families of BERT. optimum: any family that optimum exports.",
)
@click.option("--attentions", is_flag=True, help="Also make the graph with attention weights as outputs (see explain).")
@click.option("--opset", type=int, help="Operator set of the fp32 graph, 17 to 23, for older runtimes; default: 23.")
@click.option(
    "--calibrate",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Texts to fit the int8 graph to, one a line, or a table (csv, tsv, jsonl, ...); default: built-in texts.",
)
@click.option(
    "--evaluate",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Likewise, texts to measure the graphs on: labels kept, changes of probabilities, accuracy.",
)
@click.option("--text-column", metavar="C", help="Column of the texts in these tables.  [default: the only candidate]")
@click.option("--pair-column", metavar="C", help="Column of the second texts, for sentence pairs.")
@click.option("--label-column", metavar="C", help="Column of the right labels in the table of --evaluate, for its accuracy.")
@click.option(
    "--allow-tokenizer-difference",
    is_flag=True,
    help="Export even if the installed transformers tokenizes a text differently.",
)
@click.option(
    "--threshold",
    multiple=True,
    metavar="[LABEL=]P",
    help="Least probability of a label of a multi-label model, for all or for LABEL; may be repeated.  [default: 0.5]",
)
@click.option("--revision", help="Branch, tag or commit of a hub id.")
@click.option("--force", is_flag=True, help="Replace OUTPUT if it exists.")
@click.option("--json", "as_json", is_flag=True, help="Print the manifest as JSON.")
def export(
    source: str, output: Path | None, heads: tuple[str, ...], threshold: tuple[str, ...], as_json: bool, **options: Any
) -> None:
    """Convert SOURCE, a checkpoint folder or hub id, to the artifact OUTPUT.

    With --head for each classifier, SOURCE may be left out: export --head NAME=CHECKPOINT --head NAME=CHECKPOINT OUTPUT.
    """
    if output is None and not heads:
        raise click.UsageError("Missing argument 'OUTPUT'.")
    place, folder = (None, Path(source)) if output is None else (source, output)
    options["heads"] = named(heads)
    start = time.monotonic()

    def progress(step: str) -> None:
        click.echo(f"[{time.monotonic() - start:5.1f} s] {step}", err=True)

    with shown_warnings():
        thresholds = threshold_option(threshold)
        manifest = export_checkpoint(place, folder, progress=progress, threshold=thresholds, **options)
    progress(f"done: {folder}")
    click.echo(json.dumps(dataclasses.asdict(manifest), ensure_ascii=False) if as_json else table(manifest))


def named(heads: Sequence[str]) -> dict[str, str]:
    """Split ``NAME=CHECKPOINT``; raise ``OptionError`` if that is not its form, or a name is given twice."""
    parts = [head.partition("=") for head in heads]
    for name, sign, place in parts:
        if not (name and sign and place):
            raise OptionError(f"--head {shown(name + sign + place)}: give NAME=CHECKPOINT")
    check_names([name for name, _, _ in parts])
    return {name: place for name, _, place in parts}


@contextlib.contextmanager
def shown_warnings() -> Iterator[None]:
    """Print each of the exporter's warnings as one line on stderr."""
    with warnings.catch_warnings():
        default = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *place: Any, **named: Any) -> None:
            if issubclass(category, ExportWarning):
                click.echo(f"warning: {message}", err=True)
            else:
                default(message, category, *place, **named)

        warnings.simplefilter("always", ExportWarning)
        warnings.showwarning = show
        yield


def table(manifest: Manifest) -> str:
    """Return the graphs of an artifact as a table: size, nodes, fused attention, parity."""
    ordered = any(variant.parity.rank_correlation is not None for variant in manifest.variants)  # no labels to keep
    kept = "rank correlation" if ordered else "labels kept"
    head = ("graph", "for", "precision", "MB", "nodes", "fused", "max |dlogit|", kept)
    rows = [
        (
            variant.file,
            target,
            variant.precision,
            f"{sum(f['bytes'] for name, f in manifest.files.items() if name.startswith(variant.file)) / 1e6:.1f}",
            str(sum(variant.nodes.values())),
            str(variant.fused_attention),
            f"{parity.max_abs_logit:.1e}",
            f"{100 * parity.label_agreement:.1f} %" if not ordered else f"{parity.rank_correlation or 0.0:.4f}",
        )
        for variant, target, parity in measurements(manifest)
    ]
    lines = aligned((head, *rows))
    lines += evaluation_table(manifest)
    labels = "; ".join(f"{head.name + ': ' if head.name else ''}{', '.join(head.labels)}" for head in manifest.outputs)
    return "\n".join([*lines, f"manifest: {MANIFEST}, labels: {labels}"])


def evaluation_table(manifest: Manifest) -> list[str]:
    """Return lines with the figures on the user's texts, none if there were none."""
    found = evaluated(manifest)
    if not found:
        return []
    first = found[0][1]
    if first.parity.rank_correlation is None:
        head: tuple[str, ...] = ("labels kept", "mean |dp|", "max |dp|", "accuracy")
    else:
        head = ("rank correlation", "mean of spread", "max of spread", "accuracy")
    rows = [(file, *evaluation_cells(each)) for file, each in found]
    return [f"on {counted(manifest, first)} of {first.texts}, against the fp32 graph:", *aligned((("graph", *head), *rows))]


def evaluation_cells(evaluation: Evaluation) -> tuple[str, ...]:
    """Return a graph's figures on the user's texts as cells of the table."""
    parity, accuracy = evaluation.parity, evaluation.accuracy
    right = "" if accuracy is None else f"{100 * accuracy:.2f} %"
    if parity.rank_correlation is None:
        kept = f"{100 * parity.label_agreement:.2f} %"
        return kept, f"{parity.mean_abs_probability:.4f}", f"{parity.max_abs_probability:.4f}", right
    return f"{parity.rank_correlation:.4f}", f"{parity.mean_of_spread:.2%}", f"{parity.max_of_spread:.2%}", right


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows as lines with columns of one width each."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
