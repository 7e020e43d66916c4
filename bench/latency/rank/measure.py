"""``fusedbert bench rank``: the time in which engines rank the documents of a query, tokenizing included."""

from __future__ import annotations

from typing import Any

import click

from fusedbert.engine.errors import OptionError

from ...cli.benchmark import execute
from ...engines.batches import Shape, parse_shapes
from ...run.interleave import Run
from ...run.setup import Lineup, Shared, shared_options
from ..measure import AGAINST, ALONE, TEXT_ONLY, Latency, Plan, render
from .task import QUERY

DEFAULT_SHAPES = "100x100"
SPECIAL = 4  # tokens between and around a pair, at most
INPUT = f"a query of {QUERY} random words and documents of random words, a token each, new in every iteration"
TIMED = "from a query and documents in memory to their order, tokenizing included"


@click.command()
@shared_options(rounds="3, or 9 with --against")
@click.option(
    "--shapes", default=DEFAULT_SHAPES, show_default=True, metavar="LIST", help="DOCUMENTSxTOKENS, with commas between."
)
@click.option("--seconds", type=click.FloatRange(0.001, 60), help="Seconds for a visit to a shape (1, or 0.25 with --against).")
def rank(shared: Shared, shapes: str, seconds: float | None) -> None:
    """Time a query's documents from texts to their order: clf.rank, and sentence-transformers' CrossEncoder.

    Engines without such a call tokenize pairs and run them in batches of 32 of similar length, as CrossEncoder does.
    """
    wanted = parse_shapes(shapes)
    rounds, usual, _ = AGAINST if shared.against else ALONE
    plan = Plan(shapes=wanted, rounds=shared.rounds or rounds, seconds=seconds or usual, samples=1)

    def make(lineup: Lineup) -> Rank:
        if lineup.model.manifest.heads:
            raise OptionError("the artifact has several heads, and a ranking is by one: export its checkpoint separately")
        most = lineup.model.manifest.max_length
        if (longest := max(shape.tokens for shape in wanted) + QUERY + SPECIAL) > most:
            raise OptionError(
                f"a pair has up to {longest} tokens with its query, the model takes at most {most}: give shorter shapes"
            )
        return Rank(lineup, plan)

    execute(shared, make, render, without=TEXT_ONLY)


class Rank(Latency):
    """The benchmark ``rank``: its shapes are DOCUMENTSxTOKENS, and it draws no roofline."""

    kind, task = "rank", "rank"
    input, timed = INPUT, TIMED

    def __init__(self, lineup: Lineup, plan: Plan) -> None:
        super().__init__(lineup, plan)
        self.shapes: tuple[Shape, ...] = ()  # none to check logits in, which would take long, and none to compile for

    def before(self, run: Run) -> None:
        """Measure nothing."""

    def request(self) -> dict[str, Any]:
        """Name the tokenizer."""
        return {"tokenizer": str(self.lineup.model.artifact / "tokenizer.json")}
