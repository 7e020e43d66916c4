"""``fusedbert bench``: measurements from the command line. The measurements are imported when they are called."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import click

from fusedbert.engine.cli import LazyGroup
from fusedbert.engine.errors import StorageError

COMMANDS = {
    "latency": ("fusedbert.bench.latency.measure:latency", "Time the graph by shape, from token ids to logits."),
    "corpus": ("fusedbert.bench.corpus.measure:corpus", "Time a file of texts, from text to labels."),
    "rank": ("fusedbert.bench.latency.rank.measure:rank", "Time a query with its documents, from texts to their order."),
    "load": ("fusedbert.bench.load.command:load", "Find the rate of arrivals that a latency budget allows."),
    "startup": ("fusedbert.bench.startup.measure:startup", "Time a fresh process up to its first answer; memory and size."),
    "compare": ("fusedbert.bench.report.compare:compare", "Show what moved between two documents of --json."),
    "checkpoint": (
        "fusedbert.bench.cli:checkpoint",
        "Write a checkpoint of the size of BERT-base or ModernBERT-base, with random weights.",
    ),
    "setup": ("fusedbert.bench.cli:setup", "Build the environments of the engines to compare with."),
}


SIZES = (
    *("small", "base", "large"),
    *("modernbert-base", "modernbert-large"),
    *("deberta-v3-small", "deberta-v3-base", "deberta-v3-large"),
)


@click.command(cls=LazyGroup, entries=COMMANDS)
def bench() -> None:
    """Measure how fast a model runs on this machine, by itself or against other engines."""


@click.command()
@click.argument("size", metavar="SIZE", type=click.Choice(SIZES))
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Replace FOLDER if it exists.")
def checkpoint(size: str, folder: Path, force: bool) -> None:
    """Write a BERT, ModernBERT or DeBERTa with two labels and random weights into FOLDER, as transformers would save it.

    SIZE is small (6 layers of width 384), base (12 of 768) or large (24 of 1024), with the embedded model's tokenizer;
    modernbert-base (22 of 768) or modernbert-large (28 of 1024), with byte pairs made from its words, and [CLS] pooling;
    deberta-v3-small (6 of 768), deberta-v3-base (12 of 768) or deberta-v3-large (24 of 1024), with 128,000 pieces. The
    answers mean nothing; it takes the time that a trained model of that size takes.
    """
    from fusedbert.engine.load.resolve import embedded_checkpoint

    from ..engines.random import deberta, models, modernbert

    if folder.exists():
        if not force:
            raise StorageError(f"{folder} exists: give --force to replace it, or another folder")
        shutil.rmtree(folder)
    embedded, name = embedded_checkpoint(), size.upper().replace("-", "_")
    try:
        if size.startswith("modernbert"):
            modernbert.write_checkpoint(folder, getattr(modernbert, name), embedded / "vocab.txt")
        elif size.startswith("deberta"):
            deberta.write_checkpoint(folder, getattr(deberta, name), embedded / "vocab.txt")
        else:
            models.write_checkpoint(folder, getattr(models, name), embedded)
    except OSError as error:
        raise StorageError(f"{folder} cannot be written ({error}): give another folder") from None
    click.echo(str(folder))


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--again", is_flag=True, help="Rebuild an environment that exists.")
def setup(names: Sequence[str], again: bool) -> None:
    """Build the environments of others: transformers, optimum, openvino, ctranslate2, crossencoder, infinity, or all.

    For a CUDA machine there is optimum-cuda too, which all does not include.

    Each is a virtual environment with its own exact versions, 1 to 2 GB in the cache; an existing one is left as it is.
    FUSEDBERT_BENCH moves the folder.
    """
    from ..engines.environments import ENVIRONMENTS, environment_of, set_up

    wanted = list(dict.fromkeys(each for name in names for each in (ENVIRONMENTS if name == "all" else (name,))))
    for name in wanted:  # a wrong name is reported before anything is built
        environment_of(name)
    for name in wanted:
        python = set_up(name, lambda line: click.echo(line, err=True), again=again)
        click.echo(f"{name}  {python}")
