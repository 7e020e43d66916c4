"""``fusedbert score``: files of rows in, the same rows with labels and scores out."""

from __future__ import annotations

import contextlib
import json
import sys
from typing import TYPE_CHECKING, Any

import click

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
    from ..scoring.summary import Progress, Summary


@click.command()
@click.argument("input", metavar="INPUT...", nargs=-1, required=True)
@click.option(
    "-o",
    "--output",
    required=True,
    metavar="OUTPUT",
    help="File to write, its format by suffix; FOLDER/ for a file for each INPUT; - for stdout.",
)
@model_option
@click.option("--text-column", metavar="C", help="Column of the texts.  [default: the only candidate]")
@click.option("--pair-column", metavar="C", help="Column of the second texts, for sentence pairs.")
@click.option("--probabilities", is_flag=True, help="Add p_<label> for each label.")
@click.option("--function", "function_to_apply", metavar="F", help="softmax, sigmoid or none (logits).  [default: the model's]")
@click.option(
    "--threshold",
    multiple=True,
    metavar="[LABEL=]P",
    help="For a multi-label model: least probability of a label, or of LABEL; repeatable.  [default: the model's, else 0.5]",
)
@click.option("--top-k", type=click.IntRange(min=1), metavar="N", help="Give the N best labels, as lists.")
@zero_shot_options
@click.option(
    "--strategy",
    "aggregation_strategy",
    metavar="S",
    help="For a token classifier: none, simple, first, average or max.  [default: simple]",
)
@click.option("--prefix", default="", metavar="P", help="Put P before the name of each added column.")
@click.option(
    "--on-error",
    default="fail",
    show_default=True,
    metavar="fail|null|skip",
    help="Stop at a row that cannot be scored, keep it without a score, or leave it out.",
)
@click.option("--input-format", metavar="F", help="csv, tsv, txt, jsonl, json or parquet, if INPUT's suffix does not name it.")
@click.option("--output-format", metavar="F", help="csv, tsv, jsonl, json or parquet, if OUTPUT's suffix does not name it.")
@click.option("--delimiter", metavar="C", help="Character between the cells of a csv INPUT: ';', tab.  [default: a comma]")
@click.option(
    "--encoding", metavar="E", help="Encoding of a text INPUT: latin-1, utf-16.  [default: UTF-8, or by its first bytes]"
)
@click.option("--no-header", is_flag=True, help="The first line of a csv INPUT is a row: its columns are 1, 2 and so on.")
@click.option("--no-quotes", is_flag=True, help='Treat " in a csv or tsv INPUT as a plain character.')
@click.option("--part-rows", type=int, metavar="N", help="Rows that are committed together.  [default: 16384]")
@click.option("--resume", is_flag=True, help="Continue an unfinished run; do nothing if OUTPUT is finished.")
@click.option("--force", is_flag=True, help="Replace OUTPUT, and drop an unfinished run.")
@device_option
@precision_option
@click.option("--threads", type=int, metavar="N", help="Threads on the CPU; with Ray, of each actor.")
@long_text_options
@split_special_tokens_option
@click.option("--on", default="local", show_default=True, metavar="local|ray", help="Where the model runs.")
@click.option("--ray-address", metavar="A", help="Address of a running Ray cluster.  [default: start Ray on this machine]")
@click.option("--actors", type=int, metavar="N", help="Number of Ray actors.  [default: one a GPU, or one a CPU]")
@click.option("--json", "as_json", is_flag=True, help="Write the summary to stdout as one JSON document.")
def score(
    output: str,
    no_header: bool,
    no_quotes: bool,
    threshold: tuple[str, ...],
    part_rows: int | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Score INPUT into OUTPUT: csv, tsv, txt, jsonl, json, parquet; text formats also .gz, .zst, .bz2, .xz and .zip.

    INPUT is a file, a folder of parts, a pattern ('parts/*.csv'), several of these, or - for stdin. OUTPUT has its columns and
    rows in their order, plus label, score and truncated; of a token classifier plus entities and truncated. A run that was
    killed leaves OUTPUT.parts; the same call with --resume continues it and ends with the same bytes.
    """
    if as_json and output in ("-", "/dev/stdout"):
        raise click.UsageError(f"--json writes its summary to stdout, where -o {output} writes the rows: give one of them")
    if part_rows is not None:
        options["part_rows"] = part_rows
    if len(options["input"]) == 1:  # as in Python: one file is not a list of one
        options["input"] = options["input"][0]
    options["long_text"] = read_long_text(options)
    with messages_on_stderr():
        from ..scoring import score_file
        from ..text.thresholds import threshold_option

        shown = sys.stderr is not None and sys.stderr.isatty()
        with contextlib.closing(_Bar()) as bar:
            summary = score_file(
                output=output,
                header=not no_header,
                quotes=not no_quotes,
                threshold=threshold_option(threshold),
                progress=bar if shown else None,
                **options,
            )
    if as_json:
        click.echo(json.dumps(summary.document(), indent=2, ensure_ascii=False))
    elif shown:
        for line in lines(summary):
            click.echo(line, err=True)


class _Bar:
    def __init__(self) -> None:
        self._bar: Any = None

    def __call__(self, progress: Progress) -> None:
        if self._bar is None:
            from tqdm import tqdm

            self._bar = tqdm(unit=" rows", unit_scale=True, dynamic_ncols=True, smoothing=0.1, mininterval=0.5)
        self._bar.total = progress.total
        self._bar.set_postfix_str(f"padding {progress.padding:.0%}", refresh=False)
        self._bar.update(progress.rows - self._bar.n)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def lines(summary: Summary) -> list[str]:
    """Render a summary as text."""
    if summary.finished_before:
        return [f"{summary.output} is finished already: nothing to do"]
    resumed = f", {summary.resumed:,} of them in an earlier run" if summary.resumed else ""
    result = [
        f"{summary.output}: {summary.written:,} rows{resumed}",
        f"  {summary.seconds:.1f} s, {summary.rows_per_second:,.0f} rows a second",
    ]
    if summary.labels:
        result.append("  labels: " + ", ".join(f"{label} {count:,}" for label, count in summary.labels.items()))
    result.append(f"  truncated: {summary.truncated:,}; distinct texts: {summary.distinct:.1%}; padding: {summary.padding:.1%}")
    result.append("  seconds by stage, overlapping: " + ", ".join(f"{k} {v:.1f}" for k, v in summary.stages.items()))
    if summary.errors:
        where = f", see {summary.error_file}" if summary.error_file else ""
        result.append(f"  {summary.errors:,} rows could not be scored{where}")
    return result
