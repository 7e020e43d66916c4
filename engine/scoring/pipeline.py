"""The stages of a chunk, here or in Ray's actors: tokenize, run, render."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from ..artifact import MANIFEST, Manifest
from ..artifact.foreign import manifest_of
from ..errors import FusedBertError, InputError
from ..hardware.device import DeviceKind
from ..hardware.storage import sha256_of
from ..load import Options
from ..load.open import load
from ..load.resolve import resolve_model
from ..model import Model
from ..run.prefetch import prefetch
from ..tasks.hypotheses import LabelModel
from ..tasks.tokens.tagger import EntityModel, check_window
from ..text.inputs import Cut, LongText, Text, Window
from ..text.tokenizer import Tokens
from .columns import EntityColumns, OutputColumns
from .formats import FileFormat
from .formats.base import RowError, Rows, Source, Writer
from .formats.files import shown
from .formats.input import Stamp
from .formats.values import dump, error_content, replace
from .heads import HeadsColumns
from .inputs import open_inputs
from .options import Columns, ModelOptions, OnError, ScoreOptions
from .summary import Counts

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """A run's model, and what the output's bytes depend on."""

    manifest: Manifest
    device: str  # cpu or cuda
    identity: dict[str, Any]  # hash of the model, precision, device and reading of texts
    model: Model | None  # None if only Ray's actors have its GPU

    @classmethod
    def load(cls, options: ModelOptions, *, remote: bool = False) -> ModelInfo:
        """Load a model, or only its manifest if ``remote`` actors have its GPU."""
        parsed = options.parse()
        if remote and parsed.device.kind is DeviceKind.CUDA:
            folder, model = resolve_model(options.model, parsed, "all"), None
            device, precision = "cuda", str(parsed.precision)
        else:
            model = load_model(options)
            folder = model.source.folder
            device, precision = model.runtime.device.split(":")[0], model.runtime.precision
        manifest = manifest_of(folder)
        fingerprint = _fingerprint(folder, manifest)
        identity = {"manifest": fingerprint, "precision": precision, "device": device, **_reading(parsed)}
        return cls(manifest=manifest, device=device, identity=identity, model=model)


def load_model(options: ModelOptions) -> Model:
    """Load the model that the options describe."""
    parsed = options.parse()
    model = Model(load(options.model, parsed), parsed)
    if model.source.manifest.by_token:
        check_window(parsed.window)
    return model


def as_asked(model: Model, columns: Columns) -> Model | LabelModel | EntityModel:
    """Return a model with the candidate labels, one that finds entities, or the model itself."""
    if model.source.manifest.by_token:
        return EntityModel(model, EntityColumns.of(columns).tagging)
    return model if columns.hypotheses is None else LabelModel(model, columns.hypotheses)


def _reading(options: Options) -> dict[str, Any]:
    """Return the options that change tokens, but for those that are as by default."""
    split = options.split_special_tokens
    found: dict[str, Any] = {} if split is None else {"split_special_tokens": split}
    if options.max_length is not None:
        found["max_length"] = options.max_length
    if options.long_text is not LongText.TRUNCATE:
        found["long_text"] = str(options.long_text)
    usual = dataclasses.asdict(Window())
    window = dataclasses.asdict(options.window) if options.long_text is LongText.WINDOW else {}
    # newer fields only where they are given, so that earlier runs can be continued
    return found | {name: each for name, each in window.items() if name in ("stride", "aggregate") or each != usual[name]}


def _fingerprint(folder: Path, manifest: Manifest) -> str:
    """Return the hash of the manifest, or without one, of the files."""
    if manifest.verifiable:
        return sha256_of(folder / MANIFEST)
    names = {*(variant.file for variant in manifest.variants), "config.json", "tokenizer.json", "tokenizer_config.json"}
    files = [f"{name} {sha256_of(folder / name)}" for name in sorted(names) if (folder / name).is_file()]
    return hashlib.sha256("\n".join(files).encode()).hexdigest()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """Everything needed to score a file. Picklable."""

    names: tuple[str, ...]  # of the inputs, - for stdin
    stamps: tuple[Stamp | None, ...]  # their states when they were opened
    form: FileFormat  # of the inputs
    text: str  # column of the texts
    pair: str | None  # column of the second texts
    output_columns: OutputColumns | EntityColumns | HeadsColumns
    writer: Writer
    options: ScoreOptions
    model: ModelOptions

    def chunks(self, first: int, source: Source | None = None) -> Iterator[Rows]:
        """Yield the chunks from row ``first`` on; ``source`` is the input if it is open."""
        options = self.options
        source = source or open_inputs(self.names, self.form, options.chunk_rows, options.read, self.stamps)
        try:
            for rows in source.chunks(self.text, self.pair, self.output_columns.names):
                if rows.first >= first:
                    yield rows
        finally:
            source.close()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tokenized:
    """A tokenized chunk."""

    rows: Rows
    texts: list[Text]  # equal ones once
    tokens: Tokens  # of the texts
    places: list[int]  # for each row its index in texts, -1 if it cannot be scored
    counts: Counts  # so far


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rendered:
    """A chunk in the output's format."""

    end: int  # number of the row after its last one
    size: int = 0  # characters or bytes of its rows
    content: Any = None  # the writer's result
    errors: bytes = b""  # lines for the error file
    counts: Counts = dataclasses.field(default_factory=Counts)
    done: float | None = None  # share of the input that has been read, if its size is known
    failure: FusedBertError | None = None  # the error that ends the run at this chunk


class Pipeline:
    """The stages of a job, with the model that they share."""

    def __init__(self, job: Job, model: Model) -> None:
        self._job = job
        self._model = as_asked(model, job.options.columns)

    def run(self, chunks: Iterator[Rows]) -> Iterator[Rendered]:
        """Yield the rendered chunks; reading and each stage overlap, in threads."""
        # One chunk waits between two stages: more would cost memory and gain nothing.
        tokenized = prefetch((tokenize(self._model, rows, seconds) for rows, seconds in prefetch(timed(chunks), 1)), 1)
        for each, logits in prefetch(((each, run(self._model, each)) for each in tokenized), 1):
            yield self._render(each, logits)

    def run_one(self, rows: Rows) -> Rendered:
        """Return one chunk rendered, without threads."""
        tokenized = tokenize(self._model, rows)
        return self._render(tokenized, run(self._model, tokenized))

    def _render(self, tokenized: Tokenized, results: Any) -> Rendered:
        start = time.perf_counter()
        job, rows, counts, places = self._job, tokenized.rows, tokenized.counts, tokenized.places
        failure = self._failure(rows)
        columns = job.output_columns.values(results, tokenized.tokens.truncated())
        keep = list(range(len(places)))
        if rows.errors and job.options.on_error is OnError.SKIP:
            keep = [offset for offset in keep if places[offset] >= 0]
        values = spread(columns, [places[offset] for offset in keep])
        data = rows.data if len(keep) == len(places) else rows.data.take(keep)
        content = None if failure else job.writer.chunk(data, values)
        counts.written = len(keep)
        counts.labels = job.output_columns.count(values)
        counts.truncated = sum(value is True for value in values[-1])
        counts.seconds["write"] = time.perf_counter() - start
        end, errors = rows.first + len(places), _error_lines(rows)
        return Rendered(end=end, size=rows.size, content=content, errors=errors, counts=counts, done=rows.done, failure=failure)

    def _failure(self, rows: Rows) -> FusedBertError | None:
        if not rows.errors or self._job.options.on_error is not OnError.FAIL:
            return None
        offset = min(rows.errors)
        name = shown(self._job.names[0]) if rows.file is None else rows.file
        error = rows.errors[offset]
        return InputError(
            f"{name}, row {_number(rows, offset)} cannot be scored: {error.reason}{error.hint and f'; {error.hint}'}; "
            "--on-error null keeps such rows without a score, --on-error skip leaves them out, and both list them in a file "
            "next to the output"
        )


def timed(items: Iterable[T]) -> Iterator[tuple[T, float]]:
    """Yield each item with the seconds that it took to come."""
    start = time.perf_counter()
    for item in items:
        yield item, time.perf_counter() - start
        start = time.perf_counter()


def distinct(rows: Rows) -> tuple[list[Text], list[int]]:
    """Return a chunk's texts, equal ones once, and each row's index among them, or -1."""
    known: dict[tuple[str, str | None], int] = {}
    texts: list[Text] = []
    places = []
    pairs: list[str | None] = rows.pairs if rows.pairs is not None else [None] * len(rows.texts)
    for offset, (text, pair) in enumerate(zip(rows.texts, pairs, strict=True)):
        if text is None or offset in rows.errors:
            places.append(-1)
            continue
        place = known.setdefault((text, pair), len(texts))
        if place == len(texts):
            texts.append(Text(text=text, pair=pair, index=_number(rows, offset)))
        places.append(place)
    return texts, places


def tokenize(model: Model | LabelModel | EntityModel, rows: Rows, read_seconds: float = 0.0) -> Tokenized:
    """Tokenize a chunk; texts that the model cannot take become errors."""
    start = time.perf_counter()
    texts, places = distinct(rows)
    long_text = model.options.long_text
    cut = Cut(long_text=LongText.WINDOW if long_text is LongText.WINDOW else LongText.TRUNCATE)
    try:
        if long_text is LongText.ERROR:
            texts, places = _refuse(rows, texts, places, _too_long(model, texts, cut))
        tokens = model.tokenize(texts, cut)
    except InputError:  # the model cannot take one of them
        texts, places = _refuse(rows, texts, places, _unfit(model, texts, cut))
        if long_text is LongText.ERROR:
            texts, places = _refuse(rows, texts, places, _too_long(model, texts, cut))
        tokens = model.tokenize(texts, cut)
    counts = Counts(rows=len(places), errors=len(rows.errors), run=len(texts))
    counts.tokens = sum(len(row.ids) for row in tokens.rows)
    counts.seconds |= {"read": read_seconds, "tokenize": time.perf_counter() - start}
    return Tokenized(rows=rows, texts=texts, tokens=tokens, places=places, counts=counts)


def _too_long(model: Model | LabelModel | EntityModel, texts: list[Text], cut: Cut) -> dict[int, str]:
    tried = dataclasses.replace(cut, counted=False)
    reason = f"the text has more than max_length, {model.tokenizer.max_length} tokens"
    return {place: reason for place, long in enumerate(model.tokenize(texts, tried).truncated()) if long}


def _unfit(model: Model | LabelModel | EntityModel, texts: list[Text], cut: Cut) -> dict[int, str]:
    """Find the texts without tokens, or with tokens without a vector."""
    reasons, tried = {}, dataclasses.replace(cut, counted=False)
    for place, text in enumerate(texts):
        try:
            model.tokenize([text], tried)
        except InputError as error:
            reasons[place] = f"the text {str(error).removeprefix(f'text {text.index} ')}"
    return reasons


def _refuse(rows: Rows, texts: list[Text], places: list[int], reasons: Mapping[int, str]) -> tuple[list[Text], list[int]]:
    """Turn texts into errors of their rows; return the other texts and the new places."""
    if not reasons:
        return texts, places
    left = [place for place in range(len(texts)) if place not in reasons]
    moved = {place: new for new, place in enumerate(left)}
    for offset, place in enumerate(places):
        if place in reasons:
            rows.errors[offset] = RowError(reason=reasons[place], content=rows.texts[offset])
    return [texts[place] for place in left], [moved.get(place, -1) for place in places]


def run(model: Model | LabelModel | EntityModel, tokenized: Tokenized) -> Any:
    """Return the logits ``[texts, labels]`` of a chunk, or its entities; it runs in batches of similar length."""
    start = time.perf_counter()
    results, tokenized.counts.padded = model.forward(tokenized.texts, tokenized.tokens)
    tokenized.counts.seconds["run"] = time.perf_counter() - start
    return results


def spread(columns: list[list[object]], places: list[int]) -> list[list[object]]:
    """Return each row's values; None for a row without a text."""
    return [[column[place] if place >= 0 else None for place in places] for column in columns]


def _number(rows: Rows, offset: int) -> int:
    """Return a row's number in its file, from 1."""
    return (rows.first if rows.file is None else rows.file_first) + offset + 1


def _error_lines(rows: Rows) -> bytes:
    lines = []
    for offset, error in sorted(rows.errors.items()):
        entry: dict[str, Any] = {} if rows.file is None else {"file": replace(rows.file)}
        entry |= {"row": _number(rows, offset), "reason": replace(error.reason)}
        if error.content is not None:
            entry["input"] = error_content(error.content)
        lines.append(f"{dump(entry)}\n")
    return "".join(lines).encode()
