"""The stages of one window between reading and writing: tokenize, run, render. The same here and in Ray's actors."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from ..classifier import Classifier
from ..errors import FusedBertError, InputError
from ..options import LongText
from ..run.prefetch import ahead
from ..text.inputs import Text
from ..text.outputs import Floats
from ..text.tokenizer import TextTokenizer
from ..text.windows import Tokens
from .columns import Head
from .files import STDIN, Form
from .options import Engine, OnError
from .readers import open_source
from .rows import dump, plain, valid
from .tally import Tally
from .windows import Fault, Raw, Source
from .writers import Writer

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """All that is needed to score a file, in this process or another; picklable.

    Attributes:
        name: The input, ``-`` for stdin.
        form: Its format.
        window_rows: Rows of a window at most.
        quotes: Whether ``"`` opens a quoted cell.
        text: Column of the texts.
        pair: Column of the second texts, or None.
        head: The columns that are added.
        writer: Renders windows.
        on_error: What happens to a row that cannot be scored.
        engine: How the model is loaded.
    """

    name: str
    form: Form
    window_rows: int
    quotes: bool
    text: str
    pair: str | None
    head: Head
    writer: Writer
    on_error: OnError
    engine: Engine

    def windows(self, first: int, source: Source | None = None) -> Iterator[Raw]:
        """Yield the input's windows from a row on, which must be the first of one.

        Args:
            first: The row, from 0.
            source: The input, where it is open already.
        """
        source = source or open_source(self.name, self.form, self.window_rows, quotes=self.quotes)
        try:
            for raw in source.windows(self.text, self.pair, self.head.names):
                if raw.first >= first:
                    yield raw
        finally:
            source.close()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Encoded:
    """A window with its texts tokenized, those that are the same once.

    Attributes:
        raw: The window.
        texts: The texts that differ.
        tokens: Their tokens.
        places: For each row of the window its place in ``texts``, -1 where it cannot be scored.
        tally: Its counts so far.
    """

    raw: Raw
    texts: list[Text]
    tokens: Tokens
    places: list[int]
    tally: Tally


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ran:
    """A window with the logits ``[texts, labels]`` of its texts."""

    encoded: Encoded
    logits: Floats


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chunk:
    """A window, rendered.

    Attributes:
        end: Number of the row behind its last.
        size: Characters or bytes of its rows.
        content: What the writer made of it.
        errors: Lines for the side file.
        tally: Its counts.
        done: Share of the input that is read, or None where its size is not known.
        failure: What stopped the run at this window, else None.
    """

    end: int
    size: int
    content: Any
    errors: bytes
    tally: Tally
    done: float | None
    failure: FusedBertError | None = None


def clocked(items: Iterable[T], note: Callable[[T, float], None]) -> Iterator[T]:
    """Yield items and tell how many seconds each took to come."""
    iterator = iter(items)
    while True:
        start = time.perf_counter()
        try:
            item = next(iterator)
        except StopIteration:
            return
        note(item, time.perf_counter() - start)
        yield item


def distinct(raw: Raw) -> tuple[list[Text], list[int]]:
    """Return a window's texts, those that are the same once, and for each row its place among them, or -1."""
    known: dict[tuple[str, str | None], int] = {}
    texts: list[Text] = []
    places = []
    pairs: list[str | None] = raw.pairs if raw.pairs is not None else [None] * len(raw.texts)
    for offset, (text, pair) in enumerate(zip(raw.texts, pairs, strict=True)):
        if text is None or offset in raw.faults:
            places.append(-1)
            continue
        place = known.setdefault((text, pair), len(texts))
        if place == len(texts):
            texts.append(Text(text=text, pair=pair, index=raw.first + offset + 1))
        places.append(place)
    return texts, places


def encode(classifier: Classifier, raw: Raw, seconds: float = 0.0) -> Encoded:
    """Tokenize a window, of which the reading took some seconds."""
    start = time.perf_counter()
    texts, places = distinct(raw)
    execution, long_text = classifier._opened_execution(), classifier._long_text(None)
    form = LongText.WINDOW if long_text is LongText.WINDOW else LongText.TRUNCATE
    try:
        if long_text is LongText.ERROR:
            texts, places = refuse(raw, texts, places, too_long(execution.tokenizer, texts))
        tokens = execution.tokenize(texts, form)
    except InputError:  # one of them is no text for this model
        texts, places = refuse(raw, texts, places, unfit(execution.tokenizer, texts))
        if long_text is LongText.ERROR:
            texts, places = refuse(raw, texts, places, too_long(execution.tokenizer, texts))
        tokens = execution.tokenize(texts, form)
    tally = Tally(rows=len(places), errors=len(raw.faults), run=len(texts))
    tally.tokens = sum(len(row.ids) for row in tokens.rows)
    tally.seconds |= {"read": seconds, "tokenize": time.perf_counter() - start}
    return Encoded(raw=raw, texts=texts, tokens=tokens, places=places, tally=tally)


def too_long(tokenizer: TextTokenizer, texts: list[Text]) -> dict[int, str]:
    """Return the places of the texts that are too long, and the reason."""
    reason = f"the text has more than max_length, {tokenizer.max_length} tokens"
    return {place: reason for place, row in enumerate(tokenizer.encode(texts)) if row.truncated}


def unfit(tokenizer: TextTokenizer, texts: list[Text]) -> dict[int, str]:
    """Return the places of the texts that the model cannot be fed, and the reason: no tokens, or one without a vector."""
    reasons = {}
    for place, text in enumerate(texts):
        try:
            tokenizer.encode([text])
        except InputError as error:
            reasons[place] = f"the text {str(error).removeprefix(f'text {text.index} ')}"
    return reasons


def refuse(raw: Raw, texts: list[Text], places: list[int], reasons: Mapping[int, str]) -> tuple[list[Text], list[int]]:
    """Note the rows of some texts as rows that cannot be scored, and return the other texts and their places."""
    if not reasons:
        return texts, places
    left = [place for place in range(len(texts)) if place not in reasons]
    moved = {place: new for new, place in enumerate(left)}
    for offset, place in enumerate(places):
        if place in reasons:
            raw.faults[offset] = Fault(reason=reasons[place], raw=raw.texts[offset])
    return [texts[place] for place in left], [moved.get(place, -1) for place in places]


def run(classifier: Classifier, encoded: Encoded) -> Ran:
    """Run the model on a window; its rows are sorted by length, so that hardly any of a batch is padding."""
    start = time.perf_counter()
    logits, encoded.tally.padded = classifier._opened_execution().forward(encoded.texts, encoded.tokens)
    encoded.tally.seconds["run"] = time.perf_counter() - start
    return Ran(encoded=encoded, logits=logits)


class Stages:
    """The stages, with the model that they share."""

    def __init__(self, job: Job, classifier: Classifier) -> None:
        self._job = job
        self._classifier = classifier

    def chunks(self, windows: Iterator[Raw]) -> Iterator[Chunk]:
        """Yield the chunks of windows; reading, tokenizing, running and rendering each go ahead of the next."""
        read: dict[int, float] = {}
        clock = clocked(windows, lambda raw, seconds: read.__setitem__(raw.first, seconds))
        # One window waits between two stages: more would cost memory and win nothing.
        encoded = ahead((encode(self._classifier, raw, read.pop(raw.first)) for raw in ahead(clock, 1)), 1)
        for ran in ahead((run(self._classifier, each) for each in encoded), 1):
            yield self.render(ran)

    def chunk(self, raw: Raw) -> Chunk:
        """Return the chunk of one window, here and now."""
        return self.render(run(self._classifier, encode(self._classifier, raw)))

    def render(self, ran: Ran) -> Chunk:
        """Write a window as the output has it."""
        start = time.perf_counter()
        raw, tally, places = ran.encoded.raw, ran.encoded.tally, ran.encoded.places
        failure = self._failure(raw)
        columns = self._job.head.values(ran.logits, ran.encoded.tokens.truncated())
        keep = list(range(len(places)))
        if raw.faults and self._job.on_error is OnError.SKIP:
            keep = [offset for offset in keep if places[offset] >= 0]
        values = spread(columns, [places[offset] for offset in keep])
        rows = raw.rows if len(keep) == len(places) else raw.rows.take(keep)
        content = None if failure else self._job.writer.chunk(rows, values)
        tally.written = len(keep)
        tally.labels = self._job.head.count(values)
        tally.truncated = sum(value is True for value in values[-1])
        tally.seconds["write"] = time.perf_counter() - start
        return Chunk(
            end=raw.first + len(places),
            size=raw.size,
            content=content,
            errors=side_lines(raw),
            tally=tally,
            done=raw.done,
            failure=failure,
        )

    def _failure(self, raw: Raw) -> FusedBertError | None:
        if not raw.faults or self._job.on_error is not OnError.FAIL:
            return None
        offset = min(raw.faults)
        shown = "stdin" if self._job.name == STDIN else self._job.name
        return InputError(
            f"{shown}, row {raw.first + offset + 1} cannot be scored: {raw.faults[offset].reason}; --on-error null keeps such "
            "rows without a score, --on-error skip leaves them out, and both list them in a file beside the output"
        )


def spread(columns: list[list[object]], places: list[int]) -> list[list[object]]:
    """Give each row the values of its text, and null where it has no place among the texts."""
    return [[column[place] if place >= 0 else None for place in places] for column in columns]


def side_lines(raw: Raw) -> bytes:
    """Write the rows of a window that cannot be scored as lines of JSON: the row's number from 1, the reason, what it was."""
    lines = []
    for offset, fault in sorted(raw.faults.items()):
        entry = {"row": raw.first + offset + 1, "reason": fault.reason}
        if fault.raw is not None:
            entry["input"] = escape(plain(fault.raw) if not isinstance(fault.raw, (str, list)) else fault.raw)
        lines.append(f"{dump(entry)}\n")
    return "".join(lines).encode()


def escape(value: Any) -> Any:
    r"""Write the bytes of a string that are not UTF-8 as ``\xe9``, so that the side file tells what they were."""
    if isinstance(value, list):
        return [escape(each) for each in value]
    if isinstance(value, str) and not valid(value):
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return value
