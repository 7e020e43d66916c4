"""A file through a source and a writer, without a model."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from fusedbert.engine.scoring.formats import FileFormat, open_source, open_writer
from fusedbert.engine.scoring.formats.base import AddedColumns, ReadOptions
from fusedbert.engine.scoring.formats.input import InputFile

ADDED = AddedColumns(names=("label",), types=("str",))


@dataclasses.dataclass
class Converted:
    """The rows of a file, and their output."""

    columns: tuple[str, ...]
    texts: list[str | None]
    pairs: list[str | None]
    reasons: dict[int, str]  # by number of the row, from 1
    contents: dict[int, Any]
    path: Path  # the output


@pytest.fixture
def convert(tmp_path: Path) -> Any:
    """Return a function that reads content as a file, and writes its rows with the label L in parts."""

    def call(
        content: Any,
        name: str = "in.csv",
        output: str = "out.jsonl",
        *,
        text: str = "text",
        pair: str | None = None,
        chunk_rows: int = 4096,
        streamed: bool = False,
        **options: Any,
    ) -> Converted:
        path, target = tmp_path / name, tmp_path / output
        if isinstance(content, pyarrow.Table):
            pyarrow.parquet.write_table(content, path)
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        form, written = FileFormat.of(str(path)), FileFormat.of(str(target), output=True)
        source = open_source(InputFile(str(path)), form, chunk_rows, ReadOptions(target=written.kind, **options))
        writer = open_writer(written, source, ADDED, (text, pair), quotes=options.get("quotes", True))
        result = Converted(source.columns, [], [], {}, {}, target)
        rendered = []
        for rows in source.chunks(text, pair, ADDED.names):
            result.texts += rows.texts
            result.pairs += rows.pairs or []
            result.reasons |= {rows.first + index + 1: error.reason for index, error in rows.errors.items()}
            result.contents |= {rows.first + index + 1: error.content for index, error in rows.errors.items()}
            rendered.append(writer.chunk(rows.data, [["L"] * len(rows.texts)]))
        source.close()
        with target.open("wb") as file:
            if streamed:
                writer.stream(iter(rendered), file)
                return result
            parts = []
            for number, chunks in enumerate([[each] for each in rendered] or [[]]):
                parts.append(tmp_path / f"part-{number}")
                with parts[-1].open("wb") as part:
                    writer.part(chunks, part)
            writer.join(parts, file)
        return result

    return call
