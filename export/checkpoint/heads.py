"""Several heads on one encoder: checkpoints whose encoders are equal to the bit, each with its own classifier."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from fusedbert.engine.artifact import HEAD_NAME, is_head_name
from fusedbert.engine.errors import CheckpointError, OptionError, shown
from fusedbert.engine.load.unsupported import listed

from . import Checkpoint
from .architecture import Architecture
from .modules import Parts, read_parts
from .weights import Head, Weights


@dataclasses.dataclass(frozen=True, kw_only=True)
class NamedHead:
    """A checkpoint that gives a head, and its name; empty for the only one."""

    name: str
    checkpoint: Checkpoint
    parts: Parts


def only_head(checkpoint: Checkpoint) -> list[NamedHead]:
    """Read a checkpoint whose head is the only one."""
    return [NamedHead(name="", checkpoint=checkpoint, parts=read_parts(checkpoint.folder))]


def check_names(names: Sequence[str]) -> None:
    """Raise ``OptionError`` for a name that is not one, or is given twice."""
    for name in names:
        if not is_head_name(name):
            raise OptionError(f"{shown(name)} is not a name of a head, expected {HEAD_NAME}: give NAME=CHECKPOINT")
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise OptionError(f"two heads have the name {twice[0]}: give each its own, NAME=CHECKPOINT")


def join(heads: Sequence[NamedHead]) -> tuple[Architecture, Weights]:
    """Return the architecture and the weights of the first checkpoint, with the heads of all.

    Raises:
        CheckpointError: A checkpoint is not supported, or its encoder differs from the first one's.
    """
    architecture, layout = heads[0].parts.describe()
    weights = heads[0].parts.weights(architecture, layout)
    if len(heads) == 1:
        return architecture, weights
    if architecture.by_token:
        raise CheckpointError(f"{_place(heads[0])} classifies tokens, and several heads are for classifiers of texts")
    found = [Head(name=heads[0].name, steps=architecture.head, weights=weights)]
    for head in heads[1:]:
        own, own_layout = head.parts.describe()
        _refuse_other_architecture(heads[0], head, architecture, own)
        found.append(Head(name=head.name, steps=own.head, weights=head.parts.weights(own, own_layout)))
        _refuse_other_encoder(heads[0], head, weights, found[-1].weights)
    weights.join(tuple(found))
    return architecture, weights


def _place(head: NamedHead) -> str:
    return f"head {head.name} ({head.checkpoint.folder})"


def _refuse_other_architecture(first: NamedHead, other: NamedHead, one: Architecture, two: Architecture) -> None:
    if two.by_token:
        raise CheckpointError(f"{_place(other)} classifies tokens, and {_place(first)} classifies texts: export it separately")
    names = [field.name for field in dataclasses.fields(Architecture) if field.name != "head"]
    different = [f"{name} {getattr(two, name)}, not {getattr(one, name)}" for name in names if not _same(one, two, name)]
    if different:
        raise CheckpointError(
            f"{_place(other)} is not on the encoder of {_place(first)}, it has {listed(different)}: export it separately"
        )


def _same(one: Architecture, two: Architecture, name: str) -> bool:
    return bool(getattr(one, name) == getattr(two, name))


def _refuse_other_encoder(first: NamedHead, other: NamedHead, one: Weights, two: Weights) -> None:
    """Compare every tensor of two encoders as float32, bit by bit."""
    names: Mapping[str, None] = dict.fromkeys((*one.encoder, *two.encoder))
    different = []
    for name in names:
        if name not in one.encoder or name not in two.encoder or one.read(name).tobytes() != two.read(name).tobytes():
            found = two.find(name) or one.find(name)
            different.append(name if found is None else found[1])
    if different:
        count = "1 tensor differs" if len(different) == 1 else f"{len(different)} tensors differ"
        raise CheckpointError(
            f"{_place(other)} is not on the encoder of {_place(first)}, {count} ({listed(different)}): only heads that were "
            "trained on a frozen encoder share it; export this one separately"
        )
