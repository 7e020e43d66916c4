"""Chunks to parts, parts to the output: what is written, flushed to the disk and renamed, in that order."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from .files import sync_folder
from .journal import Journal, Part, storing
from .options import OnError
from .tally import Tally
from .work import Chunk
from .writers import Writer

# A part also ends where its rows are this big together: it is held in memory until it is written.
_PART_SIZE = 64 << 20


def error_file(output: Path) -> Path:
    """Return where the rows that could not be scored are listed."""
    return output.with_name(f"{output.name}.errors.jsonl")


def write_parts(
    chunks: Iterable[Chunk],
    journal: Journal,
    writer: Writer,
    part_rows: int,
    on_error: OnError,
    report: Callable[[Chunk], None],
) -> None:
    """Gather chunks into parts and commit each.

    Args:
        chunks: In the order of the rows.
        journal: Where they are committed.
        writer: The output's format.
        part_rows: Rows of a part.
        on_error: What happens to a row that cannot be scored.
        report: Called with each chunk.

    Raises:
        FusedBertError: What a chunk failed with; parts before it are committed.
        StorageError: The disk is full, for example.
    """
    waiting: list[Chunk] = []
    for chunk in chunks:
        if chunk.failure is not None:
            raise chunk.failure
        waiting.append(chunk)
        report(chunk)
        if sum(each.tally.rows for each in waiting) >= part_rows or sum(each.size for each in waiting) >= _PART_SIZE:
            _commit(waiting, journal, writer, on_error)
            waiting = []
    if waiting or not journal.parts:  # an input without rows has one part without rows
        _commit(waiting, journal, writer, on_error)
    journal.commit_all()


def _commit(chunks: list[Chunk], journal: Journal, writer: Writer, on_error: OnError) -> None:
    number = len(journal.parts)
    errors = b"".join(chunk.errors for chunk in chunks)
    with storing(journal.folder):
        with new_file(journal.part_path(number)) as file:
            writer.part([chunk.content for chunk in chunks], file)
        if errors:
            with new_file(journal.error_path(number)) as file:
                file.write(errors)
        sync_folder(journal.folder)
        size = journal.part_path(number).stat().st_size
    tally = Tally()
    for chunk in chunks:
        tally.add(chunk.tally)
    end = chunks[-1].end if chunks else 0
    journal.commit(Part(number=number, end=end, bytes=size, error_bytes=len(errors), on_error=on_error, tally=tally))


def join_parts(output: Path, journal: Journal, writer: Writer) -> None:
    """Write the output and its side file from the committed parts, and remove these.

    A kill before the last step leaves the parts, and the next run does the same again.

    Raises:
        StorageError: There is no room for the whole output beside its parts, for example.
    """
    joined, errors = journal.folder / "joined", journal.folder / "errors"
    numbers = [part.number for part in journal.parts]
    faulty = [part.number for part in journal.parts if part.error_bytes]
    with storing(output.parent):
        with new_file(joined) as file:
            writer.join([journal.part_path(number) for number in numbers], file)
        if faulty:
            with new_file(errors) as file:
                for number in faulty:
                    with journal.error_path(number).open("rb") as part:
                        shutil.copyfileobj(part, file)
            errors.replace(error_file(output))
        else:
            error_file(output).unlink(missing_ok=True)  # of an older run
        joined.replace(output)
        sync_folder(output.parent)
    journal.remove()


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing that is on the disk when the block ends well, and gone when it does not."""
    try:
        with path.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        path.unlink(missing_ok=True)
        raise
