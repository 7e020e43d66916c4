"""``fusedbert score``: a file of rows in, the same rows with labels and scores out."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from .long_text import long_text_options, read_long_text
from .streams import messages_on_stderr

if TYPE_CHECKING:
    from ..scoring.summary import Progress, Summary


@click.command()
@click.argument("input", metavar="INPUT")
@click.option("-o", "--output", required=True, metavar="OUTPUT", help="File to write; its suffix tells the format.")
@click.option("-m", "--model", metavar="MODEL", help="Artifact, checkpoint folder or hub id; left out: the embedded default.")
@click.option("--text-column", metavar="C", help="Column of the texts; left out: the only one that could be meant.")
@click.option("--pair-column", metavar="C", help="Column of the second texts, for sentence pairs.")
@click.option("--probabilities", is_flag=True, help="Add p_<label> for each label.")
@click.option("--prefix", default="", metavar="P", help="Put P before the name of each added column.")
@click.option("--on-error", default="fail", show_default=True, metavar="fail|null|skip", help="For rows that cannot be scored.")
@click.option("--input-format", metavar="F", help="csv, tsv, jsonl or parquet, where INPUT's suffix does not tell.")
@click.option("--no-quotes", is_flag=True, help='In a csv or tsv INPUT, take " for a character like others.')
@click.option("--part-rows", type=int, metavar="N", help="Rows that are committed together; left out: 16384.")
@click.option("--resume", is_flag=True, help="Go on with an unfinished run; do nothing where OUTPUT is finished.")
@click.option("--force", is_flag=True, help="Replace OUTPUT, and drop an unfinished run.")
@click.option("--device", default="auto", show_default=True, metavar="D", help="auto, cpu, cuda or cuda:N.")
@click.option("--precision", default="auto", show_default=True, metavar="P", help="auto, fp32, int8 or fp16.")
@click.option("--threads", type=int, metavar="N", help="Threads of one run on the CPU; with Ray, of each actor.")
@long_text_options
@click.option("--on", default="local", show_default=True, metavar="local|ray", help="Where the model runs.")
@click.option("--ray-address", metavar="A", help="Of a running Ray cluster; left out: Ray is started on this machine.")
@click.option("--actors", type=int, metavar="N", help="Ray actors; left out: one a GPU, or one a CPU.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document, the summary, on stdout.")
def score(output: str, no_quotes: bool, part_rows: int | None, as_json: bool, **options: Any) -> None:
    """Score INPUT (csv, tsv, jsonl, parquet; text formats also .gz and .zst; - for stdin) into OUTPUT.

    OUTPUT has INPUT's columns as they were, in its order, plus label, score and truncated. A run that was killed leaves
    OUTPUT.parts; the same call with --resume goes on and ends with the same bytes.
    """
    if part_rows is not None:
        options["part_rows"] = part_rows
    options["long_text"] = read_long_text(options["long_text"], options.pop("stride"), options.pop("aggregate"))
    with messages_on_stderr():
        from ..scoring import score_file

        shown = sys.stderr is not None and sys.stderr.isatty()
        bar = _Bar() if shown else None
        try:
            summary = score_file(output=output, quotes=not no_quotes, progress=bar, **options)
        finally:
            if bar is not None:
                bar.close()
    if as_json:
        click.echo(json.dumps(summary.document(), indent=2, ensure_ascii=False))
    elif shown:
        for line in lines(summary):
            click.echo(line, err=True)


class _Bar:
    """A progress bar on the terminal."""

    def __init__(self) -> None:
        from tqdm import tqdm

        self._make: Callable[[int], Any] = lambda initial: tqdm(
            unit=" rows", unit_scale=True, initial=initial, dynamic_ncols=True, smoothing=0.1, mininterval=0.5
        )
        self._bar: Any = None

    def __call__(self, progress: Progress) -> None:
        if self._bar is None:
            self._bar = self._make(0)
        self._bar.total = progress.total
        self._bar.set_postfix_str(f"padding {progress.padding:.0%}", refresh=False)
        self._bar.update(progress.rows - self._bar.n)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def lines(summary: Summary) -> list[str]:
    """Render a summary for people."""
    if summary.finished_before:
        return [f"{summary.output} is finished already: nothing to do"]
    resumed = f", {summary.resumed:,} of them before it was resumed" if summary.resumed else ""
    found = [
        f"{summary.output}: {summary.written:,} rows{resumed}",
        f"  {summary.seconds:.1f} s, {summary.rows_per_second:,.0f} rows a second",
    ]
    if summary.labels:
        found.append("  labels: " + ", ".join(f"{label} {count:,}" for label, count in summary.labels.items()))
    found.append(f"  truncated: {summary.truncated:,}; distinct texts: {summary.distinct:.1%}; padding: {summary.padding:.1%}")
    found.append("  seconds by stage, overlapping: " + ", ".join(f"{k} {v:.1f}" for k, v in summary.stages.items()))
    if summary.errors:
        found.append(f"  {summary.errors:,} rows could not be scored, see {summary.error_file}")
    return found
