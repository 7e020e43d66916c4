"""``fusedbert bench checkpoint``: a model of a wanted size to measure with, where no checkpoint of that size is at hand."""

from __future__ import annotations

import shutil
from pathlib import Path

import click

from fusedbert.engine.errors import StorageError
from fusedbert.engine.load.resolve import embedded_checkpoint

from ..gpu_models import BASE, LARGE, SMALL, ModelShape, write_checkpoint

SHAPES: dict[str, ModelShape] = {"small": SMALL, "base": BASE, "large": LARGE}


@click.command(short_help="Write a checkpoint of BERT-base's size, with random weights.")
@click.argument("shape", type=click.Choice(list(SHAPES)))
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Replace FOLDER where it exists.")
def checkpoint(shape: str, folder: Path, force: bool) -> None:
    """Write a BERT with two labels and random weights into FOLDER, as transformers would save it.

    small has 6 layers of width 384, base 12 of 768, large 24 of 1024. Its answers mean nothing; how long they take is what a
    trained model of that size takes. The tokenizer is the embedded model's.
    """
    if folder.exists():
        if not force:
            raise StorageError(f"{folder} exists: give --force to replace it, or another folder")
        shutil.rmtree(folder)
    try:
        write_checkpoint(folder, SHAPES[shape], embedded_checkpoint())
    except OSError as error:
        raise StorageError(f"{folder} cannot be written ({error}): give another folder") from None
    click.echo(str(folder))
