"""The added columns of a model with several heads: those of each, under its name."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Sequence

from ..artifact import Head, Manifest, columns_of
from ..errors import OptionError
from ..text.heads import function_of
from ..text.outputs import Floats, Function
from ..text.thresholds import is_number
from .columns import MULTI, REGRESSION, EntityColumns, OutputColumns
from .formats.base import AddedColumns, check_names
from .options import Columns


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeadsColumns:
    """The added columns: ``NAME_label``, ``NAME_score`` and others of each head, and one ``truncated``. Picklable."""

    heads: tuple[tuple[str, int, OutputColumns], ...]  # name, first logit, columns
    prefix: str = ""  # of the names

    @classmethod
    def of(cls, manifest: Manifest, columns: Columns) -> HeadsColumns:
        """Return the columns; an option of some heads, such as ``threshold``, counts for those that have it.

        Raises:
            OptionError: No head has it, or it is not valid for one.
        """
        kinds = [head.problem_type for head in manifest.heads]
        if columns.hypotheses is not None:
            raise OptionError("candidate_labels needs a model of one head, trained on natural language inference")
        if columns.threshold is not None and not (MULTI in kinds and is_number(columns.threshold)):
            raise OptionError(
                "threshold is one number where there are several heads, for multi-label ones: leave it out, or give that"
            )
        if columns.probabilities and not any(_has_probabilities(head, columns) for head in manifest.heads):
            raise OptionError("no head has probabilities: values of regressions and logits are in their score; leave it out")
        output = cls(
            heads=tuple((head.name, at.start, _of_head(head, columns)) for head, at in columns_of(manifest.heads)),
            prefix=columns.prefix,
        )
        check_names(output.names, "the output")
        return output

    @property
    def identity(self) -> dict[str, object]:
        """Options that the values depend on, for the journal."""
        return {"heads": {name: own.identity for name, _, own in self.heads}}

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the added columns, in order."""
        return self.added.names

    @property
    def added(self) -> AddedColumns:
        """Names and types for a writer."""
        parts = [own.added for _, _, own in self.heads]
        names = itertools.chain.from_iterable(part.names[:-1] for part in parts)  # each ends with ``truncated``
        types = itertools.chain.from_iterable(part.types[:-1] for part in parts)
        exact = any(part.exact for part in parts)
        return AddedColumns(names=(*names, f"{self.prefix}truncated"), types=(*types, "bool"), exact=exact)

    def values(self, logits: Floats, truncated: Sequence[bool]) -> list[list[object]]:
        """Return the values, a list for each of ``names``, from the logits of all heads and ``truncated`` ``[n]``."""
        found = (own.values(logits[:, at : at + len(own.labels)], truncated)[:-1] for _, at, own in self.heads)
        return [*itertools.chain.from_iterable(found), list(truncated)]

    def count(self, columns: Sequence[Sequence[object]]) -> Counter[str]:
        """Count the labels in values, as ``NAME/label``."""
        counts: Counter[str] = Counter()
        start = 0
        for name, _, own in self.heads:
            width = len(own.names) - 1
            found = own.count(columns[start : start + width])
            counts.update({f"{name}/{label}": number for label, number in found.items()})
            start += width
        return counts


def _of_head(head: Head, columns: Columns) -> OutputColumns:
    """Return a head's columns, without the options that it does not have."""
    own = dataclasses.replace(
        columns,
        prefix=f"{columns.prefix}{head.name}_",
        threshold=columns.threshold if head.problem_type == MULTI else None,
        top_k=None if head.problem_type == REGRESSION else columns.top_k,
        probabilities=columns.probabilities and _has_probabilities(head, columns),
    )
    return OutputColumns.of(head.labels, head.problem_type, own, head.function_to_apply, head.thresholds)


def _has_probabilities(head: Head, columns: Columns) -> bool:
    if head.problem_type == REGRESSION:
        return False
    return columns.function_to_apply is not None or function_of(head) is not Function.NONE


def output_columns(manifest: Manifest, columns: Columns) -> OutputColumns | EntityColumns | HeadsColumns:
    """Return the columns for a model.

    Raises:
        OptionError: An option is not valid for it.
    """
    if manifest.by_token:
        return EntityColumns.of(columns)
    if columns.aggregation_strategy is not None:
        raise OptionError("aggregation_strategy is for a token classifier, and this model labels texts: leave it out")
    if manifest.heads:
        return HeadsColumns.of(manifest, columns)
    return OutputColumns.of(manifest.labels, manifest.problem_type, columns, manifest.function_to_apply, manifest.thresholds)
