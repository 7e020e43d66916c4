"""``score_file``: from a file of rows to the same rows with labels and scores."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from ..artifact import sha256_of
from ..errors import OptionError, StorageError
from ..hardware.packages import installed, version
from ..options import Window
from .columns import Head, check_clash, find_named, find_text
from .files import STDIN, Form, check_input, is_stream
from .journal import Journal, discard, open_journal, parts_folder, unfinished
from .model import Model
from .options import Columns, Engine, On, OnError, Ray, ScoreOptions, member
from .parts import error_file, join_parts, write_parts
from .ray import check_ray, ray_chunks
from .readers import open_source
from .summary import Progress, Summary, padding
from .tally import Tally
from .windows import Source
from .work import Chunk, Job, Stages
from .writers import open_writer

_LIBRARIES = ("onnxruntime", "onnxruntime-gpu", "tokenizers", "numpy")


def score_file(
    input: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] | None = None,
    text_column: str | None = None,
    pair_column: str | None = None,
    probabilities: bool = False,
    prefix: str = "",
    on_error: str = "fail",
    input_format: str | None = None,
    quotes: bool = True,
    part_rows: int = ScoreOptions.part_rows,
    resume: bool = False,
    force: bool = False,
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    long_text: str | Window = "truncate",
    on: str = "local",
    ray_address: str | None = None,
    actors: int | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Summary:
    """Score a csv, tsv, jsonl or parquet file into another, in memory that does not grow with the file.

    The output has the input's columns as they were, in the input's order of rows, plus ``label``, ``score``, with
    ``probabilities`` ``p_<label>`` for each label, and ``truncated``. It appears whole, by rename.

    Args:
        input: The file, by suffix; ``-`` for stdin, or a pipe, which cannot be resumed.
        output: The file to write, by suffix.
        model: An artifact, a checkpoint folder or a hub id; None for the embedded default.
        text_column: Column of the texts; None for the only one that could be meant.
        pair_column: Column of the second texts, for sentence pairs.
        probabilities: Whether to add a column for each label's probability.
        prefix: Stands before the name of each added column.
        on_error: What happens to a row that cannot be scored: ``fail``, ``null`` or ``skip``.
        input_format: The format, where the input's suffix does not tell it.
        quotes: Whether ``"`` opens a quoted cell of a csv or tsv.
        part_rows: Rows that are committed together.
        resume: Whether to go on with an unfinished run; on a finished output nothing happens.
        force: Whether to replace an existing output, and to drop an unfinished run.
        device: As in ``Classifier.from_pretrained``.
        precision: As there.
        threads: As there; with Ray, of each actor.
        long_text: As there, without a warning: the column ``truncated`` tells. With ``error`` a text that is too long is a
            row that cannot be scored.
        on: ``local`` or ``ray``.
        ray_address: Of a running Ray cluster; None starts Ray on this machine.
        actors: Number of Ray actors.
        progress: Called after each window.

    Returns:
        What it came to.

    Raises:
        FusedBertError: Any of its children, in one line; parts that were committed before stay for ``resume``.

    Example:
        >>> summary = score_file("reviews.csv", "scored.csv", resume=True)
        >>> summary.rows, dict(summary.labels)
        (5, {'POSITIVE': 3, 'NEGATIVE': 2})
    """
    options = ScoreOptions(
        columns=Columns(text=text_column, pair=pair_column, probabilities=probabilities, prefix=prefix),
        on_error=member(OnError, "on_error", on_error),
        input_format=input_format,
        quotes=quotes,
        part_rows=part_rows,
        resume=resume,
        force=force,
    )
    engine = Engine(model=model, device=device, precision=precision, threads=threads, long_text=long_text)
    if member(On, "on", on) is On.LOCAL and (ray_address is not None or actors is not None):
        raise OptionError("a Ray address or a number of actors was given, and on is 'local': give on='ray' (--on ray)")
    ray = Ray(address=ray_address, actors=actors) if on == On.RAY else None
    return _Run(os.fspath(input), Path(output), engine, options, ray, progress).run()


class _Run:
    """One run of ``score_file``."""

    def __init__(
        self,
        name: str,
        output: Path,
        engine: Engine,
        options: ScoreOptions,
        ray: Ray | None,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        self._name, self._output, self._engine, self._options, self._ray = name, output, engine, options, ray
        self._progress = progress
        self._started = time.perf_counter()
        self._tally = Tally()

    def run(self) -> Summary:
        """Do it."""
        forms = Form.of(self._name, self._options.input_format), Form.of(str(self._output))
        if self._is_finished():
            return Summary(output=str(self._output), finished_before=True)
        check_input(self._name)
        if self._name != STDIN and self._output.exists() and self._output.samefile(self._name):
            raise OptionError(f"{self._output} is the input: choose another output")
        if self._ray is not None:
            check_ray(self._name, forms[0])
        with contextlib.ExitStack() as stack:
            source = open_source(self._name, forms[0], self._options.window_rows, quotes=self._options.quotes)
            stack.callback(source.close)
            shown = "stdin" if self._name == STDIN else self._name
            text, pair = self._columns(source, shown)
            model = stack.enter_context(Model.load(self._engine, remote=self._ray is not None))
            head = Head.of(model.labels, model.problem_type, self._options.columns, model.function)
            check_clash(source.columns, head.names, shown)
            job = Job(
                name=self._name,
                form=forms[0],
                window_rows=self._options.window_rows,
                quotes=self._options.quotes,
                text=text,
                pair=pair,
                head=head,
                writer=open_writer(forms[1], source, head, (text, pair), quotes=self._options.quotes),
                on_error=self._options.on_error,
                engine=self._engine,
            )
            journal = stack.enter_context(open_journal(self._output))
            self._start(journal, {"input": self._input(), "model": model.identity, "options": self._identity(job, forms)})
            return self._score(job, journal, model, source)

    def _is_finished(self) -> bool:
        """Look at what stands where the output goes, and tell whether nothing is left to do."""
        output, options = self._output, self._options
        if output.is_dir():
            raise StorageError(f"{output} is a folder: give a file to write")
        if unfinished(output):
            if not options.resume and not options.force:
                folder = parts_folder(output)
                raise StorageError(f"an unfinished run of {output} stands in {folder}: go on with --resume, or --force")
            return False
        if output.exists() and not options.force:
            if not options.resume:
                raise StorageError(f"{output} exists already: choose another file, replace it with --force, or give --resume")
            discard(output)  # what a kill left after the end
            return True
        return False

    def _columns(self, source: Source, shown: str) -> tuple[str, str | None]:
        columns = self._options.columns
        if not source.columns:  # a jsonl without rows has no columns to look for
            return columns.text or "text", columns.pair
        pair = None if columns.pair is None else find_named(source.columns, columns.pair, shown)
        text = find_text([name for name in source.columns if name != pair], columns.text, shown)
        return text, pair

    def _input(self) -> dict[str, Any]:
        """Return what tells this input from another; a stream cannot be told."""
        if is_stream(self._name):
            return {"stream": True}
        return {"bytes": Path(self._name).stat().st_size, "sha256": sha256_of(Path(self._name))}

    def _identity(self, job: Job, forms: tuple[Form, Form]) -> dict[str, Any]:
        """Return the options and versions that the output's bytes depend on."""
        return {
            "text_column": job.text,
            "pair_column": job.pair,
            "columns": list(job.head.names),
            "formats": [f"{form.kind}{form.packing}" for form in forms],
            "quotes": self._options.quotes,
            "part_rows": self._options.part_rows,
            "versions": {"fusedbert": version(), **dict(installed(_LIBRARIES))},
        }

    def _start(self, journal: Journal, identity: dict[str, Any]) -> None:
        if not unfinished(self._output) or self._options.force:
            journal.start(identity)
            return
        if "stream" in identity["input"]:
            raise OptionError(
                f"{self._name} is a stream, and what was read from it is gone: save it to a file and score that, "
                "or give it again from its start with --force"
            )
        journal.load(identity, self._options.on_error)
        for part in journal.parts:
            self._tally.add(part.tally)

    def _score(self, job: Job, journal: Journal, model: Model, source: Source) -> Summary:
        resumed = journal.end
        if not journal.complete:
            with contextlib.closing(self._chunks(job, model, source, resumed)) as chunks:
                part_rows, on_error = self._options.part_rows, self._options.on_error
                write_parts(chunks, journal, job.writer, part_rows, on_error, self._report)
        join_parts(self._output, journal, job.writer)
        return Summary.of(
            self._tally,
            output=str(self._output),
            error_file=str(error_file(self._output)),
            resumed=resumed,
            seconds=time.perf_counter() - self._started,
        )

    def _chunks(self, job: Job, model: Model, source: Source, first: int) -> Generator[Chunk]:
        if self._ray is not None:
            source.close()  # a task of Ray's reads it
            yield from ray_chunks(job, self._ray, model, first)
        elif model.classifier is not None:
            yield from Stages(job, model.classifier).chunks(job.windows(first, source))

    def _report(self, chunk: Chunk) -> None:
        self._tally.add(chunk.tally)
        if self._progress is not None:
            total = None if not chunk.done else max(chunk.end, round(chunk.end / chunk.done))
            self._progress(Progress(rows=chunk.end, total=total, padding=padding(self._tally)))
