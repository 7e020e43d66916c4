"""``--long-text``, ``--stride`` and ``--aggregate``: the same for every command that runs a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from ..options import Aggregate, LongText, Window

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--long-text",
        type=click.Choice([str(each) for each in LongText]),
        default=str(LongText.TRUNCATE),
        show_default=True,
        help="Texts beyond the model's length: cut, refuse, or read whole in windows.",
    ),
    click.option("--stride", type=click.IntRange(min=0), metavar="N", help="With window: tokens that neighbours share."),
    click.option(
        "--aggregate", type=click.Choice([str(each) for each in Aggregate]), help="With window: of the windows' logits. [mean]"
    ),
)


def long_text_options(command: F) -> F:
    """Give a command the three options, as arguments of these names."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def read_long_text(long_text: str, stride: int | None, aggregate: str | None) -> str | Window:
    """Make one value of them, as ``Classifier.from_pretrained`` takes it.

    Raises:
        click.UsageError: A window's option was given, and no window.
    """
    if long_text == LongText.WINDOW:
        return Window(stride=stride, aggregate=aggregate or Window().aggregate)
    if stride is not None or aggregate is not None:
        raise click.UsageError("--stride and --aggregate go with --long-text window")
    return long_text
