"""``fusedbert rank``: the documents of a file, the best for a query first."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

import click

from ..errors import OptionError
from .options import (
    device_option,
    long_text_options,
    messages_on_stderr,
    model_option,
    precision_option,
    read_long_text,
    split_special_tokens_option,
)

if TYPE_CHECKING:
    from ..tasks.classifier import Classifier
    from ..tasks.heads import MultiHeadClassifier

_DELAY = 2.0  # seconds until a bar appears


@click.command()
@click.argument("query")
@click.argument("file")
@model_option
@click.option("--top-k", type=click.IntRange(min=1), metavar="N", help="Show the N best documents.  [default: all]")
@click.option(
    "--rank-by", metavar="LABEL", help="Of a model with two labels: the one whose probability counts.  [default: the second]"
)
@click.option("--head", metavar="NAME", help="Of an artifact with several heads: the one to rank by.")
@click.option("--text-column", metavar="C", help="Column of the documents of a table.  [default: the only candidate]")
@click.option("--input-format", metavar="F", help="csv, tsv, txt, jsonl, json or parquet, if FILE's suffix does not name it.")
@click.option("--encoding", metavar="E", help="Encoding of FILE: latin-1, utf-16.  [default: UTF-8, or by its first bytes]")
@device_option
@precision_option
@long_text_options
@split_special_tokens_option
@click.option(
    "--format", "form", type=click.Choice(["table", "jsonl"]), default="table", show_default=True, help="Format of the output."
)
@click.option("--json", "as_json", is_flag=True, help="Write the query and its ranking as one JSON document.")
def rank(
    query: str,
    file: str,
    top_k: int | None,
    rank_by: str | None,
    head: str | None,
    text_column: str | None,
    input_format: str | None,
    encoding: str | None,
    form: str,
    as_json: bool,
    **options: Any,
) -> None:
    """Rank the documents of FILE for QUERY, the best first.

    FILE has a document a line, or is a table that `fusedbert score` reads; - stands for stdin. The number in front of a
    document is its place in FILE, counted from 0: corpus_id in JSON.
    """
    options["long_text"] = read_long_text(options)
    with messages_on_stderr():
        from ..scoring.formats.base import ReadOptions
        from ..scoring.inputs import read_texts
        from ..tasks.heads import load_classifier

        documents = read_texts(file, text_column, input_format, ReadOptions(encoding=encoding))
        with load_classifier(**options) as loaded:
            classifier = _with_head(loaded, head)
            with _bar(classifier, len(documents)):
                found = classifier.rank(query, documents, top_k, True, label=rank_by)
            digits = ".4f" if classifier.function_to_apply != "none" else ".7g"
    if as_json:
        lines = [json.dumps({"query": query, "documents": len(documents), "ranking": found}, indent=2, ensure_ascii=False)]
    elif form == "jsonl":
        lines = [json.dumps(each, ensure_ascii=False) for each in found]
    else:
        lines = list(_table(found, digits))
    click.echo("".join(f"{line}\n" for line in lines).encode(), nl=False)


def _with_head(classifier: Classifier | MultiHeadClassifier, name: str | None) -> Classifier:
    """Return the classifier of the named head; raise ``OptionError`` if that head is missing, or has to be named."""
    heads = getattr(classifier, "heads", {})
    if name in heads:
        return cast("Classifier", heads[name])
    if heads:
        raise OptionError(f"the artifact has the heads {', '.join(heads)}: give --head with one of them")
    if name is not None:
        raise OptionError("--head is for an artifact with several heads, and this model has one: leave it out")
    return cast("Classifier", classifier)


def _table(found: list[dict[str, Any]], digits: str) -> Iterator[str]:
    from .classify import one_line

    scores = [f"{each['score']:{digits}}" for each in found]
    numbers = [str(each["corpus_id"]) for each in found]
    wide, long = max(map(len, scores)), max(map(len, numbers))
    for each, score, number in zip(found, scores, numbers, strict=True):
        yield f"{score:>{wide}}  {number:>{long}}  {one_line(each['text'])}"


@contextlib.contextmanager
def _bar(classifier: Classifier, documents: int) -> Iterator[None]:
    """Show a bar on a terminal after two seconds."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield
        return
    from tqdm import tqdm

    with tqdm(total=documents, unit=" documents", dynamic_ncols=True, delay=_DELAY) as bar:
        forget = classifier.model.counters.observe(lambda batch: bar.update(min(batch.rows, documents - bar.n)))
        try:
            yield
        finally:
            forget()
