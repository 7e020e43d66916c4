"""``fusedbert bench``: measurements from the command line."""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from typing import Any

import click
from tqdm import tqdm

from fusedbert.bench.batches import Vocabulary, read_vocabulary
from fusedbert.bench.contenders import Contender
from fusedbert.bench.contenders.fusedbert import FusedBert
from fusedbert.bench.latency import ShapeLatency, measure_latency
from fusedbert.bench.machine import load_average, record_machine
from fusedbert.bench.report import INPUT, SCHEMA, TIMED, contender_entry, render
from fusedbert.bench.shapes import DEFAULT_SHAPES, Shape, parse_shapes, refuse_longer
from fusedbert.engine.artifact import read_manifest
from fusedbert.engine.commands import messages_on_stderr
from fusedbert.engine.options import Options
from fusedbert.engine.resolve import resolve_model

SEED = 0


@click.group()
def bench() -> None:
    """Measure how fast a model runs on this machine."""


@bench.command()
@click.option("-m", "--model", metavar="MODEL", help="Artifact, checkpoint folder or hub id; left out, the embedded default.")
@click.option("--shapes", default=DEFAULT_SHAPES, show_default=True, metavar="LIST", help="BATCHxTOKENS, with commas between.")
@click.option("--rounds", type=click.IntRange(1, 1000), default=3, show_default=True, help="Visits to each shape.")
@click.option("--threads", type=click.IntRange(1), help="Threads of one run; left out, the cores worth using.")
@click.option("--device", default="auto", show_default=True, metavar="DEVICE", help="auto, cpu, cuda or cuda:N.")
@click.option("--precision", default="auto", show_default=True, metavar="PRECISION", help="auto, fp32, int8 or fp16.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
def latency(
    model: str | None, shapes: str, rounds: int, threads: int | None, device: str, precision: str, as_json: bool
) -> None:
    """Time the graph by shape, from token ids to logits, on new random tokens in every iteration."""
    wanted = parse_shapes(shapes)
    options = Options.parse(device=device, precision=precision, threads=threads)
    with messages_on_stderr():
        document = _latency(model, wanted, options, rounds)
    click.echo(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) if as_json else render(document))


def _latency(model: str | None, shapes: Sequence[Shape], options: Options, rounds: int) -> dict[str, Any]:
    """Find the model, refuse what it does not take, measure, and return the document of ``fusedbert.bench.report``."""
    folder = resolve_model(model, options)
    manifest = read_manifest(folder)
    refuse_longer(shapes, manifest.max_length)
    vocabulary = read_vocabulary(folder)
    contender = FusedBert(folder, options)
    contender.load()
    started, before = datetime.datetime.now(datetime.UTC), load_average()
    results = _measure(contender, shapes, vocabulary, rounds)
    entry = contender_entry(contender.name, contender.describe(), results)
    contender.close()
    return {
        "schema": SCHEMA,
        "started": started.isoformat(timespec="seconds"),
        "machine": {**record_machine(), "load_average": {"before": before, "after": load_average()}},
        "model": {
            "name": manifest.source.id,
            "source": dict(manifest.source.sha256),
            "labels": list(manifest.labels),
            "max_length": manifest.max_length,
        },
        "settings": {"rounds": rounds, "seed": SEED, "input": INPUT, "timed": TIMED},
        "contenders": [entry],
    }


def _measure(contender: Contender, shapes: Sequence[Shape], vocabulary: Vocabulary, rounds: int) -> tuple[ShapeLatency, ...]:
    """Measure with a progress line on stderr; there is none where stderr is no terminal."""
    with tqdm(total=rounds * len(shapes), unit="visit", leave=False, disable=None) as bar:

        def tell(number: int, shape: Shape) -> None:
            bar.n = number * len(shapes) + shapes.index(shape)
            bar.set_description(f"{contender.name} {shape}, round {number + 1} of {rounds}")

        return measure_latency(contender, shapes, vocabulary, rounds=rounds, seed=SEED, progress=tell)
