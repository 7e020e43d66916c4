"""``fusedbert explain``: attention weights and word effects of a text, as a page or JSON."""

from __future__ import annotations

from pathlib import Path

import click

from ..errors import OptionError
from .options import messages_on_stderr, model_option

LONG = 500  # characters; from here on, a run for each word takes seconds


@click.command()
@click.argument("text")
@click.option("-o", "--output", metavar="OUT.html", type=click.Path(path_type=Path), help="File for the page.")
@model_option
@click.option("--pair", metavar="TEXT", help="Second text of a sentence pair.")
@click.option("--json", "as_json", is_flag=True, help="Write tokens, prediction, effects and weights as one JSON document.")
def explain(text: str, output: Path | None, model: str | None, pair: str | None, as_json: bool) -> None:
    """Show the attention weights of every head for TEXT, and the effect of each word on the answer."""
    if output is None and not as_json:
        raise click.UsageError("no place for the page: give -o OUT.html, or --json")
    if output is not None and output.is_dir():
        raise click.UsageError(f"{output} is a folder: name the page, {output / 'page.html'} for example")
    with messages_on_stderr():
        from ..artifact.foreign import manifest_of
        from ..hardware.storage import write_whole
        from ..load import Options
        from ..load.resolve import resolve_model
        from ..tasks.classifier import Classifier

        # One export of a checkpoint for answer, weights and effects.
        folder = resolve_model(model, Options.parse(device="cpu"), "fp32", attentions=True)
        if manifest_of(folder).heads:
            raise OptionError(f"{folder} has several heads: explain the checkpoint of one of them")
        with Classifier.from_pretrained(folder, device="cpu", precision="fp32") as classifier:
            if len(text) + len(pair or "") > LONG:
                click.echo("running the text once for each word that is left out: this may take seconds", err=True)
            shown = classifier.attentions(text, pair)
    if output is not None:
        page = shown.to_html().encode()
        write_whole(output, page)
        click.echo(f"wrote {output}, {len(page) / 1e6:.2f} MB", err=True)
    if as_json:
        click.echo(shown.to_json())
    else:
        click.echo(f"{shown.prediction['label']}  {shown.prediction['score']:.4f}")
