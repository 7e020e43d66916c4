"""What a ``Batcher`` needs of a ``Classifier``: tokenize, run, and no more. The one place that knows its insides."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from ..classifier import Classifier
from ..run.execution import execute
from ..run.plan import Budget, plan
from ..text.inputs import Text
from ..text.outputs import Floats, Function
from ..text.tokenizer import Row
from ..text.windows import Tokens

# On the CPU a run of its own costs about as much as this many tokens do; measured with three layers and with twelve.
_FREE = 8
_WASTE = 0.06


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
    """A classifier, as a worker uses it.

    Attributes:
        classifier: The classifier.
        tokens: Padded tokens of one run at most, where that is less than the runner's own budget; None for that one.
        labels: Names of the labels.
    """

    classifier: Classifier
    tokens: int | None
    labels: tuple[str, ...]

    @classmethod
    def of(cls, classifier: Classifier, tokens: int | None) -> Model:
        """Look at a classifier.

        Raises:
            ClosedError: It was closed.
        """
        classifier._opened_execution()
        return cls(classifier=classifier, tokens=tokens, labels=tuple(classifier.classes_))

    @property
    def encodes_together(self) -> bool:
        """Whether tokenizing many texts in one call pays.

        The tokenizer then spreads them over threads of its own. Where the cores are busy with the graph, these wait for one:
        taking turns with another thread costs milliseconds where tokenizing takes microseconds (p99 at 70 % of what two cores
        can do: 6 to 18 ms, and 3.4 to 3.7 ms without).
        """
        return self.classifier.runtime.device != "cpu"

    @property
    def budget(self) -> Budget:
        """Limits of one run."""
        own = self.classifier._opened_execution().runner.budget
        free = min(own.free, _FREE) if self.classifier.runtime.device == "cpu" else own.free
        return dataclasses.replace(own, tokens=min(own.tokens, self.tokens or own.tokens), free=free, waste=_WASTE)

    def function(self, given: str | None) -> Function:
        """Return the function that was asked for, or the model's own."""
        return self.classifier._function(given)

    def encode(self, texts: Sequence[Text], truncation: bool | None) -> list[list[Row]]:
        """Tokenize; the rows of each text, more than one where a long text is read in windows."""
        long_text = self.classifier._long_text(truncation)
        tokens = self.classifier._opened_execution().tokenize(texts, long_text, warn=truncation is None)
        if tokens.starts is None:
            return [[row] for row in tokens.rows]
        ends = [*tokens.starts[1:], len(tokens.rows)]
        return [tokens.rows[start:end] for start, end in zip(tokens.starts, ends, strict=True)]

    def plan(self, rows: Sequence[Row]) -> Iterator[list[int]]:
        """Cut rows into batches, the shortest first."""
        return plan([len(row.ids) for row in rows], self.budget)

    def logits(self, texts: Sequence[Text], rows: Sequence[Row]) -> Floats:
        """Run one batch of texts of one row each; ``[texts, labels]``."""
        runner = self.classifier._opened_execution().runner
        logits = np.empty((len(rows), len(self.labels)), dtype=np.float32)  # [texts, labels]
        execute(runner, texts, range(len(rows)), runner.prepare(rows), logits)
        return logits

    def windowed(self, text: Text, rows: list[Row]) -> Floats:
        """Run the windows of one text and put them together; ``[1, labels]``."""
        return self.classifier._opened_execution().forward([text], Tokens(rows=rows, starts=[0]))[0]
