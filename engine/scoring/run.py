"""A run: inputs into one output, either a file with a journal, or a stream."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import sys
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import OptionError, StorageError
from ..hardware.packages import installed, version
from .columns import check_clash, find_named, find_text
from .formats import FileFormat, open_writer
from .formats.base import Source
from .formats.files import STDIN, check_input, shown
from .formats.header import header_hint
from .heads import output_columns
from .inputs import check_unchanged, common_format, files_of, identity, open_inputs
from .journal import Journal, discard, error_file, join_parts, open_journal, parts_folder, unfinished, write_parts
from .options import Columns, ModelOptions, RayOptions, ScoreOptions
from .pipeline import Job, ModelInfo, Pipeline, Rendered
from .ray import check_ray, score_on_ray
from .summary import Counts, Progress, Summary

_log = logging.getLogger("fusedbert.engine.scoring")
_LIBRARIES = ("onnxruntime", "onnxruntime-gpu", "tokenizers", "numpy")
_SHOWN_ERRORS = 10  # rows that cannot be scored, on a stream, which has no error file
_STREAMS = ("/dev/stdout", "/dev/fd/", "/proc/self/fd/")


def is_stream(output: str) -> bool:
    """Return whether an output is written once from its start: stdout, a pipe or a device."""
    if output == STDIN or output.startswith(_STREAMS):
        return True
    path = Path(output)
    return path.exists() and not path.is_file() and not path.is_dir()


@dataclasses.dataclass(kw_only=True)
class Run:
    """Inputs that are scored into one output; ``load`` gives the model, which several runs share."""

    names: tuple[str, ...]  # of the inputs
    output: str  # a file, or - for stdout
    model: ModelOptions
    options: ScoreOptions
    ray: RayOptions | None
    load: Callable[[], ModelInfo]
    progress: Callable[[Progress], None] | None
    counts: Counts = dataclasses.field(default_factory=Counts)
    started: float = dataclasses.field(default_factory=time.perf_counter)

    def run(self) -> Summary:
        """Score the inputs, or continue where an earlier run ended."""
        stream = is_stream(self.output)
        if self._path.is_dir():
            raise StorageError(
                f"{self.output} is a folder: give a file to write, or {self.output}/ for a file in it for each input"
            )
        form = common_format(self.names, self.options.input_format)
        output_form = self._output_format(form, stream)
        if stream and self.options.resume:
            raise OptionError(f"{self._shown} is a stream, which cannot be continued: leave --resume out, or give a file")
        if not stream and self._is_finished():
            return Summary(output=self.output, finished_before=True)
        for name in self.names:
            check_input(name)
            if name != STDIN and not stream and self._path.exists() and self._path.samefile(name):
                raise OptionError(f"{self.output} is the input: choose another output")
        if self.ray is not None:
            check_ray(self.names, form)
        read = dataclasses.replace(self.options.read, named=self.options.columns.text is not None, target=output_form.kind)
        self.options = dataclasses.replace(self.options, read=read)
        with contextlib.closing(open_inputs(self.names, form, self.options.chunk_rows, read)) as source:
            job, info = self._job(source, form, output_form)
            if stream:
                return self._stream(job, info, source)
            with contextlib.closing(open_journal(self._path)) as journal:
                identified = self._identity(job, info, source, output_form)
                check_unchanged(source)
                self._start(journal, identified)
                return self._score(job, journal, info, source)

    @property
    def _path(self) -> Path:
        return Path(self.output)

    @property
    def _shown(self) -> str:
        return "stdout" if self.output == STDIN else self.output

    def _output_format(self, form: FileFormat, stream: bool) -> FileFormat:
        """Return the output's format; without a suffix that names it, a stream has the input's."""
        kind = self.options.output_format
        if stream and kind is None:
            with contextlib.suppress(OptionError):
                return FileFormat.of(self._shown, output=True)
            kind = {"txt": "csv", "parquet": "jsonl"}.get(form.kind, form.kind)
        return FileFormat.of(self._shown, kind, output=True)

    def _is_finished(self) -> bool:
        """Check the output's path; return whether nothing is left to do."""
        output, options = self._path, self.options
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

    def _job(self, source: Source, form: FileFormat, output_form: FileFormat) -> tuple[Job, ModelInfo]:
        """Check the columns, load the model, and prepare the output."""
        name = shown(self.names[0])
        text, pair = self._columns(source, form, name)
        info = self.load()
        columns = output_columns(info.manifest, self.options.columns)
        check_clash(source.columns, columns.names, name)
        quotes = self.options.read.quotes
        job = Job(
            names=self.names,
            stamps=tuple(file.stamp for file in files_of(source)),
            form=form,
            text=text,
            pair=pair,
            output_columns=columns,
            writer=open_writer(output_form, source, columns.added, (text, pair), quotes=quotes),
            options=self.options,
            model=self.model,
        )
        return job, info

    def _columns(self, source: Source, form: FileFormat, name: str) -> tuple[str, str | None]:
        columns = self.options.columns
        if not source.columns:  # a jsonl without rows
            return columns.text or "text", columns.pair
        delimiter = self.options.read.delimiter or {"csv": ",", "tsv": "\t"}.get(form.kind)
        hint = header_hint(source.columns, delimiter) if delimiter and self.options.read.header else ""
        pair = None if columns.pair is None else find_named(source.columns, columns.pair, name, hint)
        text = find_text([column for column in source.columns if column != pair], columns.text, name, hint)
        return text, pair

    def _identity(self, job: Job, info: ModelInfo, source: Source, output_form: FileFormat) -> dict[str, Any]:
        """Return what the output's bytes depend on."""
        columns, read = job.output_columns, self.options.read
        options = {
            "text_column": job.text,
            "pair_column": job.pair,
            "columns": list(columns.names),
            **columns.identity,
            "formats": [str(job.form), str(output_form)],
            "quotes": read.quotes,
            "delimiter": read.delimiter,
            "encoding": read.encoding,
            "header": read.header,
            "part_rows": self.options.part_rows,
            **_zero_shot(self.options.columns),
            "versions": {"fusedbert": version(), **dict(installed(_LIBRARIES))},
        }
        return {"input": identity(source), "model": info.identity, "options": options}

    def _start(self, journal: Journal, identified: dict[str, Any]) -> None:
        if not unfinished(self._path) or self.options.force:
            journal.start(identified, replaces=self.options.force)
            return
        if "stream" in identified["input"]:
            raise OptionError(
                f"{self.names[0]} is a stream, and cannot be read again: save it to a file and score that, "
                "or repeat it from its start with --force"
            )
        journal.load(identified, self.options.on_error)
        for part in journal.parts:
            self.counts.add(part.counts)

    def _score(self, job: Job, journal: Journal, info: ModelInfo, source: Source) -> Summary:
        resumed = journal.end
        if not journal.complete:
            with contextlib.closing(self._rendered(job, info, source, resumed)) as chunks:
                write_parts(chunks, journal, job, self._report, lambda: check_unchanged(source))
        join_parts(self._path, journal, job.writer)
        return self._summary(str(error_file(self._path)), resumed)

    def _stream(self, job: Job, info: ModelInfo, source: Source) -> Summary:
        """Write chunk by chunk as they come; what is written cannot be taken back, so an error leaves a part of the output."""
        with _opened(self.output) as stream, contextlib.closing(self._rendered(job, info, source, 0)) as chunks:
            try:
                job.writer.stream(self._contents(chunks, source), stream)
            except BrokenPipeError:
                raise
            except OSError as error:
                if isinstance(error, StorageError):
                    raise
                raise StorageError(f"{self._shown} cannot be written: {error.strerror or error}") from None
        return self._summary(None, 0)

    def _contents(self, chunks: Iterator[Rendered], source: Source) -> Iterator[Any]:
        logged = 0
        for chunk in chunks:
            if chunk.failure is not None:
                raise chunk.failure
            check_unchanged(source)
            for line in chunk.errors.splitlines()[: _SHOWN_ERRORS - logged]:
                _log.warning("this row cannot be scored: %s", line.decode())
                logged += 1
            yield chunk.content
            self._report(chunk)
        if self.counts.errors > logged:
            _log.warning("%d more rows cannot be scored", self.counts.errors - logged)

    def _rendered(self, job: Job, info: ModelInfo, source: Source, first: int) -> Generator[Rendered]:
        if self.ray is not None:
            yield from score_on_ray(job, self.ray, info.device, first)
        elif info.model is not None:
            yield from Pipeline(job, info.model).run(job.chunks(first, source))

    def _report(self, chunk: Rendered) -> None:
        self.counts.add(chunk.counts)
        if self.progress is not None:
            total = None if not chunk.done else max(chunk.end, round(chunk.end / chunk.done))
            self.progress(Progress(rows=chunk.end, total=total, padding=self.counts.padding))

    def _summary(self, errors: str | None, resumed: int) -> Summary:
        seconds = time.perf_counter() - self.started
        return Summary.of(self.counts, output=self._shown, error_file=errors, resumed=resumed, seconds=seconds)


def _zero_shot(columns: Columns) -> dict[str, Any]:
    """Return the candidate labels, only where they are given, so that earlier runs can be continued."""
    given = columns.hypotheses
    if given is None:
        return {}
    return {"labels": list(given.labels), "template": given.template, "multi_label": given.multi_label}


@contextlib.contextmanager
def _opened(output: str) -> Iterator[BinaryIO]:
    """Open a stream to write; stdout stays open."""
    if output == STDIN:
        if sys.stdout is None:
            raise StorageError("stdout is closed, so the output has nowhere to go: give a file")
        yield sys.stdout.buffer
        return
    try:
        with Path(output).open("wb") as file:
            yield file
    except BrokenPipeError:
        raise
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError(f"{output} cannot be written: {error.strerror or error}") from None
