"""``fusedbert bench setup``: builds the environments of the engines to compare with."""

from __future__ import annotations

from collections.abc import Sequence

import click

from ..engines.environments import PEERS, environment_of, set_up


@click.command(short_help="Build the environments of other engines.")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--again", is_flag=True, help="Build anew what is there already.")
def setup(names: Sequence[str], again: bool) -> None:
    """Build the environments that other engines run in: transformers, optimum, openvino, ctranslate2, or all.

    On a CUDA machine there is optimum-cuda too, which all does not include.

    Each is a virtual environment with exact versions of its own, of 1 to 2 GB, in the cache; an environment that is there
    already is left as it is. FUSEDBERT_BENCH moves the folder.
    """
    wanted = list(dict.fromkeys(peer for name in names for peer in (PEERS if name == "all" else (name,))))
    for name in wanted:  # a wrong name is told before anything is built
        environment_of(name)
    for name in wanted:
        python = set_up(name, lambda line: click.echo(line, err=True), again=again)
        click.echo(f"{name}  {python}")
