"""Options and messages of several commands."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import warnings
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import click

from ..text.inputs import Aggregate, By, LongText, Window

F = TypeVar("F", bound=Callable[..., Any])

model_option = click.option(
    "-m", "--model", metavar="MODEL", help="Artifact, checkpoint folder or hub id.  [default: the embedded model]"
)
device_option = click.option("--device", default="auto", show_default=True, metavar="D", help="auto, cpu, cuda or cuda:N.")
precision_option = click.option(
    "--precision", default="auto", show_default=True, metavar="P", help="auto, fp32, int8, bf16 or fp16."
)
split_special_tokens_option = click.option(
    "--split-special-tokens", is_flag=True, default=None, help="Read [SEP] in a text as text, not as the token."
)
_LONG_TEXT = (
    click.option(
        "--max-length",
        type=click.IntRange(min=3),
        metavar="N",
        help="The most tokens of a text, special ones included.  [default: the model's]",
    ),
    click.option(
        "--long-text",
        type=click.Choice([str(each) for each in LongText]),
        default=str(LongText.TRUNCATE),
        show_default=True,
        help="For texts beyond the model's length: cut them, refuse them, or read all of them in windows.",
    ),
    click.option(
        "--by",
        type=click.Choice([str(each) for each in By]),
        help="With window: where a window may end, at any token or at a sentence's end.  [default: tokens]",
    ),
    click.option("--stride", type=click.IntRange(min=0), metavar="N", help="With window: tokens by which neighbours overlap."),
    click.option(
        "--sentences",
        type=click.IntRange(min=1),
        metavar="N",
        help="By sentence: the most in a window, also of short texts.",
    ),
    click.option(
        "--aggregate",
        type=click.Choice([str(each) for each in Aggregate]),
        help="With window: how logits are combined.  [default: mean]",
    ),
    click.option("--label", metavar="LABEL", help="With max: give the logits of the window in which LABEL is likeliest."),
)


_ZERO_SHOT = (
    click.option(
        "--labels",
        "candidate_labels",
        metavar="A,B,...",
        help="Zero-shot, with a model trained on natural language inference: the labels to choose from.",
    ),
    click.option(
        "--template",
        "hypothesis_template",
        metavar="T",
        help="With --labels: the sentence about a text, {} for the label.  [default: This example is {}.]",
    ),
    click.option("--multi-label", is_flag=True, help="With --labels: several labels can be true of a text."),
)


def zero_shot_options(command: F) -> F:
    """Add ``--labels``, ``--template`` and ``--multi-label`` to a command."""
    for option in reversed(_ZERO_SHOT):
        command = option(command)
    return command


def long_text_options(command: F) -> F:
    """Add ``--max-length``, ``--long-text`` and the options of windows to a command."""
    for option in reversed(_LONG_TEXT):
        command = option(command)
    return command


def refuse_long_texts(command: F) -> F:
    """Add the same to a command that refuses long texts by default."""
    command = long_text_options(command)
    for option in command.__click_params__:  # type: ignore[attr-defined]
        if option.name == "long_text":
            option.default = str(LongText.ERROR)
    return command


def read_long_text(options: dict[str, Any]) -> str | Window:
    """Take them out of a command's options, as that of ``Classifier.from_pretrained``; click.UsageError if they contradict."""
    long_text: str = options.pop("long_text")
    names = [field.name for field in dataclasses.fields(Window)]
    given = {name: value for name in names if (value := options.pop(name)) is not None}
    if long_text == LongText.WINDOW:
        return Window(**given)
    if given:
        raise click.UsageError(f"{', '.join(f'--{name}' for name in given)} needs windows: give --long-text window too")
    return long_text


class _Stderr(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        click.echo(f"fusedbert: {record.getMessage()}", err=True)


@contextlib.contextmanager
def messages_on_stderr() -> Iterator[None]:
    """Show the library's log, from INFO on, and its warnings as lines on stderr."""
    logger = logging.getLogger("fusedbert")
    handler, level = _Stderr(), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    click.echo(f"fusedbert: warning: {message}", err=True)
