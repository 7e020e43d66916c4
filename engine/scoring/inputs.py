"""The inputs of a run: files, patterns and folders of parts, read one after the other as one input."""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ..errors import FusedBertError, InputError, OptionError, StorageError
from .columns import find_text
from .formats import FileFormat, open_source
from .formats.base import ReadOptions, Rows, Source
from .formats.files import STDIN, shown
from .formats.input import InputFile, Stamp

_ROWS = 4096  # of a file that are read together
_OPEN_KEYS = ("jsonl", "json")  # formats whose rows may have other keys than the first ones


def expand(inputs: str | os.PathLike[str] | Iterable[str | os.PathLike[str]], kind: str | None = None) -> tuple[str, ...]:
    """Return the files of inputs, in their order: a folder's and a pattern's sorted by name.

    Args:
        inputs: A file, ``-`` for stdin, a folder, a pattern such as ``parts/*.csv``, or several of these.
        kind: The format of files whose suffix does not name it.

    Raises:
        OptionError: There is none, or one is not a path.
        StorageError: No file matches a pattern, or a folder cannot be read.
        InputError: A folder has other files than tables, or none.

    Example:
        >>> expand(["reviews.csv", "-"])
        Traceback (most recent call last):
        ...
        fusedbert.engine.errors.OptionError: stdin is one of 2 inputs: give it by itself
    """
    names = [name for each in given_inputs(inputs) for name in _expand(each, kind)]
    if not names:
        raise OptionError("no input was given: name a file, a folder or a pattern")
    if STDIN in names and len(names) > 1:
        raise OptionError(f"stdin is one of {len(names)} inputs: give it by itself")
    return tuple(names)


def given_inputs(inputs: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> tuple[str, ...]:
    """Return the paths that the caller gave; OptionError if they are none."""
    if isinstance(inputs, (str, bytes, os.PathLike)) or not isinstance(inputs, Iterable):
        return (path_name(inputs, "an input"),)
    return tuple(path_name(each, "an input") for each in inputs)


def path_name(value: object, what: str) -> str:
    """Return a path that the caller gave; OptionError if it cannot be one."""
    name = os.fspath(value) if isinstance(value, (str, os.PathLike)) else None
    if not isinstance(name, str):
        raise OptionError(f"{what} is of type {type(value).__name__}, expected a path")
    try:
        usable = bool(name) and b"\0" not in os.fsencode(name)
    except UnicodeEncodeError:
        usable = False
    if not usable:
        raise OptionError(f"{what} is {ascii(name)[:80]}, which cannot be a path")
    return name


def _expand(name: str, kind: str | None) -> list[str]:
    if name == STDIN:
        return [name]
    try:
        mode = Path(name).stat().st_mode
    except OSError as error:
        if name.endswith(("/", os.sep)):
            raise StorageError(f"{name} cannot be read: {error.strerror or error}") from None
        if not glob.has_magic(name):
            return [name]  # opening it gives the error
        matches = glob.glob(name, recursive=True)  # noqa: PTH207 (Path.glob takes no absolute patterns)
        found = sorted(each for each in matches if not Path(each).is_dir())
        if not found:
            raise StorageError(f"{name}: no file matches this pattern") from None
        return found
    return _parts(Path(name), kind) if stat.S_ISDIR(mode) else [name]


def _parts(folder: Path, kind: str | None) -> list[str]:
    """List a folder's files, but hidden ones and those that begin with _, such as Spark's _SUCCESS."""
    try:
        entries = sorted(path for path in folder.iterdir() if not path.name.startswith((".", "_")))
    except OSError as error:
        raise StorageError(f"{folder} cannot be read: {error.strerror or error}") from None
    way_out = "give a pattern such as 'parts/*.csv'"
    if not entries:
        raise InputError(f"{folder} is a folder without files to score")
    for path in entries:
        if path.is_dir():
            raise InputError(f"{folder} has the folder {path.name!r} inside: {way_out}")
        try:
            FileFormat.of(str(path), kind)
        except OptionError:
            raise InputError(f"{folder} has {path.name!r}, whose format is not known: {way_out}") from None
    return [str(path) for path in entries]


def check_outside(inputs: Iterable[str], output: str) -> None:
    """Raise OptionError if an output is in a folder of inputs: a later run would read it, or what a killed one left."""
    place = Path(output).resolve()
    for each in inputs:
        if Path(each).is_dir() and place.is_relative_to(Path(each).resolve()):
            raise OptionError(f"{output} is in the folder {each}, whose files are the input: choose a place outside")


def common_format(names: Sequence[str], kind: str | None) -> FileFormat:
    """Return the format of all inputs; OptionError if they differ."""
    forms = {FileFormat.of(name, kind): name for name in reversed(names)}
    if len(forms) > 1:
        (first, a), (second, b) = list(forms.items())[:2]
        raise OptionError(f"{b} is {second} and {a} is {first}: score inputs of one format together")
    return next(iter(forms))


def open_inputs(
    names: Sequence[str], form: FileFormat, chunk_rows: int, options: ReadOptions, stamps: Sequence[Stamp | None] = ()
) -> Source:
    """Open inputs as one; ``stamps`` are their states if another process opened them before.

    Raises:
        FusedBertError: One cannot be read, changed since, or has other columns than the first.
    """
    if len(names) > 1:
        return Several(names, form, chunk_rows, options, stamps)
    file = InputFile(names[0], *stamps)
    with _closed_on_error(file):
        return open_source(file, form, chunk_rows, options)


def read_texts(name: str, column: str | None = None, kind: str | None = None, options: ReadOptions | None = None) -> list[str]:
    """Return the texts of a file's column, of stdin by default the lines.

    Raises:
        InputError: There are none, or a row has none.
        FusedBertError: The file cannot be read, or lacks the column.
    """
    form = FileFormat.of(name, kind or ("txt" if name == STDIN else None))
    options = dataclasses.replace(options or ReadOptions(), named=column is not None)
    texts: list[str] = []
    with contextlib.closing(open_inputs([name], form, _ROWS, options)) as source:
        chosen = find_text(source.columns, column, shown(name)) if source.columns else column or "text"
        for rows in source.chunks(chosen, None):
            for offset in sorted(rows.errors)[:1]:
                error = rows.errors[offset]
                hint = error.hint or "mend it, or leave it out"
                raise InputError(f"{shown(name)}, row {rows.first + offset + 1} has no text: {error.reason}; {hint}")
            texts += [text or "" for text in rows.texts]
    if not texts:
        raise InputError(f"{shown(name)} has no rows: give a file with a text in each")
    return texts


def files_of(source: Source) -> tuple[InputFile, ...]:
    """Return the files of opened inputs."""
    return source.files if isinstance(source, Several) else (source.file,)


def identity(source: Source) -> dict[str, Any]:
    """Return size and hash of the inputs for the journal, by their number if they are several."""
    files = files_of(source)
    if len(files) == 1:
        return files[0].identity()
    return {str(number): file.identity() for number, file in enumerate(files, 1)}


def check_unchanged(source: Source) -> None:
    """Raise InputError if an input is not as it was when it was opened."""
    for file in files_of(source):
        file.check_unchanged()


class Several(Source):
    """Files of one format and the same columns, one after the other; a file is open only while it is read."""

    def __init__(
        self,
        names: Sequence[str],
        form: FileFormat,
        chunk_rows: int,
        options: ReadOptions,
        stamps: Sequence[Stamp | None] = (),
    ) -> None:
        self._form, self._chunk_rows, self._options = form, chunk_rows, options
        self._first: Source | None = None
        files = []
        for number, name in enumerate(names):
            file = InputFile(name, stamps[number] if stamps else None)
            if file.stamp is None:
                file.close()
                raise OptionError(f"{shown(name)} is a stream, and one of {len(names)} inputs: give it by itself")
            files.append(file)
            is_part = bool(file.size or form.compression) or form.kind == "parquet"  # Spark writes parts that are empty
            if is_part or (number == len(names) - 1 and self._first is None):
                self._add_columns(file)
            file.close()
        self.files, self.file = tuple(files), files[0]
        self._sizes = [file.size for file in files]

    def schema(self, texts: Sequence[str | None]) -> Any:
        """Return the schema of the first file."""
        assert self._first is not None
        return self._first.schema(texts)

    def chunks(self, text: str, pair: str | None, added: Iterable[str] = ()) -> Iterator[Rows]:
        """Yield the chunks of each file; none has rows of two files."""
        first, before, total = 0, 0, max(1, sum(self._sizes))
        for file, size in zip(self.files, self._sizes, strict=True):
            end = 0
            if not size:
                continue
            file.reopen()
            with contextlib.closing(self._open(file)) as source:
                source.columns = self.columns
                for rows in source.chunks(text, pair, added):
                    end = rows.first + len(rows.texts)
                    done = (before + size * (rows.done or 0.0)) / total
                    yield dataclasses.replace(rows, first=first + rows.first, done=done, file=file.name, file_first=rows.first)
            first, before = first + end, before + size

    def close(self) -> None:
        """Close the file that is being read."""
        for file in self.files:
            file.close()

    def _open(self, file: InputFile) -> Source:
        with _closed_on_error(file):
            return open_source(file, self._form, self._chunk_rows, self._options)

    def _add_columns(self, file: InputFile) -> None:
        """Read a file's columns, which must be those of the first; keys of JSON may be added."""
        source = self._open(file)
        source.close()
        if self._first is None:
            self._first, self.columns = source, source.columns
        elif self._form.kind in _OPEN_KEYS:
            self.columns = tuple(dict.fromkeys((*self.columns, *source.columns)))
        elif source.columns != self.columns:
            raise InputError(
                f"{file.name} has the columns {_named(source.columns)}, and {self._first.file.name} has "
                f"{_named(self.columns)}: score them one by one, with a folder as the output"
            )


def _named(columns: Sequence[str]) -> str:
    return ", ".join(map(repr, columns[:10])) + (", ..." if len(columns) > 10 else "")


@contextlib.contextmanager
def _closed_on_error(file: InputFile) -> Iterator[None]:
    try:
        yield
    except FusedBertError:
        file.close()
        raise
