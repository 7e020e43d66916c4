"""``fusedbert explain``: how a model read one text, as a page or as JSON."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import click

from ..errors import StorageError
from .streams import messages_on_stderr

LONG = 500  # characters from which a run for each word takes seconds


@click.command()
@click.argument("text")
@click.option("-o", "--output", metavar="OUT.html", type=click.Path(path_type=Path), help="Where the page goes.")
@click.option("-m", "--model", metavar="MODEL", help="Artifact, checkpoint folder or hub id; left out: the embedded default.")
@click.option("--pair", metavar="TEXT", help="Second text of a sentence pair.")
@click.option("--json", "as_json", is_flag=True, help="Tokens, prediction, effects and weights as one JSON document.")
def explain(text: str, output: Path | None, model: str | None, pair: str | None, as_json: bool) -> None:
    """Show how TEXT was read: attention weights of every head, and which words the answer hangs on."""
    if output is None and not as_json:
        raise click.UsageError("no place for the page: give -o OUT.html, or --json")
    if output is not None and output.is_dir():
        raise click.UsageError(f"{output} is a folder: name the page, {output / 'page.html'} for example")
    with messages_on_stderr():
        from ..classifier import Classifier
        from ..load.resolve import resolve_model
        from ..options import Options

        # The same model for answer, weights and effects: of a checkpoint, one export for all three.
        folder = resolve_model(model, Options.parse(device="cpu"), "fp32", attentions=True)
        with Classifier.from_pretrained(folder, device="cpu", precision="fp32") as classifier:
            if len(text) + len(pair or "") > LONG:
                click.echo("reading the text, whole and without each of its words: this may take seconds", err=True)
            shown = classifier.attentions(text, pair)
    if output is not None:
        page = shown.to_html().encode()
        write(output, page)
        click.echo(f"wrote {output}, {len(page) / 1e6:.2f} MB", err=True)
    if as_json:
        click.echo(shown.to_json())
    else:
        click.echo(f"{shown.prediction['label']}  {shown.prediction['score']:.4f}")


def write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, parent folders made.

    Raises:
        StorageError: It cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:100]}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            Path(name).chmod(0o644)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror or error}") from None
