"""``score_file``: a file of rows in, the same rows with labels and scores out."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from ..errors import OptionError, StorageError, check_member
from ..hardware.packages import installed, version
from ..hardware.storage import sha256_of
from ..text.inputs import Window
from .columns import OutputColumns, check_clash, find_named, find_text
from .formats import FileFormat, open_source, open_writer
from .formats.base import Source
from .formats.files import STDIN, check_input, is_stream, shown
from .journal import Journal, discard, error_file, join_parts, open_journal, parts_folder, unfinished, write_parts
from .options import Columns, ModelOptions, On, OnError, RayOptions, ScoreOptions
from .pipeline import Job, ModelInfo, Pipeline, Rendered
from .ray import check_ray, score_on_ray
from .summary import Counts, Progress, Summary

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

    The output has the input's columns and rows in order, plus ``label``, ``score``, with ``probabilities`` ``p_<label>`` for
    each label, and ``truncated``. It appears complete, by rename.

    Args:
        input: The file, its format by suffix; ``-`` for stdin. A stream cannot be resumed.
        output: The file to write, its format by suffix.
        model: An artifact, a checkpoint folder or a hub id; None for the embedded default.
        text_column: Column of the texts; None for the only candidate.
        pair_column: Column of the second texts, for sentence pairs.
        probabilities: Whether to add a column for each label's probability.
        prefix: Put before the names of added columns.
        on_error: For a row that cannot be scored: ``fail``, ``null`` (no score) or ``skip`` (left out).
        input_format: The format, if the input's suffix does not name it.
        quotes: Whether ``"`` opens a quoted cell of a csv or tsv.
        part_rows: Rows that are committed together.
        resume: Whether to continue an unfinished run; a finished output stays as it is.
        force: Whether to replace an output, and to drop an unfinished run.
        device: As in ``Classifier.from_pretrained``.
        precision: As there.
        threads: As there; with Ray, of each actor.
        long_text: As there, without a warning; with ``error`` a row whose text is too long cannot be scored.
        on: ``local`` or ``ray``.
        ray_address: Of a running cluster; None starts Ray on this machine.
        actors: Number of Ray actors.
        progress: Called after each chunk of rows.

    Returns:
        Counts and times of the run.

    Raises:
        FusedBertError: Any of its subclasses; committed parts stay for ``resume``.

    Example:
        >>> summary = score_file("reviews.csv", "scored.csv", resume=True)
        >>> summary.rows, dict(summary.labels)
        (5, {'POSITIVE': 3, 'NEGATIVE': 2})
    """
    options = ScoreOptions(
        columns=Columns(text=text_column, pair=pair_column, probabilities=probabilities, prefix=prefix),
        on_error=check_member(OnError, "on_error", on_error),
        input_format=input_format,
        quotes=quotes,
        part_rows=part_rows,
        resume=resume,
        force=force,
    )
    model_options = ModelOptions(model=model, device=device, precision=precision, threads=threads, long_text=long_text)
    if check_member(On, "on", on) is On.LOCAL and (ray_address is not None or actors is not None):
        raise OptionError("a Ray address or a number of actors needs on='ray' (--on ray)")
    ray = RayOptions(address=ray_address, actors=actors) if on == On.RAY else None
    name = os.fspath(input)
    return _Run(name=name, output=Path(output), model=model_options, options=options, ray=ray, progress=progress).run()


@dataclasses.dataclass(kw_only=True)
class _Run:
    name: str
    output: Path
    model: ModelOptions
    options: ScoreOptions
    ray: RayOptions | None
    progress: Callable[[Progress], None] | None
    counts: Counts = dataclasses.field(default_factory=Counts)
    started: float = dataclasses.field(default_factory=time.perf_counter)

    def run(self) -> Summary:
        form, output_form = FileFormat.of(self.name, self.options.input_format), FileFormat.of(str(self.output))
        if self._is_finished():
            return Summary(output=str(self.output), finished_before=True)
        check_input(self.name)
        if self.name != STDIN and self.output.exists() and self.output.samefile(self.name):
            raise OptionError(f"{self.output} is the input: choose another output")
        if self.ray is not None:
            check_ray(self.name, form)
        with contextlib.ExitStack() as stack:
            source = open_source(self.name, form, self.options.chunk_rows, quotes=self.options.quotes)
            stack.callback(source.close)
            text, pair = self._columns(source)
            info = ModelInfo.load(self.model, remote=self.ray is not None)
            if info.model is not None:
                stack.callback(info.model.close)
            output_columns = OutputColumns.of(
                info.manifest.labels, info.manifest.problem_type, self.options.columns, info.manifest.function_to_apply
            )
            check_clash(source.columns, output_columns.names, shown(self.name))
            job = Job(
                name=self.name,
                form=form,
                text=text,
                pair=pair,
                output_columns=output_columns,
                writer=open_writer(output_form, source, output_columns.added, (text, pair), quotes=self.options.quotes),
                options=self.options,
                model=self.model,
            )
            options = {
                "text_column": text,
                "pair_column": pair,
                "columns": list(output_columns.names),
                "formats": [str(form), str(output_form)],
                "quotes": self.options.quotes,
                "part_rows": self.options.part_rows,
                "versions": {"fusedbert": version(), **dict(installed(_LIBRARIES))},
            }
            journal = stack.enter_context(contextlib.closing(open_journal(self.output)))
            self._start(journal, {"input": self._input(), "model": info.identity, "options": options})
            return self._score(job, journal, info, source)

    def _is_finished(self) -> bool:
        """Check the output's path; return whether nothing is left to do."""
        output, options = self.output, self.options
        if output.is_dir():
            raise StorageError(f"{output} is a folder: give a file to write")
        if unfinished(output):
            if not options.resume and not options.force:
                way_out = "continue it with --resume, or start over with --force"
                raise StorageError(f"an unfinished run of {output} is in {parts_folder(output)}: {way_out}")
            return False
        if options.force or not output.exists():
            return False
        if not options.resume:
            raise StorageError(f"{output} exists already: choose another file, replace it with --force, or give --resume")
        discard(output)  # the folder of a run that was killed after its end
        return True

    def _columns(self, source: Source) -> tuple[str, str | None]:
        columns, name = self.options.columns, shown(self.name)
        if not source.columns:  # a jsonl without rows
            return columns.text or "text", columns.pair
        pair = None if columns.pair is None else find_named(source.columns, columns.pair, name)
        text = find_text([column for column in source.columns if column != pair], columns.text, name)
        return text, pair

    def _input(self) -> dict[str, Any]:
        """Identify the input; a stream has no identity."""
        if is_stream(self.name):
            return {"stream": True}
        return {"bytes": Path(self.name).stat().st_size, "sha256": sha256_of(Path(self.name))}

    def _start(self, journal: Journal, identity: dict[str, Any]) -> None:
        if not unfinished(self.output) or self.options.force:
            journal.start(identity)
            return
        if "stream" in identity["input"]:
            raise OptionError(
                f"{self.name} is a stream, and cannot be read again: save it to a file and score that, "
                "or repeat it from its start with --force"
            )
        journal.load(identity, self.options.on_error)
        for part in journal.parts:
            self.counts.add(part.counts)

    def _score(self, job: Job, journal: Journal, info: ModelInfo, source: Source) -> Summary:
        resumed = journal.end
        if not journal.complete:
            with contextlib.closing(self._rendered(job, info, source, resumed)) as chunks:
                write_parts(chunks, journal, job, self._report)
        join_parts(self.output, journal, job.writer)
        return Summary.of(
            self.counts,
            output=str(self.output),
            error_file=str(error_file(self.output)),
            resumed=resumed,
            seconds=time.perf_counter() - self.started,
        )

    def _rendered(self, job: Job, info: ModelInfo, source: Source, first: int) -> Generator[Rendered]:
        if self.ray is not None:
            source.close()  # a task of Ray reads it
            yield from score_on_ray(job, self.ray, info.device, first)
        elif info.model is not None:
            yield from Pipeline(job, info.model).run(job.chunks(first, source))

    def _report(self, chunk: Rendered) -> None:
        self.counts.add(chunk.counts)
        if self.progress is not None:
            total = None if not chunk.done else max(chunk.end, round(chunk.end / chunk.done))
            self.progress(Progress(rows=chunk.end, total=total, padding=self.counts.padding))
