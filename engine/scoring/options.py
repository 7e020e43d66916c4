"""What a caller may choose when a file is scored, checked once and then carried as one frozen object."""

from __future__ import annotations

import dataclasses
import enum
import os

from ..errors import OptionError
from ..options import E, Window

# Rows that are read, tokenized, sorted by length and run together: enough that hardly any of a batch is padding.
WINDOW_ROWS = 4096


class OnError(enum.StrEnum):
    """What happens to a row that cannot be scored: the run stops, the row stays without a score, the row is left out."""

    FAIL = "fail"
    NULL = "null"
    SKIP = "skip"


class On(enum.StrEnum):
    """Where the model runs: in this process, or in the actors of a Ray cluster."""

    LOCAL = "local"
    RAY = "ray"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Columns:
    """Which columns are read and written.

    Attributes:
        text: Column of the texts; None to guess.
        pair: Column of the second texts of pairs; None for single texts.
        probabilities: Whether to add ``p_<label>`` for each label.
        prefix: Stands before the name of each column that is added.
    """

    text: str | None = None
    pair: str | None = None
    probabilities: bool = False
    prefix: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Engine:
    """How the model is loaded, as ``Classifier.from_pretrained`` takes it; picklable.

    Attributes:
        model: MODEL, or None for the embedded default.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        precision: ``auto``, ``fp32``, ``int8`` or ``fp16``.
        threads: Threads of one run on the CPU; None for what the machine gives.
        long_text: ``truncate``, ``error``, ``window`` or a ``Window``.
    """

    model: str | os.PathLike[str] | None = None
    device: str = "auto"
    precision: str = "auto"
    threads: int | None = None
    long_text: str | Window = "truncate"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ray:
    """Where Ray is, and how many actors hold the model.

    Attributes:
        address: Of a running cluster; None starts one on this machine for the run.
        actors: Number of actors; None for one a GPU, or one a CPU.
    """

    address: str | None = None
    actors: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScoreOptions:
    """The options of ``score_file``, all valid.

    Attributes:
        columns: Which columns are read and written.
        on_error: What happens to a row that cannot be scored.
        input_format: ``csv``, ``tsv``, ``jsonl`` or ``parquet`` where the input's suffix does not tell.
        quotes: Whether ``"`` in a csv or tsv opens a quoted field, and is not a character like others.
        part_rows: Rows that are committed together; what a kill can cost.
        resume: Whether to go on with an unfinished run.
        force: Whether to replace a finished output, and to drop an unfinished run.
    """

    columns: Columns = dataclasses.field(default_factory=Columns)
    on_error: OnError = OnError.FAIL
    input_format: str | None = None
    quotes: bool = True
    part_rows: int = 4 * WINDOW_ROWS
    resume: bool = False
    force: bool = False

    def __post_init__(self) -> None:
        """Check what one option says against another."""
        if self.resume and self.force:
            raise OptionError("resume and force exclude each other: go on with the unfinished run, or start over")
        check_count("part_rows", self.part_rows)

    @property
    def window_rows(self) -> int:
        """Rows of a window at most."""
        return min(WINDOW_ROWS, self.part_rows)


def check_count(name: str, value: object) -> None:
    """Refuse what is no positive integer.

    Raises:
        OptionError: It is none; the message names the option.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise OptionError(f"{name} is {value!r}: give an integer from 1 up")


def member(kind: type[E], name: str, value: object) -> E:
    """Return the member of an enumeration that a plain string names.

    Raises:
        OptionError: There is none; the message lists them.
    """
    try:
        return kind(str(value))
    except ValueError:
        raise OptionError(f"{name} is {value!r}: give one of {', '.join(kind)}") from None
