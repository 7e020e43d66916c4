"""A loaded model behind a task: its runtime and counts, its end, its pickle."""

from __future__ import annotations

from typing import Any, Self

from ..load.open import Runtime
from ..model import Model
from ..run.counters import Stats


class Loaded:
    """The base class of classifiers; ``model`` is the loaded model, which computes the logits."""

    def __init__(self, model: Model) -> None:
        self.model = model

    @property
    def runtime(self) -> Runtime:
        """The chosen device, precision, graph and threads, and why."""
        return self.model.runtime

    @property
    def max_length(self) -> int:
        """Maximum tokens of a text, special tokens included."""
        return self.model.tokenizer.max_length

    @property
    def stats(self) -> Stats:
        """Counts since loading: texts, tokens, padding, truncations, windows, batches, seconds by stage.

        Example:
            >>> from fusedbert.engine import Classifier
            >>> clf = Classifier.from_pretrained()
            >>> clf.predict(["fine", "awful"])
            ['POSITIVE', 'NEGATIVE']
            >>> clf.stats.texts, clf.stats.batches, clf.stats.truncated
            (2, 1, 0)
        """
        return self.model.counters.snapshot()

    @property
    def truncated(self) -> int:
        """Number of texts that were cut at ``max_length``; also in ``stats``."""
        return self.model.counters.truncated

    def close(self) -> None:
        """Free the graph; calls in progress finish, later ones raise ``ClosedError``."""
        self.model.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return repr(self.model).replace("Model", type(self).__name__, 1)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.model,)
