"""``make gpu-check``: what a CUDA machine has to show, measured in one go of at most a quarter of an hour.

It writes two files into bench/results/, named after the GPU. ``NAME.json`` holds the figures that are compared from
machine to machine:

* ``gpu``, ``driver``, ``onnxruntime``: what it was measured on;
* ``bert_base``: ``latency_1x128_p50_ms`` from token ids to logits on the host, ``text_1_p50_ms`` the same from text,
  ``seq128_per_s`` texts of 128 tokens a second in large batches;
* ``bert_large``: ``seq384_per_s``;
* ``sst2``: ``label_agreement`` of fp16 on CUDA with fp32 on the CPU, for the embedded default; ``packed_over_padded`` and
  ``over_transformers_fp16``: texts a second from text, BERT-base in shape, packed against padded in plain batches, and the
  engine against transformers in fp16 with sdpa on sorted texts;
* ``attention_nodes_on_cuda``: attention nodes that CUDA runs, of BERT-base's 12.

What could not be measured is null there, and ``NAME.details.json`` says why, beside every figure that led to these.
``--dry-run`` goes the same way on the CPU with models of two layers, so that no line runs for the first time on a GPU.
"""

from __future__ import annotations

import csv
import datetime
import itertools
import json
import math
import re
import sys
import tempfile
from pathlib import Path
from time import monotonic
from typing import Any

import click

from fusedbert.engine.errors import FusedBertError, StorageError
from fusedbert.engine.hardware.device import import_onnxruntime, inspect_offer
from fusedbert.export.parity.texts import CHECK_TEXTS, ROUNDING_TEXTS

from .gpu_plan import ROOT, Check, Plan
from .gpu_steps import STEPS

MINUTES = 14.0


def rounded(value: Any) -> Any:
    """Round every number in a document to four digits: the fifth differs from run to run. What is no number becomes null."""
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    if isinstance(value, list):
        return [rounded(each) for each in value]
    if isinstance(value, float):
        return float(f"{value:.4g}") if math.isfinite(value) else None
    return value


def write(check: Check, output: Path) -> None:
    """Write what there is so far: a driver that takes the process down leaves the figures before it."""
    name = re.sub(r"[^\w.-]+", "-", str(check.result["gpu"] or "unknown"))
    for suffix, document in ((".json", check.result), (".details.json", check.details)):
        text = json.dumps(rounded(document), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        (output / f"{name}{suffix}").write_text(text, encoding="utf-8")


def read_texts(file: Path | None, most: int) -> list[str]:
    """Read the column ``sentence`` or ``text`` of a tab-separated file; made-up texts, as many as SST-2's, where there is none.

    Raises:
        StorageError: The file cannot be read, or has no such column.
    """
    if file is None:
        return list(itertools.islice(itertools.cycle([*CHECK_TEXTS[1:], *ROUNDING_TEXTS]), min(872, most)))
    try:
        with file.open(encoding="utf-8", newline="") as lines:
            rows = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    except OSError as error:
        raise StorageError(f"{file} cannot be read: {error.strerror or error}") from None
    column = next((name for name in ("sentence", "text") if rows and name in rows[0]), None)
    if column is None:
        raise StorageError(f"{file} has no column 'sentence' or 'text': give a tab-separated file with a header")
    return [row[column] for row in rows[:most]]


@click.command()
@click.option("--sst2", type=click.Path(path_type=Path), help="SST-2's dev.tsv; left out, made-up sentences.")
@click.option("--output", type=click.Path(path_type=Path), default=ROOT / "bench" / "results", help="Folder of the results.")
@click.option("--minutes", type=float, default=MINUTES, show_default=True, help="Begin nothing new after that.")
@click.option("--dry-run", is_flag=True, help="On the CPU, with tiny models; the figures mean nothing.")
def main(sst2: Path | None, output: Path, minutes: float, dry_run: bool) -> None:
    """Measure this machine's GPU and write bench/results/<gpu name>.json."""
    plan = Plan.make(dry_run=dry_run)
    if not dry_run and (reason := inspect_offer(import_onnxruntime()).obstacle()):
        raise click.ClickException(f"{reason}; --dry-run goes through every step on the CPU")
    try:
        texts = read_texts(sst2, plan.texts)
    except FusedBertError as error:
        raise click.ClickException(str(error)) from None
    with tempfile.TemporaryDirectory() as folder:
        check = Check(plan=plan, dry_run=dry_run, folder=Path(folder), texts=texts, deadline=monotonic() + 60 * minutes)
        check.details |= {
            "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "texts": "made up" if sst2 is None else sst2.name,
            "dry_run": dry_run,
        }
        output.mkdir(parents=True, exist_ok=True)
        for name, measure in STEPS:
            check.step(name, measure)
            write(check, output)
    click.echo(json.dumps(rounded(check.result), indent=2, ensure_ascii=False))
    ours = [part for part in check.details["not_measured"] if not part.startswith("peers")]
    failed = check.details.get("tests", {}).get("exit", 1) or ours
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
