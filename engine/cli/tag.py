"""``fusedbert tag``: the entities of texts from the command line, or of lines from stdin as they arrive."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import click

from ..text.inputs import LongText, Window
from .classify import answered, one_line, read_batches
from .options import device_option, messages_on_stderr, precision_option, split_special_tokens_option

if TYPE_CHECKING:
    from ..tasks.tokens.entities import Entity

_STRATEGIES = ("none", "simple", "first", "average", "max")


@click.command()
@click.argument("texts", metavar="[TEXT]...", nargs=-1)
@click.option("-m", "--model", required=True, metavar="MODEL", help="Token classifier: artifact, checkpoint folder or hub id.")
@click.option(
    "--strategy",
    type=click.Choice(_STRATEGIES),
    default="simple",
    show_default=True,
    help="How tokens become entities, as aggregation_strategy of transformers' pipeline.",
)
@click.option("--ignore", multiple=True, metavar="LABEL", help="Label to leave out; repeatable.  [default: O]")
@device_option
@precision_option
@click.option("--max-length", type=click.IntRange(min=3), metavar="N", help="The most tokens of a text or window.")
@click.option(
    "--long-text",
    type=click.Choice([str(each) for each in LongText]),
    help="For longer texts: cut them, refuse them, or read all of them in windows.  [default: truncate]",
)
@click.option("--stride", type=click.IntRange(min=0), metavar="N", help="Read longer texts in windows that share N tokens.")
@split_special_tokens_option
@click.option(
    "--format", "form", type=click.Choice(["table", "jsonl"]), default="table", show_default=True, help="Format of the output."
)
@click.option("--json", "as_json", is_flag=True, help="Write one JSON document, a list with an object for each text.")
def tag(
    texts: tuple[str, ...],
    strategy: str,
    ignore: tuple[str, ...],
    long_text: str | None,
    stride: int | None,
    form: str,
    as_json: bool,
    **options: Any,
) -> None:
    """Find the entities of each TEXT, or without any, of each line of stdin (UTF-8) as it arrives.

    MODEL labels tokens (NER, PII). Characters are counted from 0, in the text as it was given.
    """
    if not texts and (sys.stdin is None or sys.stdin.isatty()):
        raise click.UsageError("no TEXT: give one or more, or pipe lines into stdin")
    if stride is not None and long_text not in (None, LongText.WINDOW):
        raise click.UsageError(f"--stride needs windows: give --long-text window, or leave out --long-text {long_text}")
    options["long_text"] = Window(stride=stride) if stride is not None else long_text or LongText.TRUNCATE
    with messages_on_stderr():
        from ..tasks.token_classifier import TokenClassifier

        batches: Iterable[list[str]] = [list(texts)] if texts else read_batches(sys.stdin.buffer)
        with TokenClassifier.from_pretrained(
            **options, aggregation_strategy=strategy, ignore_labels=ignore or ("O",)
        ) as tagger:
            answers = answered(batches, lambda batch: zip(batch, tagger(batch), strict=True), stdin=not texts)
            if as_json:
                found = [_object(*each) for answer in answers for each in answer]
                click.echo(json.dumps(found, ensure_ascii=False, indent=2).encode())
                return
            width = max(map(len, tagger.classes_))
            for answer in answers:
                lines = _lines(answer, width) if form == "table" else _jsonl(answer)
                click.echo("".join(f"{line}\n" for line in lines).encode(), nl=False)


def _object(text: str, entities: list[Entity]) -> dict[str, Any]:
    return {"text": text, "entities": entities}


def _jsonl(found: list[tuple[str, list[Entity]]]) -> Iterator[str]:
    for text, entities in found:
        yield json.dumps(_object(text, entities), ensure_ascii=False)


def _lines(found: list[tuple[str, list[Entity]]], width: int) -> Iterator[str]:
    """Yield each text, and below it its entities as they stand in it."""
    for text, entities in found:
        yield one_line(text)
        for entity in entities:
            start, end = entity["start"], entity["end"]
            name = entity.get("entity_group", entity.get("entity"))
            yield f"  {name:<{width}}  {entity['score']:.4f}  {start:>5} {end:>5}  {one_line(text[start:end])}"
