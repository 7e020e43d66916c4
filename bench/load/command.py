"""The command ``fusedbert bench load``: in the engines' processes, or with ``--http`` through servers."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import click

from fusedbert.engine.errors import OptionError

from ..cli.benchmark import FILE, execute
from ..corpus.texts import built_in, read_corpus
from ..engines.registry import RANKERS
from ..run.setup import Lineup, Shared, shared_options
from .measure import MODES, Load, Plan, render
from .sweep import parse_rates

RATES_HELP = "Arrivals a second, with commas between; default: by search."
MODE_HELP = "How fusedbert is called; default: both ways."
CALLERS_HELP = "Threads that call in plain mode; connections that look for a server's saturation."
HTTP_HELP = "Drive `fusedbert serve` and the servers of --against (infinity, pipeline) over HTTP, from a separate process."
BUDGET_MS = click.FloatRange(0.1, 60_000)


@click.command("load")
@shared_options(rounds="1, runs at each rate")
@click.option("--budget-ms", type=BUDGET_MS, default=50.0, show_default=True, help="Budget of the 99th percentile.")
@click.option("--seconds", type=click.FloatRange(0.1, 600), default=5.0, show_default=True, help="Length of a run.")
@click.option(
    "--rates", metavar="LIST", default="", callback=lambda _context, _option, text: parse_rates(text), help=RATES_HELP
)
@click.option("--callers", type=click.IntRange(1, 512), default=16, show_default=True, help=CALLERS_HELP)
@click.option("--mode", "modes", type=click.Choice(MODES), multiple=True, help=MODE_HELP)
@click.option("--corpus", type=FILE, help="File of texts; else built-in ones.")
@click.option("--text-column", metavar="NAME", help="Column of the texts.")
@click.option("--max-length", type=click.IntRange(3), help="Tokens at which texts are cut; default: the model's maximum.")
@click.option("--http", is_flag=True, help=HTTP_HELP)
@click.option("--texts-per-request", metavar="LIST", help="With --http: texts of a request, with commas between (1,8).")
def load(
    shared: Shared,
    budget_ms: float,
    corpus: Path | None,
    text_column: str | None,
    max_length: int | None,
    modes: tuple[str, ...],
    http: bool,
    texts_per_request: str | None,
    **how: Any,
) -> None:
    """Send single texts at rising rates, and find the rate at which 99 of 100 are still answered within the budget.

    Texts arrive at random (Poisson) whether or not the previous ones are answered, and a latency counts from the intended
    arrival. fusedbert is called in two ways: plain, from a pool of threads, and through Batcher; other engines in plain mode.

    With --http requests of one or more texts go to servers, each in its own process, and the client has one too.
    """
    shared.options()  # a wrong value is reported before anything is read
    if texts_per_request is not None and not http:
        raise OptionError("--texts-per-request is for servers: give --http too")
    texts = built_in() if corpus is None else read_corpus(corpus, text_column=text_column)
    about = {"corpus": texts, "budget": budget_ms / 1e3, "rounds": shared.rounds or 1, **how}  # and seconds, rates, callers
    if http:
        from .http.measure import Http, parse_counts
        from .http.servers import SERVERS

        if modes or max_length is not None or shared.device not in ("auto", "cpu"):
            raise OptionError("--http takes no --mode and no --max-length, and its servers run on the CPU: leave these out")
        counts = parse_counts(texts_per_request or "1,8")
        of_servers = dataclasses.replace(shared, device="cpu")
        execute(of_servers, lambda lineup: Http(lineup, counts, about), render, specs=SERVERS)
        return

    def make(lineup: Lineup) -> Load:
        longest = max_length or lineup.model.manifest.max_length
        return Load(lineup, Plan(**about, max_length=longest, modes=modes or MODES))

    execute(shared, make, render, max_length=max_length, without=RANKERS)
