"""``fusedbert classify``: texts from the command line, or lines from stdin as they arrive."""

from __future__ import annotations

import functools
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import click

from ..errors import InputError, OptionError
from .options import (
    device_option,
    long_text_options,
    messages_on_stderr,
    model_option,
    precision_option,
    read_long_text,
    split_special_tokens_option,
    zero_shot_options,
)

if TYPE_CHECKING:
    from ..tasks.classifier import Classifier
    from ..tasks.heads import MultiHeadClassifier

T = TypeVar("T")
_DELAY = 2.0  # seconds until a bar appears
_BLOCK = 1 << 16  # bytes
_BATCH = 256  # lines
_WIDTH = 100  # characters of a text in a table


@click.command()
@click.argument("texts", metavar="[TEXT]...", nargs=-1)
@model_option
@click.option("--pair", metavar="TEXT", help="Second text of a sentence pair, for each TEXT.")
@click.option("--top-k", type=click.IntRange(min=1), metavar="N", help="Number of labels to show for each text.")
@zero_shot_options
@device_option
@precision_option
@long_text_options
@split_special_tokens_option
@click.option(
    "--format", "form", type=click.Choice(["table", "jsonl"]), default="table", show_default=True, help="Format of the output."
)
def classify(
    texts: tuple[str, ...],
    pair: str | None,
    top_k: int | None,
    form: str,
    candidate_labels: str | None,
    hypothesis_template: str | None,
    multi_label: bool,
    **options: Any,
) -> None:
    """Classify each TEXT, or without any, each line of stdin (UTF-8) as it arrives."""
    if not texts and (sys.stdin is None or sys.stdin.isatty()):
        raise click.UsageError("no TEXT: give one or more, or pipe lines into stdin")
    if candidate_labels is not None and pair is not None:
        raise click.UsageError("--pair gives the second texts, and --labels makes them: give one of them")
    options["long_text"] = read_long_text(options)
    with messages_on_stderr():
        from ..tasks.heads import MultiHeadClassifier, load_classifier
        from ..tasks.hypotheses import Hypotheses
        from ..tasks.zero_shot import ZeroShot

        hypotheses = Hypotheses.option(candidate_labels, hypothesis_template, multi_label)
        batches: Iterable[list[str]] = [list(texts)] if texts else read_batches(sys.stdin.buffer)
        with load_classifier(**options) as classifier:
            if isinstance(classifier, MultiHeadClassifier):
                if hypotheses is not None:
                    raise OptionError("--labels needs a model of one head, trained on natural language inference")
                answer = functools.partial(render_heads, classifier, pair=pair, top_k=top_k, form=form)
            elif hypotheses is None:
                answer = functools.partial(render, classifier, pair=pair, top_k=top_k, form=form)
            else:
                ask = functools.partial(
                    ZeroShot(classifier),
                    candidate_labels=hypotheses.labels,
                    hypothesis_template=hypotheses.template,
                    multi_label=multi_label,
                )
                answer = functools.partial(_labelled, ask, top_k=top_k, form=form)
            for lines in answered(batches, answer, stdin=not texts):
                click.echo("".join(f"{line}\n" for line in lines).encode(), nl=False)


def render(classifier: Classifier, texts: list[str], pair: str | None, top_k: int | None, form: str) -> Iterator[str]:
    """Classify a batch and yield its lines."""
    items: list[Any] = [text if pair is None else (text, pair) for text in texts]
    if form == "jsonl":
        named: list[Any] = classifier(items, top_k=top_k)
        results = named
        if len(set(classifier.classes_)) < len(classifier.classes_):  # an object cannot hold two scores under one name
            from ..text.outputs import distinct, scored

            names = distinct(classifier.classes_)
            named = [scored(row, names, top_k) for row in classifier.predict_proba(items)]
        return (_object(text, pair, *both) for text, *both in zip(texts, results, named, strict=True))
    width = max(map(len, classifier.classes_))
    results = classifier(items, top_k=top_k or 1)
    digits = ".4f" if classifier.function_to_apply != "none" else ".7g"  # logits have no unit: all digits of a float32
    return (_row(text, pair, result, width, digits) for text, result in zip(texts, results, strict=True))


def render_heads(
    classifier: MultiHeadClassifier, texts: list[str], pair: str | None, top_k: int | None, form: str
) -> Iterator[str]:
    """Classify a batch by all heads and yield its lines."""
    from ..text.outputs import distinct, scored

    items: list[Any] = [text if pair is None else (text, pair) for text in texts]
    scores = classifier.predict_proba(items)
    labels = {name: distinct(head.classes_) for name, head in classifier.heads.items()}
    for i, text in enumerate(texts):
        found: dict[str, list[dict[str, Any]]] = {name: scored(scores[name][i], labels[name], None) for name in labels}  # type: ignore[misc]
        if form == "jsonl":
            heads = {name: best[0] | {"scores": _by_label(best[:top_k])} for name, best in found.items()}
            yield json.dumps(_texts(text, pair) | {"heads": heads}, ensure_ascii=False)
        else:
            cells = (f"{name}: {'  '.join(_cells(best[: top_k or 1]))}" for name, best in found.items())
            yield f"{'  '.join(cells)}  {one_line(text if pair is None else f'{text} | {pair}')}"


def _labelled(ask: Callable[[list[str]], Any], texts: list[str], top_k: int | None, form: str) -> Iterator[str]:
    return render_labels(ask(texts), top_k, form)


def render_labels(results: list[dict[str, Any]], top_k: int | None, form: str) -> Iterator[str]:
    """Yield the lines of zero-shot results."""
    for result in results:
        found = [{"label": label, "score": score} for label, score in zip(result["labels"], result["scores"], strict=True)]
        if form == "jsonl":
            yield _object(result["sequence"], None, found[:1], found[:top_k])
        else:
            width = max(map(len, result["labels"]))
            yield _row(result["sequence"], None, found[: top_k or 1], width, ".4f")


def _object(text: str, pair: str | None, result: list[dict[str, Any]], named: list[dict[str, Any]]) -> str:
    return json.dumps(_texts(text, pair) | result[0] | {"scores": _by_label(named)}, ensure_ascii=False)


def _texts(text: str, pair: str | None) -> dict[str, Any]:
    return {"text": text} if pair is None else {"text": text, "text_pair": pair}


def _by_label(found: list[dict[str, Any]]) -> dict[str, float]:
    return {each["label"]: each["score"] for each in found}


def _row(text: str, pair: str | None, result: list[dict[str, Any]], width: int, digits: str) -> str:
    scores = "  ".join(_cells(result, width, digits))
    return f"{scores}  {one_line(text if pair is None else f'{text} | {pair}')}"


def _cells(found: list[dict[str, Any]], width: int = 0, digits: str = ".4f") -> list[str]:
    return [f"{each['label']:<{width}}  {each['score']:{digits}}" for each in found]


def one_line(text: str) -> str:
    """Return a text as up to 100 characters of one line, without control characters, which a terminal would obey."""
    shown = " ".join(text.split())
    shown = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in shown[: _WIDTH + 1])
    return shown if len(shown) <= _WIDTH else shown[: _WIDTH - 1] + "…"


def answered(batches: Iterable[list[str]], answer: Callable[[list[str]], Iterable[T]], *, stdin: bool) -> Iterator[list[T]]:
    """Yield the answers of each batch; an error with a text of stdin names its line, after the answers of those before.

    While nothing is shown on a terminal, stderr shows after two seconds how many there are.
    """
    done = 0
    with progress() as bar:
        for batch in batches:
            try:
                found = list(answer(batch))
            except InputError as error:
                named = re.match(r"text (\d+)\b", str(error))
                if not stdin or named is None:
                    raise
                before = int(named[1])
                if before:
                    yield list(answer(batch[:before]))
                place = f"line {done + before + 1} of stdin"
                raise type(error)(place + str(error)[named.end() :]) from None
            yield found
            done += len(batch)
            bar.update(len(batch))


def progress() -> Any:
    """Return a bar of texts on stderr, or one that is not shown if stdout is the terminal, or stderr is none."""
    from tqdm import tqdm

    seen = sys.stderr is not None and sys.stderr.isatty() and not (sys.stdout is not None and sys.stdout.isatty())
    return tqdm(unit=" texts", dynamic_ncols=True, delay=_DELAY, disable=not seen)


def read_batches(stream: BinaryIO) -> Iterator[list[str]]:
    """Yield the lines of a stream in batches as they arrive, so that a slow writer is answered line by line.

    Raises:
        InputError: The stream is empty, or a line is not UTF-8; earlier lines are yielded first.
    """
    number = 0
    for lines in _arrivals(stream):
        for start in range(0, len(lines), _BATCH):
            texts = []
            for line in lines[start : start + _BATCH]:
                number += 1
                try:
                    texts.append(line.removesuffix(b"\r").decode("utf-8-sig" if number == 1 else "utf-8"))
                except UnicodeDecodeError as error:
                    if texts:
                        yield texts
                    raise InputError(
                        f"line {number} of stdin is not UTF-8 (byte 0x{line[error.start]:02x} at {error.start}): "
                        "convert it first, with iconv -t UTF-8 for example"
                    ) from None
            yield texts
    if number == 0:
        raise InputError("stdin is empty: write one text a line, or give TEXT on the command line")


def _arrivals(stream: Any) -> Iterator[list[bytes]]:
    """Yield the complete lines of each block that can be read without waiting."""
    pieces: list[bytes] = []  # of the line that is not complete yet
    while block := stream.read1(_BLOCK):  # read would wait for a full block
        head, newline, rest = block.rpartition(b"\n")
        if newline:
            yield (b"".join(pieces) + head).split(b"\n")
            pieces = []
        pieces.append(rest)
    if last := b"".join(pieces):
        yield [last]
