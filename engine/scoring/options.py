"""Options of scoring, checked once."""

from __future__ import annotations

import dataclasses
import enum
import os
from typing import TypeAlias

from ..errors import OptionError, check_integer
from ..load import Options
from ..tasks.hypotheses import Hypotheses
from ..tasks.tokens.call import check_strategy
from ..text.inputs import Window
from ..text.thresholds import Threshold
from .formats.base import ReadOptions

Thresholds: TypeAlias = "Threshold | None"

# Rows that are read, tokenized, sorted by length and run together: enough that little of a batch is padding.
CHUNK_ROWS = 4096


class OnError(enum.StrEnum):
    """Handling of a row that cannot be scored: stop the run, write it without a score, or leave it out."""

    FAIL = "fail"
    NULL = "null"
    SKIP = "skip"


class On(enum.StrEnum):
    """Place of the model: this process, or actors of a Ray cluster."""

    LOCAL = "local"
    RAY = "ray"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Columns:
    """The columns to read and write."""

    text: str | None = None  # column of the texts; None to guess
    pair: str | None = None  # column of the second texts; None for single texts
    probabilities: bool = False  # whether to add p_<label> for each label
    prefix: str = ""  # of the added columns' names
    function_to_apply: str | None = None  # from logits to scores; None for the model's
    threshold: Threshold | None = None  # of a multi-label model; None for the model's
    top_k: int | None = None  # number of the best labels to give; None for one, or those above their threshold
    hypotheses: Hypotheses | None = None  # candidate labels, for zero-shot; None for the model's own labels
    aggregation_strategy: str | None = None  # of a token classifier; None for simple

    def __post_init__(self) -> None:
        check_integer("top_k", self.top_k, optional=True)
        if self.hypotheses is not None and self.pair is not None:
            raise OptionError("a column of second texts is given with candidate labels, which are the second texts: give one")
        if self.aggregation_strategy is not None:
            check_strategy(self.aggregation_strategy)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Arguments of ``Classifier.from_pretrained``. Picklable."""

    model: str | os.PathLike[str] | None = None
    device: str = "auto"
    precision: str = "auto"
    threads: int | None = None
    max_length: int | None = None
    long_text: str | Window = "truncate"
    split_special_tokens: bool | None = None

    def parse(self) -> Options:
        """Return the options for loading, or raise OptionError."""
        return Options.parse(**{name: value for name, value in vars(self).items() if name != "model"})


@dataclasses.dataclass(frozen=True, kw_only=True)
class RayOptions:
    """The cluster, and the number of actors that hold the model."""

    address: str | None = None  # of a running cluster; None starts one on this machine for the run
    actors: int | None = None  # None for one a GPU, or one a CPU


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScoreOptions:
    """Valid options of ``score_file``, which describes them."""

    columns: Columns = dataclasses.field(default_factory=Columns)
    on_error: OnError = OnError.FAIL
    input_format: str | None = None
    output_format: str | None = None
    read: ReadOptions = dataclasses.field(default_factory=ReadOptions)
    part_rows: int = 4 * CHUNK_ROWS
    resume: bool = False
    force: bool = False

    def __post_init__(self) -> None:
        if self.resume and self.force:
            raise OptionError("resume and force exclude each other: continue the unfinished run, or start over")
        check_integer("part_rows", self.part_rows)

    @property
    def chunk_rows(self) -> int:
        """Rows of a chunk at most; with candidate labels each is as many pairs."""
        labels = 1 if self.columns.hypotheses is None else len(self.columns.hypotheses.labels)
        return min(max(1, CHUNK_ROWS // labels), self.part_rows)
