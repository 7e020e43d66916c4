"""What a worker can be asked to do: one module for each task, with ``run(state, request) -> dict``.

A request and its result are plain values that fit into JSON. What one task leaves for the next is in ``State``. This
module imports the standard library alone: a worker starts with it, also where the time of imports is measured.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..engines import Contender
    from ..engines.batches import Vocabulary


@dataclasses.dataclass
class State:
    """What a worker holds between tasks.

    Attributes:
        contender: The engine, from ``prepare`` on.
        vocabulary: What random texts are drawn from, from ``load`` on.
        warm: Shapes that were warmed up, with the result.
        kept: Anything else that a task keeps for its next call, by the task's name.
    """

    contender: Contender | None = None
    vocabulary: Vocabulary | None = None
    warm: dict[str, Any] = dataclasses.field(default_factory=dict)
    kept: dict[str, Any] = dataclasses.field(default_factory=dict)

    def engine(self) -> Contender:
        """Return the contender.

        Raises:
            RuntimeError: ``prepare`` was not asked for first.
        """
        if self.contender is None:
            raise RuntimeError("no contender here yet: the task prepare comes first")
        return self.contender
